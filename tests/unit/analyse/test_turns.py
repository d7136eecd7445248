"""Curves of known shape: peaks, dips, steady ones, and ones that had no room to turn."""

import numpy as np
import pytest

from emm.analyse.compare import Yardstick
from emm.analyse.draws import DRAWS, UNKNOWN, constant, exact
from emm.analyse.turns import turned

RATIO = Yardstick(1.0, 0.0, bounded=True)
PEAK, DIP, RISE = (2, 20, 3), (20, 2, 21), (2, 3, 20)
WAVE, BACK = (10, 5, 20, 12), (12, 20, 5, 10)


@pytest.mark.parametrize(
    ("values", "turn", "true"),
    [
        (PEAK, "peak", True),
        (PEAK, "dip", False),
        (PEAK, None, True),
        (DIP, "peak", False),
        (DIP, "dip", True),
        (DIP, None, True),
        (RISE, "peak", False),
        (RISE, "dip", False),
        (RISE, None, False),
        (RISE[::-1], "peak", False),
        (WAVE, "peak", True),
        (WAVE, "dip", True),
        (BACK, "peak", True),
        ((10, 2, 20), "peak", False),  # the rise comes after the fall
        ((2, 2.5, 1.8), "peak", False),  # by less than the margin
    ],
)
def test_direction_of_a_turn(values, turn, true):
    found = turned(RATIO, [constant(value) for value in values], turn)
    assert bool(found.doubt < 0.05) == true
    assert found.false.all() == (not true)


def test_by_how_much_a_curve_turns():
    values = [constant(value) for value in (5, 9, 20, 14, 18)]
    assert turned(RATIO, values, "peak").by[0] == 6  # above 14
    assert turned(RATIO, values, "dip").by[0] == 4  # 14 below 18
    assert turned(RATIO, values, None).by[0] == 6


def test_noise_makes_no_turn():
    """Of many noisy places some is above others before and after it."""
    rng = np.random.default_rng(0)
    values = [exact(50 + rng.normal(0, 3, DRAWS), 50 + rng.normal(0, 3)) for _ in range(12)]
    assert turned(RATIO, values, "peak").doubt > 0.5
    assert turned(RATIO, values, "dip").doubt > 0.5


def test_near_the_ends_of_the_range_nothing_shows():
    none = [constant(0.0)] * 5
    assert RATIO.pinned(*none).all()
    assert RATIO.pinned(*[constant(value) for value in (98, 99.5, 100)]).all()
    assert not RATIO.pinned(*[constant(value) for value in (0, 0, 100)]).any()
    assert not RATIO.pinned(*[constant(value) for value in (0, 3, 12)]).any()
    assert not RATIO.pinned(*none, UNKNOWN).any()
    assert not Yardstick(0.0, 0.05, bounded=False).pinned(*none).any()
