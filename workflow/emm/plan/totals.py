"""What the jobs of a plan come to: by rule, by experiment, on so many GPUs, and on disk."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from emm.plan.jobs import Job

GIGA = 1e9


def total(jobs: Sequence[Job], gpus: int) -> dict[str, Any]:
    """All of a plan. Hours and gigabytes; wall_hours on so many GPUs."""
    return {
        "jobs": len(jobs),
        "runs": len({job.run for job in jobs if job.run}),
        "gpu_hours": sum(job.gpu_hours for job in jobs),
        "cpu_hours": sum(job.seconds for job in jobs if not job.gpus) / 3600,
        "allocations": sum(job.allocations for job in jobs),
        "wall_hours": wall_seconds(jobs, gpus) / 3600,
        "longest_chain_hours": longest_chain(jobs)[0] / 3600,
        "final_gb": sum(job.final for job in jobs) / GIGA,
        "peak_gb": peak_bytes(jobs, gpus) / GIGA,
    }


def by_rule(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """A row per rule, in the order of the workflow."""
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[job.rule].append(job)
    return [{"rule": rule, **_sums(members)} for rule, members in groups.items()]


def by_experiment(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """A row per experiment, with what no other one needs: a shared run counts in each of them."""
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        for name in job.experiments:
            groups[name].append(job)
    rows = []
    for name, members in groups.items():
        own = [job for job in members if len(job.experiments) == 1]
        runs = len({job.run for job in members if job.run})
        alone = {f"own_{key}": value for key, value in _sums(own).items() if "_hours" in key}
        rows.append({"experiment": name, "runs": runs, **_sums(members), **alone})
    return rows


def _sums(jobs: Sequence[Job]) -> dict[str, Any]:
    return {
        "jobs": len(jobs),
        "gpu_hours": sum(job.gpu_hours for job in jobs),
        "cpu_hours": sum(job.seconds for job in jobs if not job.gpus) / 3600,
        "allocations": sum(job.allocations for job in jobs),
        "final_gb": sum(job.final for job in jobs) / GIGA,
    }


def longest_chain(jobs: Sequence[Job]) -> tuple[float, list[Job]]:
    """Seconds of the chain of jobs that takes longest, and its jobs in order."""
    ends: dict[tuple[str, str], tuple[float, tuple[str, str] | None]] = {}
    known = {job.key: job for job in jobs}
    for job in jobs:  # each after what it waits for
        before = max(job.needs, key=lambda key: ends[key][0], default=None)
        ends[job.key] = job.seconds + (ends[before][0] if before else 0.0), before
    last = max(ends, key=lambda key: ends[key][0], default=None)
    chain, seconds = [], ends[last][0] if last else 0.0
    while last is not None:
        chain.append(known[last])
        last = ends[last][1]
    return seconds, chain[::-1]


def wall_seconds(jobs: Sequence[Job], gpus: int) -> float:
    """Seconds until all is done with so many GPUs, jobs with the longest rest of a chain first.

    Jobs without a GPU wait for nothing but what they need; one that takes more than there are
    takes all. Where no job takes a GPU, they are cores, of which each job takes its threads.
    """
    rest = _rests(jobs)
    cores = not any(job.gpus for job in jobs)

    def taken(job: Job) -> int:
        return min(job.threads if cores else job.gpus, gpus)

    waiting = {job.key: len(set(job.needs)) for job in jobs}
    after: dict[tuple[str, str], list[Job]] = defaultdict(list)
    for job in jobs:
        for key in set(job.needs):
            after[key].append(job)
    queue: list[tuple[float, tuple[str, str], Job]] = []
    running: list[tuple[float, tuple[str, str], Job]] = []
    now, free = 0.0, gpus

    def ready(job: Job) -> None:
        if taken(job):
            heapq.heappush(queue, (-rest[job.key], job.key, job))
        else:
            heapq.heappush(running, (now + job.seconds, job.key, job))

    for job in jobs:
        if not waiting[job.key]:
            ready(job)
    while queue or running:
        while queue and free >= taken(queue[0][2]):
            _, key, job = heapq.heappop(queue)
            free -= taken(job)
            heapq.heappush(running, (now + job.seconds, key, job))
        now, key, done = heapq.heappop(running)
        free += taken(done)
        for job in after[key]:
            waiting[job.key] -= 1
            if not waiting[job.key]:
                ready(job)
    return now


def _rests(jobs: Sequence[Job]) -> dict[tuple[str, str], float]:
    """Seconds from the start of each job to the end of the longest chain behind it."""
    rest, behind = {}, defaultdict(float)
    for job in reversed(jobs):
        rest[job.key] = job.seconds + behind[job.key]
        for key in job.needs:
            behind[key] = max(behind[key], rest[job.key])
    return rest


def peak_bytes(jobs: Sequence[Job], gpus: int) -> float:
    """Bytes on disk at most: all that stays, and what passes of the largest running ones."""
    passing = sorted((job.passing for job in jobs), reverse=True)
    return sum(job.final for job in jobs) + sum(passing[:gpus])
