"""The account: every known attempt at the jobs of a catalog, with what it asked for and took."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import pandas as pd

from emm.catalog import Catalog
from emm.plan.jobs import Job, all_jobs
from emm.plan.stage import is_done
from emm.usage.records import (
    Benchmark,
    Key,
    Record,
    merged,
    read_benchmarks,
    read_logs,
    written_in_time,
)

WHOLE = {"number": "int64", "gpus": "int64"}  # columns that are never empty
TEXTS = ("rule", "run", "evaluation", "experiments", "host", "slurm_job", "gpu", "gpu_id")


@dataclass(frozen=True)
class Attempt:
    """A row of the account. Memory in MB.

    number: 1 for the first attempt at the job that is known. gpus: those that it held. start, end:
    Unix times, None where nothing tells; end is the last sign of life of one that was killed or is
    running. logged: False where only Snakemake's benchmark of the last attempt is known.
    cpu_percent: 100 is one core.
    """

    rule: str
    run: str
    evaluation: str
    experiments: tuple[str, ...]
    number: int
    outcome: str
    host: str | None
    slurm_job: str | None
    gpu: str | None
    gpu_id: str | None
    gpus: int
    start: float | None
    end: float | None
    seconds: float
    requested_minutes: float | None
    requested_mem_mb: float | None
    peak_memory_mb: float | None
    cpu_percent: float | None
    gpu_percent: float | None
    peak_gpu_memory_mb: float | None
    logged: bool

    @property
    def key(self) -> Key:
        """Rule and name of its job, as a plan has them."""
        return self.rule, f"{self.run}/{self.evaluation}" if self.evaluation else self.run

    @property
    def hours(self) -> float:
        """Hours that it took, on whatever."""
        return self.seconds / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours of the GPUs that it held."""
        return self.gpus * self.hours

    @property
    def time_share(self) -> float | None:
        """Of the time that it asked for, what it took."""
        return self.seconds / (60 * self.requested_minutes) if self.requested_minutes else None

    @property
    def memory_share(self) -> float | None:
        """Of the memory that it asked for, what it took."""
        if not self.requested_mem_mb or self.peak_memory_mb is None:
            return None
        return self.peak_memory_mb / self.requested_mem_mb


@dataclass(frozen=True)
class Account:
    """Attempts at the jobs of a catalog, oldest first, and those jobs by rule and name.

    unknown: jobs that are done, and of which no attempt is known. elsewhere: attempts at jobs that
    the catalog does not have.
    """

    attempts: tuple[Attempt, ...]
    jobs: dict[Key, Job]
    unknown: tuple[Key, ...]
    elsewhere: int

    @property
    def planned(self) -> list[Job]:
        """The jobs that have at least one attempt, in the order of the plan."""
        known = {attempt.key for attempt in self.attempts}
        return [job for key, job in self.jobs.items() if key in known]


def make_account(catalog: Catalog) -> Account:
    """Gather what the logs and benchmarks at a scale know of the jobs of its runs."""
    jobs = {job.key: job for job in all_jobs(catalog) if job.run}
    logs, benchmarks = read_logs(catalog.root), read_benchmarks(catalog.root)
    in_time = written_in_time(benchmarks, {key: list(job.needs) for key, job in jobs.items()})
    attempts: list[Attempt] = []
    elsewhere = 0
    for key in sorted({*logs, *benchmarks}):
        benchmark = benchmarks.get(key)
        records = merged(key, logs.get(key, []), benchmark, in_time)
        if key in jobs:
            attempts += _attempts(jobs[key], records, benchmark)
        else:
            elsewhere += len(records)
    known = {attempt.key for attempt in attempts}
    unknown = tuple(key for key in jobs if key not in known and is_done(catalog, jobs[key]))
    return Account(tuple(sorted(attempts, key=lambda a: a.start or 0)), jobs, unknown, elsewhere)


def _attempts(job: Job, records: Iterable[Record], benchmark: Benchmark | None) -> list[Attempt]:
    run, _, evaluation = job.name.partition("/")
    same = {field.name for field in fields(Attempt)} & {field.name for field in fields(Record)}
    return [
        Attempt(
            **{name: getattr(record, name) for name in same},
            run=run,
            evaluation=evaluation,
            experiments=job.experiments,
            number=number,
            gpus=_gpus(job, record, benchmark),
            requested_minutes=benchmark.minutes if benchmark else job.minutes,
            requested_mem_mb=benchmark.mem_mb if benchmark else job.mem_mb,
        )
        for number, record in enumerate(records, 1)
    ]


def _gpus(job: Job, record: Record, benchmark: Benchmark | None) -> int:
    """GPUs that an attempt held: a profile may give none to jobs that are planned with one."""
    if record.gpu:
        alone = job.gpus if record.slurm_job else 1
        return max(1, benchmark.gpus if benchmark else alone)
    if benchmark:
        return benchmark.gpus
    return job.gpus if record.slurm_job else 0


def frame(attempts: Sequence[Attempt]) -> pd.DataFrame:
    """The account as a table: a row per attempt, whose experiments are joined by commas."""
    names = [field.name for field in fields(Attempt)]
    table = pd.DataFrame([[getattr(a, name) for name in names] for a in attempts], columns=names)
    table["experiments"] = [",".join(a.experiments) for a in attempts]
    kinds = dict.fromkeys((*TEXTS, "outcome"), "string") | {"logged": "bool"} | WHOLE
    return table.astype({name: kinds.get(name, "float64") for name in names})
