"""What jobs come to, on graphs small enough to do by hand."""

import pytest

from emm.plan.jobs import Job
from emm.plan.totals import by_experiment, by_rule, longest_chain, peak_bytes, total, wall_seconds

HOUR = 3600.0


def job(rule: str, name: str, hours: float, needs=(), gpus: int = 0, **keywords) -> Job:
    return Job(rule, name, hours * HOUR, 60, 1000, gpus=gpus, needs=tuple(needs), **keywords)


def chains(*hours: float) -> list[Job]:
    """A subset, then trainings of so many hours, each scored in one."""
    jobs = [job("subset", "s", 0.5)]
    for number, length in enumerate(hours):
        about = {"gpus": 1, "run": f"r{number}", "experiments": ("all", f"e{number % 2}")}
        train = job("train", f"r{number}", length, [("subset", "s")], **about)
        jobs += [train, job("score", f"r{number}", 1, [train.key], **about)]
    return [*jobs, job("report", "all", 0.25, [j.key for j in jobs if j.rule == "score"])]


@pytest.mark.parametrize(
    ("gpus", "expected"), [(1, 0.75 + 13), (2, 0.75 + 7), (3, 0.75 + 6), (9, 0.75 + 6)]
)
def test_time_on_so_many_gpus(gpus, expected):
    """Trainings of 5, 3 and 2 hours: two GPUs take the longest chain and the other two."""
    assert wall_seconds(chains(5, 3, 2), gpus) == pytest.approx(expected * HOUR)


@pytest.mark.parametrize(("gpus", "expected"), [(4, 4), (3, 4), (2, 7), (1, 8)])
def test_time_with_a_training_on_several_gpus(gpus, expected):
    """Two hours on two GPUs, then one hour on one; and five hours of others beside it.

    Jobs start in their order: a small one does not pass one that waits for GPUs.
    """
    shared = job("train", "shared", 2, gpus=2)
    jobs = [shared, job("score", "shared", 1, [shared.key], gpus=1)]
    jobs += [job("train", f"r{number}", hours, gpus=1) for number, hours in enumerate((4, 1))]
    assert wall_seconds(jobs, gpus) == pytest.approx(expected * HOUR)


@pytest.mark.parametrize(
    ("cores", "threads", "expected"), [(1, 1, 6), (2, 1, 4), (3, 1, 2), (2, 2, 6), (4, 2, 4)]
)
def test_without_a_gpu_jobs_share_the_cores(cores, threads, expected):
    """Three jobs of two hours, each of so many threads."""
    jobs = [job("train", f"r{number}", 2, threads=threads) for number in range(3)]
    assert wall_seconds(jobs, cores) == pytest.approx(expected * HOUR)


def test_the_longest_chain():
    seconds, chain = longest_chain(chains(1, 5, 3))
    assert seconds == pytest.approx((0.5 + 5 + 1 + 0.25) * HOUR)
    assert [" ".join(job.key) for job in chain] == [
        "subset s",
        "train r1",
        "score r1",
        "report all",
    ]
    assert longest_chain([]) == (0.0, [])


def test_sums():
    jobs = chains(5, 3, 2)
    found = total(jobs, 2)
    assert found["gpu_hours"] == pytest.approx(13)
    assert found["cpu_hours"] == pytest.approx(0.75)
    assert (found["jobs"], found["runs"], found["allocations"]) == (8, 3, 8)
    rules = {row["rule"]: row for row in by_rule(jobs)}
    assert list(rules) == ["subset", "train", "score", "report"]
    assert rules["train"]["gpu_hours"] == pytest.approx(10)
    rows = {row["experiment"]: row for row in by_experiment(jobs)}
    assert rows["all"]["gpu_hours"] == pytest.approx(13)
    assert rows["e0"]["gpu_hours"] == pytest.approx(9)
    assert rows["e0"]["own_gpu_hours"] == 0  # all of them shared


def test_disk():
    """What stays adds up; what passes lies there for as many runs as have a GPU."""
    jobs = [
        job("train", str(number), 1, gpus=1, final=10.0, passing=float(number))
        for number in range(5)
    ]
    assert peak_bytes(jobs, 2) == 50 + 4 + 3
    assert peak_bytes(jobs, 100) == 50 + 10
