"""A folder that one process works in at a time, on whichever machine, and for how long it does.

Advisory locks are unreliable on some network file systems. Here the owner leaves its name in a file
that is made by linking, which every file system does once only, and keeps touching it. A process
that was killed leaves the file: it is taken over when its process is gone from this machine, when
its SLURM job is, or when nobody touches it any more.
"""

import contextlib
import hashlib
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

from emm import slurm
from emm.errors import EXIT_RESUMABLE, Interrupted
from emm.files import writing

FILE = "owner.json"
TOUCH_SECONDS = 10.0
LOST_SECONDS = 30.0  # without a touch, when SLURM no longer knows the owner's job
STALE_SECONDS = 300.0  # without a touch, when nobody can be asked
POLL_SECONDS = 10.0


@dataclass(frozen=True)
class Owner:
    """A process somewhere: when it started tells it from a later one of its number.

    place: within which its number means something: a start of a machine, and a container on it.
    """

    host: str
    pid: int
    started: float
    job: str | None
    place: str = ""

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        process = psutil.Process()
        job = slurm.this_job()
        return cls(platform.node(), process.pid, process.create_time(), job, _place())

    def __str__(self) -> str:
        job = f" (SLURM job {self.job})" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


def _place() -> str:
    """The start of this machine and the space of process numbers; empty where nothing tells."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


@contextlib.contextmanager
def exclusive(folder: Path | str, what: str = "", wait: bool | None = None) -> Iterator[None]:
    """Hold a folder, or one thing in it that has a name, for this process.

    A process that was taken for dead, since it was cut off, ends when it finds another one there.

    wait: until another process that has it is done; by default only within a SLURM job, which then
    goes on from what the other one leaves. Otherwise Interrupted is raised.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path, owner = folder / f".{what}{FILE}", Owner.here()
    mine = _take(path, owner, owner.job is not None if wait is None else wait)
    stop = threading.Event()
    toucher = threading.Thread(target=_touch, args=(path, mine, stop), daemon=True)
    toucher.start()
    try:
        yield
    finally:
        stop.set()
        toucher.join()
        if _read(path) == mine:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Claim:
    """What a file says: its owner, None if it is damaged, and a digest that no other file has."""

    owner: Owner | None
    digest: str


def _take(path: Path, owner: Owner, wait: bool) -> Claim:
    """Make the file, or take it over from a dead owner, or wait; what it says then."""
    told = False
    content = json.dumps(asdict(owner) | {"claim": uuid.uuid4().hex}).encode()
    mine = _parse(content)
    while not _make(path, content):
        found = _holder(path)
        silent = None if found is None else _silence(found[0])
        if silent is None:  # gone since it was seen: nothing is known of the one who has it now
            continue
        claim = found[1]
        if _is_alive(claim.owner, silent):
            name = claim.owner or "another process"
            if not wait:
                raise Interrupted(f"{path.parent}: {name} is at work in it; wait for it")
            if not told:
                print(f"waiting for {name}, which is at work here", file=sys.stderr, flush=True)
                told = True
            time.sleep(POLL_SECONDS)
        elif _succeed(path, claim, mine, content):
            break
    return mine


def _holder(path: Path) -> tuple[Path, Claim] | None:
    """Whose turn it is, and the file that says so: that at `path`, or of the last of its heirs."""
    place, claim = path, _read(path)
    if claim is None:
        return None
    while (heir := _read(_after(path, claim))) not in (None, claim):  # the same: unreadable, all
        place, claim = _after(path, claim), heir
    return place, claim


def _after(path: Path, claim: Claim) -> Path:
    """Where the one process that may take over from a dead owner says so."""
    return path.with_name(f"{path.name}.after-{claim.digest}")


def _succeed(path: Path, dead: Claim, mine: Claim, content: bytes) -> bool:
    """Take over from a dead owner, as the only one.

    The file is replaced by whoever has made the heir's, and found that it is the heir of what lies
    at `path` still: another one may have been through with all of this since the dead was seen.
    """
    place = _after(path, dead)
    if not _make(place, content):
        return False
    found = _holder(path)
    if found is None or found[1] != mine:
        place.unlink(missing_ok=True)
        return False
    new = _beside(path)
    with writing(path):
        new.write_bytes(content)
    new.replace(path)
    for left in path.parent.glob(f"{path.name}.after-*"):
        if left.suffix != ".tmp":
            left.unlink(missing_ok=True)
    return True


def _beside(path: Path) -> Path:
    """A name that nobody else has."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")


def _make(path: Path, content: bytes) -> bool:
    """Whether the file was made: at most one of all that try succeeds, with its content whole."""
    mine = _beside(path)
    try:
        with writing(path):
            mine.write_bytes(content)
        os.link(mine, path)
    except FileExistsError:
        return mine.stat().st_nlink == 2  # NFS: it was made, and the answer was lost
    finally:
        mine.unlink(missing_ok=True)
    return True


def _read(path: Path) -> Claim | None:
    """What a file says; None if there is none, and nothing of its owner if it cannot be read."""
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        return Claim(None, f"unreadable-{error.errno}")


def _parse(content: bytes) -> Claim:
    digest = hashlib.sha256(content).hexdigest()[:16]
    try:
        known = json.loads(content)
        return Claim(Owner(**{field.name: known[field.name] for field in fields(Owner)}), digest)
    except (ValueError, TypeError, KeyError):
        return Claim(None, digest)


def _is_alive(other: Owner | None, silent: float) -> bool:
    """Whether the owner of a file that nobody touched for so long runs, as far as can be told."""
    if other is None:
        return silent < STALE_SECONDS
    if (other.host, other.place) == (platform.node(), _place()):
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


def _touch(path: Path, mine: Claim, stop: threading.Event) -> None:
    while not stop.wait(TOUCH_SECONDS):
        with contextlib.suppress(OSError):
            found = _parse(path.read_bytes())
            if found != mine:
                print(f"error: {path.parent}: {found.owner} has taken over", file=sys.stderr)
                os._exit(EXIT_RESUMABLE)
            os.utime(path)
