"""Near duplicates among training images, against distances in plain integers."""

import numpy as np
import pytest

from emm.errors import UserError
from emm.score.near import count_duplicates, two_others

RNG = np.random.default_rng(0)


def images_of(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 6, 6, 3), np.uint8)


def test_neighbours_are_others():
    images = images_of(300)
    values = images.reshape(300, -1).astype(np.int64)
    distances = ((values[:, None] - values) ** 2).sum(axis=-1)
    np.fill_diagonal(distances, np.iinfo(np.int64).max)
    expected = np.argsort(distances, axis=1, kind="stable")[:, :2]
    for budget in (1 << 30, 1 << 17):  # one tile, and many
        found = two_others(images, xp=np, budget=budget)
        np.testing.assert_array_equal(found.indices, expected)
        np.testing.assert_array_equal(
            found.squared_distances, np.take_along_axis(distances, expected, axis=1)
        )


def test_repeated_and_near_images_are_counted_apart():
    images = images_of(30)
    twin = np.clip(images[:2].astype(int) + RNG.integers(-5, 6, images[:2].shape), 0, 255)
    crowd = np.repeat(images[5:6], 2, axis=0) // 2 * 2
    crowd[1, 0, 0] ^= 4
    assert count_duplicates(images, np) == (30, 0, 0)
    assert count_duplicates(np.concatenate([images, images[:3]]), np) == (33, 3, 0)
    assert count_duplicates(np.concatenate([images, twin.astype(np.uint8)]), np) == (32, 0, 4)
    assert count_duplicates(np.concatenate([images, crowd]), np).near < 3


def test_three_images_have_to_differ():
    images = images_of(2)
    with pytest.raises(UserError, match="2 distinct images"):
        count_duplicates(np.concatenate([images, images]), np)
