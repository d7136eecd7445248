"""When memorization sets in: onsets against the size with their power law, and when to stop."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from emm.analyse.fits import Law
from emm.analyse.names import SIZE, setting_name, value_name
from emm.analyse.onset import Run, onset_law, onset_table, runs_of
from emm.analyse.series import grouped, in_order
from emm.analyse.windows import window_table
from emm.documents import Figure
from emm.figures import style
from emm.figures.capacity import ASIDE, draw_law, law_text
from emm.figures.select import check_repetitions, drawn_rows, legend_label

STEP = "onset_step"
WINDOW = "#0173b2"
POINTS = {  # ends of a window
    "tau_gen": {"marker": "o", "color": WINDOW, "markersize": 4},
    "tau_mem": {"marker": "D", "color": "#d55e00", "markersize": 3.5},
}
NEVER = {"marker": "x", "color": WINDOW, "markersize": 4, "markeredgewidth": 1, "linestyle": ""}
WINDOW_COLUMNS = (
    *(SIZE, "data.seed", "train.seed", "tau_gen", "tau_gen_low", "tau_gen_high"),
    *("tau_mem", "tau_mem_low", "tau_mem_high", "level", "window", "last_step"),
    *("fid_lowest", "fid_falls", "limit", "limit_falls", "fid_best", "size_best", "step_best"),
)
BAR = 0.62  # height over the distance of bars
AFTER = 1.25  # factor that the axis reaches beyond the checkpoints


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
    """The picture of when to stop trainings, a row per run between those of its size, and a table.

    Two points with 95 % intervals: tau_gen, from which on samples are good, and tau_mem, the first
    copies; a bar joins them where samples are good first. A cross: never good. UserError without
    FIDs, or where runs of a size differ in more than seeds.
    """
    table = window_table(_runs(figure, memorization, []))
    table = table.sort_values(SIZE, kind="stable", ignore_index=True)
    picture, axes = style.panel()
    sizes = sorted(set(table[SIZE]))
    for place, size in enumerate(sizes):
        members = table[table[SIZE] == size]
        lane = 1 / (len(members) + (len(members) > 1))
        for rank, (_, row) in enumerate(members.iterrows()):
            _window(axes, place + lane * (rank - (len(members) - 1) / 2), lane, row)
    _window_axes(axes, table, sizes)
    _window_legend(picture, axes, table.iloc[0])
    return picture, table[[name for name in WINDOW_COLUMNS if name in table]]


def _window(axes: Axes, place: float, lane: float, row: pd.Series) -> None:
    """Points of a run at a height, and the bar between them where the window is open."""
    first, last, head = row["first_step"], row["last_step"], AFTER * row["last_step"]
    start, end = (np.clip(row[name], first, last) for name in ("tau_gen", "tau_mem"))
    if row["tau_gen"] < row["tau_mem"]:
        look = {"color": WINDOW, "alpha": 0.3, "linewidth": 0}
        axes.barh(place, end - start, left=start, height=BAR * lane, **look)
    for (name, look), aside in zip(POINTS.items(), (0.12, -0.12), strict=True):
        height = place + aside * lane
        ends = np.clip([row[f"{name}_low"], row[f"{name}_high"]], first, head)
        if name == "tau_gen" and np.isinf(row[name]):
            axes.plot(last, height, **NEVER)
            continue
        if ends[0] < head:
            axes.plot(ends, [height, height], color=look["color"], linewidth=0.9, zorder=3)
        if 0 < row[name] <= last:
            axes.plot(row[name], height, **look, zorder=4)
        elif row[name] > last:
            axes.plot(last, height, **{**look, "marker": ">"}, zorder=4)
        else:
            axes.plot(first, height, **{**look, "marker": "<"}, zorder=4)


def _window_axes(axes: Axes, table: pd.DataFrame, sizes: list[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(table["first_step"].min() / AFTER, AFTER * table["last_step"].max())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: value_name("step", at)))
    axes.set_yticks(range(len(sizes)), [value_name(SIZE, size) for size in sizes])
    axes.set_ylim(-0.6, len(sizes) - 0.4)
    axes.set(xlabel=setting_name("step"), ylabel=setting_name(SIZE))
    axes.spines[["top", "right"]].set_visible(False)


def _window_legend(picture: Picture, axes: Axes, row: pd.Series) -> None:
    names = (f"FID at most {row['limit']:.3g}", f"ratio above {100 * row['level']:g} %")
    words = {
        axes.plot([], [], linestyle="", **look)[0]: name
        for look, name in zip(POINTS.values(), names, strict=True)
    }
    words[Patch(color=WINDOW, alpha=0.3, linewidth=0)] = "good, and hardly a copy"
    words[axes.plot([], [], **NEVER)[0]] = "never good"
    style.legend_above(picture, list(words), list(words.values()))
