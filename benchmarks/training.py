"""Images per second of training against the papers' way of doing it (benchmarks/reference.py)."""

import contextlib
import time
from collections.abc import Callable, Iterator

import torch
from common import Goal, Options, Row, Target, compare, take_turns, without_gpu
from networks import PEAK, PUBLISHED, QUICK, Training, flops_of_training, make, measured_peak
from reference import Reference

AGAINST = "the papers' way: fp32 eager, channels first, loops over parameters"
GPU_TARGETS = {32: 6.0, 16: 8.0, 8: 8.0}
GPU_STEPS = {32: (6, 60), 16: (20, 180), 8: (50, 450)}  # of a window: theirs, ours
CHECKED_STEPS = 12
TOLERANCE = {"fp32": 1e-3, "bf16": 0.03}  # of losses
ALIKE = {"fp32": 0.999, "bf16": 0.9}  # of how weights have moved: Adam enlarges small gradients
TRAINING = "training, DDPM++ C=128 n=2, batch 512"
MFU = "training: share of the measured bf16 peak"
PRODUCT = f"a product of matrices of {PEAK} rows in the same run"
GOALS = (
    *(Goal("cuda", f"{TRAINING}, {px}x{px}", AGAINST, Target("at least", least))
      for px, least in GPU_TARGETS.items()),
    Goal("cuda", f"{MFU}, 32x32", PRODUCT, Target("at least", 0.4)),
)  # fmt: skip


def rows(options: Options) -> Iterator[Row]:
    """Rows of the GPU at three resolutions; quick_training has that of the CPU."""
    if options.device == "cpu":
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if not torch.cuda.is_available():
        yield from without_gpu(GOALS)
        return
    peak = measured_peak()
    for pixels in GPU_TARGETS:
        yield from _published(pixels, peak)


def check_quick() -> None:
    """SystemExit unless both sides have the same training at the quick scale."""
    _check(lambda **more: make(QUICK, 8, "cpu", channels=1, **more), "fp32")


def _published(pixels: int, peak: float) -> Iterator[Row]:
    torch.cuda.empty_cache()
    _check(lambda **more: make(PUBLISHED, pixels, "cuda", **more), "bf16")
    few, many = GPU_STEPS[pixels]
    memory = {}
    with _peak_memory("theirs", memory):
        theirs = make(PUBLISHED, pixels, "cuda")
        reference = Reference(theirs.denoiser, theirs.plan)
        _their_steps(reference, theirs, 2)
    with _peak_memory("ours", memory):
        ours = make(PUBLISHED, pixels, "cuda", precision="bf16")
        _our_steps(ours, 5)
    sides = {
        "theirs": lambda: _their_steps(reference, theirs, few),
        "ours": lambda: _our_steps(ours, many),
    }
    times = take_turns(sides, 3)
    batch = ours.plan.settings.batch_size
    per_image = {
        "theirs": [seconds / few / batch for seconds in times["theirs"]],
        "ours": [seconds / many / batch for seconds in times["ours"]],
    }
    rates = {side: sorted(1 / t for t in found)[1] for side, found in per_image.items()}
    flops = flops_of_training(ours)
    facts = {"images_per_second": rates, "peak_memory_gib": memory, "flops_per_image": flops}
    targets = {goal.what: goal.target for goal in GOALS}
    name, share = (f"{what}, {pixels}x{pixels}" for what in (TRAINING, MFU))
    yield compare(name, AGAINST, targets[name], per_image, ("ours", "theirs"), **facts)
    reached = rates["ours"] * flops
    details = {"tflops": reached / 1e12, "peak_tflops": peak / 1e12}
    details["share_of_989_tflops"] = reached / 989e12  # an H100's or H200's by its datasheet
    yield Row(share, PRODUCT, targets.get(share), reached / peak, "of the peak", details=details)


def _check(build: Callable[..., Training], precision: str) -> None:
    """SystemExit unless both sides train alike: losses of the first steps, then weights and EMA.

    Without dropout, with weights that matter and a learning rate that moves them.
    """
    theirs, ours = (
        build(dropout=0.0, visible=True),
        build(dropout=0.0, visible=True, precision=precision),
    )
    reference, start = Reference(theirs.denoiser, theirs.plan), ours.state.flat.values.clone()
    for index in range(CHECKED_STEPS):
        expected = float(reference.step(theirs.step.batch(index)))
        before = float(ours.state.loss_sum)
        ours.step(ours.state)
        found = float(ours.state.loss_sum) - before
        if not abs(found / expected - 1) < TOLERANCE[precision]:
            raise SystemExit(f"losses differ in step {index}: {found} ours, {expected} theirs")
    flat = ours.state.flat
    pairs = {
        "weights": (flat.values, reference.network),
        "EMA": (ours.state.averages[ours.plan.ema[0]], reference.average),
    }
    for name, (values, network) in pairs.items():
        moved = values - start
        other = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
        own = torch.cat([t.reshape(-1) for t in flat.named(values).values()])
        begun = torch.cat([t.reshape(-1) for t in flat.named(start).values()])
        alike = torch.nn.functional.cosine_similarity(own - begun, other - begun, dim=0)
        if not (float(alike) > ALIKE[precision] and float(moved.norm()) > 0):
            raise SystemExit(f"{name} move differently: the cosine is {float(alike):.4f}")


def _their_steps(reference: Reference, training: Training, count: int) -> None:
    """Theirs choose the algorithms of convolutions by trying them, as their code does."""
    torch.backends.cudnn.benchmark = True
    for _ in range(count):
        reference.step(training.step.batch(reference.steps))
    _wait()
    torch.backends.cudnn.benchmark = False


def _our_steps(training: Training, count: int) -> None:
    for _ in range(count):
        training.step(training.state)
    _wait()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextlib.contextmanager
def _peak_memory(side: str, found: dict[str, float]) -> Iterator[None]:
    """Put the most memory, in GiB, that is held within beyond what is held before."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield
    found[side] = (torch.cuda.max_memory_allocated() - before) / 2**30


def seconds(function: Callable[[], object]) -> float:
    """Wall time of a call, the GPU's work included."""
    _wait()
    started = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - started
