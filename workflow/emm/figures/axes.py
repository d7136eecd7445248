"""Axes that figures share: positions, scales, ticks and labels."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from emm.analyse.metrics import metric
from emm.analyse.names import TIMES, ordered, setting_name, value_name
from emm.documents import Figure
from emm.figures import style
from emm.figures.select import drawn_rows

LETTERS = 52  # of tick labels that fit beside each other in one column
MANY = 12  # points per line from which on markers and error bars become a band
CATEGORIES = ("model.skip_resolution",)  # numbers that get a place each, as words do


def x_positions(axes: Axes, figure: Figure, values: Iterable[Any]) -> dict[Any, float]:
    """Where each value stands on the x axis; words get a place each, with its tick."""
    values = ordered(figure.x, values)
    if on_a_scale(figure, values):
        return {value: float(value) for value in values}
    names = [value_name(figure.x, value) for value in values]
    if sum(map(len, names)) > LETTERS:
        names = [name.replace(" ", "\n") for name in names]
    axes.set_xticks(range(len(values)), names)
    axes.set_xlim(-0.4, len(values) - 0.6)
    return {value: float(place) for place, value in enumerate(values)}


def x_axis(axes: Axes, figure: Figure, values: Sequence[Any]) -> None:
    """Scale and ticks for drawn numbers: ticks at the values themselves while they are few."""
    axes.set_xlabel(setting_name(figure.x))
    if not on_a_scale(figure, values):
        return
    timeline = figure.x in TIMES
    if min(values) > 0 and (figure.log_x or (not timeline and style.suits_log(values))):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    elif timeline:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    if len(values) <= MANY and not timeline:
        axes.xaxis.set_major_locator(FixedLocator(sorted(values)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: value_name(figure.x, at)))


def y_axis(axes: Axes, figure: Figure) -> None:
    """Label, limits and ticks of the metric."""
    shown = metric(figure.y)
    axes.set_ylabel(shown.label)
    if shown.limits:
        low, high = shown.limits
        margin = 0.03 * (high - low)  # keeps markers at the limits whole
        axes.set_ylim(low - margin, high + margin)
        axes.set_yticks(np.linspace(low, high, 6))
    elif axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def on_a_scale(figure: Figure, values: Iterable[Any]) -> bool:
    """Whether the x axis is one of numbers, not of names."""
    return figure.x not in CATEGORIES and all(isinstance(value, int | float) for value in values)


def error_bars(axes: Axes, points: Sequence[Any], colour: Any, **look: Any) -> None:
    """Bars from low to high at points (x, y, low, high); none where an end is unknown."""
    x, y, low, high = points
    reach = np.maximum(np.nan_to_num([y - low, high - y]), 0)
    axes.errorbar(x, y, reach, linestyle="", ecolor=colour, zorder=2.9, **look)


def draw_reference(axes: Axes, figure: Figure, memorization: pd.DataFrame) -> Any:
    """A dashed line at the mean of some runs; returns it for the legend."""
    rows = drawn_rows(figure, memorization, [figure.y])
    level = metric(figure.y).factor * rows[figure.y].astype(float).mean()
    look = {"color": style.GUIDE, "dashes": (2.5, 1.5), "linewidth": 0.9, "zorder": 1.2}
    return axes.axhline(level, **look)


def logarithmic(axes: Axes, side: str) -> None:
    """A logarithmic axis whose ticks are plain numbers."""
    axes.set(**{f"{side}scale": "log"})
    axis = getattr(axes, f"{side}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g}"))
    axis.set_minor_formatter("")
    axes.tick_params(axis=side, which="minor", length=1.4, width=0.5)
    axes.autoscale(axis=side)
