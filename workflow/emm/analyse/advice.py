"""What results say about a training set of some size: where the EMM lies, and what moves it.

Every figure that marks the EMM of several series takes part, so that new experiments enter by
themselves. An EMM comes with the draws that claims are judged by (emm.analyse.simulate), which hold
the counting and the spread over training seeds; one beyond the sizes that were run is a bound.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from emm.analyse.compare import quotient
from emm.analyse.draws import Interval, quantiles
from emm.analyse.fits import Law, Points, points_from_draws, power_law
from emm.analyse.names import SIZE, ordered, plain_text, short_name, value_name
from emm.analyse.places import EMM, Entry
from emm.analyse.series import is_seed
from emm.analyse.simulate import BEST, LAST, Measurements
from emm.catalog import Catalog
from emm.errors import UserError
from emm.expansion import load_recipes
from emm.planned import PlannedFigure, as_run
from emm.runs import Row
from emm.spec import DEFAULTS, suggestion

VERDICTS = ("raises", "lowers", "no effect seen", "beyond the sizes")
ALL = ("data.num_classes",)  # what is left open is the most there is
FREE = (SIZE, "train.epochs", "labels.num_classes", "train.device", "eval.num_samples")


@dataclass(frozen=True)
class Series:
    """Runs of several sizes whose EMM a figure marks, and that EMM.

    value: of the figure's hue at the scale; settings: those of its runs at the scale.
    """

    value: Any
    settings: Mapping[str, Any]
    evaluations: frozenset[str]
    runs: int
    emm: Interval

    @property
    def known(self) -> bool:
        """Whether the sizes bracket its EMM."""
        return bool(self.emm.low[0] == self.emm.high[0])


@dataclass(frozen=True)
class Family:
    """The series of one figure that differ in its hue alone; `base` is what others are held to.

    style: the value of a second setting that the figure tells apart, by its name.
    """

    figure: PlannedFigure
    style: Mapping[str, Any]
    series: tuple[Series, ...]
    base: Series

    @property
    def hue(self) -> str:
        """The setting in which the series differ."""
        return str(self.figure.figure.hue)

    @cached_property
    def law(self) -> Law | None:
        """The power law of the EMM in the hue, if that is a number above 0."""
        values = [one.value for one in self.series]
        if not all(type(v) in (int, float) and v > 0 for v in values):
            return None
        return power_law(_points(self.series))


@dataclass(frozen=True)
class Effect:
    """What a change of one setting does to the EMM: its factor with the 95 % interval.

    factor is NaN where one of the two EMMs lies beyond the sizes.
    """

    family: Family
    changed: Series
    factor: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """An effect only where the interval excludes 1."""
        if self.low > 1:
            return "raises"
        if self.high < 1:
            return "lowers"
        return "no effect seen" if np.isfinite(self.factor) else "beyond the sizes"

    @property
    def change(self) -> str:
        """What is changed into what: "channel width: 128 → 192"."""
        hue = self.family.hue
        ends = " → ".join(value_name(hue, one.value) for one in (self.family.base, self.changed))
        return plain_text(f"{short_name(hue)}: {ends}")

    @property
    def is_bounded(self) -> bool:
        """Whether anything is known of the factor."""
        return self.low > 0 or bool(np.isfinite(self.high))

    @property
    def strength(self) -> float:
        """How far from 1 the interval stays, on a logarithmic scale; below 0 where it holds 1."""
        ends = np.log(np.clip([self.low, self.high], 1e-9, 1e9))
        return float(max(ends[0], -ends[1]))


@dataclass(frozen=True)
class Estimate:
    """An EMM in images with its 95 % interval; NaN where only the interval is known.

    source: "measured", or the "power law" of its family.
    """

    family: Family
    settings: Mapping[str, Any]
    value: float
    low: float
    high: float
    source: str

    def compared(self, size: int) -> str:
        """Where a training set of `size` images lies."""
        if not self.low and not np.isfinite(self.high):
            return "not known"
        if size <= self.low:
            return "below the EMM"
        return "above the EMM" if size > self.high else "within its interval"


def families(catalog: Catalog, measurements: Measurements) -> list[Family]:
    """All series whose EMM can be compared, by figure; those without results are left out."""
    recipes, found = load_recipes(), []
    for planned in catalog.figures.values():
        if _marks_emm(planned):
            experiment = catalog.experiments[planned.experiment]
            usual = DEFAULTS | recipes[experiment.recipe] | experiment.set
            found += _families(planned, usual.get(str(planned.figure.hue)), measurements)
    return found


def _marks_emm(planned: PlannedFigure) -> bool:
    figure = planned.figure
    curve = figure.plot == "curve" and figure.y == "memorization_ratio" and figure.x == SIZE
    return bool(curve and figure.emm and figure.hue)


def _families(planned: PlannedFigure, usual: Any, measurements: Measurements) -> Iterator[Family]:
    """The families of a figure; `usual` is the published value that its experiment starts from."""
    hue, style = planned.figure.hue, planned.figure.style
    rows: dict[Any, dict[Any, list[Row]]] = {}
    for row in planned.rows:
        second = None if style is None else as_run(row, style)
        rows.setdefault(second, {}).setdefault(as_run(row, str(hue)), []).append(row)
    for second, by_value in rows.items():
        found = [
            _series(planned, v, by_value[v], measurements) for v in ordered(str(hue), by_value)
        ]
        series = tuple(one for one in found if one is not None)
        if len(series) > 1:
            about = {} if style is None else {style: second}
            start = [v for v, own in by_value.items() if _has(own, str(hue), usual)]
            other = series[-1 if hue in ALL else 0]
            base = next((one for one in series if one.value in start), other)
            yield Family(planned, about, series, base)


def _series(
    planned: PlannedFigure, value: Any, rows: Iterable[Row], measurements: Measurements
) -> Series | None:
    """One series; None where nothing of it was run."""
    rows = list({row.key: row for row in rows}.values())
    entries = tuple(Entry(row) for row in rows)
    runs = measurements.runs(EMM, entries)
    if not runs:
        return None
    pick = LAST if planned.figure.epoch == "last" else BEST
    keys = frozenset(row.key for row in rows)
    emm = measurements.item(EMM, entries, pick)
    return Series(value, _shared(rows), keys, len(runs), emm)


def _shared(rows: list[Row]) -> dict[str, Any]:
    """Settings of a series at the scale, without the size, seeds and what follows from them."""
    first = rows[0].settings
    kept = [key for key in first if key not in FREE and not is_seed(key)]
    return {key: first[key] for key in kept}


def _has(rows: Iterable[Row], name: str, usual: Any) -> bool:
    return any(row.published.get(name) == usual for row in rows)


def effects(family: Family) -> list[Effect]:
    """The factor on the EMM of each series of a family against the base."""
    return [
        _effect(family, one)
        for one in family.series
        if one is not family.base and one.evaluations != family.base.evaluations
    ]


def distinct_effects(found: Iterable[Family]) -> list[Effect]:
    """Effects of all families, each comparison of the same evaluations once."""
    distinct: dict[Any, Effect] = {}
    for family in found:
        for effect in effects(family):
            key = (effect.changed.evaluations, family.base.evaluations)
            distinct.setdefault(key, effect)
    return list(distinct.values())


def _effect(family: Family, changed: Series) -> Effect:
    factor = quotient(changed.emm, family.base.emm)
    known = changed.known and family.base.known
    value = float(factor.low[0]) if known else np.nan
    return Effect(family, changed, value, quantiles(factor.low)[0], quantiles(factor.high)[1])


def estimates(found: Iterable[Family], wanted: Mapping[str, Any]) -> list[Estimate]:
    """The EMM of networks with the wanted settings, one for each figure that can tell.

    That of a series that was run, or what the power law of several says; what is not wanted is as
    the figures' experiments have it. UserError for settings that no figure is about.
    """
    found = list(found)
    lines = [estimate for family in found if (estimate := _estimate(family, wanted))]
    distinct: dict[Any, Estimate] = {}
    for line in lines:
        distinct.setdefault((line.source, line.low, line.high, line.value), line)
    if wanted and not distinct:
        names = ", ".join(f"{key}={value}" for key, value in wanted.items())
        hues = {family.hue for family in found}
        hint = "".join(suggestion(key, hues) for key in wanted if key not in hues)
        raise UserError(f"--set {names}: no series of the results at hand is such a network{hint}")
    return list(distinct.values())


def _estimate(family: Family, wanted: Mapping[str, Any]) -> Estimate | None:
    base = {**family.base.settings, **family.style}
    if any(base.get(key) != value for key, value in wanted.items() if key != family.hue):
        return None
    value = wanted.get(family.hue, family.base.value)
    for one in family.series:
        if one.value == value:
            known = float(one.emm.low[0]) if one.known else np.nan
            ends = quantiles(one.emm.low)[0], quantiles(one.emm.high)[1]
            return Estimate(family, {**base, family.hue: value}, known, *ends, "measured")
    if family.law is None or type(value) not in (int, float) or value <= 0:
        return None
    settings = {**base, family.hue: value}
    return Estimate(family, settings, *family.law.at(value), "power law")


def _points(series: Iterable[Series]) -> Points:
    """Series with numbers as hues, as points of a power law."""
    series = list(series)
    draws = []
    for one in series:
        beyond = np.where(np.isinf(one.emm.high), np.inf, -np.inf)
        draws.append(np.where(one.emm.low == one.emm.high, one.emm.low, beyond))
    above = [np.isinf(one.emm.high[0]) for one in series]
    sides = [0 if one.known else 1 if up else -1 for one, up in zip(series, above, strict=True)]
    ends = [
        one.emm.low[0] if up else one.emm.high[0] for one, up in zip(series, above, strict=True)
    ]
    x = [float(one.value) for one in series]
    return points_from_draws(x, ends, sides, [drawn[1:] for drawn in draws])
