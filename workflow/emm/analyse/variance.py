"""What other images, another initialisation and other samples each add to the spread of a ratio.

A nested random-effects analysis of variance (Searle, Casella and McCulloch 1992, ch. 3; Sokal and
Rohlf 1995, ch. 10): y_ijk = m + D_i + I_ij + S_ijk for draw i of the data, initialisation j of it
and sampling k of that network. Components follow from the mean squares by the method of moments;
their intervals are generalized ones (Weerahandi 1993), from independent chi-squared draws of the
sums of squares. That samples are counted makes a known part of S: p (1 - p) / N.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from emm.analyse.series import grouped
from emm.errors import UserError
from emm.seeds import derive

DRAWS = 20_000
LEVELS = {"data.seed": "data", "train.seed": "initialisation", "eval.seed": "sampling"}
TOTAL, COUNTING = "all together", "counting"


@dataclass(frozen=True)
class Component:
    """A standard deviation with its 95 % interval, in the unit of the values.

    variance: the estimate of its square, below 0 where the level below explains more than all.
    freedom: degrees of freedom of its mean square, 0 where it is known.
    """

    name: str
    sd: float
    low: float
    high: float
    variance: float
    freedom: int


def mean_squares(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean squares and degrees of freedom of the three levels of values (a, b, c), outer first.

    NaN where a level has one member each, and so no freedom.
    """
    values = np.asarray(values, float)
    a, b, c = values.shape
    networks, draws = values.mean(axis=2), values.mean(axis=(1, 2))
    squares = np.array(
        [
            b * c * ((draws - values.mean()) ** 2).sum(),
            c * ((networks - draws[:, None]) ** 2).sum(),
            ((values - networks[..., None]) ** 2).sum(),
        ]
    )
    freedom = np.array([a - 1, a * (b - 1), a * b * (c - 1)])
    return np.where(freedom > 0, squares / np.maximum(freedom, 1), np.nan), freedom


def components(
    values: ArrayLike, counting: float = 0.0, draws: int = DRAWS, seed: int = 0
) -> list[Component]:
    """Components of values (a, b, c): of the three levels, all together, and of the counting.

    counting: the known variance of a single value from counting samples, which stands for the
    lowest level where that has no repetitions. ValueError unless the others have at least two.
    """
    squares, freedom = mean_squares(values)
    a, b, c = np.shape(values)
    if a < 2 or b < 2:
        raise ValueError("needs two draws of the data and two initialisations of each")
    if not freedom[2]:
        squares[2] = counting
    rng = np.random.default_rng(derive(seed, "variance"))
    drawn = [
        _drawn(square, free, draws, rng) for square, free in zip(squares, freedom, strict=True)
    ]
    parts, simulated = _split(squares, b, c), _split(drawn, b, c)
    found = [
        _component(name, *part, int(free))
        for name, *part, free in zip(LEVELS.values(), parts, simulated, freedom, strict=True)
    ]
    total = sum(np.maximum(part, 0) for part in simulated)
    found.append(_component(TOTAL, sum(max(part, 0) for part in parts), total, a * b * c - 1))
    return [*found, _component(COUNTING, counting, np.full(1, counting), 0)]


def _drawn(
    square: float, freedom: int, draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """What the expectation of a mean square could be; constant where it is known."""
    if not freedom:
        return np.full(draws, square)
    return square * freedom / rng.chisquare(freedom, draws)


def _split(squares: ArrayLike, b: int, c: int) -> list[NDArray[np.float64]]:
    """Components from expected mean squares: S, S + c I and S + c I + b c D."""
    of_data, of_networks, of_samples = (np.asarray(square) for square in squares)
    return [(of_data - of_networks) / (b * c), (of_networks - of_samples) / c, of_samples]


def _component(name: str, variance: float, drawn: NDArray[np.float64], freedom: int) -> Component:
    sd, low, high = (
        float(np.sqrt(max(v, 0))) for v in (variance, *np.quantile(drawn, (0.025, 0.975)))
    )
    return Component(name, sd, min(low, sd), max(high, sd), float(variance), freedom)


def ratio_components(rows: pd.DataFrame) -> pd.DataFrame:
    """Components of the memorization ratio of evaluations, in points, a row each.

    rows: one per evaluation. UserError unless every draw of the data has as many initialisations
    and each of these as many sampling seeds, none of them used twice.
    """
    design = _design(rows)
    counts = rows.set_index("evaluation")
    ratios, samples = (
        np.array([[[counts.at[e, name] for e in k] for k in j] for j in design], float)
        for name in ("memorization_ratio", "n_samples")
    )
    counting = float((1e4 * ratios * (1 - ratios) / np.maximum(samples - 1, 1)).mean())
    found = pd.DataFrame([vars(part) for part in components(100 * ratios, counting)])
    shape = dict(zip(("n_data", "n_initialisations", "n_samplings"), ratios.shape, strict=True))
    return found.assign(**shape, memorization_ratio=float(ratios.mean()))


def _design(rows: pd.DataFrame) -> list[list[list[str]]]:
    """Evaluations by draw of the data, initialisation and sampling seed."""
    design = [
        [list(of_network["evaluation"]) for _, of_network in grouped(of_data, ["train.seed"])]
        for _, of_data in grouped(rows, ["data.seed"])
    ]
    shapes = {(len(networks), len(k)) for networks in design for k in networks}
    if len(shapes) > 1 or len(design) < 2 or len(design[0]) < 2:
        words = ", ".join(f"{b} x {c}" for b, c in sorted(shapes))
        raise UserError(
            f"plot variance: {len(design)} data.seed with {words} train.seed x eval.seed; it needs "
            "two or more data.seed with as many train.seed each (two or more), and eval.seed alike"
        )
    return design
