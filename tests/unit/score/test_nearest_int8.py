"""The search with products of bytes against integer differences, and where it is chosen.

Where this CPU has no exact products of bytes, float32 ones stand in for them.
"""

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from emm.score import nearest, nearest_int8
from emm.score.criteria import is_memorized
from emm.score.nearest import Tiling, nearest_distinct, two_nearest

SHAPES = [(8, 8, 3), (32, 32, 3), (105, 105, 3), (256, 256, 3)]  # 33,075 needs int64
BUDGETS = [1, 1 << 22, nearest.BUDGET]
STEPS = nearest_int8.steps_on("cpu")


@pytest.fixture(scope="module", autouse=True)
def exact_products():
    """The module's own products where they are exact here."""
    with pytest.MonkeyPatch.context() as patch:
        if not nearest_int8.is_exact("cpu"):
            patch.setattr(torch, "_int_mm", float_products)
        yield


def float_products(left, right, *, out):
    return out.copy_(left.double() @ right.double())


def uniform(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def mixed(seed: int, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Black, white, nearly black, two-level and uniform images, some of them several times."""
    images = nearest.hard_images(count, math.prod(shape)).reshape(-1, *shape)
    return images[np.random.default_rng(seed).integers(0, count, count)]


def by_differences(samples: np.ndarray, training: np.ndarray) -> np.ndarray:
    """The definition: int64 differences, squared and summed; keys in ascending order."""
    others = training.reshape(len(training), -1).astype(np.int64)
    flat = samples.reshape(len(samples), -1)
    squared = np.stack([((others - sample) ** 2).sum(axis=1) for sample in flat])
    return np.sort(squared * len(training) + np.arange(len(training)), axis=1)[:, :2]


def assert_agree(samples: np.ndarray, training: np.ndarray, budgets=BUDGETS) -> None:
    expected = by_differences(samples, training)
    for budget in budgets:
        found = nearest_int8.search(samples, training, budget, "cpu")
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.int64


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(math.prod(shape)))
def test_random_images_and_copies(shape):
    training = uniform(1, 70, *shape)
    assert_agree(np.concatenate([uniform(2, 3, *shape), training[[0, 5, 69]]]), training)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(math.prod(shape)))
def test_extreme_tied_and_repeated_images(shape):
    images = mixed(3, 15, shape)
    assert_agree(images, images)


@pytest.mark.parametrize("components", [33024, 33025, 33026, 65536, 65537])
def test_black_and_white_at_the_limits_of_types(components):
    black, white = np.zeros((1, components), np.uint8), np.full((2, components), 255, np.uint8)
    assert_agree(np.concatenate([black, white]), white)
    assert_agree(np.concatenate([black, white]), np.concatenate([white, black]))


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("n_training", [2, 63, 64, 65, 200])
@pytest.mark.parametrize("components", [1, 7, 75])
def test_odd_counts(count, n_training, components):
    assert_agree(uniform(4, count, components), uniform(5, n_training, components))


def test_all_training_images_the_same():
    assert_agree(uniform(6, 3, 12), np.repeat(uniform(7, 1, 12), 300, axis=0))


def test_nearest_in_the_last_row_and_a_tie_across_tiles():
    training = uniform(15, 2049, 5)
    training[2048] = training[3]  # beyond a tile
    samples = training[2040:].copy()
    samples[:, 0] ^= 1
    found = nearest_int8.search(samples, training, nearest.BUDGET, "cpu")
    np.testing.assert_array_equal(found, by_differences(samples, training))
    assert (found[-1] % 2049).tolist() == [3, 2048]
    assert (found[:-1, 0] % 2049).tolist() == list(range(2040, 2048))


@pytest.mark.parametrize("difference", [-1, 0, 1])
def test_distances_beside_the_threshold(difference, chosen):
    """9 d1^2 - d2^2 of -1, 0 and 1: d1^2 is a sum of squares, d2^2 the one that belongs to it."""
    near = {-1: 1, 0: 4, 1: 1}[difference]
    far = 9 * near - difference
    training = np.full((2, 3072), 100, np.uint8)
    training[1, :far] += 1
    training[0, far : far + near] += 1
    samples = np.full((1, 3072), 100, np.uint8)
    found = two_nearest(samples, training, xp=np)
    assert chosen
    assert found.squared_distances.tolist() == [[near, far]]
    assert 9 * near - far == difference
    assert is_memorized(found.squared_distances).tolist() == [difference < 0]


@pytest.mark.parametrize("components", [3072, 12288, 196608])
def test_beyond_31_bits(components, chosen):
    """9 d1^2, and in the largest images d1^2 too, exceed 2^31."""
    black = np.zeros((1, components), np.uint8)
    training = np.full((3, components), 255, np.uint8)
    training[1, 0] = 254
    found = two_nearest(black, training, xp=np)
    assert chosen
    assert found.indices.tolist() == [[1, 0]]
    largest = components * 255**2
    assert found.squared_distances.tolist() == [[largest - 255**2 + 254**2, largest]]


few_levels = st.sampled_from([0, 1, 128, 255])


@st.composite
def pairs(draw):
    components = draw(st.integers(1, 4))
    counts = draw(st.integers(1, 80)), draw(st.integers(2, 300))
    return [draw(hnp.arrays(np.uint8, (n, components), elements=few_levels)) for n in counts]


@settings(max_examples=60, deadline=None)
@given(pairs(), st.integers(1, 3), st.integers(1, 3))
def test_any_tiling_gives_the_same_keys(images, rows, groups):
    tiling = Tiling(rows * nearest_int8.ROWS, groups * nearest_int8.COLUMNS)
    found = nearest_int8.search_part(*images, tiling, STEPS)
    np.testing.assert_array_equal(found.numpy(), by_differences(*images))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_order_of_training_images_only_renames_them(data):
    samples, training = data.draw(pairs())
    order = np.array(data.draw(st.permutations(range(len(training)))))
    keys = nearest_int8.search(samples, training, nearest.BUDGET, "cpu")
    renamed = nearest_int8.search(samples, training[order], nearest.BUDGET, "cpu")
    np.testing.assert_array_equal(renamed // len(training), keys // len(training))
    np.testing.assert_array_equal(renamed, by_differences(samples, training[order]))


@pytest.mark.parametrize(
    "view", [lambda x: x[::2], lambda x: x[::-1], lambda x: x.transpose(0, 3, 1, 2)]
)
def test_views_and_arrays_that_may_not_be_written(view):
    samples, training = view(uniform(8, 40, 8, 8, 3)), view(uniform(9, 90, 8, 8, 3))
    samples.flags.writeable = training.flags.writeable = False
    assert_agree(samples, training)


def test_arrays_on_the_device_are_not_copied():
    class OnDevice:  # all that is asked of a CuPy array
        def __init__(self, values):
            self.values, self.flags = values, SimpleNamespace(c_contiguous=True)

        def __dlpack__(self, **options):
            return self.values.__dlpack__()

        def __dlpack_device__(self):
            return self.values.__dlpack_device__()

    values = uniform(10, 3, 4)
    assert nearest_int8._on_device(OnDevice(values), "cpu").data_ptr() == values.ctypes.data


def unseen(function):
    """A step that is a kernel on a GPU."""

    def run(*args):
        with _disable_current_modes():
            return function(*args)

    return run


def test_nothing_is_read_back_while_it_compares():
    """What makes the host wait for a GPU: values, or shapes that depend on them."""
    called = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.add(function.__name__.split(".")[0])
            return function(*args, **(kwargs or {}))

    kernels = STEPS._replace(centre=unseen(STEPS.centre), merge_tile=unseen(STEPS.merge_tile))
    with Record():
        nearest_int8.search_part(uniform(11, 70, 9), uniform(12, 200, 9), Tiling(32, 64), kernels)
    assert "_int_mm" in called
    assert not called & {"_local_scalar_dense", "nonzero", "masked_select", "unique", "item"}


@pytest.mark.parametrize("components", [1, 192, 3072, 196608, 10**7])
@pytest.mark.parametrize("budget", [1, 1 << 20, 1 << 29])
def test_tiling_is_in_multiples_and_within_the_budget(components, budget):
    largest = Tiling(2048, 16384)
    samples, training = nearest_int8.choose_tiling(components, budget, largest)
    assert samples % nearest_int8.ROWS == training % nearest_int8.COLUMNS == 0
    assert nearest_int8.ROWS <= samples <= 2048
    assert nearest_int8.COLUMNS <= training <= 16384
    integers = 4 if components <= 33025 else 12
    arrays = training * (2 * components + integers * samples)
    assert training == nearest_int8.COLUMNS or arrays <= budget
    if (components, budget) == (3072, 1 << 29):
        assert (samples, training) == largest


@pytest.fixture
def chosen(monkeypatch):
    """Searches by products of bytes, which are wanted for any size, as two_nearest calls them."""
    calls, search = [], nearest_int8.search
    monkeypatch.setattr(nearest, "CHECK_COST", 0)
    monkeypatch.setattr(nearest_int8, "usable", lambda device: True)
    monkeypatch.setattr(nearest_int8, "search", lambda *a: calls.append(a) or search(*a))
    return calls


def test_two_nearest_gives_the_same_by_either(chosen):
    samples, training = mixed(13, 20, (4, 4, 3)), mixed(14, 100, (4, 4, 3))
    found = two_nearest(samples, training, xp=np), nearest_distinct(samples, training, xp=np)
    assert len(chosen) == 2
    keys = by_differences(samples, training)
    for neighbours in (found[0], found[1].published):
        np.testing.assert_array_equal(neighbours.indices, keys % 100)
        np.testing.assert_array_equal(neighbours.squared_distances, keys // 100)
        assert neighbours.indices.dtype == neighbours.squared_distances.dtype == np.int64


def test_torch_is_loaded_once_a_process_has_much_to_compare(monkeypatch):
    monkeypatch.setattr(nearest, "_done", {"cpu": 0.0, "cuda": 0.0})
    monkeypatch.setattr(nearest_int8, "usable", lambda device: True)
    assert nearest.gains_by_torch(1e10, "cpu")  # the tests have loaded it
    monkeypatch.delitem(sys.modules, "torch")
    assert not nearest.gains_by_torch(9e8, "cpu")
    assert [nearest.gains_by_torch(5e10, "cpu") for _ in range(5)] == [False] * 3 + [True] * 2
    assert not nearest.gains_by_torch(4e12, "cuda")
    assert nearest.gains_by_torch(4e12, "cuda")


def test_not_where_it_is_not_exact_or_slower_or_missing(monkeypatch):
    usable = nearest_int8.usable.__wrapped__
    for exact in (True, False):
        for faster in (True, False):
            monkeypatch.setattr(nearest_int8, "is_exact", lambda device, exact=exact: exact)
            monkeypatch.setattr(nearest_int8, "is_faster", lambda faster=faster: faster)
            assert usable("cpu") == (exact and faster)
    monkeypatch.setattr(nearest_int8, "_has_tensor_cores", lambda: False)
    assert not usable("cuda")
    monkeypatch.setattr(nearest_int8, "_has_tensor_cores", lambda: True)
    monkeypatch.undo()

    def missing(*args, **kwargs):
        raise RuntimeError("no such products")

    monkeypatch.setattr(torch, "_int_mm", missing)
    assert not usable("cpu")
    monkeypatch.delattr(torch, "_int_mm")
    assert not usable("cpu")


def test_products_that_saturate_are_found_out(monkeypatch):
    def saturated(left, right, *, out):
        """Pairs of products in 16 bits, as VPMADDUBSW adds them."""
        low, high = left[:, 0::2].double(), left[:, 1::2].double()
        pair = low[:, :, None] * right[None, 0::2] + high[:, :, None] * right[None, 1::2]
        return out.copy_(pair.clamp(-(2**15), 2**15 - 1).sum(1))

    small = nearest.hard_images(64, 64)
    monkeypatch.setattr(nearest, "hard_images", lambda *size: small)
    assert nearest_int8.is_exact("cpu")
    monkeypatch.setattr(torch, "_int_mm", saturated)
    assert not nearest_int8.is_exact("cpu")


def test_race_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    nearest_int8.is_faster()
    assert torch.get_num_threads() == before


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("instructions", ["AVX2", "DEFAULT"])
def test_the_same_with_other_instructions(instructions):
    """Of those named, AVX2 without VNNI saturates, if oneDNN uses it at all."""
    code = (
        "import torch, numpy as np; from emm.score import nearest\n"
        "images = np.random.default_rng(0).integers(0, 256, (700, 3072), dtype=np.uint8)\n"
        "found = nearest.two_nearest(images, images, xp=np)\n"
        "keys = nearest.plain_search(images, images, nearest.BUDGET, np)\n"
        "print((found.squared_distances * 700 + found.indices == keys).all())"
    )
    assert run(code, ONEDNN_MAX_CPU_ISA=instructions) == "True\n"


def test_small_searches_load_no_torch_and_threads_are_the_commands():
    code = (
        "import sys, numpy as np; from emm.commands import limit_threads; limit_threads(1)\n"
        "from emm.score import nearest\n"
        "images = np.zeros((1000, 1024), np.uint8); nearest.two_nearest(images, images, xp=np)\n"
        "print('torch' in sys.modules)\n"
        "nearest.IMPORT_COST['cpu'] = 0; nearest.two_nearest(images, images, xp=np)\n"
        "print(sys.modules['torch'].get_num_threads())"
    )
    assert run(code).split() == ["False", "1"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory as of Linux")
def test_working_memory_stays_within_the_budget():
    code = (
        "import re, numpy as np; from pathlib import Path; from emm.score import nearest_int8\n"
        "def memory(name):\n"
        "    status = Path('/proc/self/status').read_text()\n"
        "    return int(re.search(rf'{name}:\\s+(\\d+)', status)[1]) << 10\n"
        "images = np.zeros((20_000, 3072), np.uint8)\n"
        "images[::2] = 1\n"
        "nearest_int8.search(images[:40], images[:80], 1, 'cpu')\n"
        "Path('/proc/self/clear_refs').write_text('5')\n"
        "before = memory('VmRSS')\n"
        "nearest_int8.search(images[:2000], images, 64 << 20, 'cpu')\n"
        "print(memory('VmHWM') - before)"
    )
    assert int(run(code, OMP_NUM_THREADS="1")) < (64 + 16) << 20
