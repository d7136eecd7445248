"""Blends of two kinds of images: how many of each, in which order, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emm.data.catalogue import SOURCES, blend_shares, check_subset
from emm.data.sources import Source, load_source
from emm.data.stage import build_subset, read_source, read_subset
from emm.data.subsets import select
from emm.errors import UserError

DOGS = (2000, 2000)
ALPHAS = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
SIZES = st.integers(1, 2000)
DIGITS = load_source("digits")
BLEND = load_source("digits_blend")


@pytest.mark.parametrize(
    ("size", "alpha", "expected"),
    [
        (1000, 0.8, (199, 801)),  # 1 - 0.8 is a little below 0.2
        (1000, 0.2, (800, 200)),
        (1000, 0.5, (500, 500)),
        (1000, 0.0, (1000, 0)),
        (1000, 1.0, (0, 1000)),
        (500, 0.8, (99, 401)),
        (1500, 0.8, (299, 1201)),
        (2000, 0.8, (399, 1601)),
        (2000, 0.0, (2000, 0)),
        (2000, 1.0, (0, 2000)),
        (7, 0.5, (3, 4)),
    ],
)
def test_shares_are_truncated_as_published(size, alpha, expected):
    assert blend_shares(size, DOGS, alpha) == expected


@given(sizes=st.tuples(SIZES, SIZES), alpha=ALPHAS)
def test_both_parts_grow_with_the_size(sizes, alpha):
    small, large = (blend_shares(size, DOGS, alpha) for size in sorted(sizes))
    assert all(few <= many for few, many in zip(small, large, strict=True))
    assert (sum(small), sum(large)) == tuple(sorted(sizes))


@pytest.mark.parametrize(
    ("size", "counts", "alpha", "message"),
    [
        (2001, DOGS, 0.5, "data.size 2001: a blend of this source has at most 2000"),
        (184, (183, 1614), 0, "with data.alpha 0 needs 184 images of the first kind, of which"),
        (500, (10, 500), 0.9, "data.size 500: with data.alpha 0.9 needs 49 images of the first"),
        (500, (500, 10), 0.9, "needs 451 images of the second kind, of which there are 10"),
        (None, DOGS, 0.5, "data.size: needed for a blend"),
    ],
)
def test_blends_that_cannot_be(size, counts, alpha, message):
    with pytest.raises(UserError) as caught:
        blend_shares(size, counts, alpha)
    assert message in str(caught.value)


def test_digits_blend_is_the_threes_and_then_the_others_in_file_order():
    threes, others = (np.flatnonzero(kind) for kind in (DIGITS.labels == 3, DIGITS.labels != 3))
    assert (len(threes), len(others)) == (183, 1614)
    np.testing.assert_array_equal(BLEND.images[:183], DIGITS.images[threes])
    np.testing.assert_array_equal(BLEND.images[183:], DIGITS.images[others])
    np.testing.assert_array_equal(BLEND.labels, [0] * 183 + [1] * 1614)
    assert BLEND.class_names == ("3", "other digits")


@settings(max_examples=30, deadline=None)
@given(size=st.integers(2, 180), alpha=ALPHAS)
def test_a_blend_begins_both_of_its_parts(size, alpha):
    first = int(size * (1 - alpha))
    index = select(BLEND, size=size, alpha=alpha)
    assert index.dtype == np.int64
    assert index.tolist() == [*range(first), *range(183, 183 + size - first)]


def test_classes_tell_where_an_image_came_from():
    subset = build_subset(BLEND, size=100, alpha=0.3, label_kind="true")
    assert subset.classes.tolist() == subset.labels.tolist() == [0] * 70 + [1] * 30
    assert subset.label_dim == 2
    plain = build_subset(BLEND, size=100, alpha=1.0)
    assert (set(plain.classes), plain.label_dim) == ({1}, 0)
    np.testing.assert_array_equal(plain.images, BLEND.images[183:283])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": "random"}, "data.selection random: a blend takes the first images"),
        ({"num_classes": 1}, "data.num_classes 1: a blend has two"),
        ({"size": 1615}, "has at most 1614"),
        ({"size": 0}, "at least one image"),
        ({"size": None}, "data.size: needed for a blend"),
    ],
)
def test_planning_and_the_stage_refuse_the_same(options, message):
    options = {"size": 20, "alpha": 0.5, **options}
    for refuse in (
        lambda: check_subset("digits_blend", **options),
        lambda: select(BLEND, **options),
    ):
        with pytest.raises(UserError, match=message):
            refuse()


@pytest.mark.parametrize("labels", [[-1] * 4, [0] * 4, [0, 1, 2, 0]])
def test_only_two_classes_blend(labels):
    classes = tuple("abc"[: max(labels) + 1])
    source = Source(np.zeros((4, 2, 2, 1), np.uint8), np.array(labels), classes)
    with pytest.raises(UserError, match=rf"blends two classes; the source has {len(classes)}"):
        select(source, size=2, alpha=0.5)


def test_sizes_of_the_paper_can_be_planned():
    for alpha in (0.0, 0.2, 0.5, 0.8, 1.0):
        for size in (500, 1000, 1500, 2000):
            check_subset("cifar10_imagenet_dog", size=size, alpha=alpha, resolution=32)
    assert [name for name, info in SOURCES.items() if info.blends] == [
        "digits_blend",
        "cifar10_imagenet_dog",
    ]


def emm(*words: object) -> subprocess.CompletedProcess:
    code = "from emm import cli; cli.main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_commands_make_a_blend(tmp_path):
    options = ["--set=data.dataset=digits_blend", "--set=data.resolution=4"]
    source, subset = tmp_path / "source.npz", tmp_path / "subset.npz"
    assert emm("data", *options, "--output", source).returncode == 0
    np.testing.assert_array_equal(read_source(source).images, BLEND.images)
    options += ["--set=data.size=50", "--set=data.alpha=0.8"]
    assert emm("subset", source, *options, "--output", subset).returncode == 0
    made = read_subset(subset)
    assert made.classes.tolist() == [0] * 9 + [1] * 41
    assert made.images.shape == (50, 4, 4, 1)
    refused = emm("subset", source, "--set=data.size=184", *options[:2], "--set=data.alpha=0",
                  "--output", subset)  # fmt: skip
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: data.size 184: with data.alpha 0 needs 184 images of the first kind, of which "
        "there are 183\n"
    )
