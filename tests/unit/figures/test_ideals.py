"""Figures of networks between the ideals: what is drawn, what is left out, and legible text."""

import itertools

import numpy as np
import pandas as pd
import pytest
from made_up import assert_legible

from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.ideals import LEAST, levels, paths
from emm.measure.columns import ideals as columns

SIGMAS = np.geomspace(0.03, 30, 8)
SIZES, STEPS = (8, 32, 128), (10, 100, 1000)


def comparisons(sizes=SIZES, steps=STEPS, **other) -> pd.DataFrame:
    """Networks whose kappa grows with training and falls with size, at all levels and together."""
    rows = []
    for size, step, kind in itertools.product(sizes, steps, ("training", "held out")):
        for sigma in (*SIGMAS, np.nan):
            kappa = (0.8 if kind == "training" else 0.4) * step / max(steps) * 8 / size
            apart = 0.2 if np.isnan(sigma) else 0.4 / (1 + sigma**2)
            rows.append(
                {
                    "run": f"mondrian-n{size}",
                    "evaluation": f"mondrian-n{size}/e",
                    "step": step,
                    "epoch": step / size,
                    "sigma": sigma,
                    "probes": kind,
                    "n_probes": 128,
                    **dict.fromkeys(("e_true", "e_emp", "e_gauss", "e_clean"), 0.1),
                    "separation": apart,
                    "kappa": kappa,
                    "kappa_low": kappa - 0.02,
                    "kappa_high": kappa + 0.02,
                    "off_axis": 0.5,
                    "data.size": size,
                    **other,
                }
            )
    return pd.DataFrame(rows)


def memorization(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that comparisons add to the memorization table."""
    tables = []
    for evaluation, members in rows.groupby("evaluation", sort=False):
        table = columns(members)
        about = members.drop_duplicates("step")[["run", "epoch", "step", "data.size"]]
        tables.append(about.merge(table, on="step").assign(evaluation=evaluation))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("y", ["kappa", "e_true"])
def test_levels_are_legible(y):
    with style.paper():
        picture, drawn = levels(Figure(plot="levels", y=y, hue="data.size"), comparisons())
        assert_legible(picture)
        axes = picture.axes[0]
        assert axes.get_xscale() == "log"
        texts = {text.get_text() for text in axes.texts}
        assert texts == ({"generalizes", "memorizes"} if y == "kappa" else set())
    assert set(drawn["data.size"]) == set(SIZES)
    assert set(drawn["epoch"]) == {1000 / size for size in SIZES}  # the last checkpoints
    assert drawn["sigma"].notna().all()


def test_levels_where_the_ideals_agree_are_left_out():
    rows = comparisons()
    with style.paper():
        _, kappa = levels(Figure(plot="levels", y="kappa", hue="data.size"), rows)
        _, distance = levels(Figure(plot="levels", y="e_true", hue="data.size"), rows)
    largest = rows["separation"].max()
    kept = [sigma for sigma in SIGMAS if 0.4 / (1 + sigma**2) >= LEAST * largest]
    assert 2 < len(kept) < len(SIGMAS)
    np.testing.assert_allclose(sorted(kappa["sigma"].unique()), kept)
    np.testing.assert_allclose(sorted(distance["sigma"].unique()), SIGMAS)


def test_all_checkpoints_by_epoch():
    rows = comparisons(sizes=(8,))
    with style.paper():
        _, drawn = levels(Figure(plot="levels", y="kappa", hue="epoch"), rows)
    assert sorted(drawn["epoch"].unique()) == [step / 8 for step in STEPS]


def test_runs_that_a_line_would_mix():
    both = [comparisons(**{"model.channels": width}) for width in (8, 16)]
    both[1]["evaluation"] += "w"
    with style.paper(), pytest.raises(UserError, match=r"differ in model\.channels"):
        levels(Figure(plot="levels", y="kappa", hue="data.size"), pd.concat(both))


def test_nothing_to_tell():
    rows = comparisons().assign(kappa=np.nan)
    with style.paper(), pytest.raises(UserError, match="no level with a value of kappa"):
        levels(Figure(plot="levels", y="kappa", hue="data.size"), rows)


def test_paths_go_through_all_checkpoints():
    rows = memorization(comparisons())
    with style.paper():
        picture, drawn = paths(Figure(plot="paths", hue="data.size", epoch="all"), rows)
        assert_legible(picture)
        held_out, training = picture.axes
        assert held_out.get_ylim() == training.get_ylim()
        assert held_out.get_ylim()[0] == 0
        lines = [
            line.get_xydata() for line in training.lines if len(line.get_xdata()) == len(STEPS)
        ]
    assert len(lines) == len(SIZES)
    np.testing.assert_allclose(lines[0][:, 0], [0.8 * step / 1000 for step in STEPS])
    assert len(drawn) == len(SIZES) * len(STEPS)
    assert drawn["kappa_training"].max() == pytest.approx(0.8)
