"""A folder that one process works in at a time, on whichever machine, and for how long it does.

Advisory locks are unreliable on some network file systems. Here the owner leaves its name in a file
that is made by linking, which every file system does once only, and keeps touching it. A process
that was killed leaves the file: it is taken over when its process is gone from this machine, when
its SLURM job is, or when nobody touches it any more.
"""

import contextlib
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from emm import slurm
from emm.errors import Interrupted
from emm.files import writing

FILE = "owner.json"
TOUCH_SECONDS = 10.0
LOST_SECONDS = 30.0  # without a touch, when SLURM no longer knows the owner's job
STALE_SECONDS = 300.0  # without a touch, when nobody can be asked
POLL_SECONDS = 10.0


@dataclass(frozen=True)
class Owner:
    """A process somewhere: when it started tells it from a later one of its number."""

    host: str
    pid: int
    started: float
    job: str | None

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        process = psutil.Process()
        return cls(platform.node(), process.pid, process.create_time(), slurm.this_job())

    def __str__(self) -> str:
        job = f" (SLURM job {self.job})" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


@contextlib.contextmanager
def exclusive(folder: Path | str, what: str = "", wait: bool | None = None) -> Iterator[None]:
    """Hold a folder, or one thing in it that has a name, for this process.

    wait: until another process that has it is done; by default only within a SLURM job, which then
    goes on from what the other one leaves. Otherwise Interrupted is raised.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path, owner = folder / f".{what}{FILE}", Owner.here()
    _take(path, owner, owner.job is not None if wait is None else wait)
    stop = threading.Event()
    toucher = threading.Thread(target=_touch, args=(path, stop), daemon=True)
    toucher.start()
    try:
        yield
    finally:
        stop.set()
        toucher.join()
        if _read(path) == owner:
            path.unlink(missing_ok=True)


def _take(path: Path, owner: Owner, wait: bool) -> None:
    told = False
    while not _create(path, owner):
        other = _read(path)
        if not _is_alive(path, other):
            _remove(path, other)
            continue
        name = other or "another process"
        if not wait:
            raise Interrupted(f"{path.parent}: {name} is at work in it; wait for it")
        if not told:
            print(f"waiting for {name}, which is at work here", file=sys.stderr, flush=True)
            told = True
        time.sleep(POLL_SECONDS)


def _beside(path: Path) -> Path:
    """A name that nobody else has."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")


def _create(path: Path, owner: Owner) -> bool:
    """Whether the file was made: at most one of all that try succeeds, with its content whole."""
    mine = _beside(path)
    try:
        with writing(path):
            mine.write_text(json.dumps(asdict(owner)))
        os.link(mine, path)
    except FileExistsError:
        return False
    finally:
        mine.unlink(missing_ok=True)
    return True


def _read(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_alive(path: Path, other: Owner | None) -> bool:
    """Whether the owner of a file still runs, as far as can be told."""
    silent = _silence(path)
    if silent is None:
        return False
    if other is None:
        return silent < STALE_SECONDS
    if other.host == platform.node():
        return _runs_here(other)
    if other.job and other.job == slurm.this_job():  # requeued: this job, on another node before
        return silent < LOST_SECONDS
    known = slurm.is_alive(other.job) if other.job else None
    if known is None:
        return silent < STALE_SECONDS
    return known or silent < LOST_SECONDS


def _runs_here(other: Owner) -> bool:
    try:
        return abs(psutil.Process(other.pid).create_time() - other.started) < 1
    except psutil.NoSuchProcess:
        return False


def _silence(path: Path) -> float | None:
    """Seconds without a touch, by the clock of the file system; None if the file is gone."""
    probe = _beside(path)
    try:
        with writing(path):
            probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return None
    finally:
        probe.unlink(missing_ok=True)


def _remove(path: Path, other: Owner | None) -> None:
    """Remove the file of a dead owner; that of one who was quicker is put back."""
    taken = _beside(path)
    try:
        path.replace(taken)
    except FileNotFoundError:
        return
    if _read(taken) != other:
        with contextlib.suppress(FileExistsError):
            os.link(taken, path)
    taken.unlink()


def _touch(path: Path, stop: threading.Event) -> None:
    while not stop.wait(TOUCH_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
