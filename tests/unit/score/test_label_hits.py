"""Whether copies are of images with the label that they were drawn for."""

import math

import numpy as np
import pytest

from emm.data.stage import Subset
from emm.score.label_hits import COLUMNS, LabelHits

GREYS = np.arange(6, dtype=np.uint8)
ALL = np.ones(4, bool)


def subset(labels, greys=GREYS, label_dim=4) -> Subset:
    images = np.broadcast_to(greys[:, None, None, None], (len(greys), 2, 2, 1)).copy()
    labels = np.array(labels)
    return Subset(images, labels, labels, np.arange(len(greys)), label_dim)


def summary(labels, nearest, memorized=ALL, of=None):
    of = subset([0, 0, 1, 1, 2, 2]) if of is None else of
    return LabelHits(of).summarise(np.array(labels), np.array(nearest), np.array(memorized))


def test_copies_that_have_the_label():
    found = summary([0, 1, 2, 2], [1, 3, 0, 5])
    assert list(found) == list(COLUMNS)
    assert (found["n_label_hits"], found["label_hit_ratio"]) == (3, 0.75)
    assert found["label_hit_ratio_low"] < 0.75 < found["label_hit_ratio_high"]


def test_only_copies_count():
    found = summary([0, 1, 2, 2], [1, 0, 0, 5], [True, True, False, False])
    assert (found["n_label_hits"], found["label_hit_ratio"]) == (1, 0.5)


def test_either_of_two_labels_counts():
    pairs = [[0, 1], [1, 2], [0, 2], [0, 1]]
    assert summary(pairs, [0, 4, 2, 5])["label_hit_ratio"] == 0.5


def test_equal_images_have_all_their_labels():
    """The nearest image is one of them, whichever of their labels was told."""
    doubled = subset([0, 1, 2, 3], np.array([7, 8, 7, 9], np.uint8))
    assert summary([0, 2, 1, 3], [0, 0, 0, 3], of=doubled)["label_hit_ratio"] == 0.75


def test_labels_that_no_image_has_never_hit():
    found = summary([4, 9, 3, 0], [0, 1, 2, 1])
    assert (found["label_hit_ratio"], found["label_hit_chance"]) == (0.25, 3 / 16)


def test_chance_is_that_of_shuffled_labels():
    rng = np.random.default_rng(0)
    of = subset(rng.integers(0, 4, 50), np.arange(50, dtype=np.uint8))
    labels, nearest = rng.integers(0, 4, 400) ** 2 // 3, rng.integers(0, 50, 400)
    hits = LabelHits(of)
    dealt = [hits.found(rng.permutation(labels), nearest).mean() for _ in range(300)]
    assert hits.chance(labels, nearest) == pytest.approx(np.mean(dealt), abs=0.005)


@pytest.mark.parametrize(
    ("labels", "of", "memorized"),
    [
        (None, subset([0, 0, 1, 1, 2, 2]), ALL),
        (np.zeros(4, int), subset([-1] * 6, label_dim=0), ALL),
        (np.zeros(4, int), subset([0] * 6), ~ALL),
    ],
)
def test_nothing_to_say_without_labels_or_copies(labels, of, memorized):
    found = LabelHits(of).summarise(labels, np.zeros(4, int), memorized)
    assert all(math.isnan(found[name]) for name in COLUMNS)
