"""Onsets and windows as pictures: what they show is what the tables of onsets hold."""

import numpy as np
import pandas as pd
import pytest
from made_up import assert_legible

from emm.analyse.onset import onset_table, runs_of
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.draw import draw
from emm.figures.onsets import onsets, windows

STEPS = np.unique(np.ceil(4000 * 2.0 ** (-np.arange(18) / 2))).astype(int)


def rows(sizes=(50, 100, 200, 400), good=300, **other) -> pd.DataFrame:
    found = []
    for size in sizes:
        odds = (STEPS / (2 * size)) ** 3
        hits = np.round(1000 * odds / (1 + odds)).astype(int)
        name = f"n{size}-{sorted(other.items())}"
        about = {"run": name, "evaluation": f"{name}/e", "data.size": size, "train.seed": 0} | other
        counts = {"n_samples": 1000, "n_memorized": hits, "memorization_ratio": hits / 1000}
        fid = 10 + 40 * np.clip(1 - np.log(STEPS) / np.log(good), 0, None)
        times = {"step": STEPS, "epoch": STEPS * 10 / size, "horizon": 40000 / size}
        found.append(pd.DataFrame({**about, **counts, **times, "fid": fid}))
    return pd.concat(found, ignore_index=True)


def drawn(plot, memorization, **options):
    figure = Figure(plot=plot, epoch="all", **options)
    with style.paper():
        picture, table = {"onsets": onsets, "windows": windows}[plot](figure, memorization)
        assert_legible(picture)
    return picture, table


def texts(picture) -> list[str]:
    return [text.get_text() for text in picture.legends[0].get_texts()]


def test_points_and_law():
    picture, table = drawn("onsets", rows())
    expected = onset_table(runs_of(rows())).sort_values(["level", "data.size"])
    np.testing.assert_allclose(table["onset_step"], expected["onset_step"])
    assert table["slope"].between(0.9, 1.1).all()
    assert [text.split(":")[0] for text in texts(picture)] == ["1 %", "10 %", "50 %", "90 %"]
    assert all("slope 1.0" in text or "slope 0.9" in text for text in texts(picture))
    (axes,) = picture.axes
    shown = np.concatenate([line.get_ydata() for line in axes.lines if line.get_marker() == "o"])
    np.testing.assert_allclose(shown, expected["onset_step"][expected["level"] == 0.01])


def test_what_never_memorizes_is_an_arrow():
    picture, table = drawn("onsets", rows(sizes=(50, 100, 200, 9000)))
    assert list(table["status"][table["data.size"] == 9000][-3:]) == ["above"] * 3
    assert len(picture.axes[0].texts) == (table["status"] != "bracketed").sum()


def test_a_series_for_each_hue():
    both = pd.concat([rows(**{"model.channels": width}) for width in (8, 16)])
    picture, table = drawn("onsets", both, hue="model.channels")
    assert len(texts(picture)) == 8
    assert set(table["model.channels"]) == {8, 16}
    with pytest.raises(UserError, match=r"differ in model\.channels"):
        drawn("onsets", both)


def bars(picture):
    return [bar for bar in picture.axes[0].patches if np.isfinite(bar.get_x())]


def test_windows():
    picture, table = drawn("windows", rows(sizes=(20, 200, 400, 9000)))
    assert list(table["data.size"]) == [20, 200, 400, 9000]
    assert table["tau_gen"].nunique() == 1
    assert (table["tau_mem"] > table["tau_gen"]).tolist() == [False, True, True, True]
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars(picture)]
    expected = np.minimum(table[["tau_gen", "tau_mem"]], STEPS[-1])[1:].to_numpy()
    np.testing.assert_allclose(ends, expected)
    assert all(picture.axes[0].get_xlim()[0] < start for start, _ in ends)


def test_what_is_never_good_has_no_window():
    worse = rows(sizes=(20, 400))
    worse["fid"] += np.where(worse["data.size"] == 20, 100, 0)
    picture, table = drawn("windows", worse)
    assert table["tau_gen"].tolist()[0] == np.inf
    assert [bar.get_y() > 0.5 for bar in bars(picture)] == [True]
    crosses = [line for line in picture.axes[0].lines if line.get_marker() == "x"]
    assert [len(line.get_xdata()) for line in crosses] == [1, 0]  # the other is the legend's


def test_windows_of_several_seeds_stand_beside_each_other():
    again = [rows(**{"train.seed": seed}) for seed in range(3)]
    picture, table = drawn("windows", pd.concat(again))
    assert table.groupby("data.size")["train.seed"].unique().map(set).eq({0, 1, 2}).all()
    heights = np.sort([bar.get_y() for bar in bars(picture)])
    assert len(heights) == 3 * 2  # sizes of 200 and 400
    assert np.diff(heights).min() > 0.99 * bars(picture)[0].get_height()
    other = rows(**{"model.channels": 8})
    with pytest.raises(UserError, match=r"differ in model\.channels"):
        drawn("windows", pd.concat([other, rows(**{"model.channels": 16})]))


def test_windows_need_fids():
    with pytest.raises(UserError, match="no column 'fid'"):
        drawn("windows", rows().drop(columns="fid"))


def test_files_of_both(tmp_path):
    for plot in ("onsets", "windows"):
        figure = Figure(plot=plot, epoch="all")
        paths = draw(figure, rows(), None, None, tmp_path / plot)
        assert {path.suffix for path in paths} == {".svg", ".pdf", ".png", ".csv"}
        assert "data.size" in pd.read_csv(tmp_path / f"{plot}.csv")
