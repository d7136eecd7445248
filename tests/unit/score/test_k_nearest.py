"""The k nearest images, against sorted distances in plain integers."""

import numpy as np
import pytest

from emm.errors import UserError
from emm.score.k_nearest import k_nearest
from emm.score.nearest import hard_images, two_nearest

RNG = np.random.default_rng(0)


def images_of(count: int, values: int = 256) -> np.ndarray:
    return RNG.integers(0, values, (count, 6, 6, 3), np.uint8)


def by_sorting(samples, training, k, apart=False):
    """Neighbours of each sample from all differences, the first of equally near ones first."""
    flat = [images.reshape(len(images), -1).astype(np.int64) for images in (samples, training)]
    distances = ((flat[0][:, None] - flat[1]) ** 2).sum(axis=-1)
    if apart:
        np.fill_diagonal(distances, np.iinfo(np.int64).max)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)


@pytest.mark.parametrize("budget", [1 << 30, 1 << 17], ids=["one tile", "many tiles"])
@pytest.mark.parametrize("values", [256, 2], ids=["any", "many ties"])
@pytest.mark.parametrize("k", [1, 2, 50])
def test_neighbours_are_those_of_sorted_distances(k, values, budget):
    samples, training = images_of(90, values), images_of(400, values)
    found = k_nearest(samples, training, k, xp=np, budget=budget)
    expected = by_sorting(samples, training, k)
    np.testing.assert_array_equal(found.indices, expected[0])
    np.testing.assert_array_equal(found.squared_distances, expected[1])


@pytest.mark.parametrize("budget", [1 << 30, 1 << 17], ids=["one tile", "many tiles"])
def test_apart_leaves_out_the_image_itself_but_not_its_copies(budget):
    images = np.concatenate([images_of(150), images_of(3)[[0, 0, 1, 1, 2, 2]]])
    found = k_nearest(images, images, 4, apart=True, xp=np, budget=budget)
    expected = by_sorting(images, images, 4, apart=True)
    np.testing.assert_array_equal(found.indices, expected[0])
    np.testing.assert_array_equal(found.squared_distances, expected[1])
    assert (found.squared_distances[150:, 0] == 0).all()


def test_the_first_two_are_the_two_nearest_at_any_number_of_components():
    images = hard_images(60, 3000).reshape(60, 10, 100, 3)
    images = images[np.unique(images.reshape(60, -1), axis=0, return_index=True)[1]]
    found, two = k_nearest(images[:9], images, 5, xp=np), two_nearest(images[:9], images, xp=np)
    np.testing.assert_array_equal(found.indices[:, :2], two.indices)
    np.testing.assert_array_equal(found.squared_distances[:, :2], two.squared_distances)


def test_fewer_images_than_asked_for_are_all_neighbours():
    images = images_of(7)
    assert k_nearest(images, images, 50, xp=np).indices.shape == (7, 7)
    assert k_nearest(images, images, 50, apart=True, xp=np).indices.shape == (7, 6)


def test_refuses_what_cannot_be_compared():
    with pytest.raises(UserError, match="sizes must agree"):
        k_nearest(images_of(3), images_of(3)[:, :5], 2, xp=np)
    with pytest.raises(ValueError, match="0 nearest"):
        k_nearest(images_of(3), images_of(3), 0, xp=np)
