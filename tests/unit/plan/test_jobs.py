"""Jobs of real configs: their number, their cost beside what is known of it, their requests."""

import json
import re

import pytest
import yaml

from emm import catalog
from emm.errors import UserError
from emm.expansion import WORKFLOW
from emm.plan.cost import network, sampling_operations, training_operations
from emm.plan.gpus import find_gpu
from emm.plan.jobs import all_jobs
from emm.plan.stage import check_budget, make_plan, write_plan

BF16 = {"set": {"train.precision": "bf16"}}


@pytest.fixture(scope="module")
def gu() -> catalog.Catalog:
    return catalog.load({"scale": "paper", "experiments": "gu2023", **BF16})


def runs_of(found: catalog.Catalog, experiment: str) -> list:
    return [run for run in found.runs.values() if experiment in run.experiments]


def test_the_whole_of_the_first_paper(gu):
    """5,790 A100-hours at 45 % of the peak, give or take 30 %: several grids are assumed."""
    *_, facts = make_plan(gu)
    assert facts["gpu_hours"] == pytest.approx(5790, rel=0.3)
    assert facts["gpu_hours"] > sum(row["own_gpu_hours"] for row in facts["experiments"])
    assert facts["longest_chain_hours"] == pytest.approx(225, rel=0.15)  # C = 320 on 6,000 images


def test_the_basic_run(gu):
    """6.03 A100-hours per 1,000 images, and 63 s for the samples of a checkpoint."""
    (run,) = [
        run
        for run in gu.runs.values()
        if run.id.startswith("cifar10-32px-n1000-ddpmpp-c128b2")
        and run.settings["train.seed"] == 1024
        and run.settings["train.batch_size"] == 512
        and not run.settings["train.weight_decay"]
        and run.settings["model.skip_mask"] == "all"
        and run.settings["model.time_embedding"] == "positional"
        and run.settings["data.num_classes"] == 10
        and len(run.ema) > 1
    ]
    rate = find_gpu("a100").rate("bf16")
    assert training_operations(run) / rate / 3600 == pytest.approx(6.03, rel=0.01)
    assert network(run.settings).parameters == 35_125_251
    evaluation = max(run.evaluations.values(), key=lambda e: len(e.steps))
    images = evaluation.settings["eval.num_samples"] * len(evaluation.steps)
    assert sampling_operations(evaluation) / images == pytest.approx(8.90e15 / 10_000, rel=0.01)


def test_jobs_wait_for_what_comes_before_them(gu):
    seen = set()
    for job in all_jobs(gu):
        assert set(job.needs) <= seen, job.key
        assert job.key not in seen
        seen.add(job.key)


def test_a_measure_of_samples_that_were_removed_has_them_drawn_again(tmp_path):
    found = catalog.load({"experiments": "criteria", "results": str(tmp_path)})
    first, *others = found.evaluations
    for name in ("summary", "criteria"):
        for key in (first, others[0]) if name == "summary" else (first,):
            folder = found.evaluation_folder(*key)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.parquet").touch()
    _, done, _ = make_plan(found)
    names = ["/".join(key) for key in (first, others[0])]
    assert {("sample", names[0]), ("score", names[0]), ("criteria", names[0])} <= done
    assert {key for key in done if key[1] == names[1]} == {("score", names[1])}


def test_a_long_training_takes_several_allocations(gu):
    jobs = {job.key: job for job in all_jobs(gu) if job.rule == "train"}
    longest = max(jobs.values(), key=lambda job: job.seconds)
    assert longest.minutes == 24 * 60
    assert longest.allocations == pytest.approx(longest.seconds / 86400, abs=1)
    assert longest.allocations * (24 * 3600 - 60) >= longest.seconds - longest.allocations * 60
    short = min(jobs.values(), key=lambda job: job.seconds)
    assert (short.allocations, short.minutes) == (1, 60)
    assert all(60 <= job.minutes <= 24 * 60 for job in jobs.values())


def test_a_long_training_shares_gpus(gu):
    """As many as bring it under the limit, or as there may be; requests grow with them."""
    given = {"scale": "paper", "experiments": "gu2023", **BF16}
    plan = {"gpus_per_run": 4, "run_hours": 100}
    alone = {job.key: job for job in all_jobs(gu)}
    shared = {job.key: job for job in all_jobs(catalog.load(given | {"plan": plan}))}
    assert shared.keys() == alone.keys()
    assert {job.gpus for job in shared.values() if job.rule == "train"} == {0, 1, 2, 4}
    for key, job in shared.items():
        before = alone[key]
        hours = (before.seconds - 60 * before.allocations) / 3600
        assert job.gpus in (0, 1) or hours > 100
        assert job.gpus < 4 or hours > 200
        assert hours < 100 or job.gpus > 1
        assert job.mem_mb == before.mem_mb * max(1, job.gpus)
        assert job.threads == before.threads * max(1, job.gpus)
        assert job.gpu_hours <= before.gpu_hours / 0.9 * 1.01
    large = [run.id for run in gu.runs.values() if run.settings["model.base"]]
    assert large
    assert all(shared["train", run].gpus == 1 for run in large)


@pytest.mark.parametrize("hours", [1, 12, 24])
def test_sampling_and_scoring_fit_into_one_allocation(hours):
    given = {"scale": "paper", "experiments": "all", "plan": {"hours": hours}}
    asked: dict[str, int] = {}
    for job in all_jobs(catalog.load(given)):
        if job.rule in ("sample", "score"):
            asked[job.name] = asked.get(job.name, 0) + job.minutes
    assert asked
    assert max(asked.values()) <= 60 * hours


def test_quality_waits_for_samples_and_features():
    found = catalog.load({"scale": "paper", "experiments": "quality"})
    jobs = {job.key: job for job in all_jobs(found)}
    (features,) = (job for job in jobs.values() if job.rule == "features")
    measured = [job for job in jobs.values() if job.rule == "quality"]
    assert len(measured) == len(found.evaluations)
    for job in measured:
        (run,) = (run for run in found.runs.values() if run.id == job.run)
        needs = {("sample", job.name), ("data", run.source_id), features.key}
        assert set(job.needs) == needs
        assert job.gpus == 1
        assert 60 < job.seconds < 3600
    assert features.gpus == 1
    assert features.seconds < 600
    pixels = catalog.load({"scale": "paper", "experiments": "quality", "features": "pixels"})
    assert not any(job.rule == "features" for job in all_jobs(pixels))
    assert all(len(job.needs) == 2 for job in all_jobs(pixels) if job.rule == "quality")


def test_features_that_are_there_are_done(tmp_path):
    found = catalog.load({"experiments": "quality", "results": str(tmp_path)})
    (name,) = found.features
    assert ("features", name) not in make_plan(found)[1]
    path = found.root / "features" / f"{name}.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    assert ("features", name) in make_plan(found)[1]


def test_retries_of_the_profile_suffice():
    """An allocation each, and some that are lost."""
    profile = yaml.safe_load((WORKFLOW.parent / "profiles/slurm/profile.yaml").read_text())
    config = yaml.safe_load((WORKFLOW.parent / "config.yaml").read_text())
    given = {"scale": "paper", "experiments": "all", "plan": config["plan"]}
    most = max(job.allocations for job in all_jobs(catalog.load(given)))
    assert most + 10 <= profile["retries"]


def test_what_takes_no_gpu():
    found = catalog.load({"experiments": "conditioning", "set": {"train.device": "cpu"}})
    assert not any(job.gpus for job in all_jobs(found))
    cores = catalog.load({"experiments": "conditioning", "plan": {"gpu": "cpu"}})
    assert make_plan(cores)[-1]["gpu_hours"] == 0
    assert make_plan(cores)[-1]["cpu_hours"] > 0.05


def test_files(tmp_path):
    found = catalog.load({"experiments": "conditioning"})
    facts = write_plan(found, tmp_path)
    assert json.loads((tmp_path / "plan.json").read_text()) == facts
    lines = (tmp_path / "jobs.csv").read_text().splitlines()
    assert len(lines) == 1 + facts["jobs"]
    assert lines[0].startswith("rule,name,run,experiments,gpus,threads,mem_mb,minutes")
    html = (tmp_path / "plan.html").read_text()
    assert not re.search(r"(src|href)=", html)  # nothing is loaded
    assert html.count("<details>") == 1 + len(found.runs)


def test_budget():
    allowed = {"experiments": "conditioning", "scale": "paper"}
    check_budget(catalog.load(allowed))
    check_budget(catalog.load(allowed | {"budget": {"gpu_hours": 1e6}}))
    message = r"budget.gpu_hours 10: [\d,]+ GPU-hours are left to do on NVIDIA A100 80 GB \(conditi"
    with pytest.raises(UserError, match=message):
        check_budget(catalog.load(allowed | {"budget": {"gpu_hours": 10}}))


def test_gpus_that_are_not_known(tmp_path):
    with pytest.raises(UserError, match=r"plan\.gpu: no GPU 'a10'; did you mean 'a100'"):
        find_gpu("a10")
    with pytest.raises(UserError, match=r"none.yaml: no such file"):
        find_gpu(str(tmp_path / "none.yaml"))
    with pytest.raises(UserError, match="one core of a laptop has no speed at bf16; it has fp32"):
        find_gpu("cpu").rate("bf16")
