"""The search of `nearest` with 8-bit products summed in 32 bits, by torch on a CPU or a GPU.

Centred values fit int8 and the sum of 2**16 products int32, so that one product of matrices per
tile is exact where the hardware multiplies bytes: AVX-512 VNNI and its kin, tensor cores. What
comes before and after a product is done here for a CPU and by `nearest_cuda` for a GPU.
"""

import contextlib
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from emm.score import nearest
from emm.score.nearest import Tiling

Array = Any  # a NumPy or CuPy array

CHUNK = 1 << 16  # components; products are at most 2**14
ROWS, COLUMNS, COMPONENTS = 32, 16, 16  # of a product: multiples, as tensor cores like them
AT_ONCE = 1 << 17  # values whose squares are summed while they are in a cache
ATTEMPTS = 3
TRIED = 2048  # samples


class Steps(NamedTuple):
    """What a device does its own way: `centre` and `merge_tile` as below, in tiles of some size.

    ready: a context in which torch computes on the device.
    """

    device: str
    largest: Tiling
    centre: Callable[[Tensor, tuple[int, int]], tuple[Tensor, Tensor]]
    merge_tile: Callable[[Tensor, Tensor, Tensor, Tensor, int, int], None]
    ready: Callable[[], contextlib.AbstractContextManager]


def steps_on(device: str) -> Steps:
    """The steps on cpu or cuda."""
    if device == "cpu":  # tiles that stay in a cache
        return Steps(device, Tiling(1024, 2048), centre, merge_tile, contextlib.nullcontext)
    from emm.score import nearest_cuda

    return nearest_cuda.STEPS


@functools.cache
def usable(device: str) -> bool:
    """Whether products of bytes on cpu or cuda are there, exact, and faster than the plain search.

    Tried once per process, because nothing says so beforehand: CPUs without VNNI may saturate, and
    some do the products in a plain loop. On GPUs tensor cores are taken to be faster.
    """
    if device == "cuda":
        return _has_tensor_cores() and _usable_gpu()
    try:
        return is_exact(device) and is_faster()
    except (AttributeError, RuntimeError):  # torch has no such products here
        return False


def _usable_gpu() -> bool:
    """Says why where kernels cannot be compiled, or are wrong: the plain search takes longer."""
    try:
        with steps_on("cuda").ready():
            right = is_exact("cuda") and is_right()
        problem = "" if right else "it was wrong about images with known distances"
    except Exception as error:  # of torch, CuPy, its compiler, or the driver
        problem = " ".join(str(error).split())[:200] or type(error).__name__
    if problem:
        print(f"the fast search is not used on this GPU: {problem}", file=sys.stderr, flush=True)
    return not problem


def _has_tensor_cores() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def is_exact(device: str) -> bool:
    """Whether sums of 8-bit products come out right, the largest that there are among them."""
    images = nearest.hard_images(128, 2 * nearest.CHUNK + 100)
    values = images.astype(np.float64) - 128  # float64 sums stay far below 2**53
    centred = centred_images(images, COLUMNS, steps_on(device))[0]
    found = inner_products(centred, centred, torch.int32)
    return np.array_equal(found.cpu().numpy(), values @ values.T)


def is_right() -> bool:
    """Whether a search in several tiles on this GPU finds what the plain one does.

    Where kernels and products did not wait for each other, distances would be lost.
    """
    images = nearest.hard_images(4 * TRIED, 3 * nearest.CHUNK)
    samples, training = images[:TRIED], images[TRIED:]
    expected = nearest.plain_search(samples, training, nearest.BUDGET, nearest.array_module())
    tiling, steps = Tiling(TRIED // 8, TRIED), steps_on("cuda")
    found = search_part(samples, training, tiling, steps).cpu().numpy()
    return np.array_equal(found, expected)


def is_faster() -> bool:
    """Whether 8-bit products on this CPU take less time than float32 ones, on one thread each.

    What this thread computes is timed, so that a busy machine does not decide.
    """
    images = nearest.hard_images(256, 2 * nearest.CHUNK)
    centred = centred_images(images, COLUMNS, steps_on("cpu"))[0]
    values, threads = centred.float(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain = _seconds(lambda: values @ values.T)
        return _seconds(lambda: inner_products(centred, centred, torch.int32)) < plain
    finally:
        torch.set_num_threads(threads)


def _seconds(function: Callable[[], object]) -> float:
    """The least of a few times of this thread."""
    times = []
    for _ in range(ATTEMPTS):
        started = time.thread_time()
        function()
        times.append(time.thread_time() - started)
    return min(times)


def search(samples: Array, training: Array, budget: int, device: str) -> np.ndarray:
    """Keys of `nearest.search`, int64 (N, 2): squared distance * len(training) + index.

    Images are in host memory or, as CuPy arrays, in the GPU's; `device` is cpu or cuda. `budget`
    bounds the working memory in bytes, down to a tile of ROWS by COLUMNS images. Samples that fit
    half of it are moved to the device once, and so are the training images then; nothing is read
    back before all are compared.
    """
    steps, components = steps_on(device), math.prod(samples.shape[1:])
    at_once = max(ROWS, budget // 2 // (2 * components + 64))  # uint8 and int8 images; keys, norms
    tiling = choose_tiling(components, budget // 2, steps.largest)
    parts = (samples[rows] for rows in _slices(len(samples), at_once))
    with steps.ready():
        found = [search_part(part, training, tiling, steps).cpu().numpy() for part in parts]
    return np.concatenate(found)


def choose_tiling(components: int, budget: int, largest: Tiling) -> Tiling:
    """Tiling, in multiples of ROWS and COLUMNS, whose arrays stay within a budget in bytes."""
    products = 4 if nearest.integer_type(components) is np.int32 else 4 + 8  # and their sum
    rows = _multiple(min(largest.samples, budget // 8 // (products * COLUMNS)), ROWS)
    per_image = 2 * components + 32 + rows * products  # uint8 and int8; norms
    return Tiling(rows, _multiple(min(largest.training, budget * 7 // 8 // per_image), COLUMNS))


def _multiple(count: int, of: int) -> int:
    """The largest multiple up to a count, but at least one."""
    return max(1, count // of) * of


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def search_part(samples: Array, training: Array, tiling: Tiling, steps: Steps) -> Tensor:
    """Keys (N, 2) of samples that the device holds all at once; int64, on the device."""
    count, components = len(training), math.prod(samples.shape[1:])
    dtype = torch.int32 if nearest.integer_type(components) is np.int32 else torch.int64
    farthest = nearest.LARGEST * components + 1
    centred, norms = centred_images(samples, ROWS, steps)
    best = torch.full((len(centred), 2), farthest * count, dtype=torch.int64, device=steps.device)
    memory = torch.empty(math.prod(tiling), dtype=torch.int32, device=steps.device)
    for columns in _slices(count, tiling.training):
        others, other_norms = centred_images(training[columns], COLUMNS, steps)
        other_norms[columns.stop - columns.start :] = farthest  # what fills up is no image
        other_norms = other_norms.to(dtype)
        for rows in _slices(len(centred), tiling.samples):
            tile = inner_products(centred[rows], others, dtype, memory)
            steps.merge_tile(tile, norms[rows], other_norms, best[rows], columns.start, count)
        del others  # or it would stay beside the next tile's
    return best[: len(samples)]


def centred_images(images: Array, multiple: int, steps: Steps) -> tuple[Tensor, Tensor]:
    """uint8 images (N, ...) less 128, as int8 (N', K') on the device, and their squared norms.

    Zeros fill up N to a multiple and K to one of COMPONENTS.
    """
    values = _on_device(images.reshape(len(images), -1), steps.device)
    count, components = values.shape
    shape = -(-count // multiple) * multiple, -(-components // COMPONENTS) * COMPONENTS
    return steps.centre(values, shape)


def _on_device(values: Array, device: str) -> Tensor:
    """A NumPy or CuPy array as a tensor; without a copy where it is on the device already."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(np.require(values, requirements=("C", "W"))).to(device)
    return torch.from_dlpack(values if values.flags.c_contiguous else values.copy())


def centre(values: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """uint8 images (N, K) less 128 as int8 of a shape (N', K'), and squared norms (N',), int64.

    Zeros fill up the images. In NumPy: torch's threads would wait for each other at every step.
    """
    count, components = values.shape
    centred = np.zeros(shape, np.uint8)
    np.bitwise_xor(values.numpy(), np.uint8(128), out=centred[:count, :components])
    centred = centred.view(np.int8)
    norms = np.empty(shape[0], np.int64)
    for rows in _slices(shape[0], max(1, AT_ONCE // shape[1])):
        norms[rows] = squared_norms(centred[rows])
    return torch.from_numpy(centred), torch.from_numpy(norms)


def squared_norms(images: np.ndarray) -> np.ndarray:
    """Squared norms (N,) of a few int8 images (N, K), int64; in float32, exact as in `nearest`."""
    starts, values = range(0, images.shape[1], nearest.CHUNK), images.astype(np.float32)
    chunks = (values[:, i : i + nearest.CHUNK] for i in starts)
    return sum(np.vecdot(chunk, chunk).astype(np.int64) for chunk in chunks)


def inner_products(
    images: Tensor, others: Tensor, dtype: torch.dtype, memory: Tensor | None = None
) -> Tensor:
    """Exact inner products (N, M) of int8 images (N, K) and (M, K), int32 (K <= CHUNK) or int64.

    memory: N * M int32 values or more to write to; the result may lie there.
    """
    shape = len(images), len(others)
    if memory is None:
        memory = torch.empty(math.prod(shape), dtype=torch.int32, device=images.device)
    product = memory[: math.prod(shape)].view(shape)
    total = product if dtype == torch.int32 else torch.zeros_like(product, dtype=dtype)
    for left, right in zip(images.split(CHUNK, dim=1), others.split(CHUNK, dim=1), strict=True):
        torch._int_mm(left, right.T, out=product)
        if total is not product:
            total += product
    return total


def merge_tile(
    products: Tensor, norms: Tensor, other_norms: Tensor, best: Tensor, start: int, count: int
) -> None:
    """Merge the two nearest of a tile into the two smallest keys so far, `best` (N, 2).

    products: inner products (N, M) of samples and the training images `start` and on, of `count`;
    overwritten. norms: squared norms of both, (N,) in int64 and (M,) in the type of the products.
    """
    tile = torch.sub(other_norms, products, alpha=2, out=products).numpy()
    farthest = np.iinfo(tile.dtype).max
    distances, columns = nearest.two_smallest(tile, farthest, np)
    keys = (distances + norms.numpy()[:, None]) * count + (start + columns)
    best.copy_(torch.from_numpy(nearest.merge(best.numpy(), keys, np)))
