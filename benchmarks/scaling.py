"""How training scales: with processes, with images, and its memory with the batch.

A training in several processes shares each batch; here by gloo on a CPU's cores, one thread each,
or by NCCL on as many GPUs as there are.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from common import Goal, Options, Row, Target
from networks import PUBLISHED, QUICK, Training, make

WIDER = {  # enough arithmetic for the sum of gradients to be worth it
    "model": QUICK["model"] | {"channels": 64},
    "train": {"batch_size": 64},
}
SECONDS = 8
SIZES = (500, 50_000)
BATCHES = (64, 128, 256, 512)
SIZE = f"training: time per image with {SIZES[1]:,} images"
AGAINST = f"with {SIZES[0]:,} images"
GOALS = (
    Goal("cpu", SIZE, AGAINST, Target("at most", 1.15)),
    Goal("cuda", SIZE, AGAINST, Target("at most", 1.05)),
)


def rows(options: Options) -> Iterator[Row]:
    """Rows of a CPU or of its GPUs."""
    cuda = options.device == "cuda"
    if cuda and not torch.cuda.is_available():
        return
    torch.set_num_threads(1)
    yield _by_size(options.device, GOALS[cuda].target)
    many = torch.cuda.device_count() if cuda else len(os.sched_getaffinity(0))
    if many > 1:
        yield _by_processes(many)
    if cuda:
        yield _memory()


def _by_size(device: str, target: Target) -> Row:
    """The cost of a run is linear in its images: an image costs the same however many there are."""
    groups, pixels = (PUBLISHED, 16) if device == "cuda" else (QUICK, 8)
    precision = "bf16" if device == "cuda" else "fp32"
    build = {size: make(groups, pixels, device, size=size, precision=precision) for size in SIZES}
    times: dict[int, list[float]] = {size: [] for size in SIZES}
    for training in build.values():
        _steps(training, 20)
    for _ in range(7):
        for size, training in build.items():
            times[size].append(_steps(training, 100))
    found = sorted(b / a for a, b in zip(*times.values(), strict=True))
    details = {"ratio_min_max": [found[0], found[-1]], "rounds": len(found)}
    return Row(SIZE, AGAINST, target, found[3], "of its time", details=details)


def _steps(training: Training, count: int) -> float:
    """Seconds of some steps."""
    started = time.perf_counter()
    for _ in range(count):
        training.step(training.state)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _by_processes(many: int) -> Row:
    rates = {count: _rate(count) for count in (1, *range(2, many + 1))}
    what = f"training shared by {many} processes: images per second"
    details = {"images_per_second": rates, "efficiency": rates[many] / rates[1] / many}
    return Row(what, "by one", None, rates[many] / rates[1], "times as many", details=details)


def _rate(processes: int) -> float:
    """Images per second of a training in some processes."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += ["--standalone", __file__, str(SECONDS)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    given = os.environ | threads | {"PYTHONPATH": _paths()}
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"scaling failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def _paths() -> str:
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join(filter(None, [str(Path(__file__).parent), given]))


def _member(seconds: float) -> None:
    """Train as one of several processes, and print images per second if it is the first."""
    from emm.train.step import Step
    from emm.train.team import joined

    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    groups, pixels = (PUBLISHED, 32) if cuda else (WIDER, 8)
    device, precision = ("cuda", "bf16") if cuda else ("cpu", "fp32")
    with joined() as team:
        training = make(groups, pixels, device, precision=precision)
        images = training.step.images
        step = Step(training.denoiser, images, None, training.plan, training.state, team)
        rate = _count(lambda: step(training.state), seconds, team.agree)
        if team.leads:
            print(rate * training.plan.settings.batch_size)


def _count(step: Callable[[], object], seconds: float, agree: Callable[[bool], bool]) -> float:
    """Steps per second, after a few."""
    for _ in range(5):
        step()
    started, steps = time.perf_counter(), 0
    while not agree(time.perf_counter() - started > seconds):
        step()
        steps += 1
    return steps / (time.perf_counter() - started)


def _memory() -> Row:
    """GiB of a step by batch; what a batch of none would take is weights, Adam and EMA."""
    found = {}
    for batch in BATCHES:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        training = make(PUBLISHED, 32, "cuda", precision="bf16", batch_size=batch)
        _steps(training, 3)
        found[batch] = (torch.cuda.max_memory_allocated() - before) / 2**30
        del training
    per_image = (found[512] - found[64]) / (512 - 64) * 1024
    what = "training: memory of an image, DDPM++ C=128 n=2, 32x32"
    return Row(what, "", None, per_image, "MiB", details={"gib_by_batch": found})


if __name__ == "__main__":
    _member(float(sys.argv[1]))
