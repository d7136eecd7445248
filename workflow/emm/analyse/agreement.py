"""Whether our results agree with a published value, with the noise of both sides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import chi2, t

from emm.analyse.draws import Z95, quantiles
from emm.analyse.places import EMM, OF_NETWORK, PARAMETERS, SPREAD, Entry, time_factor
from emm.analyse.published import (
    BLOCKS,
    PEAK,
    RANK,
    WHICH,
    Published,
    Source,
    cites,
    matching,
    off,
    varies,
)
from emm.analyse.simulate import (
    COUNTED,
    LAST,
    Measurements,
    added_parameters,
    million_parameters,
)
from emm.analyse.spreads import KNN_PER_POINT
from emm.catalog import Catalog, Row
from emm.expansion import load_recipes, load_scale
from emm.filters import value_of
from emm.masks import derived
from emm.score.criteria import wilson_interval

PRINTED = 0.005  # the tables print two decimals
NEAR = 0.1  # how far from a published epoch a checkpoint may lie, as a share of it
SAMPLED = "n_samples"
LEAST_CURVE = 3  # points that a curve needs to have a peak


@dataclass(frozen=True)
class Ours:
    """Our number for a published value: NaN and open bounds where an EMM is not bracketed.

    Without an interval low and high are NaN.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n_runs: int = 0
    note: str = ""


class AbsentError(Exception):
    """What a value needs is not among the results; says what."""


class Agreement:
    """Compares published values with the results of a catalog."""

    def __init__(self, catalog: Catalog, measurements: Measurements, source: Source) -> None:
        self.catalog, self.measurements, self.source = catalog, measurements, source
        self.run_sd, self.comparable = catalog.scale.run_sd, catalog.scale.comparable
        self.their_sd = self.run_sd if self.comparable else load_scale("paper").run_sd

    def compare(self, value: Published) -> dict[str, Any]:
        """Published interval, ours and the verdict on a value, as columns of the table."""
        runs = self.runs(value)
        low, high = self.published(value)
        columns = {"published": value.value, "published_low": low, "published_high": high}
        columns["experiment"] = runs[0][0].experiment if runs else ""
        try:
            ours = self.ours(value, self._measured(value, runs))
        except AbsentError as reason:
            return columns | {"verdict": "not measured", "note": _joined(value.note, str(reason))}
        return columns | {
            "ours": ours.value,
            "ours_low": ours.low,
            "ours_high": ours.high,
            "n_runs": ours.n_runs,
            "verdict": self._verdict(value, ours, low, high),
            "note": _joined(value.note, ours.note),
        }

    def runs(self, value: Published) -> list[list[Row]]:
        """Our rows for a value, as `matching` lists them, of the experiment that has its figure.

        Where it is not selected, or has none: of that with the fewest settings of its own, the
        paper's first. A small scale maps equal settings of two experiments to different runs, so
        that these are not mixed; and experiments of others count as far as `varies` allows.
        """
        experiments = self.catalog.experiments.items()
        having = next((name for name, one in experiments if value.figure in one.figures), "")
        if found := matching(value, self.source, self._rows.get(having, [])):
            return found
        others = (matching(value, self.source, rows) for rows in self._rows.values())
        return min(
            filter(None, others),
            key=lambda runs: off(runs[0][0], value, self.source),
            default=[],
        )

    @cached_property
    def _rows(self) -> dict[str, list[Row]]:
        """Rows that may be meant, by experiment; those of the paper first."""
        experiments, recipes = self.catalog.experiments, load_recipes()
        citing = [name for name, one in experiments.items() if cites(one, self.source)]
        rows: dict[str, list[Row]] = {name: [] for name in (*citing, *experiments)}
        for row in self.catalog.rows:
            recipe = recipes[experiments[row.experiment].recipe]
            if row.experiment in citing or not varies(row, recipe, self.source):
                rows[row.experiment].append(row)
        return rows

    def _verdict(self, value: Published, ours: Ours, low: float, high: float) -> str:
        """Whether the two differ by more than both uncertainties, in quadrature, allow."""
        if not self.comparable:
            return "not comparable"
        if math.isnan(ours.value):
            return _of_bounds(ours, low, high)
        ends = (low, high) if value.is_range else (value.value, value.value)
        below, above = (ours.value - ours.low, ours.high - ours.value)
        if math.isnan(ours.low):
            below = above = 0.0
        too_high = ours.value - ends[1] > math.hypot(below, high - ends[1])
        too_low = ends[0] - ours.value > math.hypot(above, ends[0] - low)
        return "outside" if too_high or too_low else "within"

    def published(self, value: Published) -> tuple[float, float]:
        """The interval of a published value.

        Its admissible range where the paper gives a relation; that of the mean where it prints the
        spread over several seeds; else it is of one run, with the noise that ours have, and was
        rounded or read off a figure.
        """
        if value.is_range:
            return value.low, value.high
        read = PRINTED if value.provenance == "paper-table" else value.uncertainty
        if value.seeds > 1:
            read *= t.ppf(0.975, value.seeds - 1) / math.sqrt(value.seeds)
        low = high = value.value
        if value.seeds == 1 and value.metric == "memorization_ratio":
            samples = int(self.source.defaults["eval.num_samples"])
            low, high = _ratio_interval(value.value / 100, samples, self.their_sd)
        elif value.seeds == 1 and value.metric in COUNTED:
            samples = int(self.source.defaults["eval.num_samples"])
            ends = _ratio_interval(value.value / samples, samples, self.their_sd)
            low, high = (samples * end / 100 for end in ends)
        elif value.seeds == 1 and value.metric == "knn_distance":
            noise = Z95 * KNN_PER_POINT * self.their_sd * value.value
            low, high = low - noise, high + noise
        most = 100.0 if value.metric == "memorization_ratio" else math.inf
        return max(0.0, low - read), min(most, high + read)

    def _measured(self, value: Published, runs: list[list[Row]]) -> list[list[Entry]]:
        """The entries of each run that can be compared; AbsentError without any."""
        if not runs:
            raise AbsentError("")
        if value.metric in OF_NETWORK:  # a network is known before it is trained
            return [[Entry(row) for row in run] for run in runs]
        entries = [self._entries(value, run) for run in runs]
        entries = [run for run in entries if run]
        if not entries:
            raise AbsentError("its runs are missing")
        return entries

    def _entries(self, value: Published, run: list[Row]) -> list[Entry]:
        distinct = {row.key: Entry(row) for row in run}
        found = [e for e in distinct.values() if self.measurements.checkpoint(e) is not None]
        epoch = (self.source.defaults | value.run).get(WHICH, "best")
        if epoch == "best":
            return found
        if epoch == "last":
            rows = (self.measurements.checkpoint(entry, LAST) for entry in found)
            return [Entry(e.row, int(row["step"])) for e, row in zip(found, rows, strict=True)]
        at = [self._nearest(entry, float(epoch)) for entry in found]
        return [entry for entry in at if entry is not None]

    def _nearest(self, entry: Entry, epoch: float) -> Entry | None:
        """The checkpoint nearest to a published epoch; AbsentError if none is near."""
        wanted = epoch * time_factor(entry.row)
        step, at = self.measurements.nearest(entry, wanted)
        if abs(at - wanted) > NEAR * wanted:
            raise AbsentError(f"no checkpoint near epoch {wanted:,.0f}")
        return Entry(entry.row, step, at / time_factor(entry.row))

    def ours(self, value: Published, runs: list[list[Entry]]) -> Ours:
        """Our number for a value, from the entries of its runs."""
        if value.metric in OF_NETWORK:
            of_network = million_parameters if value.metric == PARAMETERS else added_parameters
            return Ours(of_network(runs[0][0].row.settings), n_runs=_count(runs))
        if value.metric == EMM:
            return self._emm(runs)
        if value.metric == PEAK:
            return self._peak(runs)
        if value.metric == SPREAD:
            return self._spread(value, runs)
        return self._of_run(value, self._chosen(value, runs))

    def _chosen(self, value: Published, runs: list[list[Entry]]) -> list[Entry]:
        """The run that is meant among several: by rank, or the highest or lowest."""
        runs = sorted(runs, key=self._mean_ratio, reverse=True)
        if RANK in value.run:
            row, rank = runs[0][0].row, int(value.run[RANK])
            masks = math.comb(row.published[BLOCKS] + 1, derived(row.published)["model.skip_count"])
            if len(runs) < masks:
                raise AbsentError(f"the rank needs {masks} masks, not {len(runs)}")
            return runs[rank - 1]
        return runs[-1] if value.over == "min" else runs[0]

    def _mean_ratio(self, run: list[Entry]) -> float:
        return float(np.mean([self._column(entry, "memorization_ratio") for entry in run]))

    def _column(self, entry: Entry, name: str) -> float:
        return float(self.measurements.checkpoint(entry)[name])

    def _of_run(self, value: Published, run: list[Entry]) -> Ours:
        """Ratio or distance of one run, or their mean over seeds."""
        note = f"mean of {len(run)} seeds" if len(run) > 1 else ""
        if WHICH in value.run:
            note = _joined(note, f"at epoch {self._column(run[0], 'epoch'):,.0f}")
        if value.metric == "memorization_ratio":
            samples = int(sum(self._column(entry, "n_samples") for entry in run))
            ratio = self._mean_ratio(run)
            sd = self.run_sd / math.sqrt(len(run))
            low, high = _ratio_interval(ratio, samples, sd)
            return Ours(100 * ratio, low, high, len(run), note)
        if value.metric in COUNTED:
            return self._count_of(value, run, note)
        if value.metric == SAMPLED:
            return Ours(self._column(run[0], SAMPLED), n_runs=len(run))
        found = [self._column(entry, value.metric) for entry in run]
        half = self._distance_noise(found)
        mean = float(np.mean(found))
        return Ours(mean, mean - half, mean + half, len(run), note)

    def _count_of(self, value: Published, run: list[Entry], note: str) -> Ours:
        """A number of samples, the mean over seeds, with the noise of the share that it is."""
        hits, of = ([self._column(e, name) for e in run] for name in COUNTED[value.metric])
        sd = self.run_sd / math.sqrt(len(run))
        ends = _ratio_interval(sum(hits) / sum(of), round(sum(of)), sd) if sum(of) else (0.0, 0.0)
        low, high = (end / 100 * float(np.mean(of)) for end in ends)
        return Ours(float(np.mean(hits)), low, high, len(run), note)

    def _distance_noise(self, found: Sequence[float]) -> float:
        """Half the 95 % interval of a mean distance: of seeds, or what they would give; or NaN."""
        if len(found) > 1:
            spread = np.std(found, ddof=1) / math.sqrt(len(found))
            return float(t.ppf(0.975, len(found) - 1) * spread)
        return Z95 * KNN_PER_POINT * self.run_sd * found[0] if self.run_sd else math.nan

    def _emm(self, runs: list[list[Entry]]) -> Ours:
        """Linear in N between the bracketing sizes, as published; a bound without these."""
        entries = tuple(entry for run in runs for entry in run)
        bounds = self.measurements.item(EMM, entries)
        low, high = quantiles(bounds.low)[0], quantiles(bounds.high)[1]
        if bounds.low[0] == bounds.high[0]:
            return Ours(float(bounds.low[0]), low, high, _count(runs))
        low, high = float(bounds.low[0]), float(bounds.high[0])
        return Ours(math.nan, low, high, _count(runs), "the sizes do not bracket it")

    def _peak(self, runs: list[list[Entry]]) -> Ours:
        """Where the curve over the number of blocks is highest."""
        points: dict[int, list[Entry]] = {}
        for entry in (entry for run in runs for entry in run):
            points.setdefault(value_of(entry.row, BLOCKS), []).append(entry)
        if len(points) < LEAST_CURVE:
            raise AbsentError(f"a peak needs {LEAST_CURVE} depths, not {len(points)}")
        curve = [self.measurements.item("memorization_ratio", tuple(p)) for p in points.values()]
        highest = np.array(list(points))[np.argmax([point.low for point in curve], axis=0)]
        return Ours(float(highest[0]), *quantiles(highest), _count(runs))

    def _spread(self, value: Published, runs: list[list[Entry]]) -> Ours:
        """Standard deviation over seeds with its interval for normal errors (chi-squared)."""
        ratios = [[self._column(e, "memorization_ratio") for e in run] for run in runs]
        spreads = [(100 * float(np.std(run, ddof=1)), len(run)) for run in ratios if len(run) > 1]
        if not spreads:
            raise AbsentError("needs several seeds")
        spread, seeds = min(spreads) if value.over == "min" else max(spreads)
        ends = np.sqrt((seeds - 1) / chi2.ppf((0.975, 0.025), seeds - 1))
        note = f"{seeds} seeds"
        return Ours(spread, *(float(end) * spread for end in ends), _count(runs), note)


def _of_bounds(ours: Ours, low: float, high: float) -> str:
    """Verdict on a number of which only bounds are known."""
    if ours.high <= low or high <= ours.low:
        return "outside"
    return "within" if low <= ours.low and ours.high <= high else "not measured"


def _ratio_interval(ratio: float, samples: int, run_sd: float) -> tuple[float, float]:
    """95 % interval in % of a ratio: sampling (Wilson) and, in quadrature, run-to-run noise.

    run_sd: in points at 50 %; less near 0 and 100 %, like the standard deviation of a binomial.
    """
    low, high = wilson_interval(round(ratio * samples), samples)
    noise = Z95 * run_sd * 2 * math.sqrt(ratio * (1 - ratio))
    low = 100 * ratio - math.hypot(100 * (ratio - low), noise)
    high = 100 * ratio + math.hypot(100 * (high - ratio), noise)
    return max(0.0, low), min(100.0, high)


def _count(runs: list[list[Entry]]) -> int:
    return len({entry.row.run_id for run in runs for entry in run})


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))
