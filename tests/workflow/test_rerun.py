"""What a change makes the workflow do again: no more and no less than it concerns."""

import shutil

import pytest
import yaml

from emm.spec import RECIPE_VERSION

AGGREGATES = {
    *("experiment_tables", "tables", "figure", "replication", "pages", "report", "usage"),
    *("advice", "all"),
}

pytestmark = pytest.mark.slow


def test_adding_a_run_plans_that_run(clone):
    config = yaml.safe_load((clone.folder / "config.yaml").read_text())
    config["select"]["tiny"]["conditioning"].append({"labels.kind": "none", "data.size": 3000})
    clone.write("config.yaml", config)
    plan = clone.plan()
    counts = {rule: count for rule, count in plan.counts.items() if rule not in AGGREGATES}
    assert counts == {"subset": 1, "train": 1, "sample": 1, "score": 1}
    assert all("-n30-" in run for run in plan.runs("train"))


def test_changing_a_setting_plans_the_runs_that_have_it(clone):
    clone.edit("experiments/own.yaml", "data.size: 12", "data.size: 12\n  train.lr: 0.001")
    plan = clone.plan()
    counts = {rule: count for rule, count in plan.counts.items() if rule not in AGGREGATES}
    assert counts == {"train": 1, "sample": 1, "score": 1}
    assert all("-n12-" in run for run in plan.runs("train"))
    assert plan.wildcards["experiment_tables"] == [{"experiment": "own"}]
    assert plan.wildcards["figure"] == [{"figure": "own_curve"}]


def test_a_training_that_goes_on_hides_no_other_work(clone):
    """Its record exists, and what was sampled from it stays: all else must be planned even so."""
    own = yaml.safe_load((clone.folder / "experiments/own.yaml").read_text())
    (first,) = own["runs"]
    own["runs"] += [first | {"train.epochs": 20}, first | {"data.size": 10}]
    clone.write("experiments/own.yaml", own)
    plan = clone.plan()
    counts = {rule: count for rule, count in plan.counts.items() if rule not in AGGREGATES}
    assert counts == {"subset": 1, "train": 2, "sample": 2, "score": 2}
    assert set(plan.counts) >= {"tables", "figure", "report", "all"}
    evaluations = {job["evaluation"].split("ep-")[0] for job in plan.wildcards["sample"]}
    assert evaluations == {"20", "10"}


def test_text_of_rules_and_code_plan_nothing(clone):
    clone.edit("workflow/rules/train.smk", "emm train \\", "emm   train \\")
    with (clone.folder / "workflow/rules/score.smk").open("a") as stream:
        stream.write("\n# A remark.\n")
    for path in (clone.folder / "workflow" / "emm").rglob("*.py"):
        path.write_text(path.read_text() + "\n# A remark.\n")
    assert clone.plan().nothing


@pytest.mark.parametrize(
    "changed",
    [{"threads": 2}, {"cache": "elsewhere"}, {"set": {"train.device": "cpu"}}],
    ids=lambda changed: next(iter(changed)),
)
def test_how_and_where_computes_nothing_dear(clone, changed):
    clone.configure(**changed)
    assert set(clone.plan().counts) <= AGGREGATES


def test_more_cores_plan_nothing(clone):
    assert clone.plan("--config", "threads=2", "cache=elsewhere").nothing


def test_title_of_a_figure_plans_that_figure(clone):
    path = "workflow/experiments/gu2023/conditioning.yaml"
    clone.edit(path, "title: No labels, true labels, random labels\n", "title: Labels\n")
    plan = clone.plan()
    assert plan.wildcards["figure"] == [{"figure": "fig5a"}]
    assert set(plan.counts) == {"figure", "pages", "report", "all"}


def test_targets_by_name_leave_shared_runs_alone(clone):
    targets = {"fig1c", "fig5a", "own_curve"}
    assert set(clone.plan(*targets).counts) <= targets


def test_fewer_experiments_sample_nothing_again(clone):
    counts = clone.plan("--config", "experiments=conditioning").counts
    assert not {"data", "subset", "sample", "score"} & set(counts)


def test_another_image_of_the_user_plans_the_runs_on_them(clone):
    shutil.copy2(clone.folder / "images/cat/0.png", clone.folder / "images/cat/new.png")
    plan = clone.plan()
    counts = {rule: count for rule, count in plan.counts.items() if rule not in AGGREGATES}
    assert counts == {"data": 1, "subset": 1, "train": 1, "sample": 1, "score": 1}
    assert plan.wildcards["figure"] == [{"figure": "own_curve"}]


def test_recipe_version_plans_all_trainings(clone):
    old, new = (f"RECIPE_VERSION = {RECIPE_VERSION + more} " for more in (0, 1))
    clone.edit("workflow/emm/spec.py", old, new)
    counts = clone.plan().counts
    assert counts["train"] == 5
    assert counts["sample"] == counts["score"] == 6
    assert "data" not in counts
    assert "subset" not in counts


def test_deleted_figure_is_drawn_again(clone):
    (clone.results / "figures" / "fig1c.pdf").unlink()
    plan = clone.plan()
    assert plan.wildcards["figure"] == [{"figure": "fig1c"}]
    assert set(plan.counts) == {"figure", "pages", "report", "all"}


def test_missing_summary_is_sampled_again_not_trained(clone):
    for pattern in ("figures/fig1a.*", "tables/optimum/*", "runs/*optimum*/*/summary.parquet"):
        for path in clone.results.glob(pattern):
            path.unlink()
    counts = clone.plan().counts
    assert counts["sample"] == counts["score"] == 1
    assert "train" not in counts


def test_deleted_sources_plan_nothing(clone):
    for path in (clone.results / "sources").iterdir():
        path.unlink()
    assert clone.plan().nothing


def test_damaged_summary_is_one_line_that_names_it(clone):
    path = next(clone.results.glob("runs/*optimum*/*/summary.parquet"))
    content = bytearray(path.read_bytes())
    start = len(content) // 3  # a single byte may be one that nothing depends on
    content[start : start + 64] = bytes(byte ^ 0xFF for byte in content[start : start + 64])
    path.write_bytes(content)
    target = "results/tiny/tables/memorization.parquet"
    done = clone.run("snakemake", "--profile", "profiles/local", target)
    assert done.returncode == 1
    log = (clone.results / "logs" / "tables.log").read_text().splitlines()
    assert len(log) == 1, log
    assert log[0].startswith("error: ")
    assert str(path.relative_to(clone.folder)) in log[0]
    assert log[0] in done.stdout
