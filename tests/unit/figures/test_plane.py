"""Measures against each other: what is drawn, in which units, and legible text."""

import itertools

import numpy as np
import pandas as pd
import pytest
from made_up import assert_legible

from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.metrics import metrics
from emm.figures.plane import plane

SIZES, STEPS = (8, 32, 128), (10, 100, 1000)


def measured(**other) -> pd.DataFrame:
    """Small training sets are copied in the end, and their FID falls and rises."""
    rows = []
    for size, step in itertools.product(SIZES, STEPS):
        ratio = min(1.0, 8 / size * step / 1000)
        fid = 40 * (1 - step / 1000) + 20 * ratio + 3
        columns = {"memorization_ratio": ratio, "fid": fid, "fid_training": fid * (1.1 - ratio)}
        columns |= {"fid_copier": 160 / size, "recall": 1 - 0.9 * ratio}
        ends = {
            f"{name}{end}": value * factor
            for name, value in columns.items()
            if name != "fid_copier"
            for end, factor in (("_low", 0.9), ("_high", 1.1))
        }
        about = {"run": f"n{size}", "evaluation": f"n{size}/e", "horizon": 1000.0, "step": step}
        about |= {"epoch": step / size, "n_samples": 100, "data.size": size}
        rows.append(about | columns | ends | other)
    return pd.DataFrame(rows)


def figure(plot: str = "plane", **changed) -> Figure:
    base = {"plane": {"x": "memorization_ratio", "hue": "data.size", "epoch": "all"},
            "metrics": {"epoch": "last"}}  # fmt: skip
    return Figure(plot=plot, **{"y": "fid"} | base[plot] | changed)


@pytest.mark.parametrize("changed", [{}, {"log_y": True}, {"x": "fid_training"}, {"y": "recall"}])
def test_a_plane_is_legible(changed):
    with style.paper():
        picture, _ = plane(figure(**changed), measured())
        assert_legible(picture)


def test_paths_in_drawn_units():
    with style.paper():
        picture, drawn = plane(figure(), measured())
        axes = picture.axes[0]
        assert axes.get_xlabel() == "Memorization ratio (%)"
        assert axes.get_ylabel() == "FID to held-out images"
        lines = [line.get_xydata() for line in axes.lines if len(line.get_xdata()) == len(STEPS)]
    assert len(lines) == len(SIZES)
    np.testing.assert_allclose(lines[0][:, 0], [1, 10, 100])
    np.testing.assert_allclose(lines[0][:, 1], [40 * 0.99 + 3.2, 40 * 0.9 + 5, 23])
    last = drawn[(drawn["data.size"] == 8) & (drawn["step"] == 1000)].iloc[0]
    assert last["memorization_ratio_percent_low"] == pytest.approx(90)
    assert last["fid_high"] == pytest.approx(25.3)
    assert len(drawn) == len(SIZES) * len(STEPS)


def test_where_two_measures_are_equal():
    with style.paper():
        alone = plane(figure(), measured())[0].axes[0]
        axes = plane(figure(x="fid_training"), measured())[0].axes[0]
        dashed = [
            line for line in axes.lines if np.array_equal(line.get_xdata(), line.get_ydata())
            and len(line.get_xdata()) == 2
        ]  # fmt: skip
    assert len(dashed) == 1
    assert len(axes.lines) == len(alone.lines) + 1


def test_runs_without_a_measure():
    rows = measured()
    with style.paper():
        rows.loc[rows["data.size"] == 8, "fid"] = np.nan
        _, drawn = plane(figure(), rows)
        assert set(drawn["data.size"]) == {32, 128}
        with pytest.raises(UserError, match="no run has both memorization_ratio and fid"):
            plane(figure(), rows.assign(fid=np.nan))
        with pytest.raises(UserError, match="no column 'fid'"):
            plane(figure(), rows.drop(columns="fid"))


@pytest.mark.parametrize("log_y", [False, True])
def test_metrics_without_a_unit(log_y):
    with style.paper():
        about = {"metrics": ["fid", "fid_training", "fid_copier"], "log_y": log_y}
        picture, drawn = metrics(figure("metrics", **about), measured())
        assert_legible(picture)
        axes = picture.axes[0]
        assert axes.get_ylabel() == "FID"
        labels = [text.get_text() for text in picture.legends[0].get_texts()]
        assert labels == [
            "to held-out images",
            "to the training set",
            "of copies of training images",
        ]
        assert axes.get_yscale() == ("log" if log_y else "linear")
    assert set(drawn["metric"]) == {"fid", "fid_training", "fid_copier"}
    own = drawn[drawn["metric"] == "fid_copier"]
    np.testing.assert_allclose(own["value"], [20, 5, 1.25])
    assert own["low"].isna().all()
    held_out = drawn[drawn["metric"] == "fid"].set_index("data.size")
    np.testing.assert_allclose(held_out["value"], [23, 8, 4.25])
    np.testing.assert_allclose(held_out["low"], [0.9 * v for v in (23, 8, 4.25)])


def test_runs_that_a_point_would_mix():
    both = [measured(**{"model.channels": width}) for width in (8, 16)]
    both[1]["evaluation"] += "w"
    with style.paper(), pytest.raises(UserError, match=r"differ in model\.channels"):
        metrics(figure("metrics", metrics=["fid"]), pd.concat(both))
