"""Repeated images in a subset: which, how often, with which labels, and that they are recorded."""

from dataclasses import replace

import numpy as np
import pytest

from emm.data.sources import load_source
from emm.data.stage import build_subset, read_subset, write_subset


@pytest.fixture(scope="module")
def digits():
    return load_source("digits")


def test_the_distinct_images_stay_and_copies_follow(digits):
    plain = build_subset(digits, size=20)
    subset = build_subset(digits, size=20, duplicated=0.2, copies=3)
    assert (subset.size, len(subset)) == (20, 20 + 4 * 2)
    for name in ("images", "classes", "index", "labels"):
        found = getattr(subset, name)
        np.testing.assert_array_equal(found[:20], getattr(plain, name))
        np.testing.assert_array_equal(found, found[subset.copy_of])
    counts = np.unique(subset.multiplicity, return_counts=True)
    assert [part.tolist() for part in counts] == [[1, 3], [16, 12]]
    repeated = np.unique(subset.copy_of[20:])
    assert (subset.multiplicity[repeated] == 3).all()


def test_the_same_images_are_repeated_however_often(digits):
    chosen = [
        set(build_subset(digits, size=40, duplicated=0.1, copies=copies).copy_of[40:])
        for copies in (2, 5, 50)
    ]
    assert len(chosen[0]) == 4
    assert chosen[0] == chosen[1] == chosen[2]
    other = build_subset(digits, size=40, duplicated=0.1, copies=2, selection_seed=1)
    assert set(other.copy_of[40:]) != chosen[0]


@pytest.mark.parametrize("options", [{"copies": 5}, {"duplicated": 0.3}, {}])
def test_no_copies_leave_the_subset_as_it_was(digits, options):
    subset = build_subset(digits, size=20, **options)
    assert subset.copy_of is None
    assert (subset.multiplicity == 1).all()
    assert (subset.size, len(subset)) == (20, 20)


@pytest.mark.parametrize(("kind", "width"), [("true", 10), ("unique", 20), ("random", 4)])
def test_copies_have_the_labels_of_their_originals(digits, kind, width):
    options = {"label_kind": kind, "label_classes": 4 if kind == "random" else None}
    plain = build_subset(digits, size=20, **options)
    subset = build_subset(digits, size=20, duplicated=0.2, copies=3, **options)
    assert subset.label_dim == plain.label_dim == width
    np.testing.assert_array_equal(subset.labels, plain.labels[subset.copy_of])


def test_copies_stand_before_dummies_which_are_never_repeated():
    data = load_source("mondrian", size=10, resolution=8, margin=1)
    dummies = load_source("gaussian_mixture", size=6, resolution=8)
    subset = build_subset(
        data, size=10, dummies=dummies, dummy_size=6, duplicated=0.2, copies=4, label_kind="unique"
    )
    assert (subset.size, subset.n_dummy, len(subset)) == (10, 6, 10 + 6 + 6)
    np.testing.assert_array_equal(subset.images[-6:], dummies.images)
    assert (subset.multiplicity[subset.is_dummy] == 1).all()
    assert subset.labels[-6:].tolist() == [*range(10, 16)]
    assert subset.label_dim == 16


def test_a_file_records_them(digits, tmp_path):
    path = tmp_path / "subset.npz"
    subset = build_subset(digits, size=20, duplicated=0.2, copies=3)
    write_subset(path, subset)
    read = read_subset(path)
    np.testing.assert_array_equal(read.copy_of, subset.copy_of)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["multiplicity"], subset.multiplicity)
    write_subset(path, build_subset(digits, size=20))
    with np.load(path) as arrays:
        assert {"copy_of", "multiplicity"}.isdisjoint(arrays)


def test_what_is_no_copy_is_refused(digits):
    subset = build_subset(digits, size=20, duplicated=0.2, copies=3)
    with pytest.raises(ValueError, match="copies are not of the images"):
        replace(subset, copy_of=np.zeros(len(subset), np.int64))
