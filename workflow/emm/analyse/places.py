"""The places of a claim: which rows of the experiments make each of its numbers.

Known from experiments and schedules alone, so that a claim is checked before anything runs.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emm.analyse.metrics import is_metric
from emm.analyse.names import PER_IMAGE, SIZE, plain_text, series_label, value_name
from emm.documents import Claim
from emm.errors import UserError
from emm.filters import EXPERIMENT, Filter, Row, parse_filter, shows, value_of
from emm.given import is_trained
from emm.masks import DERIVED, derived
from emm.spec import DEFAULTS
from emm.train.schedules import epoch_at, evaluated_steps

EPOCH, SAMPLES = "epoch", "eval.num_samples"
EMM, CAPACITY, SPREAD = "emm", "memorization_capacity", "memorization_ratio_sd"
PARAMETERS, DIFFERENCE = "parameters_million", "parameters_difference_percent"
OF_SERIES = (EMM, CAPACITY)  # metrics of runs of several sizes together
OF_NETWORK = (PARAMETERS, DIFFERENCE)  # metrics of runs that need not be trained
SAMPLE_SIZES = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000)  # Gu et al. 2023, Fig. 6
MOST_EPOCHS = (
    40  # checkpoints of a run along an axis: more only repeat the comparison of neighbours
)
WITHOUT_EFFECT = ("train.device",)  # settings that make no different run


@dataclass(frozen=True)
class Entry:
    """A row at one checkpoint (`step`, at the published `epoch`), or at its best one (None).

    samples: the published number of samples that a sampling error is asked for.
    """

    row: Row
    step: int | None = None
    epoch: float | None = None
    samples: int | None = None

    @property
    def evaluation(self) -> str:
        """The evaluation as the memorization table names it."""
        return self.row.key

    @property
    def measurement(self) -> tuple[str, int | None, int | None]:
        """What is measured: equal for entries that are the same number at this scale."""
        return (self.evaluation, self.step, self.samples)

    @property
    def scaled_samples(self) -> int:
        """`samples` at the scale."""
        return samples_at_scale(self.row, self.samples or self.row.published[SAMPLES])

    def value(self, name: str) -> Any:
        """Published value of what a claim names."""
        if name == EPOCH:
            return self.epoch
        if name == SAMPLES and self.samples is not None:
            return self.samples
        return value_of(self.row, name)

    def shown(self, name: str) -> Any:
        """The same at the scale, as figures show it."""
        if name == EPOCH:
            epoch = (self.epoch or 0.0) * time_factor(self.row)
            return round(epoch) if epoch >= 10 else epoch
        if name == SAMPLES:
            return self.scaled_samples
        if name == EXPERIMENT:
            return self.row.experiment
        return derived(self.row.published)[name] if name in DERIVED else self.row.settings[name]


Item = tuple[Entry, ...]  # repetitions with other seeds; for the EMM also other sizes


@dataclass(frozen=True)
class Place:
    """One number of a claim. at: where it lies along the axis. about: what tells it from others."""

    items: tuple[Item, ...]
    at: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entries(self) -> list[Entry]:
        """All measurements that make the number."""
        return [entry for item in self.items for entry in item]

    @property
    def measurements(self) -> frozenset[Hashable]:
        """What is measured here."""
        return frozenset(entry.measurement for entry in self.entries)


@dataclass(frozen=True)
class Group:
    """Places that are compared with each other, in order; `right` holds those of the other side."""

    about: Mapping[str, Any]
    left: tuple[Place, ...]
    right: tuple[Place, ...] = ()

    @property
    def places(self) -> tuple[Place, ...]:
        """Both sides."""
        return self.left + self.right


def has_sides(claim: Claim) -> bool:
    """Whether a claim compares two sides."""
    return bool(claim.left and claim.right)


def groups_of(claim: Claim, experiment: str, rows: Iterable[Row], where: str) -> list[Group]:
    """The comparisons of a claim of an experiment over rows of all experiments.

    Groups in which nothing can be compared are left out. UserErrors begin with `where`: for unknown
    settings, and when a place holds different runs and the claim does not say `over` which.
    """
    rows = list(rows)
    left = _places(claim, claim.left, experiment, rows, where)
    if not has_sides(claim):
        least = 1 if claim.kind == "threshold" or claim.value is not None else 2
        least = 3 if claim.kind == "non-monotone" else least
        groups = [_group(claim, _distinct(places)) for places in left.values()]
        return [group for group in groups if len(group.left) >= least]
    right = _places(claim, claim.right, experiment, rows, where)
    return [_group(claim, left[by], right[by]) for by in left if by in right]


def side_filter(claim: Claim, side: Mapping[str, Any], experiment: str, where: str) -> list[Filter]:
    """The filters that rows of one side pass; of the claim's own experiment, or those it names."""
    filters = [parse_filter(part, where, (EXPERIMENT,)) for part in (claim.where, side)]
    named = any(EXPERIMENT in part for part in filters)
    return filters if named else [{EXPERIMENT: [experiment]}, *filters]  # most rows fail the first


def label(about: Mapping[str, Any]) -> str:
    """Words for settings: "|D| = 1k, unique labels", or nothing."""
    words = series_label({name: value for name, value in about.items() if name != EXPERIMENT})
    return ", ".join(filter(None, [plain_text(words), str(about.get(EXPERIMENT) or "")]))


def time_factor(row: Row) -> float:
    """Epochs at the scale per published epoch."""
    return row.settings["train.epochs"] / row.published["train.epochs"]


def samples_at_scale(row: Row, published: int) -> int:
    """A published number of samples, shrunk as the scale shrinks that of a row."""
    return max(1, round(published * row.settings[SAMPLES] / row.published[SAMPLES]))


def identity(row: Row, free: Iterable[str] = ()) -> dict[str, Any]:
    """The published settings that tell runs apart: all but seeds and what is `free`."""
    free = {*free, *WITHOUT_EFFECT}
    if row.published["labels.kind"] in PER_IMAGE and SIZE in free:
        free.add("labels.num_classes")
    if row.published["train.iterations"] is not None:
        free.add("train.epochs")  # follow from the steps and the size
    return {
        key: row.settings[key] if value is None else value  # value_of, for hundreds of thousands
        for key, value in row.published.items()
        if key not in free and not key.endswith(".seed")
    }


def _places(
    claim: Claim, side: Mapping[str, Any], experiment: str, rows: list[Row], where: str
) -> dict[tuple[Any, ...], list[Place]]:
    """The places of one side by the values of `by`, each in order along the axis."""
    entries = _entries(claim, side_filter(claim, side, experiment, where), rows)
    split, names = _separation(claim, side)
    found: dict[tuple[Any, ...], dict[Hashable, list[Entry]]] = {}
    for entry in entries:
        if names != [claim.along] or entry.value(claim.along) is not None:
            by = tuple(entry.value(name) for name in claim.by)
            found.setdefault(by, {}).setdefault(split(entry), []).append(entry)
    return {by: _ordered(claim, places.values(), names, where) for by, places in found.items()}


def _ordered(
    claim: Claim, places: Iterable[list[Entry]], names: list[str] | None, where: str
) -> list[Place]:
    """Places of one group along the axis, each told from the others by `names`."""
    places = list(places)
    if names is None:
        runs = [identity(entries[0].row, _free(claim)) for entries in places]
        names = [name for name in runs[0] if len({run[name] for run in runs}) > 1]
    found = [_place(claim, entries, names, where) for entries in places]
    return sorted(found, key=lambda place: place.at or 0)


def _separation(
    claim: Claim, side: Mapping[str, Any]
) -> tuple[Callable[[Entry], Hashable], list[str] | None]:
    """What separates the places of a group: a key of an entry, and the names that it is made of.

    The names are None where each run is a place of its own.
    """
    free = _free(claim)
    if claim.along and not is_metric(claim.along):
        return lambda entry: entry.value(claim.along), [claim.along]
    if has_sides(claim):
        names = [] if claim.over else [name for name in side if name not in free]
        return lambda entry: tuple(entry.value(name) for name in names), names
    if claim.along or (claim.kind == "approximately-equal" and claim.value is None):
        return lambda entry: tuple(identity(entry.row, free).items()), None
    return lambda entry: (), []


def _place(claim: Claim, entries: list[Entry], names: list[str], where: str) -> Place:
    """One place from its entries; UserError when they are different runs and `over` is not said."""
    items: dict[Hashable, dict[Hashable, Entry]] = {}
    for entry in entries:
        run = tuple(identity(entry.row, _free(claim)).items())
        items.setdefault(run, {}).setdefault(entry.measurement, entry)
    if len(items) > 1 and claim.over is None:
        _refuse(claim, [dict(run) for run in items], entries, where)
    at = entries[0].value(claim.along) if names == [claim.along] else None
    about = {name: entries[0].shown(name) for name in names}
    return Place(tuple(tuple(item.values()) for item in items.values()), at, about)


def _refuse(claim: Claim, runs: list[dict[str, Any]], entries: list[Entry], where: str) -> None:
    names = [name for name in runs[0] if len({run[name] for run in runs}) > 1]
    held = {name: entries[0].value(name) for name in [*claim.by, claim.along] if name in DEFAULTS}
    at = f" at {label(held)}" if held else ""
    differ = " and ".join(
        f"{name} ({', '.join(dict.fromkeys(value_name(name, run[name]) for run in runs))})"
        for name in names
    )
    raise UserError(
        f"{where}: runs{at} differ in {differ}; hold it fixed in `by` or a filter, or say `over`"
    )


def _free(claim: Claim) -> tuple[str, ...]:
    """Settings in which the runs of one item may differ, besides seeds."""
    if claim.metric in OF_SERIES:
        return (SIZE,)
    return (SAMPLES,) if claim.metric == SPREAD else ()


def _entries(claim: Claim, filters: list[Filter], rows: list[Row]) -> list[Entry]:
    """The rows that pass, at the checkpoints or for the numbers of samples that the claim names."""
    named = [name for part in filters for name in part]
    virtual = claim.metric == SPREAD and SAMPLES in [*named, *claim.by, claim.along]
    free = (SAMPLES,) if virtual else ()
    heeded = [{k: v for k, v in part.items() if k not in free} for part in filters]
    chosen = [row for row in _of_experiments(filters, rows) if all(shows(p, row) for p in heeded)]
    if virtual:
        sizes = [part[SAMPLES] for part in filters if SAMPLES in part]
        return [entry for row in _most_sampled(chosen) for entry in _sample_sizes(row, sizes)]
    if EPOCH in (*claim.by, claim.along):
        return [entry for row in chosen for entry in _checkpoints(row, claim.before_epoch)]
    return [Entry(row) for row in chosen]


def _of_experiments(filters: list[Filter], rows: list[Row]) -> list[Row]:
    """Rows of the experiments that filters name: a few of very many."""
    named = [set(part[EXPERIMENT]) for part in filters if EXPERIMENT in part]
    wanted = set.intersection(*named)
    return [row for row in rows if row.experiment in wanted]


def _most_sampled(rows: list[Row]) -> list[Row]:
    """Of runs that differ in the number of samples alone, the one with the most."""
    best: dict[Hashable, Row] = {}
    for row in rows:
        seeds = tuple(value for key, value in row.published.items() if key.endswith(".seed"))
        held = best.setdefault((seeds, *identity(row, [SAMPLES]).items()), row)
        if row.published[SAMPLES] > held.published[SAMPLES]:
            best[(seeds, *identity(row, [SAMPLES]).items())] = row
    return list(best.values())


def _sample_sizes(row: Row, allowed: Sequence[list[int]]) -> list[Entry]:
    most = row.published[SAMPLES]
    return [
        Entry(row, samples=size)
        for size in (allowed[0] if allowed else SAMPLE_SIZES)
        if size <= most and all(size in part for part in allowed)
    ]


def _checkpoints(row: Row, before: float | None) -> list[Entry]:
    """The evaluated checkpoints up to a published epoch, evenly thinned."""
    if not is_trained(row.settings):
        return []
    entries = [
        Entry(row, step, float(f"{epoch_at(step, row.settings) / time_factor(row):.6g}"))
        for step in evaluated_steps(row.settings)
    ]
    entries = [entry for entry in entries if before is None or entry.epoch <= before]
    every = -(-len(entries) // MOST_EPOCHS) or 1
    return entries[::-1][::every][::-1]


def _group(claim: Claim, left: Iterable[Place], right: Iterable[Place] = ()) -> Group:
    left = tuple(left)
    entry = left[0].entries[0]
    return Group({name: entry.shown(name) for name in claim.by}, left, tuple(right))


def _distinct(places: Iterable[Place]) -> list[Place]:
    """Places without those that a scale maps onto the runs of an earlier one."""
    found: dict[Hashable, Place] = {}
    for place in places:
        found.setdefault(place.measurements, place)
    return list(found.values())
