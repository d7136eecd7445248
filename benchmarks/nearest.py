"""Exact two nearest training images against faiss, scikit-learn and torch.cdist with topk.

All sides get the same uint8 images, convert them as they need, and give indices and squared
distances. Before anything is timed, ours have to be exact; how far the others are off is reported.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from common import Goal, Options, Row, Target, Times, compare, gpu, not_measured, take_turns
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_info

from emm.score import nearest, nearest_int8
from emm.score.criteria import is_memorized

COMPONENTS = 3072  # 32x32, RGB
CHECKED = 500_000  # random pairs that are compared with the definition, of 256 samples at most
OURS, PLAIN, HOST = "two_nearest", "portable path", "two_nearest from host memory"
FAISS, SCIKIT, CDIST = "faiss IndexFlatL2", "scikit-learn brute", "torch.cdist + topk"
CDIST_ROWS = 1000  # samples at a time, so that the distances fit
NO_FAISS = "faiss is not installed, or not for this device (make bench installs faiss-cpu)"
NO_GPU = "torch or CuPy sees no GPU: make setup CUDA=13"
NO_INT8 = "this CPU has no exact products of bytes that are faster: see the portable path"


class Size(NamedTuple):
    """How many samples are compared with how many training images, in how many rounds."""

    samples: int
    training: int
    rounds: int

    def __str__(self) -> str:
        return f"{self.samples:,} x {self.training:,} x {COMPONENTS:,}"


CPU_SIZES = (Size(10_000, 1_000, 15), Size(5_000, 5_000, 9), Size(1_000, 50_000, 7))
GPU_SIZES = (Size(10_000, 1_000, 15), Size(10_000, 5_000, 15), Size(10_000, 50_000, 15))
FULL = Size(10_000, 50_000, 3)
SLOW = 5_000  # training images that scikit-learn still compares in bearable time

GOALS = (
    *(Goal("cpu", f"{OURS}, {size}", FAISS, Target("at most", 0.7)) for size in CPU_SIZES),
    *(Goal("cpu", f"{PLAIN}, {size}", FAISS, Target("at most", 1.3)) for size in CPU_SIZES),
    Goal("cuda", f"{OURS}, {GPU_SIZES[-1]}", CDIST, Target("at least", 5)),
    Goal("cuda", f"{HOST}, {GPU_SIZES[-1]}", FAISS, Target("at least", 1)),
)

Found = tuple[np.ndarray, np.ndarray]  # indices and squared distances, both (N, 2)
Sides = dict[str, Callable[[], Found]]


def rows(options: Options) -> Iterator[Row]:
    """Rows of the CPU or of the GPU."""
    if options.device == "cuda":
        for size in GPU_SIZES:
            yield from gpu_rows(size)
        return
    torch.set_num_threads(options.threads)
    faiss = load_faiss(options.threads)
    for size in CPU_SIZES + (FULL,) * options.full:
        yield from cpu_rows(size, faiss)


def cpu_rows(size: Size, faiss: ModuleType | None) -> Iterator[Row]:
    samples, training = images(size)
    sides: Sides = {
        OURS: lambda: by_two_nearest(samples, training, np),
        PLAIN: lambda: by_plain_search(samples, training, np),
        CDIST: lambda: by_cdist(torch.from_numpy(samples), torch.from_numpy(training)),
    }
    if faiss is not None:
        sides[FAISS] = lambda: by_faiss(samples, training, faiss)
    if size.training <= SLOW:
        sides[SCIKIT] = lambda: by_scikit_learn(samples, training)
    times, errors = measure(sides, samples, training, (OURS, PLAIN), size.rounds)
    if nearest_int8.usable("cpu"):
        for peer in (FAISS, CDIST, *([SCIKIT] if SCIKIT in sides else [])):
            yield row("cpu", size, OURS, peer, times, errors)
    else:
        yield not_measured(_what(OURS, size), FAISS, target("cpu", size, OURS, FAISS), NO_INT8)
    yield row("cpu", size, PLAIN, FAISS, times, errors)


def gpu_rows(size: Size) -> Iterator[Row]:
    """Times with uint8 images that lie on the GPU already, and of one side from host memory."""
    wanted = (OURS, CDIST), (HOST, FAISS), (HOST, CDIST), (PLAIN, CDIST)
    xp = nearest.array_module()
    if gpu() is None or xp is np:
        for side, peer in wanted:
            yield not_measured(_what(side, size), peer, target("cuda", size, side, peer), NO_GPU)
        return
    samples, training = images(size)
    on_gpu = xp.asarray(samples), xp.asarray(training)
    tensors = tuple(torch.from_dlpack(array) for array in on_gpu)
    sides: Sides = {
        OURS: lambda: by_two_nearest(*on_gpu, xp),
        HOST: lambda: by_two_nearest(samples, training, xp),
        PLAIN: lambda: by_plain_search(*on_gpu, xp),
        CDIST: lambda: by_cdist(*tensors),
    }
    faiss = load_faiss(1)
    if hasattr(faiss, "StandardGpuResources"):
        resources = faiss.StandardGpuResources()
        sides[FAISS] = lambda: by_faiss(samples, training, faiss, resources)
    times, errors = measure(sides, samples, training, (OURS, HOST, PLAIN), size.rounds)
    for side, peer in wanted:
        yield row("cuda", size, side, peer, times, errors)
    parts = gpu_parts(samples, training, on_gpu)
    for part in parts.values():
        part()
    times = take_turns(parts | {OURS: sides[OURS]}, size.rounds)
    for part in parts:
        yield replace(compare(_what(part, size), OURS, None, times, (part, OURS)), part=True)


def gpu_parts(samples: np.ndarray, training: np.ndarray, on_gpu: tuple) -> dict[str, Callable]:
    """What the search consists of, each step alone in its tiles, and what might replace it."""
    steps = nearest_int8.steps_on("cuda")
    components, count = training.shape[1], len(training)
    tiling = nearest_int8.choose_tiling(components, nearest.BUDGET // 2, steps.largest)
    queries, norms = nearest_int8.centred_images(on_gpu[0], nearest_int8.ROWS, steps)
    others, other_norms = nearest_int8.centred_images(on_gpu[1], nearest_int8.COLUMNS, steps)
    other_norms = other_norms.to(torch.int32)
    memory = torch.zeros(math.prod(tiling), dtype=torch.int32, device="cuda")
    best = torch.full((len(queries), 2), 1 << 60, dtype=torch.int64, device="cuda")

    def in_tiles(rows: int, columns: int, step: Callable[[slice, slice], object]) -> Callable:
        def run() -> None:
            for j in range(0, count, columns):
                for i in range(0, len(queries), rows):
                    step(slice(i, i + rows), slice(j, j + columns))
            torch.cuda.synchronize()

        return run

    def product(i: slice, j: slice) -> torch.Tensor:
        return nearest_int8.inner_products(queries[i], others[j], torch.int32, memory)

    def tile(i: slice, j: slice) -> torch.Tensor:
        shape = len(queries[i]), len(others[j])
        return memory[: math.prod(shape)].view(shape)

    def merge(i: slice, j: slice) -> None:
        steps.merge_tile(tile(i, j), norms[i], other_norms[j], best[i], j.start, count)

    def merge_by_torch(i: slice, j: slice) -> None:
        torch.sub(other_norms[j], tile(i, j), alpha=2).topk(2, largest=False)

    def search_in(rows: int, columns: int) -> Callable:
        other = steps._replace(largest=nearest.Tiling(rows, columns))
        return lambda: nearest_int8.search_part(*on_gpu, other.largest, other).cpu()

    def centre() -> None:
        nearest_int8.centred_images(on_gpu[0], nearest_int8.ROWS, steps)
        nearest_int8.centred_images(on_gpu[1], nearest_int8.COLUMNS, steps)
        torch.cuda.synchronize()

    def copy() -> None:
        torch.from_numpy(samples).cuda(), torch.from_numpy(training).cuda()
        torch.cuda.synchronize()

    tilings = [(1024, 4096), (2048, 4096), (2048, 8192), (4096, 16384), (10016, 16384)]
    return {
        "copy of images from host memory": copy,
        "centred images and norms": centre,
        "products": in_tiles(*tiling, product),
        "two smallest of products": in_tiles(*tiling, merge),
        "two smallest of products by torch": in_tiles(*tiling, merge_by_torch),
    } | {f"search in tiles of {a} x {b}": search_in(a, b) for a, b in tilings}


def row(device: str, size: Size, side: str, peer: str, times: Times, errors: dict) -> Row:
    what, bound = _what(side, size), target(device, size, side, peer)
    if peer not in times:
        return not_measured(what, peer, bound, NO_FAISS)
    return compare(what, peer, bound, times, (side, peer), errors=errors[peer])


def target(device: str, size: Size, side: str, peer: str) -> Target | None:
    wanted = {(goal.device, goal.what, goal.against): goal.target for goal in GOALS}
    return wanted.get((device, _what(side, size), peer))


def _what(side: str, size: Size) -> str:
    return f"{side}, {size}"


def images(size: Size) -> Found:
    """Random smooth images; of the samples some are copies, some blends of two, some are new."""
    rng = np.random.default_rng(size.training)
    count = size.samples + size.training
    coarse = np.repeat(rng.integers(40, 216, (count, COMPONENTS // 16), dtype=np.uint8), 16, axis=1)
    coarse += rng.integers(0, 40, coarse.shape, dtype=np.uint8)
    samples, training = coarse[: size.samples], coarse[size.samples :]
    first, second = rng.integers(0, size.training, (2, size.samples))
    samples[::3] = training[first[::3]]
    samples[1::3] = (0.85 * training[first[1::3]] + 0.15 * training[second[1::3]]).round()
    return samples, training


def by_two_nearest(samples: Any, training: Any, xp: ModuleType) -> Found:
    return nearest.two_nearest(samples, training, xp=xp)


def by_plain_search(samples: Any, training: Any, xp: ModuleType) -> Found:
    keys = nearest.plain_search(samples, training, nearest.BUDGET, xp)
    squared_distances, indices = np.divmod(keys, len(training))
    return indices, squared_distances


def by_cdist(samples: torch.Tensor, training: torch.Tensor) -> Found:
    """As the papers' code does it: float32, torch's default for how to compute."""
    others = training.float()
    parts = [
        torch.cdist(part.float(), others).topk(2, largest=False)
        for part in samples.split(CDIST_ROWS)
    ]
    distances = torch.cat([part.values for part in parts]).cpu().numpy()
    indices = torch.cat([part.indices for part in parts]).cpu().numpy()
    return indices, distances.astype(np.float64) ** 2


def by_scikit_learn(samples: np.ndarray, training: np.ndarray) -> Found:
    index = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(training.astype(np.float32))
    distances, indices = index.kneighbors(samples.astype(np.float32))
    return indices, distances.astype(np.float64) ** 2


def by_faiss(
    samples: np.ndarray, training: np.ndarray, faiss: ModuleType, resources: Any = None
) -> Found:
    index = faiss.IndexFlatL2(training.shape[1])
    if resources is not None:
        index = faiss.index_cpu_to_gpu(resources, 0, index)
    index.add(training.astype(np.float32))
    squared_distances, indices = index.search(samples.astype(np.float32), 2)
    return indices, squared_distances


def load_faiss(threads: int) -> ModuleType | None:
    """faiss, if it is installed, with the kernels of this processor.

    Its OpenBLAS may be older than the processor and then takes kernels of 2004, which are five
    times slower: it is told which NumPy's takes.
    """
    kinds = {info["architecture"] for info in threadpool_info() if info["user_api"] == "blas"}
    if kinds:
        os.environ.setdefault("OPENBLAS_CORETYPE", kinds.pop())
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(threads)
    return faiss


def measure(
    sides: Sides, samples: np.ndarray, training: np.ndarray, exact: tuple[str, ...], rounds: int
) -> tuple[Times, dict[str, dict[str, float]]]:
    """Times of all sides and their errors; those named have to make none, or nothing is timed.

    The definition is computed for some samples; the first exact side stands for it for the others.
    """
    found = {name: side() for name, side in sides.items()}  # which warms them up
    count = min(256, len(samples), CHECKED // len(training))
    chosen = np.random.default_rng(0).choice(len(samples), count, replace=False)
    truth = found[exact[0]]
    defined = by_differences(samples[chosen], training)
    errors = {name: _errors(result, truth) for name, result in found.items()}
    same = all((own[chosen] == other).all() for own, other in zip(truth, defined, strict=True))
    if not same or any(any(errors[name].values()) for name in exact):
        raise SystemExit(f"not exact: {' or '.join(exact)}")
    return take_turns(sides, rounds), errors


def by_differences(samples: np.ndarray, training: np.ndarray) -> Found:
    """The definition: integer differences, squared and summed; ties by index."""
    others = training.astype(np.int32)
    squared = np.stack(
        [((others - sample) ** 2).sum(axis=1) for sample in samples.astype(np.int32)]
    )
    indices = np.argsort(squared, axis=1, kind="stable")[:, :2]
    return indices, np.take_along_axis(squared, indices, axis=1)


def _errors(found: Found, truth: Found) -> dict[str, float]:
    """How far off squared distances are, and what that does to neighbours and verdicts."""
    (indices, squared), (true_indices, true_squared) = found, truth
    memorized = 9 * squared[:, 0] < squared[:, 1]
    return {
        "largest_error_of_d1_squared": float(np.abs(squared - true_squared)[:, 0].max()),
        "negative": int((squared < 0).sum()),
        "other_nearest": int((indices[:, 0] != true_indices[:, 0]).sum()),
        "other_verdict": int((memorized != is_memorized(true_squared)).sum()),
    }
