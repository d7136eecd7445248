"""How copies are spread over training images, and how many images more samples would copy."""

import math

import numpy as np
from scipy.special import ive

from emm.analyse.draws import Z95


def of_hits(counts: np.ndarray) -> dict[str, float]:
    """Columns of the numbers of copies of each of M training images, int64 (M,).

    Gini coefficient and its value if copies fell evenly; `chao1_unseen`, how many images at least
    would be copied besides those that were (Chao 1987), `chao1_total` with both and a 95 %
    interval, at most M, and `chao1_share`, the same as a share of M. All NaN without copies.
    """
    names = ("chao1_total", "chao1_total_low", "chao1_total_high")
    if not counts.any():
        gone = ("hit_gini", "hit_gini_even", "chao1_unseen", *names)
        return dict.fromkeys([*gone, *(name.replace("total", "share") for name in names)], np.nan)
    total, low, high = (min(value, float(len(counts))) for value in chao1(counts))
    shares = {
        name.replace("total", "share"): value / len(counts)
        for name, value in zip(names, (total, low, high), strict=True)
    }
    return {
        "hit_gini": gini(counts),
        "hit_gini_even": even_gini(counts.mean()),
        "chao1_unseen": total - np.count_nonzero(counts),
        **dict(zip(names, (total, low, high), strict=True)),
        **shares,
    }


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of counts (M,), not all 0: 0 where all are equal, 1 - 1/M where one has all.

    Mean absolute difference of all pairs over twice the mean.
    """
    ordered, count = np.sort(counts), len(counts)
    ranks = 2 * np.arange(1, count + 1) - count - 1
    return float((ranks * ordered).sum() / (count * ordered.sum()))


def even_gini(rate: float) -> float:
    """Gini coefficient of Poisson counts with a mean: what chance makes of even copying.

    From the mean difference of two of them, 2 rate exp(-2 rate) (I0(2 rate) + I1(2 rate))
    (Ramasubban 1958).
    """
    return float(ive(0, 2 * rate) + ive(1, 2 * rate))


def chao1(counts: np.ndarray) -> tuple[float, float, float]:
    """Number of images that are copied at all, from copies of each (M,), with its 95 % interval.

    Bias-corrected Chao1 (Chao 1984, 1987): a lower bound where images differ in how easily they
    are copied. Where nothing suggests that any is missing, the interval is that of how many copies
    a single image gets if all are alike (EstimateS, Colwell). ValueError without copies.
    """
    seen, copies = int(np.count_nonzero(counts)), int(counts.sum())
    if not copies:
        raise ValueError("no copies")
    once, twice = (int(np.count_nonzero(counts == number)) for number in (1, 2))
    unseen = once * (once - 1) / (2 * (twice + 1))
    if not unseen:
        return float(seen), *_without_unseen(seen, copies)
    spread = math.exp(Z95 * math.sqrt(math.log1p(_variance(once, twice, seen) / unseen**2)))
    return seen + unseen, seen + unseen / spread, seen + unseen * spread


def _variance(once: int, twice: int, seen: int) -> float:
    """Variance of the estimate (Chao 1987; bias-corrected as in EstimateS, Colwell)."""
    if twice:
        pairs, more = once * (once - 1), twice + 1
        return (
            pairs / (2 * more)
            + once * (2 * once - 1) ** 2 / (4 * more**2)
            + once**2 * twice * (once - 1) ** 2 / (4 * more**4)
        )
    total = seen + once * (once - 1) / 2
    return once * (once - 1) / 2 + once * (2 * once - 1) ** 2 / 4 - once**4 / (4 * total)


def _without_unseen(seen: int, copies: int) -> tuple[float, float]:
    missed = math.exp(-copies / seen)
    middle, reach = seen / (1 - missed), Z95 * math.sqrt(seen * missed) / (1 - missed)
    return max(float(seen), middle - reach), middle + reach
