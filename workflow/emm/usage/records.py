"""What is known of attempts at jobs: their own log, and the benchmarks that Snakemake leaves."""

import json
import math
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from emm.attempts import FINISHED, HEARTBEAT_SECONDS, MB

LOGS, BENCHMARKS = "usage", "benchmarks"  # folders at a scale
KILLED, RUNNING = "killed", "running"  # outcomes that nobody writes down
SILENT_SECONDS = 5 * HEARTBEAT_SECONDS  # after which an attempt elsewhere counts as killed
SLACK_SECONDS = 0.5  # by which the file of a job may be later than the start of the next
MEBI = 2**20 / MB


@dataclass(frozen=True)
class Record:
    """An attempt at a job as far as it is known, without what was asked for.

    start, end: Unix times, None where nothing tells; the end of one that has none is its last sign
    of life. Memory in MB. Percentages: 100 is one core, or all of a GPU.
    """

    rule: str
    name: str
    start: float | None
    end: float | None
    seconds: float
    outcome: str
    host: str | None = None
    slurm_job: str | None = None
    gpu: str | None = None
    gpu_id: str | None = None
    gpu_percent: float | None = None
    peak_gpu_memory_mb: float | None = None
    peak_memory_mb: float | None = None
    cpu_percent: float | None = None
    logged: bool = True


@dataclass(frozen=True)
class Benchmark:
    """What Snakemake measured of the last attempt at a job, and what that was given.

    written: time of the file, which is the end of the job unless the file was copied.
    """

    seconds: float
    written: float
    gpus: int
    minutes: float | None
    mem_mb: float | None
    peak_memory_mb: float | None
    cpu_percent: float | None


Key = tuple[str, str]


def read_logs(root: Path) -> dict[Key, list[Record]]:
    """Attempts of the jobs of a scale that have been logged, by rule and name, oldest first."""
    found = {}
    for key, path in _files(root / LOGS):
        attempts = [record for line in _last_lines(path) if (record := _record(key, line))]
        if attempts:
            found[key] = _ended(sorted(attempts, key=lambda record: record.start))
    return found


def _ended(attempts: list[Record]) -> list[Record]:
    """Attempts at a job, of which one that runs is followed by none that began after it."""
    latest = attempts[-1].start
    return [
        replace(record, outcome=KILLED)
        if record.outcome == RUNNING and record.end < latest
        else record
        for record in attempts
    ]


def read_benchmarks(root: Path) -> dict[Key, Benchmark]:
    """Benchmarks of the jobs of a scale by rule and name; damaged ones are left out."""
    pairs = ((key, _benchmark(path)) for key, path in _files(root / BENCHMARKS))
    return {key: benchmark for key, benchmark in pairs if benchmark}


def written_in_time(benchmarks: Mapping[Key, Benchmark], needs: Mapping[Key, list[Key]]) -> bool:
    """Whether files of benchmarks are as old as the jobs: a copy has jobs begin before their input.

    needs: what each job waits for. Later trainings of a run may follow its samples: half will do.
    """
    waits = [
        benchmarks[before].written <= benchmark.written - benchmark.seconds + SLACK_SECONDS
        for key, benchmark in benchmarks.items()
        for before in needs.get(key, ())
        if before in benchmarks
    ]
    return not waits or sum(waits) > len(waits) / 2


def merged(
    key: Key, attempts: list[Record], benchmark: Benchmark | None, in_time: bool = True
) -> list[Record]:
    """The attempts at a job, each once: a benchmark is of the last one that finished.

    in_time: whether the time of its file is that of an end which nobody logged.
    """
    if benchmark is None:
        return attempts
    finished = [n for n, record in enumerate(attempts) if record.outcome == FINISHED]
    if finished:
        which = finished[-1]
        return [*attempts[:which], _both(attempts[which], benchmark), *attempts[which + 1 :]]
    endless = attempts and attempts[-1].outcome in (KILLED, RUNNING)
    if endless and attempts[-1].start < benchmark.written:  # it could not write its end
        seconds = benchmark.seconds
        ended = {"outcome": FINISHED, "end": attempts[-1].start + seconds, "seconds": seconds}
        return [*attempts[:-1], _both(replace(attempts[-1], **ended), benchmark)]
    return [_unlogged(key, benchmark, in_time), *attempts]


def _both(record: Record, benchmark: Benchmark) -> Record:
    """Snakemake looks at memory at other times than the attempt itself."""
    peaks = [x for x in (record.peak_memory_mb, benchmark.peak_memory_mb) if x is not None]
    return replace(record, peak_memory_mb=max(peaks, default=None))


def _unlogged(key: Key, benchmark: Benchmark, in_time: bool) -> Record:
    return Record(
        *key,
        start=benchmark.written - benchmark.seconds if in_time else None,
        end=benchmark.written if in_time else None,
        seconds=benchmark.seconds,
        outcome=FINISHED,
        peak_memory_mb=benchmark.peak_memory_mb,
        cpu_percent=benchmark.cpu_percent,
        logged=False,
    )


def _files(folder: Path) -> Iterator[tuple[Key, Path]]:
    """Files of jobs by rule and name: RULE/RUN.jsonl and RULE/RUN/EVALUATION.jsonl."""
    for path in sorted(folder.glob("*/**/*.jsonl")):
        rule, *name = path.relative_to(folder).with_suffix("").parts
        yield (rule, "/".join(name)), path


def _last_lines(path: Path) -> list[str]:
    """The last whole line of each attempt, without parsing the others."""
    last: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.endswith("}"):
            last[line.partition(",")[0]] = line  # each line begins with the attempt
    return list(last.values())


def _record(key: Key, line: str) -> Record | None:
    """The attempt that a line is about; None if it makes no sense."""
    try:
        facts = json.loads(line)
        seconds = max(facts["time"] - facts["start"], 0.0)
        same = ("host", "slurm_job", "gpu", "gpu_id", "gpu_percent", "peak_gpu_memory_mb")
        return Record(
            *key,
            start=float(facts["start"]),
            end=float(facts["time"]),
            seconds=seconds,
            outcome=facts["outcome"] or (KILLED if _is_gone(facts) else RUNNING),
            peak_memory_mb=facts["peak_memory_mb"],
            cpu_percent=_percent(facts["cpu_seconds"], seconds),
            **{name: facts[name] for name in same},
        )
    except (ValueError, TypeError, KeyError):
        return None


def _is_gone(facts: Mapping[str, Any]) -> bool:
    """Whether an attempt that wrote no end has ended even so."""
    if facts["host"] != platform.node():
        return time.time() - facts["time"] > SILENT_SECONDS
    try:
        return abs(psutil.Process(facts["pid"]).create_time() - facts["started"]) > 1
    except psutil.NoSuchProcess:
        return True


def _benchmark(path: Path) -> Benchmark | None:
    """The last line of a benchmark in JSON lines, as `benchmark-extended` has them."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        given, seconds = facts["resources"], float(facts["s"])
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return None
    memory = _number(facts.get("max_rss"))
    return Benchmark(
        seconds=seconds,
        written=path.stat().st_mtime,
        gpus=int(_number(given.get("gpu")) or 0),
        minutes=_number(given.get("runtime")),
        mem_mb=_number(given.get("mem_mb")),
        peak_memory_mb=None if memory is None else memory * MEBI,
        cpu_percent=_percent(_number(facts.get("cpu_time")), seconds),
    )


def _number(value: Any) -> float | None:
    """A finite number; None for NA, NaN and -, of jobs that were too short to measure."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _percent(cpu_seconds: float | None, seconds: float) -> float | None:
    return None if cpu_seconds is None or not seconds else 100 * cpu_seconds / seconds
