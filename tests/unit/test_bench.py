"""The harness of the benchmarks: verdicts, exit codes, files; and its rows of the neighbours."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Import a module of benchmarks, whose folder is no package, and forget it afterwards."""
    monkeypatch.syspath_prepend(FOLDER)
    names = ("common", "nearest", "table", "bench")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def test_sides_take_turns_and_the_ratio_is_by_round(load):
    common = load("common")
    called = []
    sides = {name: lambda name=name: called.append(name) for name in "abc"}
    times = common.take_turns(sides, 4)
    assert "".join(called) == "abcbcacababc"
    assert {name: len(found) for name, found in times.items()} == dict.fromkeys("abc", 4)
    assert common.ratios({"a": [1, 2], "b": [4, 4]}, "a", "b") == [0.25, 0.5]


def test_row_of_times_and_its_verdict(load):
    common = load("common")
    times = {"own": [1.0, 2.0, 3.0], "peer": [4.0, 4.0, 4.0]}
    sides = ("own", "peer")
    slower = common.compare("x", "y", common.Target("at most", 0.5), times, sides, errors=0)
    assert (slower.measured, slower.passed) == (0.5, True)
    assert slower.details["ratio_min_max"] == [0.25, 0.75]
    assert slower.details["seconds"] == {"own": 2.0, "peer": 4.0}
    assert slower.details["errors"] == 0
    faster = common.compare("x", "y", common.Target("at least", 2.1), times, sides)
    assert (faster.measured, faster.passed) == (2.0, False)
    assert common.compare("x", "y", None, times, sides).passed is None
    assert common.not_measured("x", "y", common.Target("at most", 1), "none").passed is None


@pytest.mark.parametrize(("measured", "code"), [(0.5, 0), (0.9, 1), (None, 0)])
def test_missed_targets_and_only_they_fail(load, monkeypatch, tmp_path, capsys, measured, code):
    common, bench = load("common"), load("bench")
    row = common.Row("ours", "theirs", common.Target("at most", 0.7), measured, note="no peer")
    monkeypatch.setitem(sys.modules, "own_rows", SimpleNamespace(rows=lambda options: [row]))
    monkeypatch.setattr(bench, "MODULES", ("own_rows",))
    monkeypatch.setattr(bench, "limit_threads", lambda threads: None)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--output", str(tmp_path), "--threads", "1"])
    assert bench.main() == code
    printed = capsys.readouterr().out
    files = list(tmp_path.iterdir())
    if measured is None:
        assert not files
        assert "not measured: no peer" in " ".join(printed.replace("│", " ").split())
        return
    content = json.loads(files[0].read_text())["modules"]["own_rows"]
    assert content["rows"][0]["passed"] == (code == 0)
    assert content["rows"][0]["target"] == "≤ 0.7"
    assert content["versions"]["numpy"] == np.__version__
    assert ("MISSED" in printed) == bool(code)


def test_file_of_a_machine_keeps_the_rows_of_other_modules(load, monkeypatch, tmp_path):
    common = load("common")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    row = common.Row("ours", "theirs", None, 0.5)
    path = common.write("first", [row], common.Options(), tmp_path)
    assert common.write("second", [], common.Options(), tmp_path) == path
    assert common.write("second", [row, row], common.Options(), tmp_path) == path
    content = json.loads(path.read_text())
    assert {name: len(module["rows"]) for name, module in content["modules"].items()} == {
        "first": 1,
        "second": 2,
    }
    assert content["machine"] == common.processor()


def test_table_of_all_machines_and_of_goals_that_none_has_measured(load, monkeypatch, tmp_path):
    common, table = load("common"), load("table")
    goal = common.Goal("cpu", "ours", "theirs", common.Target("at most", 0.7))
    rows = [
        common.Row("ours", "theirs", goal.target, 0.9, details={"ratio_min_max": [0.81, 1.07]}),
        common.Row("ours", "others", None, 0.5),
        common.Row("a step", "ours", None, 0.5, part=True),
        common.not_measured("ours", "absent", goal.target, "no peer"),
    ]
    monkeypatch.setattr(common, "processor", lambda: "A CPU, 2 cores")
    common.write("own_rows", rows, common.Options(), tmp_path)
    (tmp_path / "other.json").write_text("{}")
    goals = [goal, common.Goal("cuda", "ours", "theirs", common.Target("at least", 5))]
    assert table.markdown(table.results(tmp_path), goals).splitlines()[2:] == [
        "| ours | theirs | ≤ 0.7 | 0.9 of its time (0.81 to 1.07) | **missed** | A CPU, 2 cores |",
        "| ours | others |  | 0.5 of its time |  | A CPU, 2 cores |",
        "| ours | absent | ≤ 0.7 | not measured: no peer |  | A CPU, 2 cores |",
        "| ours | theirs | ≥ 5 | not measured |  | a GPU |",
    ]


def test_table_is_replaced_between_its_markers(load):
    table = load("table")
    page = f"a\n{table.BEGIN}old\n{table.END}b\n"
    new = f"a\n{table.BEGIN}\nnew\n\n{table.END}b\n"
    assert table.with_table(page, "new\n") == table.with_table(new, "new\n") == new


def test_page_holds_the_results(load, monkeypatch):
    """Otherwise: python benchmarks/table.py"""
    table = load("table")
    page = table.PAGE.read_text()
    monkeypatch.setattr(table, "PAGE", SimpleNamespace(read_text=lambda: page, write_text=str))
    written = []
    monkeypatch.setattr(table.PAGE, "write_text", written.append)
    table.main()
    assert written == [page]


def test_rows_of_the_neighbours(load, monkeypatch):
    """faiss is left out: it may not be there."""
    common, nearest = load("common"), load("nearest")
    monkeypatch.setattr(nearest, "load_faiss", lambda threads: None)
    monkeypatch.setattr(nearest, "CPU_SIZES", (nearest.Size(40, 60, 2),))
    monkeypatch.setattr(nearest.nearest_int8, "usable", lambda device: True)
    threads = nearest.torch.get_num_threads()
    rows = {(row.what.split(",")[0], row.against): row for row in nearest.rows(common.Options())}
    nearest.torch.set_num_threads(threads)
    assert rows[nearest.OURS, nearest.FAISS].note == nearest.NO_FAISS
    for peer in (nearest.CDIST, nearest.SCIKIT):
        row = rows[nearest.OURS, peer]
        assert row.measured > 0
        assert row.details["errors"]["largest_error_of_d1_squared"] < 1000
        assert row.details["errors"]["other_verdict"] == 0


def test_nothing_is_timed_that_is_not_exact(load, monkeypatch):
    nearest = load("nearest")
    samples, training = nearest.images(nearest.Size(20, 30, 1))
    right = nearest.by_plain_search(samples, training, np)
    wrong = right[0], right[1] + (np.arange(20) == 7)[:, None]
    for first, second in ((right, wrong), (wrong, right)):
        sides = {"a": lambda found=first: found, "b": lambda found=second: found}
        with pytest.raises(SystemExit, match="not exact: a or b"):
            nearest.measure(sides, samples, training, ("a", "b"), 1)
    assert nearest.measure(
        {"a": lambda: right, "b": lambda: right}, samples, training, ("a", "b"), 1
    )


def test_rows_of_the_gpu_say_what_is_missing(load, monkeypatch):
    common, nearest = load("common"), load("nearest")
    monkeypatch.setattr(nearest, "gpu", lambda: None)
    rows = list(nearest.rows(common.Options(device="cuda")))
    assert len(rows) == 12
    assert {(row.measured, row.passed, row.note) for row in rows} == {(None, None, nearest.NO_GPU)}
    assert [str(row.target) for row in rows if row.target] == ["≥ 5", "≥ 1"]


def test_every_goal_has_a_row(load, monkeypatch):
    """Or it would never be measured."""
    common, nearest = load("common"), load("nearest")
    monkeypatch.setattr(nearest, "gpu", lambda: None)
    monkeypatch.setattr(nearest, "load_faiss", lambda threads: object())
    monkeypatch.setattr(nearest, "images", lambda size: (None, np.zeros(0)))
    sides = (nearest.OURS, nearest.PLAIN, nearest.FAISS, nearest.CDIST, nearest.SCIKIT)
    times, errors = {side: [1.0] for side in sides}, {side: {} for side in sides}
    monkeypatch.setattr(nearest, "measure", lambda *arguments: (times, errors))
    monkeypatch.setattr(nearest.torch, "set_num_threads", lambda threads: None)
    rows = {
        (device, row.what, row.against, row.target)
        for device in ("cpu", "cuda")
        for row in nearest.rows(common.Options(device))
        if row.target
    }
    assert rows == {(goal.device, goal.what, goal.against, goal.target) for goal in nearest.GOALS}
