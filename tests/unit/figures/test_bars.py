"""Bars: which there are, what they are called, and where they end."""

import numpy as np
import pandas as pd
import pytest
from made_up import assert_legible, made_up

from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.bars import bars
from emm.figures.draw import draw

ROWS = pd.concat(
    [
        made_up(sizes=(32, 64), **{"eval.label": "drawn"}),
        made_up({"random": 90}, (32, 64), **{"eval.label": "drawn", "labels.num_classes": 3}),
        made_up({"unique": 20}, (32, 64), **{"eval.label": "unseen"}),
    ]
)
LABELS = [
    "unconditional",
    "true labels",
    "random labels, $C$ = 3",
    "random labels, $C$ = 10",
    "unique labels, drawn labels",
    "unique labels, labels never trained",
]


def test_a_bar_per_combination_and_hue(tmp_path):
    figure = Figure(plot="bars", hue="data.size", epoch="last")
    with style.paper():
        picture, drawn = bars(figure, ROWS)
        assert_legible(picture)
    assert list(drawn["bar"]) == [label for label in LABELS for _ in range(2)]
    assert list(drawn["data.size"]) == [32, 64] * 6
    widths = [patch.get_width() for patch in picture.axes[0].patches[:12]]
    np.testing.assert_allclose(widths, drawn["memorization_ratio_percent"])
    last = ROWS[(ROWS["epoch"] == 2000) & (ROWS["labels.kind"] == "none")]
    assert widths[:2] == pytest.approx(list(100 * last["memorization_ratio"]))
    assert (drawn["low"] <= drawn["memorization_ratio_percent"]).all()
    assert [text.get_text() for text in picture.legends[0].get_texts()]
    paths = draw(figure, ROWS, None, None, tmp_path / "bars")
    assert {path.suffix for path in paths} == {".svg", ".pdf", ".png", ".csv"}


def test_repetitions_are_one_bar_with_their_spread():
    rows = made_up({"none": 45}, (32,), seeds=(0, 1, 2))
    with style.paper():
        _, drawn = bars(Figure(plot="bars", epoch="last"), rows)
    last = 100 * rows[rows["epoch"] == 2000]["memorization_ratio"]
    assert list(drawn["repetitions"]) == [3]
    assert drawn["memorization_ratio_percent"].item() == pytest.approx(last.mean())
    assert drawn["high"].item() - last.mean() == pytest.approx(last.std())


def test_sizes_are_bars_of_their_own_without_a_hue():
    with style.paper():
        _, drawn = bars(Figure(plot="bars"), made_up({"none": 45}, (32, 64)))
    assert list(drawn["bar"]) == [r"$|\mathcal{D}|$ = 32", r"$|\mathcal{D}|$ = 64"]


def test_runs_without_the_metric_have_no_bar():
    rows = ROWS.assign(
        label_hit_ratio=np.where(ROWS["labels.kind"] == "none", np.nan, 0.5), label_hit_chance=0.125
    )
    figure = Figure(plot="bars", y="label_hit_ratio", hue="data.size")
    with style.paper():
        picture, drawn = bars(figure, rows)
        assert_legible(picture)
        assert "none" not in set(drawn["labels.kind"])
        assert set(drawn["chance"]) == {12.5}
        assert picture.legends[0].get_texts()[-1].get_text() == "by chance"
        with pytest.raises(UserError, match="no run has a value of label_hit_ratio"):
            bars(figure, rows[rows["labels.kind"] == "none"])
