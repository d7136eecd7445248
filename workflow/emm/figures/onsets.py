"""When memorization sets in: onsets against the size with their power law, and when to stop."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from emm.analyse.fits import Law
from emm.analyse.names import SIZE, setting_name, value_name
from emm.analyse.onset import Run, onset_law, onset_table, runs_of, window_table
from emm.analyse.series import grouped, in_order
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.capacity import ASIDE, draw_law, law_text
from emm.figures.select import check_repetitions, drawn_rows, legend_label

STEP = "onset_step"
WINDOW, OPEN = "#0173b2", "#d55e00"  # colours of a window, and of one that is none
BAR = 0.52  # height over the distance of bars
MARKS = {0.1: "|", 0.5: "D"}  # onsets of higher ratios, beside the window


def onsets(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of onsets of several ratios against the size, and a table with a row per point.

    Both axes are logarithmic; a series per ratio, and per value of the hue. UserError where runs of
    a point differ in more than seeds, or have one checkpoint.
    """
    picture, axes = style.panel()
    by = [figure.hue] if figure.hue else []
    table = onset_table(_runs(figure, memorization, by))
    groups = in_order(grouped(table, [*by, "level"]), [*by, "level"])
    key = figure.hue or "level"
    colours = style.colours([about[key] for about, _ in groups])
    markers = style.cycle(sorted(set(table["level"])), style.MARKERS)
    handles, labels, drawn = [], [], []
    for rank, (about, members) in enumerate(groups):
        law = onset_law(members)
        points = members.rename(columns={SIZE: "x", f"{STEP}_low": "low", f"{STEP}_high": "high"})
        points = _clipped(points, memorization)
        look = {"color": colours[about[key]], "marker": markers[about["level"]]}
        aside = ASIDE ** (rank - (len(groups) - 1) / 2)
        handles.append(draw_law(axes, points, law, look, aside, STEP))
        named = legend_label(by, {name: about[name] for name in by})
        slope = "no slope" if law is None else law_text(law)
        labels.append(", ".join(filter(None, [named, f"{about['level']:.0%}: {slope}"])))
        drawn.append(_with_law(members, law, by))
    _axes(axes, sorted(set(table[SIZE])))
    style.legend_above(picture, handles, [label.replace("%:", " %:") for label in labels])
    style.thin_labels(picture, axes.xaxis)
    return picture, pd.concat(drawn, ignore_index=True)


def _runs(figure: Figure, memorization: pd.DataFrame, by: list[str]) -> list[Run]:
    """Runs of a figure; UserError where those of a point differ in more than seeds."""
    every = figure.model_copy(update={"epoch": "all"})
    rows = drawn_rows(every, memorization, [*by, SIZE])
    for key, members in grouped(rows, [*by, SIZE]):
        check_repetitions(members, key)
    return runs_of(rows)


def _clipped(points: pd.DataFrame, memorization: pd.DataFrame) -> pd.DataFrame:
    """Interval ends as far as the checkpoints reach."""
    steps = memorization.loc[memorization["step"] > 0, "step"]
    low, high = (points[end].clip(steps.min(), steps.max()) for end in ("low", "high"))
    return points.assign(low=low, high=high)


def _with_law(members: pd.DataFrame, law: Law | None, by: list[str]) -> pd.DataFrame:
    about = {"slope": np.nan, "slope_low": np.nan, "slope_high": np.nan}
    if law is not None:
        about = {"slope": law.slope, "slope_low": law.low, "slope_high": law.high}
    plain = [name for name in members if name in (SIZE, *by) or "." not in name]
    return members[plain].drop(columns="draws").assign(**about)


def _axes(axes: Axes, sizes: list[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set(xlabel=setting_name(SIZE), ylabel="Onset of memorization (steps)")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: value_name(SIZE, at)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: value_name("step", at)))
    axes.margins(x=0.1, y=0.12)
    axes.spines[["top", "right"]].set_visible(False)


def windows(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of when to stop trainings, a bar per size from tau_gen to tau_mem, and a table.

    Marks: onsets of higher ratios. An open bar goes from tau_mem to tau_gen where memorization
    comes before samples are good. UserError without FIDs, or with two runs of a size.
    """
    runs = _runs(figure, memorization, [])
    table = window_table(runs).sort_values(SIZE, kind="stable", ignore_index=True)
    if table[SIZE].duplicated().any():
        raise UserError("plot: windows shows one run of each size; filter the others in where")
    marks = onset_table(runs, tuple(MARKS))
    picture, axes = style.panel()
    for place, row in table.iterrows():
        _bar(axes, place, row)
        for _, mark in marks[marks["evaluation"] == row["evaluation"]].iterrows():
            look = {"marker": MARKS[mark["level"]], "color": "black", "markersize": 4}
            axes.plot(mark["onset_step"], place, **look, markeredgewidth=0.9, zorder=4)
    _window_axes(axes, table)
    _window_legend(picture, axes, float(table["level"].iloc[0]))
    names = [SIZE, "tau_gen", "tau_mem", "level", "last_step", "fid_lowest"]
    return picture, table[names]


def _bar(axes: Axes, place: int, row: pd.Series) -> None:
    """Filled from tau_gen to tau_mem, or open between them the other way round."""
    start, end = row["tau_gen"], min(row["tau_mem"], row["last_step"])
    look = {"height": BAR, "linewidth": 0.9, "zorder": 3}
    if end >= start:
        axes.barh(place, end - start, left=start, color=WINDOW, **look)
        if row["tau_mem"] > row["last_step"]:
            axes.plot(end, place, marker=">", color=WINDOW, markersize=5)
        return
    left = max(end, row["first_step"])
    axes.barh(place, start - left, left=left, facecolor="none", edgecolor=OPEN, **look)


def _window_axes(axes: Axes, table: pd.DataFrame) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: value_name("step", at)))
    axes.set_yticks(range(len(table)), [value_name(SIZE, size) for size in table[SIZE]])
    axes.set(xlabel=setting_name("step"), ylabel=setting_name(SIZE))
    axes.spines[["top", "right"]].set_visible(False)


def _window_legend(picture: Picture, axes: Axes, level: float) -> None:
    full = Patch(color=WINDOW)
    empty = Patch(facecolor="none", edgecolor=OPEN, linewidth=0.9)
    words = {full: f"FID near its best, ratio up to {level:.0%}".replace("%", " %")}
    words |= {empty: "memorization first"}
    for mark, marker in MARKS.items():
        look = {"marker": marker, "color": "black", "linestyle": "", "markeredgewidth": 0.9}
        words[axes.plot([], [], **look)[0]] = f"ratio {mark:.0%}".replace("%", " %")
    style.legend_above(picture, list(words), list(words.values()))
