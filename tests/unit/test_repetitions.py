"""Repetitions with other seeds: what they draw anew, what they leave, and that plans count them."""

import pytest

from emm import catalog
from emm.documents import Config, Experiment
from emm.errors import UserError
from emm.plan.jobs import all_jobs
from emm.repetitions import repeated, sweeps_seeds
from emm.spec import DEFAULTS, parse


def load(experiments, seeds=1, **config):
    return catalog.load({"scale": "quick", "experiments": experiments, "seeds": seeds, **config})


def test_the_first_repetition_is_as_published():
    one, three = load("demo"), load("demo", 3)
    assert set(one.runs) < set(three.runs)
    assert set(one.evaluations) < set(three.evaluations)
    assert len(three.runs) == 3 * len(one.runs)


def test_a_repetition_draws_everything_anew():
    changed = repeated(DEFAULTS, 2)
    assert {key for key in DEFAULTS if changed[key] != DEFAULTS[key]} == {
        *("data.seed", "labels.seed"),
        *("train.seed", "eval.seed"),
    }
    assert changed["train.seed"] == 1026
    assert changed["eval.seed"] >= 2 * 50_000  # the noise of no image twice
    assert repeated(DEFAULTS, 0) == DEFAULTS


@pytest.mark.parametrize(("experiment", "times"), [("demo", 1), ("dummies", 3), ("ffhq", 3)])
def test_only_what_is_drawn_is_drawn_anew(experiment, times):
    """A class-balanced prefix is the same images; random choices and generated images are not."""
    first, three = load(experiment), load(experiment, 3)
    assert len(three.subsets) == times * len(first.subsets)


def test_random_labels_are_drawn_anew():
    rows = load("random_labels", 3).rows
    kinds = {(row.settings["labels.kind"], row.settings["labels.seed"]) for row in rows}
    assert {("random", 1024), ("random", 1025), ("random", 1026)} <= kinds
    assert {seed for kind, seed in kinds if kind != "random"} <= {1024}


def test_what_needs_no_training_is_only_sampled_again():
    found = load("optimum", 3)
    assert len(found.runs) == 1
    assert len(found.evaluations) == 3


def test_experiments_that_sweep_seeds_are_not_multiplied():
    found = load("seeds,demo", 3)
    own = [row for row in found.rows if row.experiment == "seeds"]
    assert len(own) == 6
    assert found.notices == ["config: seeds: not of seeds, which has seeds of its own"]
    assert load("seeds,demo").notices == []


@pytest.mark.parametrize(
    ("runs", "sweeps"),
    [
        ([{"train.seed": [1, 2]}], True),
        ([{"data.seed": 1}, {"data.seed": 2, "data.size": 10}], True),
        ([{"eval.seed": 7, "data.size": [10, 20]}], False),
    ],
)
def test_a_seed_is_swept_where_it_has_several_values(runs, sweeps):
    experiment = parse(Experiment, {"title": "x", "runs": runs}, "x")
    assert sweeps_seeds(experiment) is sweeps


def test_a_forced_seed_is_where_repetitions_begin():
    found = load("demo", 2, set={"train.seed": 7})
    assert {row.settings["train.seed"] for row in found.rows} == {7, 8}


def test_rows_of_repetitions_differ_in_seeds_alone():
    for row in load("demo", 2).rows:
        assert row.published["train.seed"] - 1024 == row.settings["train.seed"] - 1024
        assert row.settings["eval.seed"] in (0, 1_000_000)


def test_a_plan_counts_repetitions():
    plans = (all_jobs(load("demo", seeds)) for seeds in (1, 3))
    hours = [sum(job.gpu_hours for job in jobs) for jobs in plans]
    assert hours[1] == pytest.approx(3 * hours[0], rel=0.05)


@pytest.mark.parametrize("seeds", [0, "three"])
def test_a_number_of_seeds_that_is_none(seeds):
    with pytest.raises(UserError, match=r"config: seeds: input should be"):
        parse(Config, {"seeds": seeds}, "config")
