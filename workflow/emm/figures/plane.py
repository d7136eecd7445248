"""One measure of trainings against another, as paths through their checkpoints."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from emm.analyse.metrics import metric
from emm.analyse.names import setting_name
from emm.analyse.series import grouped, in_order
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.axes import error_bars, logarithmic, y_axis
from emm.figures.ideals import draw_path
from emm.figures.select import drawn_name, drawn_rows, legend_label

EQUAL = {"fid_training": "fid"}  # columns in one unit, which are equal on a line


def plane(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of one measure against another, and a table of what it shows.

    A path goes through the checkpoints of a run, from small to large dots; the last has its 95 %
    intervals. UserError when there is nothing to draw.
    """
    by = [figure.hue] if figure.hue else []
    names = list(dict.fromkeys([figure.x, figure.y]))
    rows = drawn_rows(figure, memorization, [*by, *names]).dropna(subset=names)
    if rows.empty:
        raise UserError(f"no run has both {figure.x} and {figure.y}")
    drawn = _in_drawn_units(rows, by, names)
    picture, axes = style.panel()
    groups = in_order(grouped(drawn, by), by)
    colours = style.colours([key.get(figure.hue) for key, _ in groups])
    for key, members in groups:
        for _, run in members.groupby("evaluation", sort=False):
            _training(axes, figure, run, colours[key.get(figure.hue)])
    _plane_axes(axes, figure)
    if by:
        handles = [axes.plot([], [], color=colours[key[by[0]]])[0] for key, _ in groups]
        labels = [legend_label(by, key) for key, _ in groups]
        style.legend_above(picture, handles, labels, setting_name(by[0]))
    return picture, drawn.drop(columns="evaluation").reset_index(drop=True)


def _in_drawn_units(rows: pd.DataFrame, by: list[str], names: list[str]) -> pd.DataFrame:
    """A row per checkpoint: who, when, and both measures with their intervals."""
    columns = {name: rows[name] for name in ["run", "evaluation", *by, "epoch", "step"]}
    for name in names:
        for end in ("", "_low", "_high"):
            if f"{name}{end}" in rows:
                values = metric(name).factor * rows[f"{name}{end}"].astype(float)
                columns[f"{drawn_name(name)}{end}"] = values
    return pd.DataFrame(columns).sort_values("step", kind="stable")


def _training(axes: Axes, figure: Figure, run: pd.DataFrame, colour: Any) -> None:
    x, y = drawn_name(figure.x), drawn_name(figure.y)
    draw_path(axes, run[x], run[y], colour)
    last = run.iloc[[-1]]
    look = {"colour": colour, "elinewidth": 0.7}
    if f"{y}_low" in last:
        error_bars(axes, (last[x], last[y], last[f"{y}_low"], last[f"{y}_high"]), **look)
    if f"{x}_low" in last:
        reach = [[last[x] - last[f"{x}_low"]], [last[f"{x}_high"] - last[x]]]
        reach = np.maximum(np.array(reach, float).reshape(2, 1), 0)
        bars = {"linestyle": "", "ecolor": colour, "elinewidth": 0.7, "zorder": 2.9}
        axes.errorbar(last[x], last[y], xerr=reach, **bars)


def _plane_axes(axes: Axes, figure: Figure) -> None:
    y_axis(axes, figure)
    shown = metric(figure.x)
    axes.set_xlabel(shown.label)
    if shown.limits:
        low, high = shown.limits
        margin = 0.03 * (high - low)
        axes.set_xlim(low - margin, high + margin)
    elif not figure.log_x and axes.dataLim.x0 >= 0:
        axes.set_xlim(left=0)
    if figure.log_x:
        logarithmic(axes, "x")
    if figure.log_y:
        logarithmic(axes, "y")
    if EQUAL.get(figure.x) == figure.y:
        ends = [
            max(axes.get_xlim()[0], axes.get_ylim()[0]),
            min(axes.get_xlim()[1], axes.get_ylim()[1]),
        ]
        axes.plot(ends, ends, color=style.GUIDE, dashes=(4, 2), linewidth=0.7, zorder=1)
