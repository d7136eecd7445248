"""Held-out images: the shares of the training set, and nothing of it."""

import functools

import numpy as np
import pytest

from emm.data.sources import Source, load_source
from emm.data.stage import build_subset
from emm.errors import UserError
from emm.measure.heldout import drawn_from, held_out, require_new
from emm.spec import DEFAULTS


def made_up(counts: dict[int, int], names: tuple[str, ...] = ("a",)) -> Source:
    labels = np.repeat(list(counts), list(counts.values()))
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 1), np.uint8)
    return Source(images, labels, names)


def equal(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (images[:, None] == others[None]).all(axis=(2, 3, 4))


def test_classes_come_in_the_shares_of_the_training_set():
    source = load_source("digits")
    subset = build_subset(source, size=30, resolution=8, label_kind="true")
    images, classes = held_out(source, subset, 200)
    assert (images.dtype, images.shape, classes.shape) == (np.uint8, (200, 8, 8, 1), (200,))
    assert np.bincount(classes).tolist() == [20] * 10
    assert not equal(images, subset.images).any()
    assert len(np.unique(images.reshape(200, -1), axis=0)) > 195


def test_of_a_pool_as_they_come_there():
    """Eight images draw few of the ten classes; what they were drawn from has all of them."""
    source = load_source("digits")
    subset = build_subset(source, size=8, selection="random", resolution=8)
    known = set(subset.classes.tolist())
    assert len(known) < 9
    alike, _ = held_out(source, subset, 400)
    images, _ = held_out(source, subset, 400, pool=np.arange(len(source)))
    assert len(images) == 400
    labels = {
        image.tobytes(): label for image, label in zip(source.images, source.labels, strict=True)
    }
    found = np.bincount([labels[image.tobytes()] for image in images], minlength=10)
    assert found.min() > 20
    assert {labels[image.tobytes()] for image in alike} == known
    assert not equal(images, subset.images).any()
    few, _ = held_out(source, subset, 400, pool=np.arange(30))
    assert 20 <= len(few) <= 30
    assert equal(few, source.images[:30]).any(axis=1).all()


def test_only_classes_that_it_draws_from():
    source = load_source("digits")
    subset = build_subset(source, size=10, num_classes=2, resolution=8)
    _, classes = held_out(source, subset, 50)
    assert set(classes.tolist()) == {0, 1}
    single = build_subset(source, size=10, only_class="7", resolution=8)
    images, classes = held_out(source, single, 50)
    sevens = build_subset(source, only_class="7", resolution=8).images
    assert set(classes.tolist()) == {0}
    assert equal(images, sevens).any(axis=1).all()


def test_the_seed_decides_and_fewer_are_the_first_of_more_or_others():
    source = load_source("digits")
    subset = build_subset(source, size=30, resolution=8)
    first, again, other = (held_out(source, subset, 40, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_copies_of_training_images_are_left_out():
    source = made_up({0: 20})
    source.images[10:] = source.images[:10]
    subset = build_subset(source, size=6)
    images, _ = held_out(source, subset, 50)
    assert len(images) == 8  # the other four, twice
    assert not equal(images, subset.images).any()


def test_images_without_classes():
    source = Source(made_up({0: 20}).images, np.full(20, -1), ())
    images, classes = held_out(source, build_subset(source, size=5), 9)
    assert (len(images), set(classes.tolist())) == (9, {-1})


def test_dummies_are_not_among_them():
    source = made_up({0: 20})
    dummies = Source(np.full((9, 4, 4, 1), 128, np.uint8), np.zeros(9, np.int64), ("flat",))
    subset = build_subset(source, size=5, dummies=dummies, dummy_size=4, label_kind="true")
    images, classes = held_out(source, subset, 50)
    assert (len(images), set(classes.tolist())) == (15, {0})


def test_nothing_left():
    source = made_up({0: 9})
    with pytest.raises(UserError, match="all 9 images of the source are in the training set"):
        held_out(source, build_subset(source, size=9), 5)


@pytest.mark.parametrize("pooled", [False, True])
def test_training_sets_of_all_sizes_have_nearly_the_same(pooled):
    """So that what is measured of several sizes differs in the samples, not in the reference."""
    source = load_source("digits")
    pool = np.arange(len(source)) if pooled else None
    found = []
    for size in (20, 100):
        subset = build_subset(
            source, size=size, selection="random" if pooled else "balanced_prefix"
        )
        found.append(held_out(source, subset, 300, pool=pool)[0])
    shared = {image.tobytes() for image in found[0]} & {image.tobytes() for image in found[1]}
    assert len(shared) > 300 - 100


def test_fewer_are_the_first_of_more():
    source = load_source("digits")
    subset = build_subset(source, size=8, selection="random")
    few, more = (held_out(source, subset, n, pool=np.arange(len(source)))[0] for n in (50, 90))
    np.testing.assert_array_equal(few, more[:50])


def test_what_a_training_set_was_drawn_from():
    source = load_source("digits")
    of = functools.partial(drawn_from, source)
    assert of(DEFAULTS | {"data.selection": "balanced_prefix"}) is None
    random = DEFAULTS | {"data.selection": "random"}
    np.testing.assert_array_equal(of(random), np.arange(len(source)))
    two = of(random | {"data.num_classes": 2})
    assert set(source.labels[two].tolist()) == {0, 1}
    sevens = of(random | {"data.only_class": "7"})
    np.testing.assert_array_equal(sevens, np.flatnonzero(source.labels == 7))


def test_classes_of_a_pool_are_numbered_even_if_none_was_drawn():
    source = load_source("digits")
    subset = build_subset(source, size=5, selection="random", label_kind="true")
    _, classes = held_out(source, subset, 400, pool=np.arange(len(source)))
    assert set(classes.tolist()) == set(range(10))


def test_training_images_are_not_held_out():
    rng = np.random.default_rng(0)
    training = rng.integers(0, 256, (5, 4, 4, 1), np.uint8)
    new = rng.integers(0, 256, (3, 4, 4, 1), np.uint8)
    require_new(new, training)
    with pytest.raises(UserError, match="2 of 5 held-out images are training images: leave them"):
        require_new(np.concatenate([new, training[:2]]), training)
