"""Capacity figures: the points of the EMM table, arrows where these are open, and the power law."""

import numpy as np
import pandas as pd
import pytest
from made_up import assert_legible, made_up

from emm.analyse.tables import capacity_table, emm_table
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.capacity import capacity
from emm.figures.draw import draw

WIDTHS = (32, 64, 128, 256)


def rows(capacities=(30, 60, 120, 240), kind="none", epochs=(500.0, 2000.0)):
    sizes = (8, 16, 32, 64, 128, 256, 512)
    return pd.concat(
        made_up({kind: known}, sizes, epochs, **{"model.channels": width})
        for width, known in zip(WIDTHS, capacities, strict=True)
    )


ROWS = rows()
OPEN = rows((2, 60, 120, 5000))  # below the smallest size, and above the largest


def drawn(memorization, **options):
    figure = Figure(plot="capacity", x="model.channels", **options)
    with style.paper():
        picture, table = capacity(figure, memorization)
        assert_legible(picture)
    return picture, table


def labels(picture) -> list[str]:
    return [text.get_text() for text in picture.legends[0].get_texts()]


def test_points_are_those_of_the_emm_table():
    _, table = drawn(ROWS)
    expected = emm_table(ROWS)
    expected = expected[expected["epsilon"] == 0.1].sort_values("model.channels")
    for measure, name in (("emm", "emm"), ("memorization_capacity", "emm_last")):
        points = table[table["measure"] == measure]
        assert list(points["model.channels"]) == list(WIDTHS)
        np.testing.assert_allclose(points["images"], expected[name])
        np.testing.assert_allclose(points["low"], expected[f"{name}_low"].clip(8, 512))
        np.testing.assert_allclose(points["high"], expected[f"{name}_high"].clip(8, 512))


def test_checkpoints_differ_between_the_two_measures():
    """A ratio that falls at the end of the training is best before."""
    made = rows(epochs=(1500.0, 2000.0))
    _, table = drawn(made.assign(step=np.where(made["epoch"] == 1500, 20000, 15000)))
    best, last = (
        table[table["measure"] == name]["images"] for name in ("emm", "memorization_capacity")
    )
    assert (last.to_numpy() < best.to_numpy()).all()


def test_the_slope_is_in_the_legend_and_the_table():
    picture, table = drawn(ROWS, y="memorization_capacity")
    assert len(table) == 4
    slope, low, high = table.iloc[0][["slope", "slope_low", "slope_high"]]
    assert low < 1 < high
    assert low < slope < high
    assert high - low < 1.2
    expected = f"slope {slope:.2f} ({low:.2f} to {high:.2f}), 4 of 4 widths inside the sizes"
    assert labels(picture) == [f"Memorization capacity\n{expected}"]
    assert table[["n_bracketed", "n_censored"]].drop_duplicates().to_numpy().tolist() == [[4, 0]]


def test_capacities_beyond_the_sizes_are_arrows():
    picture, table = drawn(OPEN, y="emm")
    assert list(table["status"]) == ["below", "bracketed", "bracketed", "above"]
    assert list(table["bound"].dropna()) == [8, 512]
    assert len(picture.axes[0].texts) == 2
    low, high = picture.axes[0].get_ylim()
    assert low < 8 * 0.8
    assert high > 512 * 1.25
    assert labels(picture)[0].startswith("EMM\nslope ")
    assert labels(picture)[0].endswith("(interval open), 2 of 4 widths inside the sizes")
    assert table[["n_bracketed", "n_censored"]].drop_duplicates().to_numpy().tolist() == [[2, 2]]


@pytest.mark.parametrize(("capacities", "inside"), [((2, 60, 5000, 5000), 1), ((2, 2, 2, 5000), 0)])
def test_fewer_than_two_points_inside_the_sizes_have_no_law(capacities, inside):
    picture, table = drawn(rows(capacities), y="memorization_capacity")
    assert (table["status"] == "bracketed").sum() == inside
    expected = f"Memorization capacity\nno slope, {inside} of 4 widths inside the sizes"
    assert labels(picture) == [expected]
    assert not any(line.is_dashed() for line in picture.axes[0].lines)
    assert table[["slope", "slope_low", "slope_high"]].isna().all(axis=None)
    assert (table["n_censored"] == 4 - inside).all()


def test_points_beyond_the_sizes_bend_the_law_their_way():
    """Far more than the line through the others promises, and far less: it has to be steeper."""
    _, table = drawn(OPEN, y="emm")
    _, alone = drawn(OPEN[OPEN["model.channels"].isin(WIDTHS[1:3])], y="emm")
    assert table["slope"].iloc[0] > alone["slope"].iloc[0] + 0.2


def test_hue_separates_lines():
    kinds = pd.concat([ROWS, rows((50, 100, 200, 400), "true")])
    picture, table = drawn(kinds, hue="labels.kind")
    assert table.groupby(["labels.kind", "measure"]).ngroups == 4
    assert [label.split("\n")[0] for label in labels(picture)] == [
        "EMM: unconditional",
        "Memorization capacity: unconditional",
        "EMM: true labels",
        "Memorization capacity: true labels",
    ]
    with pytest.raises(UserError, match=r"differ in labels.kind"):
        drawn(kinds)


def test_zero_has_no_logarithm():
    one = ROWS[ROWS["model.channels"] == 64].assign(**{"data.dummy_size": 0})
    with pytest.raises(UserError, match=r"data\.dummy_size has values that are not above 0"):
        capacity(Figure(plot="capacity", x="data.dummy_size"), one)


@pytest.mark.parametrize("y", ["emm", "memorization_capacity"])
def test_other_plots_draw_capacities_too(tmp_path, y):
    known = capacity_table(OPEN).set_index("model.channels")[y]
    curve = Figure(plot="curve", x="model.channels", y=y)
    csv = pd.read_csv(draw(curve, OPEN, None, None, tmp_path / "curve")[-1])
    np.testing.assert_allclose(csv[y], known.to_numpy())
    table = Figure(plot="table", rows="labels.kind", columns="model.channels", y=y)
    paths = {path.suffix: path for path in draw(table, OPEN, None, None, tmp_path / "table")}
    cells = paths[".md"].read_text().splitlines()[-1].split(" | ")
    assert cells[1:] == ["beyond", f"{known[64]:.0f}", f"{known[128]:.0f}", "beyond |"]


def test_epochs_that_follow_from_steps_separate_no_series():
    steps = ROWS.assign(**{"train.iterations": 1000, "horizon": 1e6 / ROWS["data.size"]})
    assert len(capacity_table(steps)) == 4
    assert len(emm_table(steps)) == 4 * 4
    assert len(capacity_table(steps.assign(**{"train.iterations": None}))) == 28


def test_the_same_bytes_again(tmp_path):
    figure = Figure(plot="capacity", x="model.channels")
    pairs = zip(*(draw(figure, ROWS, None, None, tmp_path / n) for n in "ab"), strict=True)
    for one, two in pairs:
        assert one.read_bytes() == two.read_bytes(), one
