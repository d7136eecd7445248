"""Figures of networks between the ideal denoisers: by level of noise, and as paths of trainings."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from emm.analyse.metrics import metric
from emm.analyse.names import SIZE, setting_name
from emm.analyse.series import effective, grouped, in_order
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.select import check_repetitions, legend_label
from emm.measure.columns import IDEALS

LEAST = 0.05  # of the largest squared distance of the ideals, below which nothing can be told
LINES = {"held out": "-", "training": (0, (1, 1.2))}
ENDS = {0.0: "generalizes", 1.0: "memorizes"}
SMALL, LARGE = 2.0, 5.5  # points, of the first and the last marker of a path


def levels(figure: Figure, rows: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of a measure against the level of noise, and the table of what it shows.

    rows: the table of comparisons with ideal denoisers. The last checkpoint of each evaluation is
    drawn, or all with the hue `epoch`. Levels at which the ideals nearly agree are left out.
    """
    drawn = _levels_drawn(figure, rows)
    picture, axes = style.panel()
    by = [figure.hue] if figure.hue else []
    groups = in_order(grouped(drawn, by), by)
    colours = style.colours([key.get(figure.hue) for key, _ in groups])
    handles, labels = [], []
    for key, members in groups:
        colour = colours[key.get(figure.hue)]
        for kind, dashes in LINES.items():
            _level_line(axes, figure.y, members[members["probes"] == kind], colour, dashes)
        handles.append(axes.plot([], [], color=colour)[0])
        labels.append(legend_label(by, key))
    if figure.y == "kappa":
        _ends(axes)
    axes.set_xscale("log")
    axes.set_xlabel(r"Noise level $\sigma$")
    axes.set_ylabel(metric(figure.y).name.split(" at ")[0].split(",")[0])
    axes.spines[["top", "right"]].set_visible(False)
    if figure.hue:
        style.legend_above(picture, handles, labels, setting_name(figure.hue))
    look = {"color": style.GUIDE, "linewidth": 1}
    kinds = [axes.plot([], [], linestyle=dashes, **look)[0] for dashes in LINES.values()]
    axes.legend(kinds, LINES, loc="best", handlelength=1.6)
    return picture, drawn


def _levels_drawn(figure: Figure, rows: pd.DataFrame) -> pd.DataFrame:
    """A row per series, kind of probes and level, where the ideals can be told apart."""
    rows = rows[rows["sigma"].notna()]
    if figure.hue != "epoch":
        rows = rows[rows["step"] == rows.groupby("evaluation")["step"].transform("max")]
    if figure.y == "kappa":
        largest = rows.groupby(["evaluation", "step", "probes"])["separation"].transform("max")
        rows = rows[rows["separation"] >= LEAST * largest]
    if rows.empty or rows[figure.y].isna().all():
        raise UserError(f"no level with a value of {figure.y} to draw")
    by = [figure.hue] if figure.hue else []
    for key, members in grouped(rows, [*by, "probes", "sigma"]):
        check_repetitions(members, key)
        if members["evaluation"].duplicated().any() and figure.hue != "epoch":
            raise UserError("a line mixes checkpoints")
    columns = [*by, "probes", "sigma", "epoch", "n_probes", "separation", figure.y]
    ends = [name for name in (f"{figure.y}_low", f"{figure.y}_high") if name in rows]
    return rows[list(dict.fromkeys([*columns, *ends]))].reset_index(drop=True)


def _level_line(axes: Axes, name: str, rows: pd.DataFrame, colour: Any, dashes: Any) -> None:
    rows = rows.groupby("sigma", as_index=False).mean(numeric_only=True)
    axes.plot(rows["sigma"], rows[name], color=colour, linestyle=dashes, zorder=3)
    if f"{name}_low" in rows:
        ends = rows[f"{name}_low"], rows[f"{name}_high"]
        axes.fill_between(rows["sigma"], *ends, color=colour, alpha=0.18, linewidth=0)


def _ends(axes: Axes) -> None:
    """Lines at what the ideals themselves would have."""
    for value, word in ENDS.items():
        axes.axhline(value, color=style.GUIDE, dashes=(4, 2), linewidth=0.7, zorder=1)
        where = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.annotate(word, (1.0, value), (-1, 2), ha="right", color=style.GUIDE, **where)


def paths(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of trainings between the ideals, a panel for each kind of probes, and a table.

    Along x kappa, from the ideal of the data (0) to the one that memorizes (1); along y the
    distance from the line through both. A path goes through the checkpoints of a run.
    """
    rows = effective(memorization).sort_values("step", kind="stable")
    by = [figure.hue or SIZE]
    groups = in_order(grouped(rows, by), by)
    colours = style.colours([key[by[0]] for key, _ in groups])
    picture, both = style.panels(len(IDEALS))
    for axes, (kind, end) in zip(both, IDEALS.items(), strict=True):
        for key, members in groups:
            for _, run in members.groupby("evaluation", sort=False):
                draw_path(axes, run[f"kappa{end}"], run[f"off_axis{end}"], colours[key[by[0]]])
        for place, word in ENDS.items():
            axes.plot(place, 0, marker="*", markersize=8, color="black", clip_on=False, zorder=4)
            side = "right" if place else "left"
            axes.annotate(word, (place, 0), (0, 6), textcoords="offset points", ha=side)
        axes.set_title("Held-out images" if kind == "held out" else "Training images")
        axes.set_xlabel(r"$\kappa$")
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylim(bottom=0)
    both[0].set_ylabel("Beside the line of the ideals")
    handles = [both[0].plot([], [], color=colours[key[by[0]]])[0] for key, _ in groups]
    labels = [legend_label(by, key) for key, _ in groups]
    style.legend_above(picture, handles, labels, setting_name(by[0]))
    names = [f"{name}{end}" for end in IDEALS.values() for name in ("kappa", "off_axis")]
    return picture, rows[["run", *by, "epoch", *names]].reset_index(drop=True)


def draw_path(axes: Axes, x: pd.Series, y: pd.Series, colour: Any) -> None:
    """A line through the checkpoints of a training, from a small to a large dot."""
    axes.plot(x, y, color=colour, linewidth=0.8, zorder=2)
    sizes = np.linspace(SMALL, LARGE, len(x)) ** 2
    axes.scatter(x, y, s=sizes, color=colour, linewidths=0, zorder=3)
