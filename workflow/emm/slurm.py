"""The SLURM job that this process runs in, if it does, and what SLURM says of others."""

import math
import os
import subprocess
import time
from datetime import datetime

from emm.errors import Interrupted

ALIVE = {  # states in which processes of a job run, or will again
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "STAGE_OUT"),
    *("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESIZING", "SIGNALING", "SPECIAL_EXIT"),
}
ANSWER_SECONDS = 30
STOP_SECONDS = 180  # before the end of an allocation, for what has to be written
CANCEL_SECONDS = 120  # SLURM kills what does not end by itself after half a minute


def this_job() -> str | None:
    """Number of the job that this process runs in; None outside SLURM."""
    return os.environ.get("SLURM_JOB_ID") or None


def is_alive(job: str) -> bool | None:
    """Whether a job is queued or running; None if SLURM cannot be asked."""
    answer = _squeue(job, "%T")
    if answer is None:
        return None
    return answer in ALIVE


def end_time() -> float | None:
    """Unix time at which SLURM ends this process' job; None where there is no such time."""
    job = this_job()
    if job is None:
        return None
    if given := os.environ.get("SLURM_JOB_END_TIME"):
        return float(given)
    answer = _squeue(job, "%e")
    try:
        return datetime.fromisoformat(answer or "").timestamp()
    except ValueError:  # N/A: no limit
        return None


def stop_time() -> float:
    """Unix time to stop at by oneself, before SLURM does; never outside SLURM."""
    end, now = end_time(), time.time()
    return math.inf if end is None else end - min(STOP_SECONDS, (end - now) / 10)


def cancel(name: str) -> int:
    """Cancel the jobs of a name and wait until they have ended; how many there were.

    Raises Interrupted where SLURM does not answer, or they do not end.
    """
    jobs, deadline = _named(name), time.monotonic() + CANCEL_SECONDS
    if jobs:
        _ask("scancel", f"--name={name}")
    while left := _named(name):
        if time.monotonic() > deadline:
            raise Interrupted(f"jobs {', '.join(left)} of a killed start do not end; scancel them")
        time.sleep(1)
    return len(jobs)


def _named(name: str) -> list[str]:
    """Jobs of a name that wait, run, or end at the moment."""
    done = _ask("squeue", "--noheader", f"--name={name}", "--format=%i")
    if done is None or done.returncode:
        raise Interrupted(
            f"squeue does not say whether jobs of a killed start ({name}) still run; start again "
            "when it answers"
        )
    return done.stdout.split()


def _squeue(job: str, what: str) -> str | None:
    """A word on a job; empty where SLURM does not know it, None where SLURM does not answer."""
    done = _ask("squeue", "--noheader", "--states=all", f"--jobs={job}", f"--format={what}")
    if done is None:
        return None
    if done.returncode:
        return "" if "Invalid job id" in done.stderr else None
    return done.stdout.strip()


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    """What a command of SLURM answers; None where there is none, or no answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
