"""Curves that turn: a rise and a fall, in either order or to a peak or a dip."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emm.analyse.compare import Yardstick, difference, somewhere
from emm.analyse.draws import Draws, Interval

Turn = Literal["peak", "dip"]
Pairs = Sequence[tuple[Interval, Interval]]  # what should be the higher, and the lower


@dataclass(frozen=True)
class Turned:
    """Whether a curve turns.

    doubt: probability that it does not, corrected for the number of places that were looked at.
    false: draws (DRAWS,) in which it surely does not. by: the smaller of its rise and its fall,
    (1 + DRAWS,).
    """

    doubt: float
    false: NDArray[np.bool_]
    by: Draws


def turned(yard: Yardstick, values: Sequence[Interval], turn: Turn | None) -> Turned:
    """Whether values along an axis, three or more, rise and fall.

    turn: "peak" where one of them is above some value before it and some value after it, "dip"
    where one is below; None for a rise and a fall in any order.
    """
    looked_at = len(values) * (len(values) - 1) // 2
    ways = [_way(yard, sides, looked_at) for sides in _ways(values, turn)]
    return Turned(
        min(way.doubt for way in ways),
        np.all([way.false for way in ways], axis=0),
        max((way.by for way in ways), key=lambda by: by[0]),
    )


def _ways(values: Sequence[Interval], turn: Turn | None) -> list[tuple[Pairs, Pairs]]:
    """The comparisons that a turn takes on its two sides: of each place where it may lie."""
    if turn is None:
        falls = list(combinations(values, 2))
        return [(falls, [(later, first) for first, later in falls])]
    ways = []
    for at in range(1, len(values) - 1):
        sides = values[:at], values[at + 1 :]
        pairs = ([(values[at], other) for other in side] for side in sides)
        before, after = ([p if turn == "peak" else p[::-1] for p in side] for side in pairs)
        ways.append((before, after))
    return ways


def _way(yard: Yardstick, sides: tuple[Pairs, Pairs], looked_at: int) -> Turned:
    """Whether some comparison holds on each of two sides."""
    found = [somewhere([yard.exceeds(*pair) for pair in side], looked_at) for side in sides]
    doubt = sum(1 - true for true, _ in found)
    changes = [[difference(*pair).low for pair in side] for side in sides]
    most = [max(side, key=lambda change: change[0]) for side in changes]
    return Turned(doubt, np.any([none for _, none in found], axis=0), np.minimum(*most))
