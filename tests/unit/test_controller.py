"""Who runs the workflow in a folder, what a dead controller left, and what its plugin is told."""

import asyncio
import json
import os
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from emm import controller
from emm.controller import MARK, RECORD, mend_status_queries, stop_jobs, take_over
from emm.errors import Interrupted, UserError


def snakemake(run: str | None = None, no_requeue: bool = True) -> SimpleNamespace:
    """As much of Snakemake's workflow as is asked for."""
    executor = SimpleNamespace(run_uuid=run) if run else SimpleNamespace()
    return SimpleNamespace(
        scheduler=SimpleNamespace(_executor=executor),
        executor_settings=SimpleNamespace(no_requeue=no_requeue),
    )


@pytest.fixture
def held(monkeypatch):
    """What is released at the end of the process is released at the end of the test."""
    callbacks = []
    monkeypatch.setattr(controller.atexit, "register", callbacks.append)
    monkeypatch.delenv(MARK, raising=False)
    yield
    for callback in callbacks:
        callback()
    os.environ.pop(MARK, None)


def test_one_controller_at_a_time(held, tmp_path):
    take_over(tmp_path, snakemake("run-1"))
    assert json.loads((tmp_path / RECORD).read_text())["slurm"] == "run-1"
    with pytest.raises(Interrupted, match=rf"process {os.getpid()} on .* is at work in it"):
        take_over(tmp_path, snakemake("run-2"))
    assert json.loads((tmp_path / RECORD).read_text())["slurm"] == "run-1"


@pytest.mark.parametrize(("jobs", "kept"), [([], False), (["7"], True)])
def test_an_end_without_jobs_leaves_no_record(tmp_path, monkeypatch, jobs, kept):
    """The next start may be on a machine without SLURM."""
    callbacks = []
    monkeypatch.setattr(controller.atexit, "register", callbacks.append)
    monkeypatch.setenv(MARK, "")
    workflow = snakemake("run-1")
    take_over(tmp_path, workflow)
    workflow.scheduler._executor.active_jobs = jobs
    for callback in callbacks:
        callback()
    assert (tmp_path / RECORD).exists() == kept
    assert not list(tmp_path.glob("*owner*"))


def test_processes_of_a_dead_controller_are_stopped(tmp_path, capsys):
    program = tmp_path / "emm"
    program.write_text("import time\ntime.sleep(60)")
    command = [sys.executable, str(program)]
    marked, other = (
        subprocess.Popen(command, env=os.environ | {MARK: mark}) for mark in ("dead", "alive")
    )
    try:
        while not psutil.Process(marked.pid).environ().get(MARK):
            time.sleep(0.01)
        stop_jobs({"mark": "dead", "slurm": None})
        assert not psutil.pid_exists(marked.pid)
        assert psutil.pid_exists(other.pid)
        assert "stopped 1 job" in capsys.readouterr().err
    finally:
        for process in (marked, other):
            process.kill()
            process.wait()


def test_slurm_jobs_of_a_dead_controller_are_cancelled(tmp_path, monkeypatch, capsys):
    """By the name that all its jobs have; it waits until SLURM knows none of them."""
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ncat {tmp_path}/jobs\n")
    (tmp_path / "scancel").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/said\n>{tmp_path}/jobs\n')
    (tmp_path / "jobs").write_text("7\n8\n")
    for name in ("squeue", "scancel"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    stop_jobs({"mark": None, "slurm": "run-1"})
    assert (tmp_path / "said").read_text() == "--name=run-1\n"
    assert "stopped 2 job" in capsys.readouterr().err
    stop_jobs({"mark": None, "slurm": "run-1"})
    assert capsys.readouterr().err == ""


def test_without_an_answer_of_slurm_nothing_starts(held, tmp_path, monkeypatch):
    """The next start has to find the name of the jobs still."""
    for name in ("squeue", "scancel"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / RECORD).write_text('{"mark": null, "slurm": "run-1"}')
    with pytest.raises(Interrupted, match=r"squeue does not say .*run-1"):
        take_over(tmp_path, snakemake("run-2"))
    assert json.loads((tmp_path / RECORD).read_text())["slurm"] == "run-1"


def test_jobs_that_do_not_end_are_named(tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 7\n")
    (tmp_path / "scancel").write_text("#!/bin/sh\nexit 1\n")
    for name in ("squeue", "scancel"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(controller.slurm, "CANCEL_SECONDS", 0.1)
    with pytest.raises(Interrupted, match="jobs 7 of a killed start do not end"):
        stop_jobs({"mark": None, "slurm": "run-1"})


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_damaged_record_stops_nothing(held, tmp_path, content):
    (tmp_path / RECORD).write_text(content)
    take_over(tmp_path, snakemake())
    assert json.loads((tmp_path / RECORD).read_text())["slurm"] is None


def states(monkeypatch, answers, no_requeue=True):
    """What Snakemake's plugin is told where SLURM gives these answers."""
    plugin, left = ModuleType(controller.PLUGIN), iter(answers)

    async def query_job_status(command, logger):
        answer = next(left)
        return (None, None) if answer is None else (answer, 0.1)

    plugin.query_job_status = query_job_status
    monkeypatch.setitem(sys.modules, controller.PLUGIN, plugin)
    mend_status_queries(snakemake("run-1", no_requeue))
    return [asyncio.run(plugin.query_job_status("squeue", None))[0] for _ in answers]


def test_lost_jobs_are_told(monkeypatch):
    told = states(monkeypatch, [{"1": "CANCELLED by 0", "2": "PREEMPTED", "3": "RUNNING"}])
    assert told == [{"1": "CANCELLED", "2": "FAILED", "3": "RUNNING"}]


def test_preempted_jobs_that_slurm_requeues_are_its_own(monkeypatch):
    told = states(monkeypatch, [{"2": "PREEMPTED"}, {"2": "PENDING"}], no_requeue=False)
    assert told == [{"2": "PREEMPTED"}, {"2": "PENDING"}]


def test_a_job_that_slurm_has_forgotten_is_lost(monkeypatch):
    """After three answers without it; no answer is none."""
    told = states(monkeypatch, [{"1": "RUNNING"}, {}, None, {}, {"1": "RUNNING"}, {}, {}, {}])
    assert told == [{"1": "RUNNING"}, {}, None, {}, {"1": "RUNNING"}, {}, {}, {"1": "FAILED"}]


def test_another_version_of_the_plugin_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, controller.PLUGIN, ModuleType(controller.PLUGIN))
    with pytest.raises(UserError, match="unknown version"):
        mend_status_queries(snakemake("run-1"))
    mend_status_queries(snakemake())  # jobs run on this machine


def test_the_plugin_still_asks_by_the_function_that_is_mended():
    plugin = pytest.importorskip(controller.PLUGIN)
    names = plugin.Executor.check_active_jobs.__code__.co_names
    assert "query_job_status" in names
