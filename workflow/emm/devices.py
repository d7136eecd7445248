"""GPUs of its own for each job of one machine: Snakemake counts GPUs, but gives out none.

Within SLURM the scheduler does so. Elsewhere a job locks some of the GPUs that it may use, for as
long as it lives, and sees no others. Has to come before CUDA is started.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from emm import slurm

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 2.0
_held: list[FileLock] = []  # released when the process ends, however that is


def take_gpus(count: int = 1, folder: Path | None = None) -> list[str]:
    """Lock so many of the visible GPUs and hide the others; waits until enough are free.

    folder: of the locks, by default one for all users of the machine. Returns the GPUs; none where
    there is nothing to choose: no more are visible, or SLURM has chosen.
    """
    gpus = [] if slurm.this_job() else visible_gpus()
    if len(gpus) < 2:
        return []
    folder = folder or Path(tempfile.gettempdir()) / "emm-gpus"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):  # another user's, who has done so
        folder.chmod(0o1777)
    told = False
    while not (taken := _lock(gpus, count, folder)):
        if not told:
            print(f"waiting for {count} of {len(gpus)} GPUs", file=sys.stderr, flush=True)
            told = True
        time.sleep(POLL_SECONDS)
    os.environ[VISIBLE] = ",".join(taken)
    return taken


def _lock(gpus: list[str], count: int, folder: Path) -> list[str]:
    """Lock so many of some GPUs, or none: two that each wait for the other's would never end."""
    locks: dict[str, FileLock] = {}
    for gpu in gpus:
        lock = FileLock(folder / f"{gpu}.lock", mode=0o666)
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
            locks[gpu] = lock
        if len(locks) == count:
            _held.extend(locks.values())
            return list(locks)
    for lock in locks.values():
        lock.release()
    return []


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by what names them to CUDA."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        return [name for name in given.split(",") if name]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []
