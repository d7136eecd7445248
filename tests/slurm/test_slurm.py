"""The workflow on a real SLURM: what it asks for, and what it survives."""

import re

import pandas as pd
import pytest
import yaml
from faults import FAULTS
from project import SIZES, check_out, share_subsets
from stress import stress

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize("fault", FAULTS)
def test_results_after_a_fault_are_those_of_an_undisturbed_run(fault, outcomes, undisturbed):
    table = outcomes[fault].result()
    whole = undisturbed.table()
    same = whole[whole["run"].isin(table["run"])].reset_index(drop=True)
    assert len(same)
    pd.testing.assert_frame_equal(table, same)


def requests(slurm, job: str) -> tuple[str | None, str, str]:
    """GPUs, cores and time limit that a job was submitted with."""
    text = slurm.run("scontrol", "show", "job", job).stdout
    found = [re.search(rf"\b{key}=(\S+)", text) for key in ("TresPerJob", "NumCPUs", "TimeLimit")]
    return tuple(match and match[1] for match in found)


def test_a_run(slurm, folder, undisturbed):
    """Every job asks for what it needs, and a run is sampled and scored in one allocation."""
    project = check_out(folder, slurm)
    project.finish(project.start())
    pd.testing.assert_frame_equal(project.table(), undisturbed.table())
    comments = [what for _, _, what in project.jobs()]
    assert sum("rule_train" in what for what in comments) == 2
    assert sum("sample_score" in what for what in comments) == 2
    assert not any(what.startswith(("rule_sample", "rule_score")) for what in comments)
    asked = {what: requests(slurm, job) for job, _, what in project.jobs()}
    train = next(each for what, each in asked.items() if "rule_train" in what)
    assert train == ("gres:gpu:1", "1", "01:00:00")
    assert asked["rule_evaluate_sample_score"] == ("gres:gpu:1", "1", "02:00:00")
    assert asked["rule_tables"] == (None, "1", "00:30:00")


def test_a_training_that_two_gpus_share(slurm, undisturbed, folder):
    """Its job asks for both, and its loss is that of one process up to rounding."""
    project = check_out(folder, slurm, sizes=SIZES[:1])
    share_subsets(undisturbed, project)
    path = project.folder / "profiles" / "slurm" / "paper.yaml"
    plan = {"gpus_per_run": 2, "run_hours": 1e-6}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"plan": plan}))
    project.finish(project.start())
    ((job, _, _),) = project.jobs("rule_train")
    assert requests(slurm, job)[:2] == ("gres:gpu:2", "2")
    (record,) = project.folder.glob("results/tiny/runs/*/run.yaml")
    found = yaml.safe_load(record.read_text())
    whole = yaml.safe_load((undisturbed.folder / record.relative_to(project.folder)).read_text())
    assert (found["processes"], whole["processes"]) == (2, 1)
    assert found["loss"] == pytest.approx(whole["loss"], rel=0.01)


def test_kills_at_random_moments(slurm, tmp_path):
    """The short form of stress.py: no result differs in a bit."""
    figures = stress(slurm, tmp_path, kills=5, seconds=60, sizes=(1000,))
    assert figures["kills"] >= 1
    assert figures["differences"] == 0
    assert figures["results"] >= 3
