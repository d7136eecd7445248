"""What each attempt at a job takes, logged while it works: time, memory, use of the GPU.

Lines of JSON are appended to a file that Snakemake does not know of, since it removes declared
ones before each attempt: one at the start, one a minute, one at the end. The last line of an
attempt has all that is known of it, also when it was killed. Whatever goes wrong with the log, the
work goes on.
"""

import contextlib
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from emm import slurm
from emm.devices import VISIBLE, visible_gpus
from emm.errors import Interrupted

HEARTBEAT_SECONDS = 60.0  # between lines
SAMPLE_SECONDS = 10.0  # between looks at memory and GPU; less in the first seconds
ANSWER_SECONDS = 10  # of nvidia-smi
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
MB = 1e6


@contextlib.contextmanager
def recorded(
    path: Path | None, heartbeat: float = HEARTBEAT_SECONDS, sample: float = SAMPLE_SECONDS
) -> Iterator[None]:
    """Log the work inside as an attempt at a job, to its file of attempts; None logs nothing.

    heartbeat, sample: seconds between lines, and between the measurements that they sum up.
    """
    if path is None:
        yield
        return
    log = None
    with _harmless():
        log = _Log(path, heartbeat, sample)
    outcome = FAILED
    try:
        yield
        outcome = FINISHED
    except Interrupted:
        outcome = STOPPED
        raise
    finally:
        with _harmless():
            if log:
                log.close(outcome)


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    """Nothing that fails in here counts, but a signal that arrives does."""
    try:
        yield
    except Interrupted:
        raise
    except Exception:
        pass


class _Log:
    """The attempt of this process, watched by a thread of its own."""

    def __init__(self, path: Path, heartbeat: float, sample: float) -> None:
        self._path, self._heartbeat, self._sample = path, heartbeat, sample
        self._process, self._start = psutil.Process(), time.time()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._memory, self._cpu = 0.0, self._cpu_seconds()
        self._gpu = _GpuUse()
        self._constant = {
            "attempt": uuid.uuid4().hex[:12],
            "host": platform.node(),
            "pid": self._process.pid,
            "started": self._process.create_time(),  # tells it from a later one of its number
            "slurm_job": slurm.this_job(),
            "start": self._start,
        }
        with _harmless():
            self._write()
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self, outcome: str) -> None:
        """Write the last line. A measurement that hangs is not waited for."""
        self._stop.set()
        self._write(outcome)

    def _watch(self) -> None:
        wait, written = min(1.0, self._sample, self._heartbeat), time.monotonic()
        while not self._stop.wait(wait):
            with _harmless():
                self._measure_memory()
                self._gpu.measure(wait)
            if time.monotonic() - written >= self._heartbeat:
                with _harmless():
                    self._write()
                written = time.monotonic()
            wait = min(2 * wait, self._sample, self._heartbeat)

    def _write(self, outcome: str | None = None) -> None:
        with self._lock:
            if outcome or not self._stop.is_set():
                self._measure_memory()
                _append(self._path, json.dumps(self._facts(outcome)))

    def _facts(self, outcome: str | None) -> dict[str, Any]:
        return {
            **self._constant,
            "time": time.time(),
            "cpu_seconds": round(self._cpu_seconds() - self._cpu, 2),
            "peak_memory_mb": round(self._memory, 1),
            **self._gpu.facts(),
            "outcome": outcome,
        }

    def _measure_memory(self) -> None:
        self._memory = max(self._memory, self._process.memory_info().rss / MB)

    def _cpu_seconds(self) -> float:
        return sum(self._process.cpu_times()[:4])  # of user and system, with finished children's


class _GpuUse:
    """What nvidia-smi says of the GPU of this process, over time."""

    def __init__(self) -> None:
        self._id: str | None = None
        self._found: dict[str, str] = {}
        self._busy, self._seconds, self._memory = 0.0, 0.0, 0.0

    def measure(self, seconds: float) -> None:
        """Ask, for the so many seconds since the last time; nothing where no GPU is held."""
        if not _holds_gpu():
            return
        self._id = self._id or next(iter(visible_gpus()), None)
        answer = _ask(self._id) if self._id else None
        if answer is None:
            return
        uuid, name, percent, memory = answer
        self._found = {"gpu": name, "gpu_id": uuid}
        if percent is not None:
            self._busy += percent * seconds
            self._seconds += seconds
        self._memory = max(self._memory, memory or 0.0)

    def facts(self) -> dict[str, Any]:
        """The GPU, its mean utilisation in %, and the most memory in use on it, in MB."""
        percent = round(self._busy / self._seconds, 1) if self._seconds else None
        return {
            "gpu": self._found.get("gpu"),
            "gpu_id": self._found.get("gpu_id"),
            "gpu_percent": percent,
            "peak_gpu_memory_mb": round(self._memory, 1) if self._memory else None,
        }


def _holds_gpu() -> bool:
    """Whether SLURM gave this process a GPU, or one of its libraries has started one."""
    if slurm.this_job():
        return VISIBLE in os.environ
    torch = sys.modules.get("torch")
    return "cupy" in sys.modules or (torch is not None and torch.cuda.is_initialized())


def _ask(gpu: str) -> tuple[str, str, float | None, float | None] | None:
    """Identity, name, utilisation in % and MB in use of a GPU; None without an answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    what = "--query-gpu=uuid,name,utilization.gpu,memory.used"
    command = [program, what, "--format=csv,noheader,nounits", f"--id={gpu}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    if done.returncode:
        return None
    uuid, name, percent, memory = next(csv.reader(done.stdout.splitlines(), skipinitialspace=True))
    mebi = _number(memory)
    return uuid, name, _number(percent), None if mebi is None else mebi * 2**20 / MB


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # [N/A]
        return None


def _append(path: Path, line: str) -> None:
    """Append a line, below one that was cut off as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            line = line if stream.read(1) == b"\n" else f"\n{line}"
        stream.write(f"{line}\n".encode())
