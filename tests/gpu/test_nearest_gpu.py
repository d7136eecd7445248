"""CuPy gives bit for bit what NumPy gives. Skipped where there is no CuPy or no device."""

import math

import numpy as np
import pytest
import torch

from emm.score import nearest, nearest_int8
from emm.score.nearest import Tiling, nearest_distinct, two_nearest

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cupy():
    module = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        found = module.cuda.runtime.getDeviceCount()
    except RuntimeError as error:
        pytest.skip(f"no CUDA driver: {error}")
    if not found:
        pytest.skip("no CUDA device")
    return module


def images(seed: int, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Hard images, uniform ones, and copies of both."""
    hard = nearest.hard_images(count // 2, math.prod(shape)).reshape(-1, *shape)
    rng = np.random.default_rng(seed)
    uniform = rng.integers(0, 256, (count - len(hard), *shape), dtype=np.uint8)
    return np.concatenate([hard, uniform])[rng.integers(0, count, count)]


def assert_same(found, expected) -> None:
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.squared_distances, expected.squared_distances)


def test_self_test(cupy):
    nearest.self_test.__wrapped__(cupy)


@pytest.mark.parametrize("shape", [(8, 8, 3), (32, 32, 3), (64, 64, 3), (256, 256, 3)])
def test_same_as_numpy(cupy, shape):
    samples, training = images(1, 45, shape), images(2, 61, shape)
    assert_same(two_nearest(samples, training, xp=cupy), two_nearest(samples, training, xp=np))


def test_many_blocks(cupy):
    samples, training = images(3, 1111, (16, 16, 3)), images(4, 9001, (16, 16, 3))
    assert_same(two_nearest(samples, training, xp=cupy), two_nearest(samples, training, xp=np))


@pytest.mark.parametrize("tiling", [(1, 1), (3, 4), (8, 64)])
def test_ties_across_tiles(cupy, tiling):
    training = np.random.default_rng(5).integers(0, 2, (50, 4), dtype=np.uint8)
    keys = [nearest.search(training, training, Tiling(*tiling), xp) for xp in (np, cupy)]
    np.testing.assert_array_equal(nearest.to_host(keys[1]), keys[0])


@pytest.mark.parametrize("view", [lambda x: x[::-2], lambda x: x.transpose(0, 3, 1, 2)])
def test_views(cupy, view):
    samples, training = view(images(6, 20, (8, 8, 3))), view(images(7, 30, (8, 8, 3)))
    assert_same(two_nearest(samples, training, xp=cupy), two_nearest(samples, training, xp=np))


def test_distinct_images(cupy):
    samples, training = images(8, 20, (8, 8, 3)), images(9, 64, (8, 8, 3))
    found, expected = (nearest_distinct(samples, training, xp=xp) for xp in (cupy, np))
    assert_same(found.neighbours, expected.neighbours)
    assert_same(found.published, expected.published)


def test_tf32_does_not_leak_in(cupy):
    linalg = cupy._core._routines_linalg
    before = linalg.get_compute_type("float32")
    linalg.set_compute_type("float32", linalg.COMPUTE_TYPE_TF32)
    try:
        samples, training = images(10, 300, (32, 32, 3)), images(11, 500, (32, 32, 3))
        chosen = linalg.get_compute_type("float32")
        assert_same(two_nearest(samples, training, xp=cupy), two_nearest(samples, training, xp=np))
        assert linalg.get_compute_type("float32") == chosen
    finally:
        linalg.set_compute_type("float32", before)


def test_cupy_is_the_default(cupy):
    assert nearest.array_module.__wrapped__() is cupy


def test_products_of_bytes_are_the_default_for_many_images(cupy):
    assert nearest_int8.usable("cuda")
    assert nearest.gains_by_torch(nearest.CHECK_COST, "cuda")  # the tests have loaded torch


@pytest.mark.parametrize("shape", [(5, 5, 1), (32, 32, 3), (256, 256, 3)])
@pytest.mark.parametrize("budget", [1, nearest.BUDGET])
def test_products_of_bytes(cupy, shape, budget):
    """Images from the host, and images that lie on the GPU."""
    samples, training = images(12, 45, shape), images(13, 161, shape)
    expected = nearest.plain_search(samples, training, nearest.BUDGET, np)
    for place in (np.asarray, cupy.asarray):
        found = nearest_int8.search(place(samples), place(training), budget, "cuda")
        np.testing.assert_array_equal(found, expected)


@pytest.fixture
def steps(cupy):
    return nearest_int8.steps_on("cuda")


@pytest.mark.parametrize("components", [1, 75, 3072, 33025, 33026])
def test_centred_images_of_the_kernel(steps, components):
    values = torch.from_numpy(nearest.hard_images(45, components))
    shape = 64, -(-components // 16) * 16
    found = steps.centre(values.cuda(), shape)
    for own, other in zip(found, nearest_int8.centre(values, shape), strict=True):
        assert torch.equal(own.cpu(), other)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("columns", [16, 144, 1024, 3000])
@pytest.mark.parametrize("high", [3, 1 << 24])
def test_two_smallest_of_the_kernel(steps, dtype, columns, high):
    """Few values tie often; two tiles, the second of which finds keys of the first."""
    generator = torch.Generator().manual_seed(0)
    norms = torch.randint(high, (96,), generator=generator)
    best = [torch.full((96, 2), 1 << 62, device=device) for device in ("cpu", "cuda")]
    for start in (0, columns):
        products = torch.randint(-high, high, (96, columns), generator=generator).to(dtype)
        others = torch.randint(high, (columns,), generator=generator).to(dtype)
        tile = (products.cuda(), norms.cuda(), others.cuda(), best[1], start, 2 * columns)
        steps.merge_tile(*tile)
        nearest_int8.merge_tile(products, norms, others, best[0], start, 2 * columns)
    assert torch.equal(best[1].cpu(), best[0])


def test_search_by_kernels_reads_nothing_back_before_its_end(cupy, steps):
    samples, training = (cupy.asarray(images(seed, 500, (8, 8, 3))) for seed in (14, 15))
    nearest_int8.search(samples, training, nearest.BUDGET, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with steps.ready():
            found = nearest_int8.search_part(samples, training, Tiling(64, 160), steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = nearest.plain_search(samples.get(), training.get(), nearest.BUDGET, np)
    np.testing.assert_array_equal(found.cpu().numpy(), expected)


def test_search_on_a_stream_of_cupys(cupy):
    samples, training = images(16, 300, (32, 32, 3)), images(17, 5000, (32, 32, 3))
    expected = nearest.plain_search(samples, training, nearest.BUDGET, np)
    with cupy.cuda.Stream(non_blocking=True):
        found = nearest_int8.search(
            cupy.asarray(samples), cupy.asarray(training), nearest.BUDGET, "cuda"
        )
    np.testing.assert_array_equal(found, expected)
