"""Attempts as the account has them, from logs and benchmarks written by hand."""

import time
from dataclasses import fields

import pytest

from emm.analyse.parquet import read_table, write_table
from emm.plan.jobs import all_jobs
from emm.usage.account import Attempt, frame, make_account

DAY = 1.7e9


def attempts(results) -> list[Attempt]:
    return list(make_account(results.catalog).attempts)


def test_retries_count_each(results, keys):
    run, evaluation = keys[0]
    results.log("train", run, 0, 2, outcome=None)
    results.log("train", run, 3, 4, outcome="stopped")
    results.log("train", run, 8, 1)
    results.log("sample", f"{run}/{evaluation}", 9, 0.5)
    found = attempts(results)
    assert [(a.rule, a.number, a.outcome) for a in found] == [
        ("train", 1, "killed"),
        ("train", 2, "stopped"),
        ("train", 3, "finished"),
        ("sample", 1, "finished"),
    ]
    assert sum(attempt.gpu_hours for attempt in found) == pytest.approx(7.5)
    assert (found[3].run, found[3].evaluation) == (run, evaluation)
    assert (found[0].start, found[0].end) == (DAY, DAY + 7200)
    job = next(job for job in all_jobs(results.catalog) if job.key == ("train", run))
    assert (found[0].requested_minutes, found[0].requested_mem_mb) == (job.minutes, job.mem_mb)
    assert found[0].experiments == ("seeds",)
    assert found[0].cpu_percent == pytest.approx(50)


def test_an_attempt_elsewhere_runs_while_it_says_so(results, keys):
    """Nobody can look for its process: after five minutes of silence it is gone."""
    now = (time.time() - DAY) / 3600
    results.log("train", keys[0][0], now - 2, 2, outcome=None)
    results.log("train", keys[1][0], now - 1, 0.75, outcome=None)
    results.log("sample", "/".join(keys[0]), now - 0.5, 0.45, outcome=None)
    assert [attempt.outcome for attempt in attempts(results)] == ["running", "killed", "running"]


def test_a_benchmark_is_of_the_attempt_that_finished(results, keys):
    name = keys[0][0]
    results.log("train", name, 0, 2, outcome=None)
    results.log("train", name, 3, 1)
    results.benchmark("train", name, 4, 3700)
    killed, finished = attempts(results)
    assert (killed.outcome, finished.outcome) == ("killed", "finished")
    assert finished.seconds == 3600  # as logged
    assert finished.peak_memory_mb == pytest.approx(5242.88)  # MiB in MB, above its own 4000
    assert killed.peak_memory_mb == 4000
    assert {a.requested_minutes for a in (killed, finished)} == {120}  # as it was given
    assert {a.requested_mem_mb for a in (killed, finished)} == {16000}


def test_an_end_that_could_not_be_logged(results, keys):
    name = keys[0][0]
    results.log("train", name, 0, 1, outcome=None)
    results.benchmark("train", name, 2, 7000)
    (attempt,) = attempts(results)
    assert (attempt.outcome, attempt.seconds, attempt.end) == ("finished", 7000, DAY + 7000)


def test_a_benchmark_alone(results, keys):
    run, evaluation = keys[0]
    results.benchmark("train", run, 2, 3600)
    results.benchmark("sample", f"{run}/{evaluation}", 3, 1800)
    first, second = attempts(results)
    assert (first.start, first.end) == (DAY + 3600, DAY + 7200)
    assert (second.start, second.end) == (DAY + 9000, DAY + 10800)
    assert (first.logged, first.host, first.gpu_percent, first.gpus) == (False, None, None, 1)
    assert first.cpu_percent == 100


def test_an_older_benchmark_than_the_log(results, keys):
    name = keys[0][0]
    results.benchmark("train", name, 2, 3600)
    results.log("train", name, 5, 1, outcome=None)
    assert [(a.logged, a.outcome) for a in attempts(results)] == [
        (False, "finished"),
        (True, "killed"),
    ]


def test_times_of_copied_files_mean_nothing(results, keys):
    for run, evaluation in keys:
        results.benchmark("train", run, 2, 3600)
        results.benchmark("sample", f"{run}/{evaluation}", 2, 1800)
    found = attempts(results)
    assert len(found) == 2 * len(keys)
    assert {(a.start, a.end) for a in found} == {(None, None)}
    assert {a.seconds for a in found} == {3600, 1800}


@pytest.mark.parametrize(
    ("facts", "given", "expected"),
    [
        ({}, None, 1),  # it has seen one
        ({"gpu": None, "slurm_job": None}, None, 0),  # a laptop: the plan's GPU is not there
        ({"gpu": None}, None, 1),  # SLURM gave one, whatever became of it
        ({"gpu": None}, {"gpu": 0}, 0),  # the profile gave none
        ({"slurm_job": None}, {"gpu": 0}, 1),
        ({"gpu": None, "slurm_job": None}, {"gpu": 1}, 1),
    ],
)
def test_gpus_that_an_attempt_held(results, keys, facts, given, expected):
    results.log("train", keys[0][0], 0, 1, **facts)
    if given is not None:
        results.benchmark("train", keys[0][0], 1, 3600, given)
    assert [attempt.gpus for attempt in attempts(results)] == [expected]


def test_damaged_files_cost_what_they_held_only(results, keys):
    (first, _), (second, _), *_ = keys
    path = results.log("train", first, 0, 1, outcome=None)
    with path.open("a") as stream:
        stream.write('not JSON\n{"attempt": 5}\n{"attempt": "x", "host": "node1", "pi')
    results.log("train", second, 0, 1).write_bytes(b"\xff\x00\n\n")
    for name, text in {first: "", second: '{"s": "-"}', "odd": "[]"}.items():
        results.benchmark("train", name, 0, 1).write_text(text)
    assert [(a.run, a.outcome) for a in attempts(results)] == [(first, "killed")]


def test_what_a_benchmark_could_not_measure(results, keys):
    none = {"max_rss": "NA", "cpu_time": float("nan")}
    results.benchmark("train", keys[0][0], 1, 0.3, {"gpu": None, "runtime": "NA"}, **none)
    (attempt,) = attempts(results)
    assert attempt.peak_memory_mb is attempt.cpu_percent is attempt.requested_minutes is None
    assert (attempt.gpus, attempt.time_share, attempt.memory_share) == (0, None, None)


def test_jobs_that_are_done_and_those_of_others(results, keys):
    (run, evaluation), *_ = keys
    results.done(run, evaluation)
    results.log("score", f"{run}/{evaluation}", 0, 1)
    results.log("train", "run-of-others", 0, 1)
    results.benchmark("sample", "run-of-others/evaluation", 0, 1)
    account = make_account(results.catalog)
    assert account.unknown == (("train", run), ("sample", f"{run}/{evaluation}"))
    assert account.elsewhere == 2
    assert [job.key for job in account.planned] == [("score", f"{run}/{evaluation}")]


@pytest.mark.parametrize("count", [0, 2])
def test_the_table_has_a_row_per_attempt(results, keys, count, tmp_path):
    for run, _ in keys[:count]:
        results.log("train", run, 0, 1, slurm_job=None)
    write_table(tmp_path / "usage.parquet", frame(attempts(results)))
    table = read_table(tmp_path / "usage.parquet")
    assert list(table.columns) == [field.name for field in fields(Attempt)]
    assert len(table) == count
    assert table["slurm_job"].isna().all()
    assert (table["experiments"] == "seeds").all()
    assert table["seconds"].sum() == 3600 * count
