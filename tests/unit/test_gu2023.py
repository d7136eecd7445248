"""The published grid of Gu et al. 2023: how many runs there are, and what training them costs."""

import numpy as np
import pytest

from emm import catalog, masks
from emm.catalog import Catalog

RUNS = {  # distinct runs of each experiment
    "resolution": 14,
    "classes": 16,
    "diversity": 20,
    "width": 21,
    "depth": 18,
    "time_embedding": 16 + 4,  # the added arm, Fourier features that fit the range of c_noise
    "skips": 22 + 15 + 21,  # kept at one resolution, random, deleted at one resolution
    "skips_ncsnpp": 22,
    "batch_size": 14,
    "regularization": 18,  # all EMA rates are tracked in the two runs without weight decay
    "conditioning": 20,
    "demo": 7,  # all of conditioning
    "conditioning_training": 12,
    "random_labels": 20 + 1,
    "edm_labels": 2,
    "seeds": 6,
    "sample_size": 2,
    "width_depth": 20,
    "ffhq": 28,
    "data_size": 6,
    "edm_images": 1,
    "optimum": 1,
    "stable_diffusion": 6,
}
DISTINCT = 281  # besides Table 6; the added arm and the optimum, which is not trained, come on top
EFLOP = {
    "diversity": 76,
    "skips_ncsnpp": 68,
    "ffhq": 256,
    "edm_labels": 153,
}  # of single experiments
FORWARD = {  # GFLOP per 32x32 image by width and blocks
    **{(128, 2): 25.4, (128, 4): 42.4, (128, 6): 59.3, (128, 8): 76.3, (128, 10): 93.3},
    **{(128, 12): 110.2, (64, 2): 6.4, (96, 2): 14.3, (160, 2): 39.6, (192, 2): 57.0},
    **{(224, 2): 77.5, (256, 2): 101.2, (320, 2): 158.0, (256, 4): 168.8, (256, 6): 236.4},
    **{(256, 8): 304.0, (256, 10): 371.6},
}


@pytest.fixture(scope="module")
def paper() -> Catalog:
    return catalog.load({"scale": "paper", "experiments": "gu2023"})


def trained(paper: Catalog) -> list:
    """The runs that are trained from the beginning: all but those of Table 6."""
    return [run for run in paper.runs.values() if run.settings["model.base"] is None]


def test_runs_of_each_experiment(paper):
    found = {name: set() for name in paper.experiments}
    for row in paper.rows:
        found[row.experiment].add(row.run_id)
    assert {name: len(ids) for name, ids in found.items()} == RUNS


def test_distinct_runs(paper):
    extra = {
        run.id
        for run in trained(paper)
        if run.is_optimum or run.settings["model.fourier_scale"] == 0.043
    }
    assert len(extra) == 1 + 4
    assert len(trained(paper)) - len(extra) == DISTINCT
    assert len(paper.runs) - len(trained(paper)) == RUNS["stable_diffusion"]


def images(run) -> float:
    """Training images of a run, 0 for the optimum."""
    return 0.0 if run.is_optimum else run.epochs * run.settings["data.size"]


def exaflop(run) -> float:
    """Training cost: three forward passes per image."""
    width, blocks = run.settings["model.channels"], run.settings["model.num_blocks"]
    share = (run.settings["data.resolution"] / 32) ** 2
    if run.settings["data.dataset"] == "ffhq":
        forward = 13.5 * share
    elif run.settings["model.arch"] == "ncsnpp":
        forward = 25.7
    else:
        by_blocks = 2 + 2 * ((width, blocks) not in FORWARD)
        forward = FORWARD.get((width, blocks), FORWARD[width, 2] * 1.67 if by_blocks == 4 else 0)
        forward *= share
    return 3 * forward * 1e9 * images(run) / 1e18


def test_training_images_and_cost(paper):
    """About 2,700 EFLOP for the paper's own runs (281 of them) and 22.8 G training images."""
    added = [run for run in trained(paper) if run.settings["model.fourier_scale"] == 0.043]
    total = sum(map(exaflop, trained(paper))) - sum(map(exaflop, added))
    assert total == pytest.approx(2700, rel=0.01)
    assert sum(map(images, trained(paper))) == pytest.approx(22.756e9, rel=1e-3)
    for name, expected in EFLOP.items():
        runs = {row.run_id for row in paper.rows if row.experiment == name}
        assert sum(exaflop(paper.runs[run]) for run in runs) == pytest.approx(expected, rel=0.06)


def test_shorter_runs_are_read_off_longer_ones(paper):
    edm = [run for run in paper.runs.values() if run.settings["model.precond"] == "edm"]
    lengths = {
        (run.settings["data.size"], run.settings["labels.kind"]): (run.epochs, len(run.evaluations))
        for run in edm
    }
    assert lengths[50000, "none"] == (12000, 2)
    assert lengths[5000, "none"] == (40000, 2)
    assert lengths[10000, "none"] == (4000, 1)


def test_random_masks_are_the_recorded_draw(paper):
    """The masks of Fig. 8a in the experiment file come from the generator that it names."""
    rows = [row for row in paper.rows if row.experiment == "skips"]
    used = [row.published["model.skip_mask"] for row in rows]
    of_one_resolution = {
        row.published["model.skip_mask"]
        for row in rows
        if masks.derived(row.published)["model.skip_resolution"] is not None
    }
    assert len(of_one_resolution) == 42
    rng, drawn = np.random.default_rng(1024), []
    for count in (3, 5, 7):
        found = []
        while len(found) < 5:
            kept = set(rng.choice(9, count, replace=False).tolist())
            mask = "".join("1" if i in kept else "0" for i in range(9))
            if mask not in of_one_resolution and mask not in found:
                found.append(mask)
        drawn += found
    assert set(used) == {"all"} | of_one_resolution | set(drawn)


def test_every_figure_and_table_is_there(paper):
    panels = {
        *("fig1a", "fig1b", "fig1c", "fig1d", "fig2a", "fig2b", "fig2c"),
        *("fig3a", "fig3b", "fig3c", "fig3d", "fig4a", "fig4b", "fig4c", "fig4d"),
        *("fig5a", "fig5b", "fig5c", "fig5d", "fig6a", "fig6b"),
        *(f"fig7{panel}" for panel in "abcdef"),
        *("fig8a", "fig8b", *(f"fig9{panel}" for panel in "abcd"), "fig10a", "fig10b"),
        *(f"fig11{panel}" for panel in "abcd"),
        *(f"fig{number}{panel}" for number in (12, 13, 14) for panel in "abc"),
        *(f"table{number}" for number in range(1, 7)),
        "appB",
    }
    assert panels <= set(paper.figures)
