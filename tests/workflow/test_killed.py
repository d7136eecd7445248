"""A workflow that is killed outright in the middle of a training, and called again.

Its jobs go on; they are stopped before others are started.
"""

import json
import os
import signal
import subprocess
import time

import pandas as pd
import pytest

TABLE = "results/tiny/tables/{}.parquet"
TARGETS = [TABLE.format("memorization"), TABLE.format("emm")]

pytestmark = pytest.mark.slow


def test_results_after_a_kill_are_those_of_an_undisturbed_run(tiny, finished):
    select = {"conditioning": {"labels.kind": "none", "data.size": 2000}}
    tiny.configure(experiments=["conditioning"], select={"tiny": select})
    _kill_in_training(tiny)
    assert not list(tiny.results.glob("runs/*/run.yaml"))

    tiny.snakemake(*TARGETS)
    assert tiny.plan(*TARGETS).nothing
    account = json.loads(tiny.run("emm", "usage", "--json").stdout)
    assert account["attempts"] == 4  # the training's first was stopped, or done before that
    assert account["outcomes"].keys() <= {"finished", "stopped"}

    rows = pd.read_parquet(tiny.folder / TARGETS[0])
    whole = pd.read_parquet(finished.folder / TARGETS[0])
    same = whole[whole["evaluation"].isin(rows["evaluation"])].assign(experiments="conditioning")
    assert len(rows) == 2
    pd.testing.assert_frame_equal(_filled(rows), _filled(same), check_dtype=False)


def _filled(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without the columns that are empty, whose type depends on other rows."""
    return rows.dropna(axis=1, how="all").reset_index(drop=True)


def _kill_in_training(project) -> None:
    """Start the workflow and kill Snakemake when the first of two checkpoints is there."""
    with (project.folder / "out.log").open("w") as log:
        process = subprocess.Popen(
            ["snakemake", "--profile", "profiles/local", *TARGETS],
            cwd=project.folder,
            env=project.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while not list(project.results.glob("runs/*/checkpoints/step-*.safetensors")):
            assert process.poll() is None, (project.folder / "out.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
