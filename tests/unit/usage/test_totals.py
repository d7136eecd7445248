"""What accounts come to, on examples small enough to do by hand."""

import pytest

from emm.documents import Figure
from emm.plan.jobs import Job
from emm.planned import PlannedFigure
from emm.runs import Row
from emm.usage.account import Account, Attempt
from emm.usage.totals import by_experiment, by_figure, by_rule, duration, standing_out, total

HOUR = 3600.0


def job(rule: str, name: str, experiments: str, minutes: int = 600, **keywords) -> Job:
    about = {"gpus": 1, "run": name.partition("/")[0], "experiments": tuple(experiments.split())}
    return Job(rule, name, 2 * HOUR, minutes, 8000, **about | keywords)


def attempt(of: Job, hours: float, **keywords) -> Attempt:
    run, _, evaluation = of.name.partition("/")
    known = {
        **{"number": 1, "outcome": "finished", "host": "node1", "slurm_job": "7"},
        **{"gpu": "NVIDIA A100", "gpu_id": "GPU-a", "gpus": 1, "start": 0.0, "end": hours * HOUR},
        **{"peak_memory_mb": 4000.0, "cpu_percent": 50.0, "gpu_percent": 80.0},
        **{"peak_gpu_memory_mb": 20_000.0, "logged": True},
        **{"requested_minutes": of.minutes, "requested_mem_mb": of.mem_mb},
    }
    place = {"rule": of.rule, "run": run, "evaluation": evaluation, "experiments": of.experiments}
    return Attempt(**place | known | {"seconds": hours * HOUR} | keywords)


JOBS = [
    job("train", "a", "one two"),
    job("train", "b", "two"),
    job("sample", "a/x", "one two"),
    job("sample", "a/y", "one two"),
    job("sample", "b/x", "two"),
    job("score", "a/x", "one two"),
    job("score", "b/x", "two"),
]
TRAIN_A, TRAIN_B, SAMPLE_AX, SAMPLE_AY, SAMPLE_BX, SCORE_AX, SCORE_BX = JOBS
ATTEMPTS = (
    attempt(TRAIN_A, 3, outcome="killed", gpu_percent=60.0),
    attempt(TRAIN_A, 5, number=2, gpu_percent=90.0),
    attempt(TRAIN_B, 4, peak_memory_mb=6000.0),
    attempt(SAMPLE_AX, 1),
    attempt(SAMPLE_AY, 2),
    attempt(SAMPLE_BX, 0.5, gpus=0, gpu=None, gpu_percent=None),
    attempt(SCORE_AX, 0.25, outcome="running"),
)


def account(attempts=ATTEMPTS, jobs=JOBS) -> Account:
    return Account(tuple(attempts), {job.key: job for job in jobs}, (), 0)


def figure(name: str, *keys: str) -> PlannedFigure:
    rows = tuple(Row("two", {}, {}, *key.split("/")) for key in keys)
    return PlannedFigure(name, "two", Figure(plot="curve"), rows)


def test_all():
    facts = total(account())
    assert (facts["attempts"], facts["jobs"], facts["all_jobs"]) == (7, 6, 7)
    assert (facts["finished_jobs"], facts["runs"]) == (5, 2)
    assert facts["hours"] == pytest.approx(15.75)
    assert facts["gpu_hours"] == pytest.approx(15.25)  # one was done without
    assert facts["planned_gpu_hours"] == pytest.approx(12)  # of the six jobs, two hours each
    assert facts["outcomes"] == {"finished": 5, "killed": 1, "running": 1}
    assert facts["gpus_seen"] == {"NVIDIA A100": 6}


def test_rules():
    rows = {row["rule"]: row for row in by_rule(account())}
    assert list(rows) == ["train", "sample", "score"]
    train = rows["train"]
    assert (train["jobs"], train["attempts"], train["ended_early"]) == (2, 3, 1)
    assert (train["gpu_hours"], train["planned_gpu_hours"]) == (12, 4)
    assert train["minutes"] == {"median": 240, "max": 300}
    assert train["requested_minutes"] == {"median": 600, "max": 600}
    assert train["mem_mb"] == {"median": 4000, "max": 6000}
    assert train["gpu_percent"] == {"median": 80, "max": 90}
    assert rows["sample"]["gpu_hours"] == 3
    assert rows["sample"]["hours"] == 3.5
    assert rows["score"]["ended_early"] == 0  # it runs
    assert rows["score"]["minutes"] is None


def test_experiments():
    one, two = sorted(by_experiment(account()), key=lambda row: row["experiment"])
    assert (one["experiment"], one["jobs"], one["attempts"]) == ("one", 4, 5)
    assert (one["gpu_hours"], one["own_gpu_hours"]) == (11.25, 0)
    assert (two["gpu_hours"], two["hours"]) == (15.25, 15.75)
    assert (two["own_gpu_hours"], two["own_hours"]) == (4, 4.5)


def test_figures():
    """Two share the run a, one of them needs two evaluations of it, and b besides."""
    figures = {
        "fig1": figure("fig1", "a/x"),
        "fig2": figure("fig2", "a/x", "a/y", "b/x"),
        "fig3": figure("fig3", "c/x"),
    }
    rows = {row["figure"]: row for row in by_figure(account(), figures)}
    assert list(rows) == ["fig2", "fig1", "fig3"]  # the dearest first
    assert rows["fig1"]["gpu_hours"] == pytest.approx(3 + 5 + 1 + 0.25)
    assert rows["fig1"]["own_gpu_hours"] == 0
    assert rows["fig2"]["gpu_hours"] == pytest.approx(15.25)
    assert rows["fig2"]["own_gpu_hours"] == pytest.approx(4 + 2)  # b, and a/y
    assert rows["fig2"]["own_hours"] == pytest.approx(4 + 2 + 0.5)
    assert (rows["fig2"]["jobs"], rows["fig2"]["finished_jobs"]) == (8, 5)
    assert rows["fig3"]["gpu_hours"] == rows["fig3"]["finished_jobs"] == 0


def test_jobs_that_are_tried_often_stand_out():
    long = job("train", "c", "two", allocations=3)
    attempts = [
        *(attempt(TRAIN_A, 9, outcome="killed") for _ in range(2)),
        *(attempt(TRAIN_B, 9, outcome="stopped") for _ in range(2)),  # one more than planned
        *(attempt(long, 9, outcome="stopped") for _ in range(5)),
        attempt(SAMPLE_AX, 9),
    ]
    rows = standing_out(account(attempts, [*JOBS, long]))
    assert [(row["name"], row["often"]) for row in rows] == [
        ("c", ["5 attempts, 3 planned"]),
        ("a", ["killed twice"]),
    ]


@pytest.mark.parametrize(
    ("asked", "took", "wasted"),
    [
        ((600, 8000), (0.5, 7000), ["asked for 10 h, took 30 min"]),
        ((600, 8000), (0.5, 100), ["asked for 10 h, took 30 min"]),  # 8 GB is little
        ((600, 64000), (9, 4000), ["asked for 64 GB, took 4.0"]),
        ((600, 64000), (9, 17000), []),
        ((600, 8000), (2.6, 7000), []),
        ((60, 8000), (0.001, 7000), []),  # nobody asks for less
        ((150, 8000), (0.6, 7000), []),  # less than two hours in vain
    ],
)
def test_jobs_that_ask_for_far_too_much_stand_out(asked, took, wasted):
    minutes, mem_mb = asked
    hours, peak = took
    only = attempt(
        TRAIN_A, hours, requested_minutes=minutes, requested_mem_mb=mem_mb, peak_memory_mb=peak
    )
    assert [row["wasted"] for row in standing_out(account([only]))] == ([wasted] if wasted else [])


def test_what_is_not_known_stands_out_in_nothing():
    unknown = {"requested_minutes": None, "peak_memory_mb": None}
    assert standing_out(account([attempt(TRAIN_A, 0.01, **unknown)])) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.8, "0.8 s"), (90, "90 s"), (1800, "30 min"), (9000, "2.5 h"), (259_200, "3 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
