"""What the results allow each number of a claim to be: its estimate, and 2,000 draws around it.

A checkpoint's ratio is drawn from the Jeffreys posterior of its binomial count, a measure that
comes with its 95 % interval from that. On top comes an error that all checkpoints of a run share,
for what another training seed would have given, as far as it is known (emm.analyse.spreads).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from emm.analyse import spreads
from emm.analyse.draws import DRAWS, UNKNOWN, Z95, Draws, Interval, constant, exact, generator
from emm.analyse.emm import EPSILON, crossings, decreasing_fit
from emm.analyse.metrics import ONSETS
from emm.analyse.metrics import metric as column
from emm.analyse.names import SIZE
from emm.analyse.onset import drawn_shapes, first_passing
from emm.analyse.places import (
    CAPACITY,
    OF_NETWORK,
    OF_SERIES,
    PARAMETERS,
    SPREAD,
    Entry,
    Item,
    Place,
    time_factor,
)
from emm.given import OPTIMUM, OWN, is_trained
from emm.plan.cost import network
from emm.score.criteria import best_checkpoint

COUNTED = {  # metrics that are counts, or shares of counts: of what, among what
    "n_memorized": ("n_memorized", "n_samples"),
    "n_label_hits": ("n_label_hits", "n_memorized"),
    "label_hit_ratio": ("n_label_hits", "n_memorized"),
    "memorization_ratio_originals": ("n_memorized_originals", "n_samples"),
    "repeated_ratio": ("n_memorized_repeated", "n_samples"),
    "single_ratio": ("n_memorized_single", "n_samples"),
    "n_mondrian": ("n_mondrian", "n_samples"),
    "mondrian_ratio": ("n_mondrian", "n_samples"),
    "n_memorized_mondrian": ("n_memorized_mondrian", "n_mondrian"),
    "mondrian_memorization_ratio": ("n_memorized_mondrian", "n_mondrian"),
    "layout_copy_ratio": (None, "n_mondrian"),
}


WITH_SEEDS = (  # metrics whose draws hold the spread of the ratio over training seeds, or need none
    *("memorization_ratio", SPREAD, "relative_rate", "distinct_copied", "coverage"),
    *(*COUNTED, *ONSETS, *OF_SERIES, *OF_NETWORK),
)


class Pick(NamedTuple):
    """Which checkpoint stands for an evaluation: the best or the last, up to a published epoch."""

    before: float | None = None
    last: bool = False


BEST, LAST = Pick(), Pick(last=True)


class Measurements:
    """The memorization table, and what else its numbers could have been.

    run_sd: standard deviation of a ratio of 50 % over training seeds, in points.
    """

    def __init__(self, memorization: pd.DataFrame, run_sd: float) -> None:
        rows = memorization[memorization["n_samples"] > 0].sort_values("step", kind="stable")
        self._rows = dict(iter(rows.groupby("evaluation", sort=False)))
        self.run_sd = run_sd
        self._ratio = lru_cache(maxsize=1000)(self._drawn_ratio)

    def runs(self, metric: str, entries: Iterable[Entry]) -> set[str]:
        """Ids of the runs of some entries that are measured; a network is known untrained."""
        known = metric in OF_NETWORK
        return {entry.row.run_id for entry in entries if known or entry.evaluation in self._rows}

    def checkpoint(self, entry: Entry, pick: Pick = BEST) -> pd.Series | None:
        """The row of the table that an entry stands for, of equally good ones the last.

        An entry may name its step instead. None if there is no such row.
        """
        rows = self._rows.get(entry.evaluation)
        if rows is None:
            return None
        if entry.step is not None:
            rows = rows[rows["step"] == entry.step]
        elif pick.before is not None:
            rows = rows[rows["epoch"] <= pick.before * time_factor(entry.row) * (1 + 1e-9)]
        if rows.empty:
            return None
        return rows.iloc[-1] if pick.last else rows.loc[best_checkpoint(rows["memorization_ratio"])]

    def nearest(self, entry: Entry, epoch: float) -> tuple[int, float]:
        """Step and epoch of the measured checkpoint nearest to an epoch at the scale."""
        rows = self._rows[entry.evaluation]
        row = rows.loc[(rows["epoch"] - epoch).abs().idxmin()]
        return int(row["step"]), float(row["epoch"])

    def place(
        self, metric: str, place: Place, over: str | None = None, pick: Pick = BEST
    ) -> Interval:
        """A place's number in the unit of its metric: %, grey levels, images, millions."""
        if len(place.items) > 1:
            values = [self.item(metric, item, pick) for item in place.items]
            return _unbiased(metric, over, _over(over, values))
        if over in (None, "mean"):
            return self.item(metric, place.items[0], pick)
        return self._over_seeds(metric, place.items[0], over, pick)

    def item(self, metric: str, item: Item, pick: Pick = BEST) -> Interval:
        """The same for runs that differ in seeds only: their mean; for the EMM, of a series."""
        if metric in OF_SERIES:
            return self._of_series(metric, item, pick)
        values = [value for entry in item if (value := self._value(metric, entry, pick))]
        if not values:
            return UNKNOWN
        runs = {entry.row.run_id: entry.evaluation for entry in item}
        if of_one_network(metric) and min(len(runs), len(values)) > 1:
            return _mean_of_networks(values, *runs.values())
        return Interval(*np.mean(values, axis=0))

    def _over_seeds(self, metric: str, item: Item, over: str, pick: Pick) -> Interval:
        """An extreme or the spread over seeds, which must not hold the error of seeds once more.

        The spread's draws are what it could be for ever more seeds: an inverse chi distribution.
        """
        if over in ("max", "min"):
            values = [self.item(metric, (entry,), pick) for entry in item]
            return _unbiased(metric, over, _over(over, values))
        values = [value for entry in item if (value := self._value(metric, entry, pick))]
        if len(values) < 2:
            return Interval(np.zeros(1 + DRAWS), UNKNOWN.high)
        points = [value.low[0] for value in values]
        spread = np.ptp(points) if over == "range" else np.std(points, ddof=1)
        rng = generator("spread", *(entry.evaluation for entry in item))
        freedom = len(values) - 1
        return exact(spread * np.sqrt(freedom / rng.chisquare(freedom, DRAWS)), spread)

    def _value(self, metric: str, entry: Entry, pick: Pick) -> Interval | None:
        if metric in OF_NETWORK:
            of_network = million_parameters if metric == PARAMETERS else added_parameters
            return constant(of_network(entry.row.settings))
        if metric in ONSETS:
            return self._onset(metric, entry)
        row = self.checkpoint(entry, pick)
        if row is None or (metric != SPREAD and pd.isna(row.get(metric))):
            return None
        if metric in COUNTED:
            return self._counted(metric, entry, row)
        if metric == "relative_rate":
            return self._relative_rate(entry, row)
        if metric in ("distinct_copied", "coverage"):
            drawn = distinct_images(row, self.ratio(entry, row), entry.evaluation)
            share = 100 / _distinct_training(row) if metric == "coverage" else 1.0
            return Interval(share * drawn, share * drawn)
        if metric in ("memorization_ratio", SPREAD):
            ratio = self.ratio(entry, row)
            samples = entry.scaled_samples if entry.samples else row["n_samples"]
            value = np.sqrt(ratio * (1 - ratio) / samples) if metric == SPREAD else ratio
            return Interval(100 * value, 100 * value)
        return self._measured(metric, entry, row)

    def _measured(self, metric: str, entry: Entry, row: pd.Series) -> Interval:
        """A number of a table: normal errors, of its own 95 % interval if it has one each way.

        On top, what another run would have given.
        """
        value, low, high = (row.get(f"{metric}{end}", np.nan) for end in ("", "_low", "_high"))
        drawn = np.full(DRAWS, float(value))
        if not pd.isna(low):
            errors = generator(metric, entry.evaluation, str(row["step"])).standard_normal(DRAWS)
            drawn += np.where(errors < 0, value - low, high - value) / Z95 * errors
        if is_trained(entry.row.settings):
            drawn = spreads.other_run(metric, drawn, entry.row.run_id, self.run_sd)
        factor = column(metric).factor
        return exact(factor * drawn, factor * value)

    def _onset(self, metric: str, entry: Entry) -> Interval | None:
        """When the ratio of an evaluation passes a level; bounds where its checkpoints do not."""
        rows, (time, level) = self._rows.get(entry.evaluation), ONSETS[metric]
        if rows is None:
            return None
        ratios = np.stack([self.ratio(entry, row) for _, row in rows.iterrows()], axis=-1)
        times = rows[time].to_numpy(float)
        shape = drawn_shapes(entry.evaluation, DRAWS)
        found = first_passing(times, ratios, rows["n_samples"].to_numpy(float), level, shape)
        low = np.where(found == np.inf, times[-1], np.where(found == -np.inf, 0, found))
        return Interval(low, np.where(found == -np.inf, times[0], found))

    def ratio(self, entry: Entry, row: pd.Series) -> Draws:
        """Fractions (1 + DRAWS,) of memorized samples at a row of the table."""
        return self._fraction("ratio", entry, row, row["n_memorized"], row["n_samples"])

    def _counted(self, metric: str, entry: Entry, row: pd.Series) -> Interval:
        """A number of samples, or in % what share it is of others."""
        hits, trials = COUNTED[metric]
        counted, of = row[hits] if hits else row[metric] * row[trials], row[trials]
        unit = of if metric == hits else 100.0
        if not of:  # a share of nothing says nothing
            return UNKNOWN
        drawn = unit * self._fraction(metric, entry, row, counted, of)
        return Interval(drawn, drawn)

    def _relative_rate(self, entry: Entry, row: pd.Series) -> Interval:
        """How much oftener repeated images are copied: the odds of their share among the copies."""
        hits = [row[f"n_memorized_{kind}"] for kind in ("repeated", "single")]
        share = self._fraction("relative_rate", entry, row, hits[0], sum(hits))
        with np.errstate(divide="ignore"):
            drawn = share / (1 - share) * row["n_single"] / row["n_repeated"]
        return Interval(drawn, drawn)

    def _fraction(
        self, purpose: str, entry: Entry, row: pd.Series, hits: float, trials: float
    ) -> Draws:
        """A share (1 + DRAWS,) of samples at a row of the table, which another run would change."""
        run = entry.row.run_id if is_trained(entry.row.settings) else ""
        counts = round(hits), round(trials)
        return self._ratio(purpose, entry.evaluation, run, int(row["step"]), *counts)

    def _drawn_ratio(
        self, purpose: str, evaluation: str, run: str, step: int, hits: int, samples: int
    ) -> Draws:
        rng = generator(purpose, evaluation, str(step))
        drawn = rng.beta(hits + 0.5, samples - hits + 0.5, DRAWS)
        if run:
            drawn = spreads.other_share(drawn, run, self.run_sd)
        return np.concatenate([[hits / samples], drawn])

    def _of_series(self, metric: str, item: Item, pick: Pick) -> Interval:
        """EMM of a series, linear in N as published; a bound where the sizes do not bracket it.

        Its capacity (Yoon et al. 2023, Def. 3.1) is that of its last checkpoints, of a curve that
        does not rise, interpolated in log N.
        """
        last = metric == CAPACITY
        if last:
            pick = pick._replace(last=True)
        curves: dict[int, list[Draws]] = {}
        samples: dict[int, float] = {}
        for entry in item:
            row, size = self.checkpoint(entry, pick), entry.row.settings[SIZE]
            if row is not None:
                curves.setdefault(size, []).append(self.ratio(entry, row))
                samples[size] = samples.get(size, 0) + row["n_samples"]
        if not curves:
            return UNKNOWN
        sizes = np.array(sorted(curves), float)
        ratios = np.stack([np.mean(curves[size], axis=0) for size in sizes], axis=-1)
        if last:
            counts = np.array([samples[size] for size in sizes])
            ratios = decreasing_fit(
                np.round(ratios * counts, 6), np.broadcast_to(counts, ratios.shape)
            )
        found = crossings(sizes, ratios, EPSILON, log=last)
        low = np.where(found == np.inf, sizes[-1], np.where(found == -np.inf, 0, found))
        return Interval(low, np.where(found == -np.inf, sizes[0], found))


def of_one_network(metric: str) -> bool:
    """Whether the draws of a run's number lack what another training seed would give."""
    return metric not in WITH_SEEDS and not spreads.is_known(metric)


def _mean_of_networks(values: Sequence[Interval], *evaluations: str) -> Interval:
    """A mean over training seeds, with the error that their differences or their own ones show."""
    points = [value.low[0] for value in values]
    own = float(np.mean([value.low[1:].std() for value in values]))
    error = max(float(np.std(points, ddof=1)), own) / np.sqrt(len(points))
    errors = generator("networks", *evaluations).standard_t(len(points) - 1, DRAWS)
    mean = float(np.mean(points))
    return exact(mean + error * errors, mean)


def _over(over: str | None, values: list[Interval]) -> Interval:
    """One number of several; with unknown ones among them, the bounds that are sure."""
    low, high = (np.stack(ends) for ends in zip(*values, strict=True))
    if over in ("mean", "max", "min"):
        reduce: Callable[..., Any] = getattr(np, over)
        return Interval(reduce(low, axis=0), reduce(high, axis=0))
    if over == "range":
        sure = np.maximum(low.max(axis=0) - high.min(axis=0), 0)
        return Interval(sure, high.max(axis=0) - low.min(axis=0))
    known = (low == high).all(axis=0)
    spread = np.where(known, np.where(known, low, 0).std(axis=0, ddof=1), 0)
    return Interval(spread, np.where(known, spread, np.inf))


def _unbiased(metric: str, over: str | None, value: Interval) -> Interval:
    """An extreme of several runs without what noise adds to it.

    The highest of noisy numbers is too high, and that of draws around them is so once more: as far
    as the draws lie above the estimate, it lies above the truth (the basic bootstrap).
    """
    known = (value.low == value.high).all() and np.isfinite(value.low).all()
    if over not in ("max", "min", "range") or not known:
        return value
    most = 100.0 if metric == "memorization_ratio" else np.inf
    drawn = np.clip(2 * value.low[0] - value.low[1:], 0, most)
    return exact(drawn, float(value.low[0]))


def _distinct_training(row: pd.Series) -> float:
    """Images that coverage is a share of: of those repeated by data.copies each counts once."""
    repeated = not pd.isna(row.get("n_repeated"))
    return row["n_training"] - (row["n_duplicates"] if repeated else 0)


def distinct_images(row: pd.Series, ratio: Draws, name: str) -> Draws:
    """Distinct images copied (1 + DRAWS,) if other shares `ratio` of the samples were memorized.

    As if copies fell uniformly on as many images as make the number that was seen, n (1 - exp(-m /
    n)) for m copies, whose variance is n exp(-m/n) (1 - (1 + m/n) exp(-m/n)).
    """
    copies, seen, samples = row["n_memorized"], row["distinct_copied"], row["n_samples"]
    images = _images_hit(copies, seen)
    rate = ratio * samples / images
    missed = np.exp(-rate)
    spread = np.sqrt(images * missed * (1 - (1 + rate) * missed))
    errors = np.concatenate([[0], generator("distinct", name).standard_normal(DRAWS)])
    drawn = (-images * np.expm1(-rate) + spread * errors).clip(0, ratio * samples)
    drawn[0] = seen
    return drawn


def _images_hit(copies: float, seen: float) -> float:
    """How many images uniform copies fall on that `seen` distinct ones among `copies` suggest."""
    if seen >= copies:  # hardly any twice: far more than the copies
        return max(copies, 1) ** 2
    return brentq(lambda n: -n * np.expm1(-copies / n) - seen, 0.5 * seen, copies**2)


def added_parameters(settings: Any) -> float:
    """Parameters that the labels of a run add to the network without labels, in %."""
    without = million_parameters({**settings, "labels.num_classes": 0})
    return 100 * (million_parameters(settings) / without - 1) if without else 0.0


def million_parameters(settings: Any) -> float:
    """Parameters of a run's network in millions; 0 for the optimum and for a user's denoiser."""
    if settings["model.arch"] in (OPTIMUM, OWN):
        return 0.0
    return network(settings).parameters / 1e6
