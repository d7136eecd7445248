"""The process that runs the workflow: one at a time in a folder of results, and heir to a dead one.

A controller that is killed leaves its jobs behind, in the queue of SLURM or on its machine. The
next one stops them before it starts its own: trainings save their state when they are stopped.
"""

import atexit
import contextlib
import json
import os
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from emm import slurm
from emm.errors import UserError
from emm.files import write_text
from emm.owner import exclusive

RECORD = ".controller.json"
MARK = "EMM_CONTROLLER"  # a variable of all processes that it starts
STOP_SECONDS = 60.0
PLUGIN = "snakemake_executor_plugin_slurm"
FORGOTTEN = 3  # answers without a job that SLURM knew before


def take_over(root: Path | str, workflow: Any) -> None:
    """Hold a folder of results until this process ends, and stop what a dead holder left running.

    workflow: Snakemake's. Interrupted if another controller is alive.
    """
    root = Path(root)
    held = contextlib.ExitStack()
    held.enter_context(exclusive(root, "controller-", wait=False))
    atexit.register(held.close)
    path = root / RECORD
    stop_jobs(_read(path))
    mark = uuid.uuid4().hex
    run = getattr(workflow.scheduler._executor, "run_uuid", None)
    write_text(path, json.dumps({"mark": mark, "slurm": run}))
    os.environ[MARK] = mark
    held.callback(_forget, path, workflow)


def _forget(path: Path, workflow: Any) -> None:
    """Remove the record at an end that leaves no jobs behind."""
    if not getattr(workflow.scheduler._executor, "active_jobs", None):
        path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def stop_jobs(record: Mapping[str, Any]) -> None:
    """Stop the jobs of a controller that is gone, and wait until they are."""
    count = slurm.cancel(record["slurm"]) if record.get("slurm") else 0
    count += _stop_processes(record["mark"]) if record.get("mark") else 0
    if count:
        print(f"note: stopped {count} job(s) that a killed start had left running", file=sys.stderr)


def _stop_processes(mark: str) -> int:
    """Stop the processes of this machine that bear a mark; how many commands of `emm` these are."""
    found = [process for process in psutil.process_iter() if _bears(process, mark)]
    count = sum(1 for process in found if _is_command(process))
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(found, STOP_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return count


def _bears(process: psutil.Process, mark: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


def _is_command(process: psutil.Process) -> bool:
    try:
        return any(Path(part).name == "emm" for part in process.cmdline()[:2])
    except psutil.Error:
        return False


def mend_status_queries(workflow: Any) -> None:
    """Let Snakemake see that jobs are lost where its SLURM plugin would wait for them forever.

    The plugin does not know `CANCELLED by 0`, as sacct writes it, nor that a preempted job which
    SLURM may not requeue is gone, nor that SLURM forgets jobs.
    """
    plugin = sys.modules.get(PLUGIN)
    if plugin is None or not hasattr(workflow.scheduler._executor, "run_uuid"):
        return
    if not hasattr(plugin, "query_job_status"):
        raise UserError(f"{PLUGIN}: an unknown version; install the one in pyproject.toml")
    ask, mend = plugin.query_job_status, _mending(workflow.executor_settings.no_requeue)

    async def mended(command: str, logger: Any) -> tuple[dict[str, str] | None, float | None]:
        states, seconds = await ask(command, logger)
        return (None if states is None else mend(states)), seconds

    plugin.query_job_status = mended


def _mending(preempted_is_lost: bool) -> Callable[[dict[str, str]], dict[str, str]]:
    """A function from the states that SLURM tells to those that the plugin understands."""
    absent: Counter[str] = Counter()

    def mend(states: dict[str, str]) -> dict[str, str]:
        for job in absent:
            absent[job] = 0 if job in states else absent[job] + 1
        absent.update(dict.fromkeys(states, 0))
        lost = {job: "FAILED" for job, times in absent.items() if times >= FORGOTTEN}
        return lost | {job: _state(text, preempted_is_lost) for job, text in states.items()}

    return mend


def _state(text: str, preempted_is_lost: bool) -> str:
    word = text.split()[0] if text else text
    return "FAILED" if word == "PREEMPTED" and preempted_is_lost else word
