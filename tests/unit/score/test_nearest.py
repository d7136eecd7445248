"""Exact neighbours against integer differences, on random and adversarial images."""

import math
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emm.errors import UserError
from emm.score import nearest
from emm.score.nearest import Neighbours, Tiling, nearest_distinct, two_nearest

SHAPES = [(8, 8, 3), (32, 32, 3), (64, 64, 3), (256, 256, 3)]


def by_differences(samples: np.ndarray, training: np.ndarray) -> Neighbours:
    """The definition: int64 differences, squared and summed; a stable sort for ties."""
    flat = samples.reshape(len(samples), -1).astype(np.int64)
    others = training.reshape(len(training), -1).astype(np.int64)
    squared = np.stack([((flat - other) ** 2).sum(axis=1) for other in others], axis=1)
    indices = np.argsort(squared, axis=1, kind="stable")[:, :2]
    return Neighbours(indices, np.take_along_axis(squared, indices, axis=1))


def assert_same(found: Neighbours, expected: Neighbours) -> None:
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.squared_distances, expected.squared_distances)
    assert found.indices.dtype == found.squared_distances.dtype == np.int64


def with_tiling(samples: np.ndarray, training: np.ndarray, tiling: Tiling) -> Neighbours:
    keys = nearest.search(samples, training, tiling, np)
    return Neighbours(keys % len(training), keys // len(training))


def uniform(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(math.prod(shape)))
def test_random_images_and_copies(shape):
    training = uniform(1, 13, *shape)
    samples = np.concatenate([uniform(2, 3, *shape), training[[0, 5, 12]]])
    found = two_nearest(samples, training, xp=np)
    assert_same(found, by_differences(samples, training))
    np.testing.assert_array_equal(found.indices[3:, 0], [0, 5, 12])
    np.testing.assert_array_equal(found.squared_distances[3:, 0], 0)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(math.prod(shape)))
def test_hard_images_against_each_other(shape):
    images = nearest.hard_images(15, math.prod(shape)).reshape(-1, *shape)
    assert_same(two_nearest(images, images, xp=np), by_differences(images, images))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(math.prod(shape)))
def test_black_and_white(shape):
    black, white = np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)
    found = two_nearest(np.stack([black, white]), np.stack([white, white]), xp=np)
    largest = 255**2 * math.prod(shape)
    np.testing.assert_array_equal(found.squared_distances, [[largest, largest], [0, 0]])
    np.testing.assert_array_equal(found.indices, [[0, 1], [0, 1]])


def test_differences_do_not_wrap_around():
    samples = np.zeros((1, 4, 4, 3), np.uint8)
    training = np.stack([samples[0] + 255, samples[0] + 2, samples[0] + 254])  # -255 wraps to 1
    np.testing.assert_array_equal(two_nearest(samples, training, xp=np).indices, [[1, 2]])


@pytest.mark.parametrize("count", [1, 7, 256, 513])
@pytest.mark.parametrize("n_training", [2, 9, 100])
def test_odd_counts(count, n_training):
    samples, training = uniform(3, count, 5, 5, 3), uniform(4, n_training, 5, 5, 3)
    assert_same(two_nearest(samples, training, xp=np), by_differences(samples, training))


def test_duplicates_and_triplicates_are_found_by_index():
    training = uniform(5, 9, 8, 8, 3)
    training[[4, 7]] = training[1]
    training[8] = training[0]
    found = two_nearest(training[[1, 0, 2]], training, xp=np)
    np.testing.assert_array_equal(found.indices[:2], [[1, 4], [0, 8]])
    np.testing.assert_array_equal(found.squared_distances[:2], 0)
    assert_same(found, by_differences(training[[1, 0, 2]], training))


@pytest.mark.parametrize("tiling", [(1, 1), (2, 1), (1, 2), (3, 4), (5, 3), (64, 64)])
def test_ties_across_tiles(tiling):
    training = np.random.default_rng(6).integers(0, 2, (11, 3, 1, 1), dtype=np.uint8)
    samples = np.random.default_rng(7).integers(0, 2, (8, 3, 1, 1), dtype=np.uint8)
    found = with_tiling(samples, training, Tiling(*tiling))
    assert_same(found, by_differences(samples, training))


def test_nearest_in_the_last_row():
    training = uniform(8, 17, 8, 8, 3)
    samples = training[-1:].copy()
    samples[0, 0, 0, 0] ^= 1
    for rows in (1, 4, 16, 17):
        found = with_tiling(samples, training, Tiling(1, rows))
        assert found.indices[0, 0] == 16
        assert found.squared_distances[0, 0] == 1


@pytest.mark.parametrize(
    "view",
    [
        lambda images: images[::2],
        lambda images: images[::-1],
        lambda images: images[:, ::-1, 1:],
        lambda images: images.transpose(0, 3, 1, 2),
        np.asfortranarray,
    ],
)
def test_views_give_the_result_of_their_copies(view):
    samples, training = view(uniform(9, 6, 8, 8, 3)), view(uniform(10, 12, 8, 8, 3))
    assert not training.flags.c_contiguous
    expected = two_nearest(samples.copy("C"), training.copy("C"), xp=np)
    assert_same(two_nearest(samples, training, xp=np), expected)


few_levels = st.sampled_from([0, 1, 128, 255])


@st.composite
def pairs(draw):
    components = draw(st.integers(1, 4))
    shapes = [(draw(st.integers(low, 8)), components) for low in (1, 2)]
    return [draw(hnp.arrays(np.uint8, shape, elements=few_levels)) for shape in shapes]


@settings(max_examples=100, deadline=None)
@given(pairs(), st.integers(1, 9), st.integers(1, 9))
def test_any_tiling_gives_the_definition(images, sample_rows, training_rows):
    found = with_tiling(*images, Tiling(sample_rows, training_rows))
    assert_same(found, by_differences(*images))


@settings(max_examples=100, deadline=None)
@given(pairs(), st.randoms(use_true_random=False))
def test_order_of_training_images_only_renames_them(images, random):
    samples, training = images
    order = np.array(random.sample(range(len(training)), len(training)))
    before, after = (two_nearest(samples, x, xp=np) for x in (training, training[order]))
    np.testing.assert_array_equal(before.squared_distances, after.squared_distances)
    assert_same(after, by_differences(samples, training[order]))


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_images_are_their_own_nearest_and_the_rule_is_symmetric(images):
    _, training = images
    found = two_nearest(training, training, xp=np)
    assert (found.squared_distances[:, 0] == 0).all()
    assert (training[found.indices[:, 0]] == training).all()
    assert_same(two_nearest(255 - training, 255 - training, xp=np), found)


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_merge_takes_the_two_smallest(images):
    keys = np.random.default_rng(images[0].size).permutation(64).reshape(16, 4)
    first, second = np.sort(keys[:, :2], axis=1), np.sort(keys[:, 2:], axis=1)
    np.testing.assert_array_equal(nearest.merge(first, second, np), np.sort(keys, axis=1)[:, :2])


@pytest.mark.parametrize("components", [3072, 12288, 196608])
def test_chunks_of_1024_are_exact_and_no_larger_ones(components, monkeypatch):
    images = np.zeros((4, components), np.uint8)
    images[:, ::4096] = 1  # 1023 * 2**14 + 127**2, odd: the last bit counts up to 2**24
    images[1] = 0  # black against black: 2**24 itself
    values = images.astype(np.int64) - 128
    errors = {}
    for chunk in (1024, 2048):
        monkeypatch.setattr(nearest, "CHUNK", chunk)
        parts = nearest.chunks(images, np)
        found = nearest.inner_products(parts, parts, np.int64)
        errors[chunk] = np.abs(found - values @ values.T).max()
    assert errors[1024] == 0
    assert errors[2048] > 0


def test_one_component_more_than_1024_is_too_many(monkeypatch):
    images = np.zeros((2, 1025), np.uint8)
    images[:, -1] = 127  # 1024 * 2**14 + 1 is no float32
    parts = nearest.chunks(images, np)
    exact = nearest.inner_products(parts, parts, np.int64)
    assert exact[0, 0] == 2**24 + 1
    monkeypatch.setattr(nearest, "CHUNK", 1025)
    parts = nearest.chunks(images, np)
    rounded = nearest.inner_products(parts, parts, np.int64)
    assert rounded[0, 0] != 2**24 + 1


def test_self_test_passes_here_and_fails_where_products_round(monkeypatch):
    nearest.self_test.__wrapped__(np)
    monkeypatch.setattr(nearest, "CHUNK", 2048)
    with pytest.raises(UserError, match="not exact on this machine"):
        nearest.self_test.__wrapped__(np)


@pytest.mark.parametrize(("components", "expected"), [(33025, np.int32), (33026, np.int64)])
def test_integer_type_at_its_limit(components, expected):
    assert nearest.integer_type(components) is expected
    images = np.zeros((3, components), np.uint8)
    images[1:] = 255
    found = two_nearest(images, images, xp=np)
    np.testing.assert_array_equal(
        found.squared_distances, [[0, 255**2 * components], *[[0, 0]] * 2]
    )


def test_working_memory_stays_within_the_budget():
    samples, training = uniform(11, 6, 256, 256, 3), uniform(12, 40, 256, 256, 3)
    expected = two_nearest(samples, training, xp=np)
    budget = 8 << 20
    tracemalloc.start()
    found = two_nearest(samples, training, xp=np, budget=budget)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < budget
    assert_same(found, expected)


@pytest.mark.parametrize("components", [1, 192, 3072, 196608, 10**7])
@pytest.mark.parametrize("budget", [1, 1 << 20, 1 << 30])
def test_tiling_has_at_least_one_image_and_at_most_the_budget(components, budget):
    samples, training = nearest.choose_tiling(components, budget)
    assert 1 <= samples <= 512
    assert 1 <= training <= 8192
    assert training == 1 or training * components * 4 <= budget


@pytest.mark.parametrize(
    ("samples", "training", "message"),
    [
        (np.zeros((1, 2, 2, 3)), np.zeros((2, 2, 2, 3), np.uint8), "samples are float64"),
        (np.zeros((1, 4), np.uint8), np.zeros((2, 4), np.int64), "training images are int64"),
        (np.zeros((0, 4), np.uint8), np.zeros((2, 4), np.uint8), "samples are empty"),
        (np.zeros((1, 4), np.uint8), np.zeros((0, 4), np.uint8), "training images are empty"),
        (np.zeros((1, 4), np.uint8), np.zeros((1, 4), np.uint8), "at least two"),
        (np.zeros((1, 2, 2, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8), "2x2x3.*4x4x3"),
    ],
)
@pytest.mark.parametrize("search", [two_nearest, nearest_distinct])
def test_bad_input_is_one_line(samples, training, message, search):
    with pytest.raises(UserError, match=message) as caught:
        search(samples, training, xp=np)
    assert "\n" not in str(caught.value)


def test_distinct_images_are_the_first_of_their_kind():
    training = uniform(13, 7, 4, 4, 3)
    training[[2, 5]] = training[0]
    training[6] = training[3]
    found = nearest_distinct(training, training, xp=np)
    np.testing.assert_array_equal(found.neighbours.indices[:, 0], [0, 1, 0, 3, 4, 0, 3])
    assert set(found.neighbours.indices[:, 1]) <= {0, 1, 3, 4}
    assert (found.neighbours.squared_distances[:, 1] > 0).all()
    assert found.n_duplicates == nearest.count_duplicates(training) == 3
    assert_same(found.published, two_nearest(training, training, xp=np))


@settings(max_examples=200, deadline=None)
@given(pairs())
def test_copies_are_counted_as_a_search_among_all_images_would(images):
    samples, training = images
    kinds = np.unique(training, axis=0)
    if len(kinds) < 2:
        with pytest.raises(UserError, match="two must differ"):
            nearest_distinct(samples, training, xp=np)
        return
    found = nearest_distinct(samples, training, xp=np)
    assert_same(found.published, by_differences(samples, training))
    expected = by_differences(samples, kinds).squared_distances
    np.testing.assert_array_equal(found.neighbours.squared_distances, expected)
    assert found.n_duplicates == len(training) - len(kinds)


def test_without_duplicates_there_is_one_search(monkeypatch):
    searches = []
    nothing = np.zeros((1, 2), int)
    monkeypatch.setattr(nearest, "search", lambda *a, **k: searches.append(a) or nothing)
    nearest_distinct(uniform(14, 1, 8), uniform(15, 5, 8), xp=np)
    assert len(searches) == 1


def fake_cupy(count):
    def device_count():
        if count is None:
            raise RuntimeError("cudaErrorInsufficientDriver")
        return count

    runtime = SimpleNamespace(getDeviceCount=device_count)
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))


@pytest.mark.parametrize("cupy", [None, fake_cupy(0), fake_cupy(None)])
def test_numpy_where_there_is_no_device(cupy, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert nearest.array_module.__wrapped__() is np


def test_cupy_where_there_is_a_device(monkeypatch):
    cupy = fake_cupy(2)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert nearest.array_module.__wrapped__() is cupy


def test_full_precision_sets_and_restores_the_compute_type():
    state = ["tf32"]
    linalg = SimpleNamespace(
        COMPUTE_TYPE_PEDANTIC="pedantic",
        get_compute_type=lambda dtype: state[-1],
        set_compute_type=lambda dtype, value: state.append(value),
    )
    cupy = SimpleNamespace(_core=SimpleNamespace(_routines_linalg=linalg))
    with nearest.full_precision(cupy):
        assert state[-1] == "pedantic"
    assert state[-1] == "tf32"
    interrupted = nearest.full_precision(cupy)
    interrupted.__enter__()
    interrupted.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert state == ["tf32", "pedantic", "tf32", "pedantic", "tf32"]


def test_scoring_imports_no_torch():
    code = "import sys, emm.score.stage; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
