"""Whether results bear out a claim: three-valued, over simulated results.

Each draw of the results (emm.analyse.simulate) makes every comparison of a claim true, false or
undecided: runs are missing, or an EMM lies beyond the sizes that were run. A claim that has to hold
everywhere is true in a draw where all its comparisons are. That it is false is judged from single
comparisons, with a correction for their number: among many noisy numbers some pair is always out of
order, which says nothing against a tendency that holds. Where a claim says that something exists,
such as a rise and a fall, it is the other way round.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emm.analyse.draws import Interval, quantiles
from emm.analyse.kinds import KINDS, Numbers, pick_of
from emm.analyse.places import EMM, OF_NETWORK, OF_SERIES, Entry, Group
from emm.analyse.simulate import Measurements, of_one_network
from emm.documents import Claim

SURE = 0.95  # probability from which a claim counts as supported or contradicted
ONE_NETWORK = "one network per setting: what another seed would give is not in it"


@dataclass(frozen=True)
class Verdict:
    """The outcome for one claim.

    support: probability of what the verdict says, for undecided that the claim is true; NaN when
    not measured. ours, low, high: the number that the claim hinges on with its 95 % interval, or
    NaN and its bounds, in the unit of `metric`; published: what it is compared with, NaN where that
    is another number of ours. note: which number it is and where it was decided.
    """

    verdict: str
    metric: str
    support: float = np.nan
    ours: float = np.nan
    low: float = np.nan
    high: float = np.nan
    published: float = np.nan
    n_runs: int = 0
    note: str = ""


def judge(claim: Claim, groups: Sequence[Group], measurements: Measurements) -> Verdict:
    """The verdict on a claim from its groups (`places.groups_of`) and what was measured."""
    entries = [entry for group in groups for place in group.places for entry in place.entries]
    numbers = Numbers(claim, measurements)
    runs, absent = measurements.runs(claim.metric, entries), _absent(numbers, entries)
    if not runs or absent == len(entries):
        note = "its checkpoints are not among those measured" if runs else ""
        return Verdict("not measured", claim.metric, note=note)
    found = KINDS[claim.kind](numbers, groups)
    if found is None:
        note = "this scale makes one run of what is compared"
        return Verdict("not measured", claim.metric, note=note)
    verdict, support = "undecided", found.true
    if found.true >= SURE:
        verdict = "supported"
    elif found.false >= SURE:
        verdict, support = "contradicted", found.false
    missing = f"{absent} of {len(entries)} measurements missing" if absent else ""
    notes = [found.note, _censored(numbers, groups), _unrepeated(claim, groups), missing]
    return Verdict(
        verdict,
        found.metric,
        support,
        *_estimate(found.number),
        found.published,
        len(runs),
        note="; ".join(filter(None, notes)),
    )


def _estimate(number: Interval) -> tuple[float, float, float]:
    """A number with its 95 % interval, which draws near 0 and 100 % need not reach.

    NaN with its bounds where it is only bounded, and without any where nothing is known.
    """
    estimate, other = (float(end[0]) for end in number)
    if not (np.isfinite(estimate) or np.isfinite(other)):
        return (np.nan,) * 3
    if estimate != other:
        return np.nan, estimate, other
    low, high = quantiles(number.low)
    return estimate, min(low, estimate), max(high, estimate)


def _censored(numbers: Numbers, groups: Sequence[Group]) -> str:
    """How many EMMs or capacities are only bounded."""
    if numbers.claim.metric not in OF_SERIES:
        return ""
    values = [numbers(place) for group in groups for place in group.places]
    beyond = sum(value.low[0] != value.high[0] for value in values)
    name = "EMMs" if numbers.claim.metric == EMM else "capacities"
    return f"{beyond} of {len(values)} {name} lie beyond the sizes" if beyond else ""


def _unrepeated(claim: Claim, groups: Sequence[Group]) -> str:
    """That a verdict is of single networks, where nothing is known of others."""
    items = [item for group in groups for place in group.places for item in place.items]
    alone = any(len({entry.row.run_id for entry in item}) == 1 for item in items)
    return ONE_NETWORK if alone and of_one_network(claim.metric) else ""


def _absent(numbers: Numbers, entries: Sequence[Entry]) -> int:
    """How many measurements are not there."""
    pick = pick_of(numbers.claim)
    known = numbers.claim.metric in OF_NETWORK
    return sum(
        not known and numbers.measurements.checkpoint(entry, pick) is None for entry in entries
    )
