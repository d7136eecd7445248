"""Variance figures: the components of the ratio as points, series apart, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from made_up import assert_legible, made_up

from emm.analyse.checks import check_figure
from emm.analyse.names import value_name
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.draw import draw
from emm.figures.variance import variance


def rows(kind="none", seed=0, sds=(0.1, 0.03)):
    """Three draws of the data, three initialisations of each, and three samplings of these."""
    rng, made = np.random.default_rng(seed), []
    base = made_up({kind: 100}, (100,), (1000.0,)).iloc[0].to_dict()
    of_data, of_training = (sd * rng.standard_normal((3, 3)) for sd in sds)
    for data, init, k in np.ndindex(3, 3, 3):
        hits = rng.binomial(1000, 0.5 + of_data[data, 0] + of_training[data, init])
        seeds = {"data.seed": data, "train.seed": 10 * data + init, "eval.seed": k}
        name = {"evaluation": f"{kind}-{data}-{init}-{k}", "run": f"{kind}-{data}-{init}"}
        made.append(
            {**base, **seeds, **name, "n_memorized": hits, "memorization_ratio": hits / 1e3}
        )
    return pd.DataFrame(made)


def drawn(memorization, **options):
    with style.paper():
        picture, table = variance(Figure(plot="variance", **options), memorization)
        assert_legible(picture)
    return picture, table


def test_components_are_drawn_in_points():
    picture, table = drawn(rows(seed=2))
    found = table.set_index("name")
    assert found.loc["sampling", "sd"] == pytest.approx(1.6, abs=0.6)
    assert found.loc["counting", "sd"] == pytest.approx(1.55, abs=0.06)
    assert found.loc["initialisation", "low"] > 0
    (marks,) = [line for line in picture.axes[0].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(marks.get_ydata(), found["sd"].iloc[:4])


def test_series_stand_beside_each_other():
    both = pd.concat([rows(), rows("true", 1)])
    picture, table = drawn(both, hue="labels.kind")
    assert table.groupby("labels.kind").size().to_dict() == {"none": 5, "true": 5}
    assert len(picture.legends[0].get_texts()) == 2
    with pytest.raises(UserError, match=r"differ in labels.kind"):
        drawn(both)


def test_a_design_without_repetitions_is_refused(tmp_path):
    lone = rows()[lambda r: r["data.seed"] == 0]
    with pytest.raises(UserError, match=r"figure fig: plot variance: 1 data.seed with 3 x 3"):
        draw(Figure(plot="variance"), lone, None, None, tmp_path / "fig")


@pytest.mark.parametrize("options", [{"y": "knn_distance"}, {"epoch": "all"}])
def test_only_ratios_of_one_checkpoint(options):
    figure = Figure(plot="variance", **options)
    with pytest.raises(UserError, match="plot: variance is of y: memorization_ratio"):
        check_figure("fig", figure, "experiment mine: figure fig")


def test_a_seed_is_a_name_and_no_number():
    assert [value_name("train.seed", 1024), value_name("data.size", 1024)] == ["1024", "1,024"]
