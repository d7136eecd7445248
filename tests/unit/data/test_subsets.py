import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from emm.data.sources import Source, load_source
from emm.data.subsets import resize, select
from emm.errors import UserError

SIZES = st.integers(1, 60)


def source_of(labels, classes: int) -> Source:
    labels = np.asarray(labels, np.int64)
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    return Source(images, labels, tuple(f"class {c}" for c in range(classes)))


@st.composite
def balanced_sources(draw):
    """60 images of each of 1 to 6 classes, in any order."""
    classes = draw(st.integers(1, 6))
    labels = np.repeat(np.arange(classes), 60)
    return source_of(np.random.default_rng(draw(st.integers(0, 99))).permutation(labels), classes)


@given(source=balanced_sources(), share=st.integers(1, 60))
def test_balanced_prefix_is_the_first_images_of_each_class(source, share):
    classes = source.num_classes
    index = select(source, size=share * classes)
    assert index.dtype == np.int64
    for label, rows in enumerate(index.reshape(classes, share)):
        assert rows.tolist() == [i for i, c in enumerate(source.labels) if c == label][:share]


@given(source=balanced_sources(), shares=st.tuples(SIZES, SIZES))
def test_balanced_prefixes_are_nested(source, shares):
    small, large = (set(select(source, size=s * source.num_classes)) for s in sorted(shares))
    assert small <= large


@given(source=balanced_sources(), size=SIZES)
def test_remainder_goes_to_the_last_class(source, size):
    classes = source.num_classes
    counts = np.bincount(source.labels[select(source, size=size)], minlength=classes)
    assert counts.sum() == size
    if size < classes:
        assert counts.tolist() == [1] * size + [0] * (classes - size)
    else:
        assert set(counts[:-1]) <= {size // classes}
        assert counts[-1] == size // classes + size % classes


@given(source=balanced_sources(), classes=st.integers(1, 6), share=st.integers(1, 60))
def test_first_classes_by_index(source, classes, share):
    assume(classes <= source.num_classes)
    index = select(source, size=share * classes, num_classes=classes)
    assert np.bincount(source.labels[index]).tolist() == [share] * classes


@given(
    source=balanced_sources(),
    shares=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    selection=st.sampled_from(["balanced_prefix", "random"]),
)
def test_parts_are_disjoint_and_nested(source, shares, selection):
    small, large = (
        [
            set(select(source, size=s * source.num_classes, selection=selection, part=part))
            for part in (1, 2)
        ]
        for s in sorted(shares)
    )
    assert not large[0] & large[1]
    assert [len(part) for part in large] == [max(shares) * source.num_classes] * 2
    assert small[0] <= large[0]
    assert small[1] <= large[1]


@pytest.mark.parametrize("selection", ["balanced_prefix", "random"])
@pytest.mark.parametrize("classes", [0, 2])
def test_no_second_part_where_it_would_share_images(selection, classes):
    source = source_of(np.arange(20) % classes if classes else np.full(20, -1), classes)
    assert len(select(source, size=10, selection=selection, part=2)) == 10
    with pytest.raises(UserError, match=r"data\.part 2: two disjoint subsets need"):
        select(source, size=12, selection=selection, part=2)
    with pytest.raises(UserError, match=r"data\.part 2"):
        select(source, selection=selection, part=2)


def test_published_sizes_of_figure_2b():
    source = source_of(np.arange(50_000) % 10, 10)
    for classes in (1, 2, 5, 10):
        index = select(source, size=1000, num_classes=classes)
        assert np.bincount(source.labels[index]).tolist() == [1000 // classes] * classes
    assert select(source, size=1000)[:3].tolist() == [0, 10, 20]
    assert select(source, size=1000)[100] == 1


def test_everything_is_sorted_by_class():
    source = load_source("digits")
    index = select(source)
    assert sorted(index) == list(range(1797))
    assert (np.diff(source.labels[index]) >= 0).all()
    assert len(select(source, num_classes=2)) == 178 + 182


@given(size=SIZES)
def test_source_without_classes_gives_a_prefix(size):
    assert select(source_of([-1] * 60, 0), size=size).tolist() == list(range(size))


@given(sizes=st.tuples(SIZES, SIZES), seed=st.integers(0, 2**62), classes=st.integers(0, 3))
def test_random_selections_of_a_seed_are_nested(sizes, seed, classes):
    labels = np.arange(60) % classes if classes else [-1] * 60
    source = source_of(labels, classes)
    short, long = (
        select(source, size=n, selection="random", seed=seed).tolist() for n in sorted(sizes)
    )
    assert long[: len(short)] == short
    assert len(set(long)) == len(long)
    assert set(long) <= set(range(60))


def test_random_selection_is_fixed_by_its_seed():
    source = source_of([-1] * 1000, 0)
    chosen = [select(source, size=500, selection="random", seed=s) for s in (0, 0, 1)]
    np.testing.assert_array_equal(chosen[0], chosen[1])
    assert 200 < len(set(chosen[0]) & set(chosen[2])) < 300
    assert chosen[0][:5].tolist() == [634, 687, 81, 951, 371]
    assert sorted(select(source, selection="random")) == list(range(1000))


def test_random_selection_keeps_to_the_first_classes():
    source = source_of(np.arange(60) % 3, 3)
    index = select(source, num_classes=2, selection="random")
    assert sorted(index) == [i for i in range(60) if i % 3 < 2]


def test_images_without_class_are_left_out_where_others_have_one():
    source = source_of([-1, 0, 1, -1, 0], 2)
    assert select(source).tolist() == [1, 4, 2]
    assert sorted(select(source, selection="random")) == [1, 2, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1790}, "needs 179 images of class 0, which has 178; at most 1740"),
        ({"size": 1798}, "only 1797"),
        ({"size": 361, "num_classes": 2}, "only 360"),
        ({"size": 1798, "selection": "random"}, "only 1797"),
        ({"size": 0}, "at least one"),
        ({"size": 10, "num_classes": 11}, "has 10 classes"),
        ({"size": 10, "num_classes": 0}, "has 10 classes"),
        ({"size": 10, "selection": "best"}, "allowed: balanced_prefix, random"),
    ],
)
def test_impossible_subsets_are_user_errors(options, message):
    with pytest.raises(UserError, match=message):
        select(load_source("digits"), **options)


def test_class_count_of_a_source_without_classes_is_a_user_error():
    with pytest.raises(UserError, match="has no classes"):
        select(source_of([-1] * 5, 0), size=2, num_classes=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_lanczos_of_each_image_and_channel(channels):
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, channels), np.uint8)
    small = resize(images, 16)
    assert (small.shape, small.dtype) == ((5, 16, 16, channels), np.uint8)
    for image, result in zip(images, small, strict=True):
        for channel in range(channels):
            alone = Image.fromarray(image[..., channel]).resize((16, 16), Image.LANCZOS)
            np.testing.assert_array_equal(result[..., channel], np.asarray(alone))


def test_lanczos_matches_the_formula_of_the_filter():
    """Lanczos-3 at half the size: kernel sinc(x/2) sinc(x/6), normalised where it is cut off."""
    row = np.random.default_rng(1).integers(60, 190, 32).astype(np.uint8)
    images = np.broadcast_to(row[:, None], (1, 32, 32, 1))
    offsets = np.arange(32) + 0.5 - 2 * (np.arange(16)[:, None] + 0.5)
    kernel = np.where(np.abs(offsets) < 6, np.sinc(offsets / 2) * np.sinc(offsets / 6), 0)
    expected = kernel / kernel.sum(1, keepdims=True) @ row
    found = resize(np.ascontiguousarray(images), 16)[0, 3, :, 0]
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_equal_size_is_untouched():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 4), np.uint8)
    np.testing.assert_array_equal(resize(images, 8), images)


@pytest.mark.parametrize(("height", "width"), [(12, 8), (8, 13)])
def test_the_centre_of_oblong_images_is_used(height, width):
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    top, left = (height - 8) // 2, (width - 8) // 2
    centre = images[:, top : top + 8, left : left + 8]
    np.testing.assert_array_equal(resize(images, 8), centre)
    np.testing.assert_array_equal(resize(images, 4), resize(centre, 4))


@pytest.mark.parametrize(
    ("shape", "resolution", "message"),
    [((8, 8, 1), 16, "8 pixels"), ((8, 12, 3), 9, "8 pixels"), ((8, 8, 4), 4, "4-channel")],
)
def test_impossible_resolutions_are_user_errors(shape, resolution, message):
    with pytest.raises(UserError, match=message):
        resize(np.zeros((1, *shape), np.uint8), resolution)


@settings(max_examples=20, deadline=None)
@given(value=st.integers(0, 255), resolution=st.integers(1, 9))
def test_flat_images_stay_flat(value, resolution):
    small = resize(np.full((1, 9, 9, 3), value, np.uint8), resolution)
    assert set(small.ravel()) == {value}
