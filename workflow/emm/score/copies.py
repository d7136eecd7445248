"""Copies of training images that stand several times in the training set, beside those of others.

Somepalli et al. 2023 ask whether repeated images are copied more. A run has images of multiplicity
1 and, by data.copies, of k; the copy rate of a kind of images is the number of samples that are
copies of one of them, per such image and sample. Where copies fall like training steps, the rate
of repeated images is k times that of the others, as for the closed-form optimum.
"""

from collections.abc import Callable

import numpy as np

from emm.data.stage import Subset
from emm.score.criteria import share_of, wilson_interval
from emm.score.stage import ScoreResult

KINDS = ("repeated", "single")
PER = 1000  # samples, of a rate
COLUMNS = (
    *("n_repeated", "n_single"),
    *(f"n_memorized_{kind}" for kind in KINDS),
    *(f"{kind}_ratio{end}" for kind in KINDS for end in ("", "_low", "_high")),
    *(f"{kind}_rate" for kind in KINDS),
    *(f"relative_rate{end}" for end in ("", "_low", "_high")),
    *(f"coverage_{kind}" for kind in KINDS),
    *("coverage", "coverage_ceiling"),
)


def counter(subset: Subset, rows: slice) -> Callable[[ScoreResult], dict[str, float]]:
    """What turns scores against `rows` of a subset into COLUMNS; nothing without repeated images.

    `repeated_ratio` and `single_ratio` are shares of all samples with their 95 % Wilson intervals,
    rates are per training image and 1,000 samples. `relative_rate` is their quotient; its interval
    is that of the share of repeated images among the copies, NaN where nothing is copied. Coverage
    counts each distinct image once. Dummies are neither kind.
    """
    if subset.copy_of is None:
        return lambda result: {}
    is_original = subset.originals == np.arange(len(subset))
    repeated = subset.multiplicity > 1
    of_kind = {"repeated": repeated, "single": ~repeated & ~subset.is_dummy}
    compared = np.zeros(len(subset), bool)
    compared[rows] = True
    counts = {
        kind: int((is_original & chosen & compared).sum()) for kind, chosen in of_kind.items()
    }
    n_distinct = int((is_original & compared).sum())

    def count(result: ScoreResult) -> dict[str, float]:
        copied = subset.originals[result.neighbours.indices[result.memorized, 0]]
        hits = {kind: copied[chosen[copied]] for kind, chosen in of_kind.items()}
        return _columns(hits, counts, len(result.memorized), n_distinct, len(np.unique(copied)))

    return count


def _columns(
    hits: dict[str, np.ndarray], counts: dict[str, int], samples: int, distinct: int, covered: int
) -> dict[str, float]:
    """hits: rows of the images that samples are copies of, counts: images, by kind."""
    found = {kind: len(rows) for kind, rows in hits.items()}
    facts: dict[str, float] = {f"n_{kind}": float(count) for kind, count in counts.items()}
    facts |= {f"n_memorized_{kind}": float(count) for kind, count in found.items()}
    for kind in KINDS:
        facts |= share_of(f"{kind}_ratio", found[kind], samples)
    for kind in KINDS:
        facts[f"{kind}_rate"] = _quotient(PER * found[kind], samples * counts[kind])
    facts |= _relative(found, counts)
    for kind in KINDS:
        facts[f"coverage_{kind}"] = _quotient(len(np.unique(hits[kind])), counts[kind])
    return facts | {
        "coverage": covered / distinct,
        "coverage_ceiling": float(-np.expm1(-samples / distinct)),
    }


def _relative(found: dict[str, int], counts: dict[str, int]) -> dict[str, float]:
    """Rate of the repeated images over that of the others.

    Given how many copies there are, those of repeated images are binomial, so the interval is the
    Wilson one of their share, carried over to odds.
    """
    copies, odds = sum(found.values()), _quotient(counts["single"], counts["repeated"])
    shares = [np.nan] * 3
    if copies:
        shares = [found["repeated"] / copies, *wilson_interval(found["repeated"], copies)]
    names = ("relative_rate", "relative_rate_low", "relative_rate_high")
    return {
        name: odds * _quotient(share, 1 - share) for name, share in zip(names, shares, strict=True)
    }


def _quotient(over: float, under: float) -> float:
    return over / under if under else np.nan
