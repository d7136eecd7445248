"""The account as files and as a command."""

import json
import re
import subprocess
import sys

import pytest

from emm.analyse.parquet import read_table
from emm.errors import UserError
from emm.usage.stage import write_usage


def command(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "emm.cli", "usage", *words], capture_output=True, text=True
    )


def cells(page: str) -> list[list[str]]:
    """Cells of the rows of all tables of a page."""
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]


def fill(results, keys) -> None:
    """A training that was killed and went on, all of its evaluation, and another training."""
    run, evaluation = keys[0]
    results.log("train", run, 0, 30, outcome=None)
    results.log("train", run, 31, 12)
    results.log("sample", f"{run}/{evaluation}", 43, 3)
    results.log("score", f"{run}/{evaluation}", 46, 0.5)
    results.log("train", keys[1][0], 0, 11, gpu_percent=40.0)


def test_files(results, keys, tmp_path):
    fill(results, keys)
    facts = write_usage(results.catalog, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("usage.parquet", "usage.html", "timeline.png"),
    }
    table = read_table(tmp_path / "out" / "usage.parquet")
    assert len(table) == facts["attempts"] == 5
    assert (table["gpus"] * table["seconds"]).sum() / 3600 == facts["gpu_hours"] == 56.5
    assert facts["notes"] == ["14 of 18 jobs have not finished: results are partial"]


def test_numbers_on_the_page(results, keys, tmp_path):
    fill(results, keys)
    facts = write_usage(results.catalog, tmp_path)
    page = (tmp_path / "usage.html").read_text()
    rows = {row[0]: row[1:] for row in cells(page)}
    planned = facts["planned_gpu_hours"]
    assert rows["Attempts"] == ["5: 4 finished, 1 killed"]
    assert rows["GPU-hours"] == [f"56, planned for the same jobs {planned:,.0f}"]
    assert ["train", "2", "3", "1", "53"] in [row[:5] for row in cells(page)]
    (spread,) = (row for row in cells(page) if row[0] == "train" and "(" in row[1])
    assert spread[2] == "720 (1,800)"
    assert spread[4:] == ["4 (4)", "50 (50)", "80 (80)", "20 (20)"]
    assert rows["seeds"][:2] == ["4", "5"]
    assert rows["appB"][:5] == ["seeds", "18", "4", "56", "56"]
    assert f"<b>train</b> {keys[0][0]}: killed once" in page
    assert "14 of 18 jobs have not finished" in page
    assert 'src="data:image/png;base64,iVBOR' in page
    assert not re.search(r"(src|href)=.?https?:", page)


def test_command(results, keys):
    fill(results, keys)
    done = command("--config", results.config, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["gpu_hours"] == 56.5
    assert facts["attempts"] == 5
    assert facts["planned_gpu_hours"] > 0
    assert (results.root / "plan" / "usage.html").exists()
    shown = command("--config", results.config, "--experiments", "seeds").stdout
    assert "5 attempts at 4 of 18 jobs, 4 of which finished" in shown


def test_nothing_has_run(results):
    done = command("--config", results.config)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {results.root}: nothing has run yet")
    assert not results.root.exists()


def test_nothing_of_the_selection_has_run(results, make, keys):
    fill(results, keys)
    with pytest.raises(UserError, match="5 attempts are known, none of them at a job of the sel"):
        write_usage(make("optimum").catalog, results.root / "plan")


def test_results_that_nobody_logged(results, keys, tmp_path):
    results.done(*keys[0])
    facts = write_usage(results.catalog, tmp_path)
    assert (facts["attempts"], facts["gpu_hours"]) == (0, 0)
    page = (tmp_path / "usage.html").read_text()
    assert "3 jobs are done and left neither a log nor a benchmark" in page
    assert len(read_table(tmp_path / "usage.parquet")) == 0


def test_a_laptop_has_hours(results, keys, tmp_path):
    results.log("train", keys[0][0], 0, 2, gpu=None, gpu_id=None, slurm_job=None)
    facts = write_usage(results.catalog, tmp_path)
    assert (facts["gpu_hours"], facts["hours"]) == (0, 2)
    assert any("everything ran without a GPU" in note for note in facts["notes"])
