"""Several metrics in one figure: what is drawn, the table as text, and legible labels."""

import numpy as np
import pandas as pd
import pytest
from made_up import assert_legible, made_up

from emm.analyse.metrics import metric
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.metrics import THRESHOLDS, metrics, thresholds
from emm.figures.tables import latex, markdown, metrics_table

SIZES = (6, 10, 20, 40, 80, 160)
SHARES = ["memorization_ratio", "carlini_share", "authentic_share", "spurious_share"]


def results(**other) -> pd.DataFrame:
    """Runs of several sizes with columns of criteria, of which some are not known."""
    rows = made_up({"none": 20}, SIZES, epochs=(1000.0,), **other)
    found = {}
    for rank, name in enumerate(SHARES[1:]):
        share = rows["memorization_ratio"] / (rank + 1)
        found |= {name: share, f"{name}_low": share - 0.02, f"{name}_high": share + 0.02}
    for threshold, name in THRESHOLDS.items():
        for end, factor in (("", 1.0), ("_held_out", 0.2)):
            share = factor * threshold * rows["memorization_ratio"]
            found |= {f"{name}{end}": share}
            found |= {f"{name}{end}_{side}": share for side in ("low", "high")}
    held_out = 0.06 * rows["memorization_ratio"]
    found |= {f"memorization_ratio_held_out{end}": held_out for end in ("", "_low", "_high")}
    total = 1.2 * rows["n_training"]
    total.iloc[-1] = np.nan
    found |= {"chao1_total": total, "chao1_total_low": total, "chao1_total_high": total + 3}
    return pd.concat([rows, pd.DataFrame(found)], axis=1)


def test_metrics_draw_a_line_each_with_its_interval():
    with style.paper():
        figure = Figure(plot="metrics", metrics=SHARES)
        picture, drawn = metrics(figure, results())
        assert_legible(picture)
    axes = picture.axes[0]
    lines, names = axes.get_legend_handles_labels()
    assert names == [metric(name).name for name in SHARES]
    np.testing.assert_allclose(lines[2].get_ydata(), 100 * results()["authentic_share"])
    assert axes.get_ylabel() == "Share (%)"
    assert len(drawn) == len(SHARES) * len(SIZES)
    one = drawn[drawn["metric"] == "carlini_share_percent"]
    expected = 100 * results()["carlini_share"]
    np.testing.assert_allclose(one["value"], expected)
    np.testing.assert_allclose(one["low"], expected - 2)
    assert (one["interval"] == "95 %").all()


def test_the_training_set_is_a_guide_and_unknown_values_leave_a_gap():
    figure = Figure(plot="metrics", metrics=["chao1_total", "n_training"], log_x=True)
    with style.paper():
        picture, drawn = metrics(figure, results())
        assert_legible(picture)
    axes = picture.axes[0]
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_ylabel()) == ("log", "log", "Images")
    assert [line.get_color() for line in axes.lines].count(style.GUIDE) == 1
    assert drawn["value"].isna().sum() == 1


@pytest.mark.parametrize(("names", "top"), [(SHARES, 103), (["ratio_share_10_held_out"], 2.12)])
def test_shares_that_stay_small_fill_the_axis(names, top):
    rows = results().assign(ratio_share_10_held_out=0.02, ratio_share_10_held_out_high=0.02)
    with style.paper():
        picture, _ = metrics(Figure(plot="metrics", metrics=names), rows)
    assert picture.axes[0].get_ylim()[1] == pytest.approx(top)


def test_thresholds_are_in_order_with_the_published_one_among_them():
    with style.paper():
        picture, drawn = thresholds(Figure(plot="thresholds", hue="data.size"), results())
        assert_legible(picture)
    assert len(drawn) == 2 * len(SIZES) * 10
    one = drawn[(drawn["data.size"] == 20) & (drawn["images"] == "samples")]
    assert one["threshold"].is_monotonic_increasing
    rows = results().set_index("data.size").loc[20]
    third = one[np.isclose(one["threshold"], 1 / 3)]["share_percent"].item()
    assert third == pytest.approx(100 * rows["memorization_ratio"])
    held_out = drawn[(drawn["data.size"] == 20) & (drawn["images"] == "held out")]
    at_half = held_out[np.isclose(held_out["threshold"], 0.5)]["share_percent"].item()
    assert at_half == pytest.approx(100 * rows["ratio_share_50_held_out"])


def test_without_held_out_images_only_samples_are_drawn():
    rows = results()
    unknown = [name for name in rows if "_held_out" in name]
    with style.paper():
        picture, drawn = thresholds(
            Figure(plot="thresholds"), rows[:1].assign(**dict.fromkeys(unknown, np.nan))
        )
        assert_legible(picture)
    assert drawn[drawn["images"] == "held out"]["share_percent"].isna().all()
    assert drawn[drawn["images"] == "samples"]["share_percent"].notna().all()


def test_a_table_has_a_line_per_metric():
    figure = Figure(
        plot="metrics_table", columns="data.size", metrics=["knn_distance", "chao1_total"]
    )
    with style.paper():
        picture, drawn, blocks = metrics_table(figure, results())
        assert_legible(picture)
    text = markdown(figure, blocks).splitlines()
    assert text[0].startswith(r"| Criterion / Training set size \|D\| (images) | 6 | 10 | 20 |")
    assert [line.split(" | ")[0] for line in text[2:]] == [
        "| KNN distance (grey levels)",
        "| Images that would be copied, at least (Chao1) (images)",
    ]
    assert text[3].split(" | ")[1] == "7.2"
    assert text[3].endswith("| - |")
    assert r"\multicolumn{6}{c}{Training set size $|\mathcal{D}|$ (images)}" in latex(
        figure, blocks
    )
    assert len(drawn) == 2 * len(SIZES)
    assert drawn["value"].isna().sum() == 1


def test_runs_that_differ_otherwise_make_no_point():
    both = pd.concat([results(), results(**{"model.channels": 8})], ignore_index=True)
    with style.paper(), pytest.raises(UserError, match="differ in model"):
        metrics(Figure(plot="metrics", metrics=SHARES), both)
    with style.paper(), pytest.raises(UserError, match="differ in model"):
        thresholds(Figure(plot="thresholds", hue="data.size"), both)
