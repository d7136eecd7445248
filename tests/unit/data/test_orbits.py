"""Moves of images: how many, which, and what they leave behind."""

import numpy as np
import pytest

from emm.data.orbits import STILL, Move, moved, moves

IMAGES = np.random.default_rng(0).integers(1, 256, (3, 5, 5, 2), np.uint8)


@pytest.mark.parametrize(
    ("augment", "shift", "count"),
    [("none", 2, 1), ("flip", 2, 2), ("shift", 1, 9), ("shift", 2, 25), ("flip_shift", 2, 50)],
)
def test_members(augment, shift, count):
    found = moves(augment, shift)
    assert len(found) == len(set(found)) == count
    assert found[0] == STILL
    members = {moved(IMAGES[:1], move).tobytes() for move in found}
    assert len(members) == count


def test_an_image_that_stays_is_not_copied():
    assert moved(IMAGES, STILL) is IMAGES


def test_a_flip_is_left_to_right():
    np.testing.assert_array_equal(moved(IMAGES, Move(True, 0, 0)), IMAGES[:, :, ::-1])


def test_a_shift_leaves_black_behind():
    shifted = moved(IMAGES, Move(False, 1, -2))
    np.testing.assert_array_equal(shifted[:, 1:, :-2], IMAGES[:, :-1, 2:])
    assert not shifted[:, 0].any()
    assert not shifted[:, :, -2:].any()


def test_a_flip_comes_before_a_shift():
    both = moved(IMAGES, Move(True, 0, 1))
    np.testing.assert_array_equal(both, moved(IMAGES[:, :, ::-1], Move(False, 0, 1)))
