"""What a start of the workflow sets up: its own checkout for all jobs, and a lighter Snakemake."""

import functools
import gc
import os
import sys
from pathlib import Path
from typing import Any


def use_checkout() -> None:
    """Put this library and this interpreter's `emm` first for all processes that are started."""
    _put_first("PYTHONPATH", Path(__file__).resolve().parent.parent)
    _put_first("PATH", Path(sys.executable).parent)


def _put_first(variable: str, folder: Path) -> None:
    parts = [str(folder), os.environ.get(variable, "")]
    os.environ[variable] = os.pathsep.join(filter(None, parts))


def plan_lightly() -> None:
    """Spare Snakemake a third of what it takes to plan hundreds of jobs.

    Its functions of rules tell their parameters once, not with every job. And what is in memory by
    now stays there: the garbage collector need not look through it again and again.
    """
    from snakemake import common, rules

    gc.freeze()
    if hasattr(rules, "get_function_params"):  # not a public one: others may do without it
        once = functools.lru_cache(maxsize=None)(rules.get_function_params)
        common.get_function_params = rules.get_function_params = once


def start_without_limit(workflow: Any) -> None:
    """Lift Snakemake's limit of job starts per second where jobs run on this machine.

    While the limit is on, its scheduler plans again every second for each job that has finished:
    after some hundred short jobs that takes a whole core.
    """
    if not workflow.non_local_exec:
        workflow.scheduler.job_rate_limiter = None
