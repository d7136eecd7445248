"""The published grid of Yoon et al. 2023: how many runs there are, and what training them costs."""

import pytest

from emm import catalog
from emm.catalog import Catalog, Run
from emm.train.schedules import training_size

RUNS = {  # distinct runs of each experiment
    "capacity": 21,
    "synthetic": 3,  # the closed-form optimum of each kind of image
    "dummies": 3 + 2,  # a pair with another cross, which the paper leaves open
    "dummies_matched": 7,
    "cars": 4,
    "cars_matched": 4,
    "minority": 2,
}
PUBLISHED = {"capacity", "dummies", "cars", "minority"}
GMAC = {64: 2.16, 128: 8.39, 256: 33.0}  # forward, per image of 32x32, by width


@pytest.fixture(scope="module")
def paper() -> Catalog:
    return catalog.load({"scale": "paper", "experiments": "yoon2023"})


def is_published(run: Run) -> bool:
    return bool(run.experiments & PUBLISHED) and run.settings["data.cross_width"] == 1


def iterations(run: Run) -> float:
    return run.epochs * training_size(run.settings) / run.settings["train.batch_size"]


def test_runs_of_each_experiment(paper):
    found = {name: set() for name in paper.experiments}
    for row in paper.rows:
        found[row.experiment].add(row.run_id)
    assert {name: len(ids) for name, ids in found.items()} == RUNS


def test_distinct_runs(paper):
    published = [run for run in paper.runs.values() if is_published(run)]
    assert len(published) == 21 + 3 + 4 + 2
    optimum = [run for run in paper.runs.values() if run.is_optimum]
    ours = len(paper.runs) - len(published) - len(optimum)
    assert ours == 2 + 4 + 1  # another cross; exposure controls of Mondrian images, and of cars


def test_longer_controls_go_on_from_the_published_runs(paper):
    longest = {
        iterations(run)
        for run in paper.runs.values()
        if run.experiments >= {"cars", "cars_matched"}
    }
    assert longest == {200_000, 400_000, 800_000}
    exposures = {run.epochs for run in paper.runs.values() if run.experiments & {"cars_matched"}}
    assert exposures == {12_800}


def test_training_cost(paper):
    """EFLOP: 0.83, 3.22 and 12.7 per run of the sweep, 1.29 per run of 100k steps of 256."""

    def eflop(row: catalog.Row) -> float:
        settings = row.settings
        images = settings["train.iterations"] * settings["train.batch_size"]
        return 6 * GMAC[settings["model.channels"]] * 1e9 * images / 1e18

    costs = {name: [] for name in PUBLISHED}
    for row in paper.rows:
        if row.experiment in PUBLISHED:
            costs[row.experiment].append(eflop(row))
    assert sorted(set(costs["capacity"])) == pytest.approx([0.83, 3.22, 12.7], rel=0.01)
    assert costs["cars"] == pytest.approx([1.29] * 4, rel=0.01)
    whole = sum(costs["capacity"]) + 1.29 * (3 + 4 + 2)
    assert whole == pytest.approx(129, rel=0.01)


def test_the_networks_are_the_published_ones(paper):
    settings = [run.settings for run in paper.runs.values() if not run.is_optimum]
    for s in settings:
        assert (s["model.channel_mult"], s["model.num_blocks"]) == ((1, 2, 2, 2), 3)
        assert (s["model.attention_levels"], s["model.heads"]) == ((2, 3), 4)
        assert (s["model.dropout"], s["model.diffusion_steps"]) == (0.3, 4000)
        assert (s["train.lr"], s["train.ema"], s["train.ema_ramp"]) == (1e-4, 0.9999, "none")
        assert (s["eval.sampler"], s["eval.steps"]) in (("ancestral", 4000), ("ancestral", 250))
        assert s["labels.num_classes"] in (0, 1000)


def test_claims_are_about_the_last_checkpoint(paper):
    """As the paper's numbers are: it trains to the end and samples once."""
    measured = {
        name: claim.checkpoint
        for experiment in paper.experiments.values()
        for name, claim in experiment.claims.items()
        if not claim.metric.startswith("parameters_") and name != "yoon_optimum"
    }
    of_capacity = {"yoon_capacity_rises", "yoon_width"}  # itself of the last checkpoint
    assert of_capacity < set(measured)
    assert {which for name, which in measured.items() if name not in of_capacity} == {"last"}


def test_every_row_is_in_a_figure(paper):
    drawn = {row.key for figure in paper.figures.values() for row in figure.rows}
    assert {row.key for row in paper.rows} == drawn
