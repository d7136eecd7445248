"""Exact k nearest images of 8-bit images, the same on NumPy and CuPy.

Inner products and blocks are those of `nearest`; a tile keeps the k smallest keys of each row, so
that neither the tiling nor the array module changes the result.
"""

import math
from types import ModuleType

import numpy as np

from emm.score.nearest import (
    BUDGET,
    Array,
    Neighbours,
    array_module,
    blocks,
    check_images,
    choose_tiling,
    chunks,
    full_precision,
    inner_products,
    integer_type,
    self_test,
    squared_norms,
    to_host,
)

KEY_SHARE = 3  # bytes of a tile with its keys and their copy, over what `choose_tiling` counts


def k_nearest(
    samples: np.ndarray,
    training: np.ndarray,
    k: int,
    *,
    apart: bool = False,
    xp: ModuleType | None = None,
    budget: int = BUDGET,
) -> Neighbours:
    """The min(k, M) nearest training images of each sample, in exact integers, (N, min(k, M)) each.

    By (squared distance, index), ascending. samples (N, ...), training (M, ...): uint8. apart: the
    image at a sample's own index is no neighbour of it, as where images are compared among
    themselves; then there are at most M - 1. UserError as for `two_nearest`; ValueError for k < 1.
    """
    check_images(samples, training)
    if k < 1:
        raise ValueError(f"{k} nearest images")
    xp = xp or array_module()
    self_test(xp)
    k = min(k, len(training) - apart)
    with full_precision(xp):
        keys = to_host(_search(samples, training, k, apart, budget // KEY_SHARE, xp))
    squared_distances, indices = np.divmod(keys, len(training))
    return Neighbours(indices, squared_distances)


def _search(
    samples: np.ndarray, training: np.ndarray, k: int, apart: bool, budget: int, xp: ModuleType
) -> Array:
    """Keys (N, k), ascending: squared distance * len(training) + index, int64."""
    count, components = len(training), math.prod(training.shape[1:])
    tiling, last = choose_tiling(components, budget), np.iinfo(np.int64).max
    best = xp.full((len(samples), k), last, dtype=xp.int64)
    for start, images in blocks(training, tiling.training, xp):
        others = chunks(images, xp)
        norms = squared_norms(others, xp)
        for row, block in blocks(samples, tiling.samples, xp):
            part = chunks(block, xp)
            keys = inner_products(part, others, integer_type(components)).astype(xp.int64)
            keys *= -2
            keys += norms
            keys += squared_norms(part, xp)[:, None]
            keys *= count
            keys += xp.arange(start, start + len(images))
            if apart:
                own = xp.arange(max(row, start), min(row + len(block), start + len(images)))
                keys[own - row, own - start] = last
            rows = slice(row, row + len(block))
            best[rows] = _smallest(xp.concatenate([best[rows], _smallest(keys, k, xp)], 1), k, xp)
    return xp.sort(best, axis=1)


def _smallest(keys: Array, k: int, xp: ModuleType) -> Array:
    """The k smallest keys of each row, or all if there are fewer, in any order."""
    return keys if keys.shape[1] <= k else xp.partition(keys, k - 1, axis=1)[:, :k]
