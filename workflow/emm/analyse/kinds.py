"""The kinds of claims: which comparisons make each, and the number that it hinges on.

Differences under one point mean nothing: practically equal runs of Table 2 of Gu et al. 2023 span
0.8. So a difference against a claim counts only above a margin, and a claim needs one above it
somewhere. Where both sides are near 0 or 100 % there is no room for a difference: that speaks
neither for nor against it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product

import numpy as np

from emm.analyse.compare import (
    Case,
    Truth,
    difference,
    distance,
    estimated,
    everywhere,
    quotient,
    truth,
    yardstick,
)
from emm.analyse.draws import DRAWS, UNKNOWN, Draws, Interval
from emm.analyse.metrics import is_metric
from emm.analyse.places import SPREAD, Group, Place, has_sides, label
from emm.analyse.simulate import Measurements, Pick
from emm.analyse.turns import turned
from emm.documents import Claim

ROUNDED = {  # %: a ratio counts as 0 or 100 % when it rounds to it
    **{("<=", 0): 0.5, (">", 0): 0.5},
    **{(">=", 100): 99.5, ("<", 100): 99.5},
}
TAU, FACTOR = "kendall_tau", "factor"
PINNED = "so near the end of the range that no turn would show"


@dataclass(frozen=True)
class Finding:
    """Probabilities that a claim is true and false, and the number that it hinges on."""

    true: float
    false: float
    number: Interval
    metric: str
    note: str
    published: float = np.nan


def pick_of(claim: Claim) -> Pick:
    """Which checkpoints a claim is about."""
    return Pick(claim.before_epoch, claim.checkpoint == "last")


class Numbers:
    """The numbers of a claim's places, and how they compare."""

    def __init__(self, claim: Claim, measurements: Measurements) -> None:
        self.claim, self.measurements, self.yard = claim, measurements, yardstick(claim)
        self._known: dict[int, tuple[Place, Interval]] = {}

    def __call__(self, place: Place) -> Interval:
        """The number of a place."""
        if id(place) not in self._known:
            claim = self.claim
            made = self.measurements.place(claim.metric, place, claim.over, pick_of(claim))
            self._known[id(place)] = place, made
        return self._known[id(place)][1]

    def along(self, place: Place) -> Draws:
        """Where a place lies on an axis that is a metric."""
        return self.measurements.place(str(self.claim.along), place, pick=pick_of(self.claim)).low


def _greater(numbers: Numbers, groups: Sequence[Group]) -> Finding | None:
    """Every left place above `factor` times every right place of its group."""
    yard, factor = numbers.yard, numbers.claim.factor
    pairs = [
        (group, left, right)
        for group in groups
        for left, right in product(group.left, group.right)
        if left.measurements != right.measurements
    ]
    cases, real, room, gaps = [], [], [], []
    for _, left, right in pairs:
        high, low = numbers(left), numbers(right)
        tied = yard.tied(high, low)
        above = yard.exceeds(high, low, factor, margin=False).truth == 1
        below = yard.exceeds(Interval(factor * low.low, factor * low.high), high)
        cases.append(Case(truth(above | tied, (below.truth == 1) & ~tied), -below.by))
        real.append(yard.exceeds(high, low, factor, margin=factor == 1).truth)
        room.append(yard.room(high, low))
        gaps.append((difference(high, low, factor), tied))
    if not pairs:
        return None
    cases.append(_anywhere(real, room))
    at = _smallest(gaps)
    group, left, right = pairs[at]
    sides = " against ".join(filter(None, (label(left.about), label(right.about))))
    what = (
        "smallest difference"
        if factor == 1
        else f"smallest excess over {factor:g} times the other side"
    )
    where = _at(group) or sides
    return _finding(numbers, everywhere(cases), gaps[at][0], what, where)


def _monotone(numbers: Numbers, groups: Sequence[Group]) -> Finding | None:
    """No step against the direction, from any place to any later one, and a change from end to end.

    In every group; one where all places are near 0 or 100 % need not change.
    """
    if numbers.claim.trend:
        return _tendency(numbers, groups)
    yard, rising = numbers.yard, numbers.claim.kind == "monotone-increasing"
    cases, real, steps, pairs = [], [], [], []
    for group in groups:
        places = group.left if rising else group.left[::-1]
        values = [numbers(place) for place in places]
        for (first, low), (second, high) in combinations(zip(places, values, strict=True), 2):
            cases.append(-yard.exceeds(low, high))
            steps.append((difference(high, low), yard.tied(low, high)))
            pairs.append((group, first, second))
        change = yard.exceeds(values[-1], values[0])
        flat = (change.truth == -1) & yard.room(values[0], values[-1])
        cases.append(Case(truth((change.truth == 1) | yard.tied(*values), flat), change.by))
        real.append(change.truth == 1)
    cases.append(Case(np.any(real, axis=0).astype(np.int8)))
    at = _smallest(steps)
    group, *ends = pairs[at]
    first, second = ends if rising else ends[::-1]
    span = f"from {label(first.about)} to {label(second.about)}"
    where = ", ".join(filter(None, [_at(group), span]))
    return _finding(numbers, everywhere(cases), steps[at][0], "smallest step", where)


def _tendency(numbers: Numbers, groups: Sequence[Group]) -> Finding | None:
    """The sign of Kendall's tau over the pairs of places of all groups together."""
    claim = numbers.claim
    total, unknown, pairs = np.zeros(1 + DRAWS), np.zeros(1 + DRAWS), 0
    for group in groups:
        for first, second in combinations(group.left, 2):
            low, high = numbers(first), numbers(second)
            up, down = (
                numbers.yard.exceeds(*ends, margin=False).truth
                for ends in ((high, low), (low, high))
            )
            order = 1.0
            if is_metric(claim.along or ""):
                order = np.sign(numbers.along(second) - numbers.along(first))
            sign = order * ((up == 1).astype(float) - (down == 1))
            total += np.where(numbers.yard.tied(low, high), 0, sign)
            unknown += (up != 1) & (down != 1) & (low.low != high.high)
            pairs += 1
    wanted = total if claim.kind == "monotone-increasing" else -total
    drawn = truth(wanted > unknown, wanted < -unknown)[1:]
    sure = float((drawn == 1).mean()), float((drawn == -1).mean())
    note = f"rank correlation (Kendall) over {pairs} pairs"
    return Finding(*sure, Interval(total / pairs, total / pairs), TAU, note)


def _non_monotone(numbers: Numbers, groups: Sequence[Group]) -> Finding | None:
    """A turn in every group, and where `peak` is given, the maximum near it."""
    shapes = [_shape(numbers, group) for group in groups]
    true = max(0.0, 1 - sum(1 - shape.true for shape in shapes))
    false = max(0.0, 1 - len(shapes) * min(1 - shape.false for shape in shapes))
    if numbers.claim.peak is None:
        worst = min(shapes, key=lambda shape: shape.number.low[0])
    else:
        worst = max(shapes, key=lambda shape: abs(shape.number.low[0] - shape.published))
    return replace(worst, true=true, false=false)


def _shape(numbers: Numbers, group: Group) -> Finding:
    """Whether one curve turns as claimed; undecided where it is all near 0 or 100 %."""
    claim, values = numbers.claim, [numbers(place) for place in group.left]
    found = turned(numbers.yard, values, "peak" if claim.peak is not None else claim.turn)
    doubt, false, pinned = found.doubt, found.false, numbers.yard.pinned(*values)
    if claim.peak is None:
        number, metric = found.by, claim.metric
        what = "smaller of fall and rise" if claim.turn == "dip" else "smaller of rise and fall"
        words = _note(what, Interval(number, number), metric, _at(group))
    else:
        near, number = _peak(numbers, group.left, values)
        doubt, false = doubt + (near[1:] != 1).mean(), false | (near[1:] == -1)
        words = ", ".join(filter(None, [f"highest at {number[0]:g}", _at(group)]))
        metric = str(claim.along)
    true, false = max(0.0, 1 - float(doubt)), float((false & ~pinned[1:]).mean())
    note = "; ".join(filter(None, [words, PINNED if pinned[0] else ""]))
    peak = np.nan if claim.peak is None else claim.peak
    return Finding(true, false, Interval(number, number), metric, note, peak)


def _peak(
    numbers: Numbers, places: Sequence[Place], values: Sequence[Interval]
) -> tuple[Truth, Draws]:
    """Whether the highest place lies within `within` of the peak, and where it lies."""
    claim = numbers.claim
    at = np.array([float(place.at or 0) for place in places])
    near = np.abs(at - claim.peak) <= claim.within
    low, high = (np.stack(ends) for ends in zip(*values, strict=True))
    highest = at[np.argmax(low, axis=0)]
    inside, outside = (
        Interval(*(np.max(ends[part], axis=0, initial=-np.inf) for ends in (low, high)))
        for part in (near, ~near)
    )
    beaten = (numbers.yard.exceeds(outside, inside).truth == 1) & near.any()
    return truth((inside.low >= outside.high) & near.any(), beaten), highest


def _equal(numbers: Numbers, groups: Sequence[Group]) -> Finding | None:
    """Places within `within` of `value`, of the other side, or of each other in a group."""
    claim = numbers.claim
    if claim.value is not None:
        return _near(numbers, groups, claim.value)
    if "factor" in claim.model_fields_set:
        return _ratios(numbers, groups, claim.factor)
    pairs = [
        (group, first, second)
        for group in groups
        for first, second in (
            product(group.left, group.right) if has_sides(claim) else combinations(group.left, 2)
        )
        if first.measurements != second.measurements
    ]
    if not pairs:
        return None
    gaps = [distance(numbers(first), numbers(second)) for _, first, second in pairs]
    cases = [_within(gap, claim.within) for gap in gaps]
    at = max(range(len(gaps)), key=lambda i: gaps[i].high[0])
    group, first, second = pairs[at]
    sides = " and ".join(filter(None, (label(first.about), label(second.about))))
    where = ", ".join(filter(None, [_at(group), f"between {sides}" if sides else ""]))
    return _finding(numbers, everywhere(cases), gaps[at], "largest difference", where)


def _near(numbers: Numbers, groups: Sequence[Group], value: float) -> Finding:
    places = [(group, place) for group in groups for place in group.left]
    target = Interval(np.full(1 + DRAWS, value), np.full(1 + DRAWS, value))
    gaps = [distance(numbers(place), target) for _, place in places]
    cases = [_within(gap, numbers.claim.within) for gap in gaps]
    at = max(range(len(gaps)), key=lambda i: gaps[i].high[0])
    group, place = places[at]
    what = f"farthest from {value:g}:"
    return _finding(numbers, everywhere(cases), numbers(place), what, _at(group, place), value)


def _ratios(numbers: Numbers, groups: Sequence[Group], factor: float) -> Finding | None:
    """Left about `factor` times right, or each place times the one before it, per doubling."""
    claim = numbers.claim
    pairs = [
        (group, *pair)
        for group in groups
        for pair in (product(group.right, group.left) if has_sides(claim) else pairwise(group.left))
        if pair[0].measurements != pair[1].measurements
    ]
    if not pairs:
        return None
    found = [_growth(numbers, first, second) for _, first, second in pairs]
    target = Interval(np.full(1 + DRAWS, factor), np.full(1 + DRAWS, factor))
    gaps = [distance(growth, target) for growth in found]
    at = max(range(len(gaps)), key=lambda i: gaps[i].high[0])
    group, first, second = pairs[at]
    span = f"from {label(first.about)} to {label(second.about)}"
    about = _at(group) if has_sides(claim) else ", ".join(filter(None, [_at(group), span]))
    note = _note(f"farthest from {factor:g}:", found[at], FACTOR, about)
    sure = everywhere([_within(gap, claim.within) for gap in gaps])
    return Finding(*sure, found[at], FACTOR, note, factor)


def _growth(numbers: Numbers, first: Place, second: Place) -> Interval:
    """second / first; along a setting, what it is for each doubling of the setting at the scale."""
    growth, along = quotient(numbers(second), numbers(first)), numbers.claim.along
    if along is None:
        return growth
    ends = [float(place.about[along]) for place in (first, second)]
    doublings = np.log2(ends[1] / ends[0]) if min(ends) > 0 else 0.0
    if doublings <= 0:
        return UNKNOWN
    return Interval(growth.low ** (1 / doublings), growth.high ** (1 / doublings))


def _threshold(numbers: Numbers, groups: Sequence[Group]) -> Finding | None:
    """Every place beyond the value; a ratio claimed to be 0 or 100 % has to round to it."""
    claim, limit = numbers.claim, numbers.claim.value
    compare, above = OPERATORS[claim.op], claim.op.startswith(">")
    if numbers.yard.bounded:
        limit = ROUNDED.get((claim.op, limit), limit)
    places = [(group, place) for group in groups for place in group.left]
    ends = [numbers(place)[:: 1 if above else -1] for _, place in places]  # the worse end first
    cases = [
        Case(
            truth(compare(worse, limit), ~compare(better, limit)),
            worse - limit if above else limit - worse,
        )
        for worse, better in ends
    ]
    pick = min if above else max
    at = pick(range(len(ends)), key=lambda i: ends[i][0][0])
    group, place = places[at]
    what = ("lowest" if above else "highest") if len(places) > 1 else ""
    where = _at(group, place)
    return _finding(numbers, everywhere(cases), numbers(place), what, where, claim.value)


KINDS: dict[str, Callable[[Numbers, Sequence[Group]], Finding | None]] = {
    "monotone-decreasing": _monotone,
    "monotone-increasing": _monotone,
    "non-monotone": _non_monotone,
    "greater": _greater,
    "approximately-equal": _equal,
    "threshold": _threshold,
}
OPERATORS = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}


def _within(gap: Interval, within: float) -> Case:
    return Case(truth(gap.high <= within, gap.low > within), within - gap.high)


def _anywhere(real: Sequence[Truth], room: Sequence[np.ndarray]) -> Case:
    """A real difference in some comparison; false if in none, though some had room for it."""
    none = (np.stack(real) == -1).all(axis=0) & np.any(room, axis=0)
    return Case(truth((np.stack(real) == 1).any(axis=0), none))


def _smallest(cases: Sequence[tuple[Interval, np.ndarray]]) -> int:
    """Which number is smallest, of those where there was room for a difference if there are any."""
    return min(range(len(cases)), key=lambda i: (cases[i][1][0], cases[i][0].low[0]))


def _finding(
    numbers: Numbers,
    sure: tuple[float, float],
    number: Interval,
    what: str,
    where: str,
    published: float = np.nan,
) -> Finding:
    metric, spread = numbers.claim.metric, numbers.claim.over in ("range", "sd")
    note = _note(what, number, metric, where, bool(np.isnan(published)) or spread)
    of_ratio = spread and metric == "memorization_ratio"
    return Finding(*sure, number, SPREAD if of_ratio else metric, note, published)


def _note(what: str, number: Interval, metric: str, where: str, differs: bool = True) -> str:
    words = " ".join(filter(None, [what, estimated(number, metric, differs)]))
    return ", ".join(filter(None, [words, where]))


def _at(*parts: Group | Place) -> str:
    about = {name: value for part in parts for name, value in part.about.items()}
    words = label(about)
    return f"{'for' if words[:1].isalpha() else 'at'} {words}" if words else ""
