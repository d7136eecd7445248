"""The search of `nearest` with 8-bit products summed in 32 bits, by torch on a CPU or a GPU.

Centred values fit int8 and the sum of 2**16 products int32, so that one product of matrices per
tile is exact where the hardware multiplies bytes: AVX-512 VNNI and its kin, tensor cores. The tile
of distances is then read once, for the smallest one in each group of columns: a row's two nearest
are in the two groups whose smallest come first, and only these are sorted.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emm.score import nearest

Array = Any  # a NumPy or CuPy array

CHUNK = 1 << 16  # components; products are at most 2**14
GROUP = 64  # training images whose smallest distance is taken together
ROWS, COMPONENTS = 32, 8  # of a product: multiples, as CUDA asks for
LARGEST = nearest.Tiling(2048, 16384)
AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 24}  # values: few for a cache, many for a kernel
ATTEMPTS = 3


@functools.cache
def usable(device: str) -> bool:
    """Whether products of bytes on cpu or cuda are there, exact, and faster than the plain search.

    Tried once per process, because nothing says so beforehand: CPUs without VNNI may saturate, and
    some do the products in a plain loop. On GPUs tensor cores are taken to be faster.
    """
    if device == "cuda" and not _has_tensor_cores():
        return False
    try:
        return is_exact(device) and (device == "cuda" or is_faster())
    except RuntimeError:  # torch has no such products here
        return False


def _has_tensor_cores() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def is_exact(device: str) -> bool:
    """Whether sums of 8-bit products come out right, the largest that there are among them."""
    images = nearest.hard_images(128, 2 * nearest.CHUNK + 100)
    values = images.astype(np.float64) - 128  # float64 sums stay far below 2**53
    centred = centred_images(images, device, GROUP)
    found = inner_products(centred, centred, torch.int32)
    return np.array_equal(found.cpu().numpy(), values @ values.T)


def is_faster() -> bool:
    """Whether 8-bit products on this CPU take less time than float32 ones, on one thread each.

    What this thread computes is timed, so that a busy machine does not decide.
    """
    centred = centred_images(nearest.hard_images(256, 2 * nearest.CHUNK), "cpu", GROUP)
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
    bounds the working memory in bytes, down to a tile of ROWS by GROUP images. Samples that fit
    half of it are moved to the device once, and so are the training images then; nothing is read
    back before all are compared.
    """
    components = math.prod(samples.shape[1:])
    at_once = max(ROWS, budget // 2 // (2 * components + 64))  # uint8 and int8 images; keys, norms
    tiling = choose_tiling(components, budget // 2)
    parts = (samples[rows] for rows in _slices(len(samples), at_once))
    return np.concatenate([search_part(part, training, tiling, device).cpu() for part in parts])


def choose_tiling(components: int, budget: int) -> nearest.Tiling:
    """Tiling, in multiples of ROWS and GROUP, whose arrays stay within a budget in bytes."""
    products = 4 if nearest.integer_type(components) is np.int32 else 4 + 8  # and their sum
    per_sample = 8 * 8 * GROUP  # keys of two groups, and what it takes to make and sort them
    rows = _multiple(min(LARGEST.samples, budget // 8 // per_sample), ROWS)
    per_image = 2 * components + 32 + rows * (products + 1)  # uint8 and int8; norms; smallest ones
    columns = min(LARGEST.training, budget * 3 // 4 // per_image)
    return nearest.Tiling(rows, _multiple(columns, GROUP))


def _multiple(count: int, of: int) -> int:
    """The largest multiple up to a count, but at least one."""
    return max(1, count // of) * of


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def search_part(samples: Array, training: Array, tiling: nearest.Tiling, device: str) -> Tensor:
    """Keys (N, 2) of samples that the device holds all at once; int64, on the device."""
    count, components = len(training), math.prod(samples.shape[1:])
    dtype = torch.int32 if nearest.integer_type(components) is np.int32 else torch.int64
    farthest = nearest.LARGEST * components + 1
    centred = centred_images(samples, device, ROWS)
    norms = squared_norms(centred)
    best = torch.full((len(centred), 2), farthest * count, dtype=torch.int64, device=device)
    memory = torch.empty(math.prod(tiling), dtype=torch.int32, device=device)
    for columns in _slices(count, tiling.training):
        others = centred_images(training[columns], device, GROUP)
        other_norms = squared_norms(others)
        other_norms[columns.stop - columns.start :] = farthest  # what fills up is no image
        other_norms = other_norms.to(dtype)
        for rows in _slices(len(centred), tiling.samples):
            tile = inner_products(centred[rows], others, dtype, memory)
            torch.sub(other_norms, tile, alpha=2, out=tile)
            keys = smallest_keys(tile, norms[rows], columns.start, count)
            best[rows] = torch.cat([best[rows], keys], dim=1).topk(2, largest=False).values
        del others  # or it would stay beside the next tile's
    return best[: len(samples)]


def centred_images(images: Array, device: str, multiple: int) -> Tensor:
    """uint8 images (N, ...) less 128, as int8 (N', K') on the device.

    Zeros fill up N to a multiple and K to one of COMPONENTS.
    """
    values = _on_device(images.reshape(len(images), -1), device)
    count, components = values.shape
    shape = -(-count // multiple) * multiple, -(-components // COMPONENTS) * COMPONENTS
    centred = torch.zeros(shape, dtype=torch.uint8, device=device)
    torch.bitwise_xor(values, 128, out=centred[:count, :components])
    return centred.view(torch.int8)


def _on_device(values: Array, device: str) -> Tensor:
    """A NumPy or CuPy array as a tensor; without a copy where it is on the device already."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(np.require(values, requirements=("C", "W"))).to(device)
    return torch.from_dlpack(values if values.flags.c_contiguous else values.copy())


def squared_norms(images: Tensor) -> Tensor:
    """Squared norms (N,) of int8 images (N, K), int64; in float32, exact as in `nearest`."""
    rows = max(1, AT_ONCE[images.device.type] // images.shape[1])
    parts = (part.float().split(nearest.CHUNK, dim=1) for part in images.split(rows))
    return torch.cat([sum(torch.linalg.vecdot(x, x).long() for x in part) for part in parts])


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


def smallest_keys(tile: Tensor, norms: Tensor, start: int, count: int) -> Tensor:
    """Keys (N, 2 * GROUP), int64, among which are each row's two smallest.

    tile: squared distances (N, M) less the norms (N,) of their rows; its columns are training
    images `start` and on, of `count`.
    """
    groups = tile.view(len(tile), -1, GROUP)
    n_groups, device = groups.shape[1], tile.device
    order = groups.amin(2).long() * n_groups + torch.arange(n_groups, device=device)
    chosen = order.topk(min(2, n_groups), largest=False).indices[:, :, None]
    values = groups.gather(1, chosen.expand(-1, -1, GROUP)) + norms[:, None, None]
    columns = start + chosen * GROUP + torch.arange(GROUP, device=device)
    return (values * count + columns).flatten(1)
