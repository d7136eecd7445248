"""Images per second of training against the papers' way of doing it (benchmarks/reference.py)."""

import time
from collections.abc import Callable, Iterator

import torch
from common import Goal, Options, Row, Target, compare, not_measured, take_turns
from networks import PEAK, PUBLISHED, QUICK, Training, flops_of_training, make, measured_peak
from reference import Reference

AGAINST = "the papers' way: fp32 eager, channels first, loops over parameters"
GPU_TARGETS = {32: 6.0, 16: 8.0, 8: 8.0}
GPU_STEPS = {32: (6, 60), 16: (20, 180), 8: (50, 450)}  # of a window: theirs, ours
CHECKED_STEPS = 12
TOLERANCE = {"fp32": 1e-3, "bf16": 0.02}  # of losses
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
        for goal in GOALS:
            yield not_measured(goal.what, goal.against, goal.target, "no GPU")
        return
    peak = measured_peak()
    for pixels in GPU_TARGETS:
        yield from _published(pixels, peak)


def check_quick_losses() -> None:
    """SystemExit unless both sides have the same losses at the quick scale."""
    _check_losses(lambda **more: make(QUICK, 8, "cpu", channels=1, **more), "fp32")


def _published(pixels: int, peak: float) -> Iterator[Row]:
    torch.cuda.empty_cache()
    _check_losses(lambda **more: make(PUBLISHED, pixels, "cuda", **more), "bf16")
    few, many = GPU_STEPS[pixels]
    theirs = make(PUBLISHED, pixels, "cuda")
    reference = Reference(theirs.denoiser, theirs.plan)
    _their_steps(reference, theirs, 2)
    memory = {"theirs": _peak_memory()}
    torch.cuda.empty_cache()
    ours = make(PUBLISHED, pixels, "cuda", precision="bf16")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    _our_steps(ours, 5)
    memory["ours"] = (torch.cuda.max_memory_allocated() - before) / 2**30
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
    yield Row(share, PRODUCT, targets.get(share), reached / peak, "of the peak", details=details)


def _check_losses(build: Callable[..., Training], precision: str) -> None:
    """SystemExit unless both sides have the same losses over the first steps, without dropout."""
    theirs, ours = build(dropout=0.0), build(dropout=0.0, precision=precision)
    reference = Reference(theirs.denoiser, theirs.plan)
    for index in range(CHECKED_STEPS):
        expected = float(reference.step(theirs.step.batch(index)))
        before = float(ours.state.loss_sum)
        ours.step(ours.state)
        found = float(ours.state.loss_sum) - before
        if not abs(found / expected - 1) < TOLERANCE[precision]:
            raise SystemExit(f"losses differ in step {index}: {found} ours, {expected} theirs")


def _their_steps(reference: Reference, training: Training, count: int) -> None:
    for _ in range(count):
        reference.step(training.step.batch(reference.steps))
    _wait()


def _our_steps(training: Training, count: int) -> None:
    for _ in range(count):
        training.step(training.state)
    _wait()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_memory() -> float:
    return torch.cuda.max_memory_allocated() / 2**30


def seconds(function: Callable[[], object]) -> float:
    """Wall time of a call, the GPU's work included."""
    _wait()
    started = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - started
