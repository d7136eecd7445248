"""Figures of two networks from the same noise: lines of the measure, and pairs of pictures."""

import numpy as np
import pandas as pd
import pytest
from made_up import assert_legible, galleries, made_up

from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.draw import draw
from emm.figures.twins import LINES, pairs, twins

SIZES = (10, 100, 1000)


def rows(sizes=SIZES) -> pd.DataFrame:
    found = []
    for part in (1, 2):
        table = made_up({"none": 50}, sizes, epochs=(500.0,), **{"data.part": part})
        for at, name in enumerate(LINES):
            value = np.nan if part == 1 else 0.3 * at + 0.1 * np.log10(table["data.size"])
            table = table.assign(**{name: value})
            table = table.assign(**{f"{name}_low": value - 0.05, f"{name}_high": value + 0.05})
        found.append(table)
    return pd.concat(found, ignore_index=True)


def drawn(memorization, **options):
    with style.paper():
        picture, table = twins(Figure(plot="twins", epoch="last", **options), memorization)
        assert_legible(picture)
    return picture, table


def test_a_line_for_each_similarity():
    picture, table = drawn(rows(), where={"data.part": 2})
    assert len(picture.legends[0].get_texts()) == 3
    for at, name in enumerate(LINES):
        line = table[table["of"] == name]
        np.testing.assert_allclose(line["similarity"], 0.3 * at + 0.1 * np.log10(SIZES))
        np.testing.assert_allclose(line["high"] - line["low"], 0.1)
    shown = [line for line in picture.axes[0].lines if line.get_marker() in ("o", "s", "^")]
    assert [len(line.get_xdata()) for line in shown] == [3, 3, 3]


def test_over_the_time_of_a_training():
    made = rows((10,)).assign(epoch=500.0)
    steps = (100, 200, 400, 800)
    during = pd.concat([made.assign(step=s, epoch=s / 2) for s in steps])
    figure = Figure(plot="twins", x="step", epoch="all", log_x=True, where={"data.part": 2})
    with style.paper():
        picture, table = twins(figure, during)
        assert_legible(picture)
    for name in LINES:
        assert table.loc[table["of"] == name, "step"].tolist() == list(steps)
    assert picture.axes[0].get_xscale() == "log"


def test_without_the_measure():
    with pytest.raises(UserError, match="no column 'twin_similarity'"):
        drawn(rows().drop(columns="twin_similarity"))


def test_pairs_stand_below_each_other():
    table = rows((10, 1000))
    figure = Figure(plot="pairs", hue="data.size", epoch="last", count=6)
    made = galleries(table)
    with style.paper():
        picture, found = pairs(figure, table, made)
        assert_legible(picture)
    assert list(found["data.size"]) == [10] * 6 + [1000] * 6
    words = [text.get_text() for text in picture.axes[0].texts]
    assert words[:5] == [
        "$|\\mathcal{D}|$ = 10: similarity of twins 0.10",
        *("nearest 1", "network 1", "network 2", "nearest 2"),
    ]
    second = table[(table["data.part"] == 2) & (table["data.size"] == 10)]["evaluation"].iloc[0]
    expected = np.sqrt(made[second]["d1_squared"][:6].astype(float))
    np.testing.assert_allclose(found["d1_network_2"][:6], expected)


def test_half_a_pair():
    table = rows((10,))
    alone = table[table["data.part"] == 2]
    with pytest.raises(UserError, match=r"needs data\.part 1 and 2"):
        pairs(Figure(plot="pairs", hue="data.size"), alone, galleries(alone))
    with pytest.raises(UserError, match="no gallery"):
        pairs(Figure(plot="pairs", hue="data.size"), table, {})


def test_files(tmp_path):
    table = rows((10, 1000))
    for figure, pictures in (
        (Figure(plot="twins", where={"data.part": 2}, epoch="last"), None),
        (Figure(plot="pairs", hue="data.size", epoch="last"), galleries(table)),
    ):
        paths = draw(figure, table, None, pictures, tmp_path / figure.plot)
        assert {path.suffix for path in paths} == {".svg", ".pdf", ".png", ".csv"}
