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
    names = ("common", "nearest", "bench")
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
        assert "not measured" in printed
        assert "no peer" in printed
        return
    content = json.loads(files[0].read_text())
    assert content["rows"][0]["passed"] == (code == 0)
    assert content["rows"][0]["target"] == "≤ 0.7"
    assert content["versions"]["numpy"] == np.__version__
    assert ("MISSED" in printed) == bool(code)


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
    right = nearest.by_plain_search(samples, training)
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
    assert len(rows) == 9
    assert {(row.measured, row.passed, row.note) for row in rows} == {(None, None, nearest.NO_GPU)}
