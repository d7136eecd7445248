"""Variance: what other images, initialisations and samples each add to the spread of the ratio."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from emm.analyse.series import grouped, in_order
from emm.analyse.variance import COUNTING, LEVELS, ratio_components
from emm.documents import Figure
from emm.figures import style
from emm.figures.axes import error_bars
from emm.figures.select import check_repetitions, drawn_rows, legend_label

NAMES = {
    "data": "other\nimages",
    "initialisation": "other\ninitialisation",
    "sampling": "other\nsamples",
    "all together": "all\ntogether",
}
APART = 0.16  # between the points of series
STUB = 0.3  # half the length of the line that counting makes
FLOOR = 0.1  # of it, where bars that reach 0 end on the logarithmic axis


def variance(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of a variance figure, and a table with a row per component and series.

    Points are standard deviations in points of the ratio, bars their 95 % intervals (one that is 0
    has only its bar, to a tenth of the counting); a dashed line is what counting so many samples
    makes. UserError when seeds are not nested evenly, or when the
    rows differ in more than seeds.
    """
    by = [figure.hue] if figure.hue else []
    rows = drawn_rows(figure, memorization, [*by, *LEVELS])
    series = []
    for key, members in in_order(grouped(rows, by), by):
        check_repetitions(members, key)
        series.append((key, ratio_components(members)))
    picture, axes = style.panel()
    colours = style.colours([key.get(figure.hue) for key, _ in series])
    markers = style.cycle([key.get(figure.hue) for key, _ in series], style.MARKERS)
    handles = []
    for rank, (key, found) in enumerate(series):
        look = {"color": colours[key.get(figure.hue)], "marker": markers[key.get(figure.hue)]}
        handles.append(_draw(axes, found, look, APART * (rank - (len(series) - 1) / 2)))
    _axes(axes)
    if by:
        labels = [legend_label(by, key, alone=False) for key, _ in series]
        style.legend_above(picture, handles, labels)
    return picture, pd.concat([found.assign(**key) for key, found in series], ignore_index=True)


def _draw(axes: Axes, found: pd.DataFrame, look: dict[str, Any], aside: float) -> Any:
    known = found.set_index("name")
    x = [place + aside for place in range(len(NAMES))]
    y, low, high = (known.loc[list(NAMES), name].to_numpy() for name in ("sd", "low", "high"))
    counting, at = known.at[COUNTING, "sd"], x[list(NAMES).index("sampling")]
    line = {"color": style.GUIDE, "dashes": (2.5, 1.5), "linewidth": 0.9, "zorder": 1.5}
    axes.plot([at - STUB, at + STUB], [counting, counting], **line)
    floor = FLOOR * counting if counting else FLOOR
    ends = (np.maximum(end, floor) for end in (y, low, high))
    error_bars(axes, (x, *ends), look["color"], elinewidth=0.7, capsize=1.4, capthick=0.7)
    shown = np.where(y > floor, y, np.nan)
    return axes.plot(x, shown, linestyle="", **look, zorder=3)[0]


def _axes(axes: Axes) -> None:
    axes.set_xticks(range(len(NAMES)), list(NAMES.values()))
    axes.set_xlim(-0.5, len(NAMES) - 0.5)
    axes.set_ylabel("Standard deviation (points)")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g}"))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
