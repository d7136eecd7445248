"""Exact two nearest training images of 8-bit samples, the same on NumPy, CuPy and torch.

Squared distances come from inner products, `|a|^2 + |b|^2 - 2 a.b`, with every term an integer.
Centred values lie in -128..127, so a product is at most 2**14 and the partial sums of 1024 of
them at most 2**24: a float32 matrix product over chunks of 1024 components never rounds, in
whatever order it sums. The chunks are added up as integers. Where the hardware multiplies bytes
and there is enough to compare, `nearest_int8` does the same faster.
"""

import contextlib
import functools
import hashlib
import math
import operator
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from emm.devices import take_gpus
from emm.errors import UserError

Array = Any  # a NumPy or CuPy array

CHUNK = 1024
LARGEST = 255**2  # squared difference of black and white
BUDGET = 1 << 30  # bytes of working memory

CHECK_COST = 1e9  # products done in the time that it takes to try the search by torch
IMPORT_COST = {"cpu": 2e11, "cuda": 5e12}  # products done in the time that it takes to load torch
_done = {"cpu": 0.0, "cuda": 0.0}  # products without torch


class Neighbours(NamedTuple):
    """Two nearest training images per sample, ordered by (squared distance, index).

    Both arrays are int64 of shape (N, 2). The two indices of a row differ.
    """

    indices: np.ndarray
    squared_distances: np.ndarray


class DistinctNeighbours(NamedTuple):
    """Neighbours among the distinct training images, beside those among all of them.

    `neighbours` points to the first occurrence of each image; `published` is what `two_nearest`
    returns with every copy counted as an image of its own; `n_duplicates` is the number of
    training images that repeat an earlier one.
    """

    neighbours: Neighbours
    published: Neighbours
    n_duplicates: int


class Tiling(NamedTuple):
    """How many samples and training images are compared at a time."""

    samples: int
    training: int


def two_nearest(
    samples: np.ndarray,
    training: np.ndarray,
    *,
    xp: ModuleType | None = None,
    budget: int = BUDGET,
) -> Neighbours:
    """Two nearest training images of each sample by Euclidean distance, in exact integers.

    `samples` (N, ...) and `training` (M, ...) are uint8 with equal image shapes and M >= 2. `xp`
    is NumPy or CuPy; None takes CuPy where there is a device. `budget` bounds the working memory
    in bytes. The result does not depend on `xp` or `budget`. Raises UserError for other input.
    """
    check_images(samples, training)
    xp = xp or array_module()
    device = "cpu" if xp is np else "cuda"
    if gains_by_torch(float(len(samples)) * training.size, device):
        from emm.score import nearest_int8

        keys = nearest_int8.search(samples, training, budget, device)
    else:
        keys = plain_search(samples, training, budget, xp)
    squared_distances = keys // len(training)
    return Neighbours(keys - squared_distances * len(training), squared_distances)


def plain_search(
    samples: Array, training: Array, budget: int, xp: ModuleType, *, apart: bool = False
) -> np.ndarray:
    """Keys of `search` with a tiling for a budget, in host memory; after the self-test."""
    self_test(xp)
    with full_precision(xp):
        tiling = choose_tiling(math.prod(training.shape[1:]), budget)
        return to_host(search(samples, training, tiling, xp, apart=apart))


def gains_by_torch(n_products: float, device: str) -> bool:
    """Whether `nearest_int8` is there for a search of so many products, and saves time.

    A process that has not loaded torch does so only where it has more to compare, in one search or
    in several, than could be compared meanwhile.
    """
    if n_products < CHECK_COST:
        return False
    if "torch" not in sys.modules:
        _done[device] += n_products
        if _done[device] < IMPORT_COST[device]:
            return False
    from emm.score import nearest_int8

    return nearest_int8.usable(device)


def nearest_distinct(
    samples: np.ndarray,
    training: np.ndarray,
    *,
    xp: ModuleType | None = None,
    budget: int = BUDGET,
) -> DistinctNeighbours:
    """Two nearest *distinct* training images: repeated images count once.

    A copy of a repeated image is otherwise as near to its second neighbour as to its first, and
    never passes for one. Input and errors as for `two_nearest`; fewer than two distinct images are
    a UserError.
    """
    check_images(samples, training)
    first, second = occurrences(training)
    if len(first) < 2:
        raise UserError(f"all {len(training)} training images are the same: two must differ")
    if len(first) == len(training):
        neighbours = two_nearest(samples, training, xp=xp, budget=budget)
        return DistinctNeighbours(neighbours, neighbours, 0)
    local = two_nearest(samples, training[first], xp=xp, budget=budget)
    neighbours = Neighbours(first[local.indices], local.squared_distances)
    published = _with_copies(neighbours, second[local.indices[:, 0]], len(training))
    return DistinctNeighbours(neighbours, published, len(training) - len(first))


def check_images(samples: np.ndarray, training: np.ndarray) -> None:
    """Raise UserError unless the two can be compared."""
    for name, images in (("samples", samples), ("training images", training)):
        if images.dtype != np.uint8:
            raise UserError(f"{name} are {images.dtype}: distances need 8-bit values (uint8)")
        if images.size == 0:
            raise UserError(f"{name} are empty: shape {images.shape}")
    if samples.shape[1:] != training.shape[1:]:
        shapes = [_times(images.shape[1:]) for images in (samples, training)]
        raise UserError(f"samples are {shapes[0]}, training images {shapes[1]}: sizes must agree")
    if len(training) < 2:
        raise UserError("one training image: the distance ratio needs at least two")


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def occurrences(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the first and of the second occurrence of each distinct image (-1 if single).

    Both are int64 (M,), by ascending first occurrence. Images are the same if their SHA-256 is.
    """
    first: dict[bytes, int] = {}
    second: dict[bytes, int] = {}
    for index, image in enumerate(images):
        digest = hashlib.sha256(image.tobytes()).digest()
        if first.setdefault(digest, index) != index:
            second.setdefault(digest, index)
    repeats = [second.get(digest, -1) for digest in first]
    return np.array(list(first.values()), np.int64), np.array(repeats, np.int64)


def count_duplicates(images: np.ndarray) -> int:
    """Number of images that repeat an earlier one."""
    return len(images) - len(occurrences(images)[0])


def _with_copies(distinct: Neighbours, second: np.ndarray, count: int) -> Neighbours:
    """Neighbours with copies counted: the nearest image's second occurrence competes for place 2.

    Further copies of either neighbour come later in the order, so they never take a place.
    """
    keys = distinct.squared_distances * count + distinct.indices
    repeated = np.where(second < 0, keys[:, 1], keys[:, 0] - distinct.indices[:, 0] + second)
    keys[:, 1] = np.minimum(keys[:, 1], repeated)
    squared_distances, indices = np.divmod(keys, count)
    return Neighbours(indices, squared_distances)


@functools.cache
def array_module(device: str = "auto") -> ModuleType:
    """CuPy where it is installed and finds a device, else NumPy.

    "cpu" is NumPy; "cuda" is CuPy, or a UserError that says what is missing.
    """
    if device == "cpu":
        return np
    take_gpus()
    try:
        import cupy

        missing = "" if cupy.cuda.runtime.getDeviceCount() > 0 else "no CUDA device is visible"
    except ImportError:
        missing = "CuPy is not installed: make setup CUDA=13"
    except RuntimeError as error:  # there is no driver
        missing = " ".join(str(error).split())
    if not missing:
        return cupy
    if device == "cuda":
        raise UserError(f"device cuda: {missing}; or take auto or cpu")
    return np


def to_host(array: Array) -> np.ndarray:
    """The array in host memory."""
    return array.get() if hasattr(array, "get") else array


def integer_type(components: int) -> type[np.signedinteger]:
    """Type that holds every squared distance of images with so many components.

    255**2 * components fits int32 up to 33,025 components; on the way to it no term is larger.
    """
    return np.int32 if LARGEST * components <= np.iinfo(np.int32).max else np.int64


def choose_tiling(components: int, budget: int) -> Tiling:
    """Tiling whose arrays stay within a budget in bytes (at least one image by one)."""
    samples = max(1, min(512, budget // 8 // (5 * components)))  # uint8 and float32
    integers = 2 * np.dtype(integer_type(components)).itemsize
    per_image = 5 * components + samples * (4 + integers)  # the same; products
    return Tiling(samples, max(1, min(8192, budget * 7 // 8 // per_image)))


def search(
    samples: np.ndarray,
    training: np.ndarray,
    tiling: Tiling,
    xp: ModuleType,
    *,
    apart: bool = False,
) -> Array:
    """Keys (N, 2) of the two nearest images: squared distance * len(training) + index, int64.

    The order of the keys is the order by (squared distance, index), so tiles merge by minimum and
    maximum and the result does not depend on the tiling. apart: whether an image is no neighbour
    of the sample at its own index, as where images are compared among themselves.
    """
    count, components = len(training), math.prod(training.shape[1:])
    best = xp.full((len(samples), 2), _farthest(components) * count, dtype=xp.int64)
    for start, images in blocks(training, tiling.training, xp):
        others = chunks(images, xp)
        other_norms = squared_norms(others, xp).astype(integer_type(components))
        for other in others:
            other *= -2  # a power of two: sums stay exact
        for row, block in blocks(samples, tiling.samples, xp):
            part = chunks(block, xp)
            tile = inner_products(part, others, other_norms.dtype)
            tile += other_norms
            if apart:
                own = xp.arange(max(row, start), min(row + len(block), start + len(images)))
                tile[own - row, own - start] = _farthest(components)
            distances, columns = two_smallest(tile, _farthest(components), xp)
            keys = (distances + squared_norms(part, xp)[:, None]) * count + (start + columns)
            rows = slice(row, row + len(block))
            best[rows] = merge(best[rows], keys, xp)
        del others, other  # or they would stay beside the next block's
    return best


def blocks(images: np.ndarray, size: int, xp: ModuleType) -> Iterator[tuple[int, Array]]:
    """Start index and values (at most `size`, K) of consecutive blocks, uint8 on the device."""
    for start in range(0, len(images), size):
        block = xp.asarray(images[start : start + size])
        yield start, block.reshape(len(block), -1)


def chunks(images: Array, xp: ModuleType) -> list[Array]:
    """Centred values of uint8 images (N, K) in float32, CHUNK components at a time."""
    starts = range(0, images.shape[1], CHUNK)
    return [xp.subtract(images[:, i : i + CHUNK], 128, dtype=xp.float32) for i in starts]


def squared_norms(parts: list[Array], xp: ModuleType) -> Array:
    """Squared norms (N,) of images given as chunks, int64; exact for the same reason."""
    return sum(xp.einsum("nk,nk->n", part, part).astype(np.int64) for part in parts)


def inner_products(parts: list[Array], others: list[Array], dtype: type) -> Array:
    """Exact inner products (N, M) of N and M images, both given as chunks."""
    products = (left @ right.T for left, right in zip(parts, others, strict=True))
    return functools.reduce(operator.iadd, (product.astype(dtype) for product in products))


def two_smallest(tile: Array, farthest: int, xp: ModuleType) -> tuple[Array, Array]:
    """Values and columns of the two smallest values per row, int64 (N, 2); overwrites the tile.

    Of equal values the first counts. A tile of one column has `farthest` for its second value.
    """
    rows, values, columns = xp.arange(len(tile)), [], []
    for _ in range(2):
        column = tile.argmin(axis=1)
        columns.append(column)
        values.append(tile[rows, column].astype(xp.int64))
        tile[rows, column] = farthest
    return xp.stack(values, axis=1), xp.stack(columns, axis=1)


def _farthest(components: int) -> int:
    """A value behind every squared distance that still fits `integer_type`."""
    return LARGEST * components + 1


def merge(first: Array, second: Array, xp: ModuleType) -> Array:
    """The two smallest keys (N, 2) of two ascending pairs without common keys."""
    small = xp.minimum(first[:, 0], second[:, 0])
    large = xp.maximum(first[:, 0], second[:, 0])
    return xp.stack([small, xp.minimum(large, xp.minimum(first[:, 1], second[:, 1]))], axis=1)


@contextlib.contextmanager
def full_precision(xp: ModuleType) -> Iterator[None]:
    """Keep CuPy's float32 products off TF32 and emulation, whatever CUPY_TF32 says."""
    linalg = getattr(getattr(xp, "_core", None), "_routines_linalg", None)
    if linalg is None:
        yield
        return
    before = linalg.get_compute_type("float32")
    linalg.set_compute_type("float32", linalg.COMPUTE_TYPE_PEDANTIC)
    try:
        yield
    finally:
        linalg.set_compute_type("float32", before)


@functools.cache
def self_test(xp: ModuleType) -> None:
    """Check inner products whose sums come up to 2**24, once per process and array module.

    Raises UserError where matrix products round (TF32, emulation, a Strassen-type library).
    """
    images = hard_images(128, 2 * CHUNK + 100)
    values = images.astype(np.float64) - 128  # float64 sums stay far below 2**53
    with full_precision(xp):
        parts = chunks(xp.asarray(images), xp)
        found = to_host(inner_products(parts, parts, np.int64))
    if not np.array_equal(found, values @ values.T):
        raise UserError(
            f"{xp.__name__}: float32 matrix products are not exact on this machine; "
            "to score on the CPU set CUDA_VISIBLE_DEVICES to nothing"
        )


def hard_images(count: int, components: int) -> np.ndarray:
    """Images with extreme inner products: black, white, nearly black, two-level and uniform."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, components), np.uint8)
    images[1::5] = 255
    images[2::5] = rng.random(images[2::5].shape) < 4 / components
    images[3::5] = rng.integers(0, 2, images[3::5].shape) * 255
    images[4::5] = rng.integers(0, 256, images[4::5].shape)
    return images
