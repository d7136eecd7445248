"""Images per second that a machine trains at the quick scale, with all its cores.

    python benchmarks/quick_training.py ours 8      # one training for 8 s: its images per second

The papers' way is one eager training after the other, with torch's own number of threads. The
workflow trains as many at a time as there are cores, on one thread each.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from common import Goal, Options, Row, Target, compare

SECONDS, ROUNDS, BATCH = 8, 5, 32
NAME = "training at the quick scale, as many at a time as cores"
ALONE = "training at the quick scale, one training on one thread"
AGAINST = "the papers' way: fp32 eager, channels first, loops over parameters"
GOALS = (Goal("cpu", NAME, AGAINST, Target("at least", 1.5)),)


def rows(options: Options) -> Iterator[Row]:
    """Rows of the CPU."""
    if options.device != "cpu":
        return
    import training

    training.check_quick()
    cores = len(os.sched_getaffinity(0))
    sides: dict[str, tuple[str, int, int]] = {  # side, trainings at a time, threads of each
        "ours": ("ours", cores, 1),
        "theirs": ("theirs", 1, cores),
        "ours alone": ("ours", 1, 1),
        "theirs alone": ("theirs", 1, 1),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(ROUNDS):
        for name in sorted(sides, reverse=bool(turn % 2)):
            times[name].append(1 / rate(*sides[name]))
    facts = {
        "images_per_second": {name: sorted(1 / t for t in found) for name, found in times.items()}
    }
    yield compare(NAME, AGAINST, GOALS[0].target, times, ("ours", "theirs"), **facts)
    alone = {side: times[f"{side} alone"] for side in ("ours", "theirs")}
    found = compare(ALONE, AGAINST, Target("at least", 1), alone, ("ours", "theirs"))
    yield Row(ALONE, AGAINST, None, found.measured, found.unit, details=found.details)


def rate(side: str, processes: int, threads: int) -> float:
    """Images per second of some trainings at a time."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    command = [sys.executable, __file__, side, str(SECONDS)]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return sum(float(process.communicate()[0]) for process in running)


def train(side: str, seconds: float) -> float:
    """Images per second of one training, after a second of it."""
    from networks import QUICK, make
    from reference import Reference

    from emm.train.device import keep_freed_memory

    training = make(QUICK, 8, "cpu", channels=1, dropout=0.0)
    if side == "ours":
        keep_freed_memory()
        _count(lambda: training.step(training.state), 1.0)
        return _count(lambda: training.step(training.state), seconds)
    reference = Reference(training.denoiser, training.plan)
    step: Callable[[], object] = lambda: reference.step(training.step.batch(reference.steps))  # noqa: E731
    _count(step, 1.0)
    return _count(step, seconds)


def _count(step: Callable[[], object], seconds: float) -> float:
    started, steps = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        step()
        steps += 1
    return steps * BATCH / passed


if __name__ == "__main__":
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    print(train(sys.argv[1], float(sys.argv[2])))
