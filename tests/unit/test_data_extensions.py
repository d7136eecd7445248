"""Experiments of our own on data: their runs at the published scale, and which others train too."""

import pytest

from emm import catalog
from emm.train.schedules import evaluated_steps, stored_size

PUBLISHED = ["resolution", "conditioning"]
TOPICS = ["duplication", "augmentation", "datasets"]


@pytest.fixture(scope="module")
def paper() -> catalog.Catalog:
    return catalog.load({"scale": "paper", "experiments": [*TOPICS, *PUBLISHED]})


def runs_of(found: catalog.Catalog, *experiments: str) -> dict[str, dict]:
    rows = (row for row in found.rows if row.experiment in experiments)
    return {row.run_id: dict(row.settings) for row in rows}


@pytest.mark.parametrize(
    ("topic", "count", "shared"),
    [("duplication", 14, 2), ("augmentation", 12, 4), ("datasets", 12, 4)],
)
def test_what_others_train_too_is_shared(paper, topic, count, shared):
    runs = runs_of(paper, topic)
    assert len(runs) == count
    common = runs.keys() & runs_of(paper, *PUBLISHED).keys()
    assert len(common) == shared
    for name in common:
        settings = runs[name]
        changed = ("data.copies", "train.augment", "data.dataset")
        assert [settings[key] for key in changed] == [1, "none", "cifar10"]


def test_repeated_images_leave_the_draws_as_they_are(paper):
    runs = [s for s in runs_of(paper, "duplication").values() if s["model.arch"] == "ddpmpp"]
    for size in (2000, 5000):
        same = [settings for settings in runs if settings["data.size"] == size]
        assert len({evaluated_steps(settings)[-1] for settings in same}) == 1
        stored = sorted(stored_size(settings) / size for settings in same)
        assert stored == pytest.approx([1.0, 1.1, 1.4, 1.9, 5.9])


def test_others_take_as_many_steps_as_each_other(paper):
    rows = runs_of(paper, "augmentation", "datasets")
    steps = {evaluated_steps(settings)[-1] for settings in rows.values()}
    assert steps == {156_250}


def test_the_quick_scale_needs_no_files():
    found = catalog.load({"experiments": TOPICS})
    names = {settings["data.dataset"] for settings in runs_of(found, *TOPICS).values()}
    assert names == {"digits", "mondrian", "random_ink"}
    moved = [s for s in runs_of(found, *TOPICS).values() if s["train.augment"] == "shift"]
    assert {settings["train.shift"] for settings in moved} == {1}


@pytest.mark.parametrize("scale", ["paper", "quick"])
def test_criteria_quality_and_onset_are_of_the_same_runs(scale):
    names = ("criteria", "quality", "onset")
    found = catalog.load({"scale": scale, "experiments": list(names)})
    assert all(runs_of(found, name).keys() == found.runs.keys() for name in names)
    assert len(found.runs) == len(found.evaluations) == 5
    assert set(found.measured("criteria")) == {
        (row.run_id, row.evaluation_id) for row in found.rows if row.experiment == "criteria"
    }


@pytest.mark.parametrize("scale", ["paper", "quick"])
def test_halves_of_one_size_are_trained_longer(scale):
    """The training is one with that of all sizes, and at the quick scale passes the onset."""
    found = catalog.load({"scale": scale, "experiments": ["halves"]})
    assert (len(found.runs), len(found.evaluations)) == (10, 12)
    longer = [run for run in found.runs.values() if len(run.evaluations) == 2]
    assert sorted(run.settings["data.part"] for run in longer) == [1, 2]
    for run in longer:
        short, long = sorted((e.steps for e in run.evaluations.values()), key=len)
        assert set(short) < set(long)
        assert scale == "paper" or long[-1] > 2 * 16.7 * run.settings["data.size"] > short[-1]
    for name, planned in found.figures.items():
        iterations = {row.settings["train.iterations"] for row in planned.rows}
        assert len(iterations) == 1, name
