"""The steps of `nearest_int8` between products of matrices, as kernels for NVIDIA GPUs.

Each reads and writes everything once: images, to centre them and sum their squares; inner products,
to keep a row's two smallest distances in registers. `nearest_int8` has the same in torch and NumPy.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import cupy
import torch
from torch import Tensor

from emm.score.nearest import Tiling
from emm.score.nearest_int8 import Steps

THREADS = 128  # of a block, which does one row

SOURCE = r"""
typedef long long Long;
const Long NONE = 0x7fffffffffffffffLL;
const int WARPS = THREADS / 32, AT_ONCE = 8;

extern "C" __global__ void centre(const unsigned char* images, signed char* centred, Long* norms,
                                  Long components, Long stride) {
    images += blockIdx.x * components;
    centred += blockIdx.x * stride;
    Long sum = 0;
    for (Long i = threadIdx.x; i < stride; i += THREADS) {
        int value = i < components ? int(images[i]) - 128 : 0;
        centred[i] = value;
        sum += value * value;
    }
    __shared__ Long sums[WARPS];
    for (int other = 16; other; other /= 2) sum += __shfl_xor_sync(~0u, sum, other);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < WARPS; ++warp) sum += sums[warp];
        norms[blockIdx.x] = sum;
    }
}

__device__ void merge(Long& first, Long& second, Long other_first, Long other_second) {
    Long larger = max(first, other_first);
    first = min(first, other_first);
    second = min(larger, min(second, other_second));
}

extern "C" __global__ void merge_tile(const Value* __restrict__ products,
                                      const Long* __restrict__ norms,
                                      const Value* __restrict__ other_norms, Long* best,
                                      Long columns, Long start, Long count) {
    products += blockIdx.x * columns;
    Value first = FARTHEST, second = FARTHEST;
    int first_column = -1, second_column = -1;
    for (int begin = threadIdx.x; begin < columns; begin += AT_ONCE * THREADS) {
        Value values[AT_ONCE];
        #pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            int column = begin + i * THREADS;
            values[i] = column < columns ? other_norms[column] - 2 * products[column] : FARTHEST;
        }
        #pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {  // in ascending order: of equal values the first counts
            int column = begin + i * THREADS;
            if (values[i] < first) {
                second = first;
                second_column = first_column;
                first = values[i];
                first_column = column;
            } else if (values[i] < second) {
                second = values[i];
                second_column = column;
            }
        }
    }
    Long norm = norms[blockIdx.x];
    Long key = first_column < 0 ? NONE : (first + norm) * count + start + first_column;
    Long next = second_column < 0 ? NONE : (second + norm) * count + start + second_column;
    for (int other = 16; other; other /= 2) {
        Long other_key = __shfl_xor_sync(~0u, key, other);
        Long other_next = __shfl_xor_sync(~0u, next, other);
        merge(key, next, other_key, other_next);
    }
    __shared__ Long keys[2 * WARPS];
    if (threadIdx.x % 32 == 0) {
        keys[threadIdx.x / 16] = key;
        keys[threadIdx.x / 16 + 1] = next;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        best += 2 * blockIdx.x;
        for (int i = 2; i < 2 * WARPS; i += 2) merge(key, next, keys[i], keys[i + 1]);
        merge(key, next, best[0], best[1]);
        best[0] = key;
        best[1] = next;
    }
}
"""
TYPES = {  # of inner products: in C, and a value behind all of that type
    torch.int32: ("int", "0x7fffffff"),
    torch.int64: ("long long", "0x7fffffffffffffffLL"),
}


@functools.cache
def kernel(name: str, dtype: torch.dtype = torch.int32) -> Any:
    """A compiled kernel for inner products of a type."""
    value, farthest = TYPES[dtype]
    constants = f"typedef {value} Value;\nconst Value FARTHEST = {farthest};\n"
    return cupy.RawKernel(f"const int THREADS = {THREADS};\n{constants}{SOURCE}", name)


@contextlib.contextmanager
def same_stream() -> Iterator[None]:
    """Have torch compute on CuPy's device and stream, so that neither overtakes the other."""
    device, pointer = cupy.cuda.Device().id, cupy.cuda.get_current_stream().ptr
    stream = torch.cuda.default_stream(device)
    if pointer:  # 0 is the default one, for which torch would take a new one
        stream = torch.cuda.ExternalStream(pointer, device=device)
    with torch.cuda.device(device), torch.cuda.stream(stream):
        yield


def centre(values: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """`nearest_int8.centre` by a kernel."""
    count, components = values.shape
    centred = torch.empty(shape, dtype=torch.int8, device=values.device)
    norms = torch.zeros(shape[0], dtype=torch.int64, device=values.device)
    centred[count:] = 0
    pointers = values.data_ptr(), centred.data_ptr(), norms.data_ptr()
    kernel("centre")((count,), (THREADS,), (*pointers, components, shape[1]))
    return centred, norms


def merge_tile(
    products: Tensor, norms: Tensor, other_norms: Tensor, best: Tensor, start: int, count: int
) -> None:
    """`nearest_int8.merge_tile` by a kernel."""
    rows, columns = products.shape
    pointers = (array.data_ptr() for array in (products, norms, other_norms, best))
    merge = kernel("merge_tile", products.dtype)
    merge((rows,), (THREADS,), (*pointers, columns, start, count))


STEPS = Steps("cuda", Tiling(2048, 16384), centre, merge_tile, same_stream)
