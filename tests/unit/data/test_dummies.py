"""Dummies, single classes and generated images at any resolution as parts of a subset."""

import numpy as np
import pytest

from emm.data.sources import load_source
from emm.data.stage import build_subset, read_subset, write_subset
from emm.errors import UserError


@pytest.fixture(scope="module")
def mondrian():
    return load_source("mondrian", size=40, resolution=8, margin=1)


@pytest.fixture(scope="module")
def mixture():
    return load_source("gaussian_mixture", size=70, resolution=8)


def test_dummies_follow_the_data_as_a_class_of_their_own(mondrian, mixture):
    subset = build_subset(mondrian, size=5, dummies=mixture, dummy_size=7, label_kind="true")
    assert subset.n_dummy == 7
    assert subset.is_dummy.tolist() == [False] * 5 + [True] * 7
    assert np.array_equal(subset.images[:5], mondrian.images[:5])
    assert np.array_equal(subset.images[5:], mixture.images[:7])
    assert subset.labels.tolist() == [0] * 5 + [1] * 7
    assert subset.class_names == ("mondrian", "gaussian_mixture")
    assert subset.index.tolist() == [*range(5), *range(7)]
    assert subset.label_dim == 2


def test_the_label_table_may_have_rows_that_nothing_trains(mondrian, mixture):
    wide = build_subset(
        mondrian, size=5, dummies=mixture, dummy_size=7, label_kind="true", label_classes=1000
    )
    assert (wide.label_dim, wide.labels.max()) == (1000, 1)


def test_dummies_of_the_data_do_not_change_the_data(mondrian, mixture):
    alone = build_subset(mondrian, size=6, selection="random", selection_seed=3)
    mixed = build_subset(
        mondrian, size=6, selection="random", selection_seed=3, dummies=mixture, dummy_size=4
    )
    assert np.array_equal(mixed.images[:6], alone.images)
    assert mixed.label_dim == 0


def test_grey_data_take_one_channel_of_the_dummies(mixture):
    digits = load_source("digits")
    subset = build_subset(digits, size=10, only_class="3", dummies=mixture, dummy_size=2)
    assert subset.images.shape == (12, 8, 8, 1)
    assert np.array_equal(subset.images[10:], mixture.images[:2, ..., :1])
    assert (digits.labels[subset.index[:10]] == 3).all()
    assert subset.class_names == ("3", "gaussian_mixture")


def test_one_class_is_a_source_of_its_own():
    digits = load_source("digits")
    subset = build_subset(digits, size=20, only_class="7", label_kind="true")
    assert np.array_equal(subset.index, np.flatnonzero(digits.labels == 7)[:20])
    assert (subset.label_dim, subset.labels.max()) == (1, 0)
    with pytest.raises(UserError, match="no class 'seven'; the source has 0, 1, 2"):
        build_subset(digits, size=20, only_class="seven")


def test_too_many_dummies_are_refused(mondrian, mixture):
    with pytest.raises(UserError, match=r"data\.dummy_size 71: .* has 70 images"):
        build_subset(mondrian, size=5, dummies=mixture, dummy_size=71)


def test_a_subset_with_dummies_is_stored(mondrian, mixture, tmp_path):
    subset = build_subset(mondrian, size=5, dummies=mixture, dummy_size=7, label_kind="true")
    write_subset(tmp_path / "subset.npz", subset)
    read = read_subset(tmp_path / "subset.npz")
    assert (read.n_dummy, read.class_names) == (7, ("mondrian", "gaussian_mixture"))
    assert np.array_equal(read.labels, subset.labels)


def test_generated_images_have_the_resolution_that_is_asked_for():
    small = load_source("mondrian", size=4, resolution=8, margin=1)
    assert small.images.shape == (4, 8, 8, 3)
    for image in small.images:  # a line of random pixels between even quadrants
        assert (image[0, 0] == image[0, 1]).all() or (image[0, 0] == image[1, 0]).all()
    flat = load_source("flat", size=3, resolution=8).images
    assert (flat == 128).all()
