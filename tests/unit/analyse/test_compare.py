"""Comparisons of numbers: margins of numbers below 0, infinite bounds, and bounds in words."""

import numpy as np
import pytest

from emm.analyse.compare import Yardstick, estimated
from emm.analyse.draws import DRAWS, Interval, constant

RELATIVE = Yardstick(0.0, 0.05, bounded=False)


def between(low: float, high: float) -> Interval:
    return Interval(constant(low).low, constant(high).low)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1.02, 1.0, -1),
        (1.1, 1.0, 1),
        (-1.02, -1.0, -1),  # not above, and neither is the other
        (-1.0, -1.02, -1),
        (-1.0, -1.1, 1),
        (-1.1, -1.0, -1),
        (0.1, -0.1, 1),
        (-0.1, 0.1, -1),
        (0.0, 0.0, -1),
        (0.01, 0.0, 1),
    ],
)
def test_relative_margins_on_both_sides_of_zero(left, right, expected):
    case = RELATIVE.exceeds(constant(left), constant(right))
    assert (case.truth == expected).all()
    mirrored = RELATIVE.exceeds(constant(-right), constant(-left))
    assert (mirrored.truth == expected).all()


def test_infinite_bounds_are_compared():
    high, low, nothing = between(10, np.inf), between(0, 9), between(-np.inf, np.inf)
    assert (RELATIVE.exceeds(high, low).truth == 1).all()
    assert (RELATIVE.exceeds(low, high).truth == -1).all()
    for other in (high, low, nothing):
        assert not RELATIVE.exceeds(nothing, other).truth.any()
        assert not RELATIVE.exceeds(other, nothing).truth.any()
    assert not np.isnan(RELATIVE.exceeds(high, nothing, factor=3).by).any()


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (2.04, 2.04, "2.04"),
        (2.04, np.inf, "at least 2.04"),
        (-np.inf, 3, "at most 3"),
        (1, 3, "between 1 and 3"),
        (0, np.inf, "unknown"),
        (-np.inf, np.inf, "unknown"),
    ],
)
def test_a_bound_is_no_estimate(low, high, words):
    assert estimated(between(low, high), "factor") == words


def test_draws_come_after_the_estimate():
    assert len(constant(1.0).low) == 1 + DRAWS
