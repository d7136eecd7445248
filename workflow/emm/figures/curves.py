"""Curves: a metric against a setting or the training epochs, with intervals and EMM."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from emm.analyse.emm import EPSILON
from emm.analyse.names import SIZE, VALUES, setting_name
from emm.analyse.summary import emm_text
from emm.documents import Figure
from emm.figures import style
from emm.figures.axes import (
    MANY,
    draw_reference,
    error_bars,
    on_a_scale,
    x_axis,
    x_positions,
    y_axis,
)
from emm.figures.select import (
    Series,
    drawn_table,
    emm_column,
    series_of_figure,
)

LEVEL = 100 * (1 - EPSILON)


def curve(
    figure: Figure,
    memorization: pd.DataFrame,
    emm: pd.DataFrame | None = None,
    reference: pd.DataFrame | None = None,
) -> tuple[Picture, pd.DataFrame]:
    """The picture of a curve figure and the table of what it shows.

    Points are means over seeds with their sd, or single values with their 95 % interval.
    reference: rows of the run that is a dashed line. UserError when the rows make no figure.
    """
    marked = emm if _shows_emm(figure) and figure.x == SIZE else None
    by = (figure.hue, figure.style)
    series = series_of_figure(figure, memorization, by, figure.x, marked)
    picture, axes = style.panel()
    values = [value for one in series for value in one.points["x"]]
    positions = x_positions(axes, figure, values)
    looks = _looks(figure, series)
    for one, look in zip(series, looks, strict=True):
        numbers = on_a_scale(figure, one.points["x"])
        _line(axes, one, look if numbers else {**look, "linestyle": ""}, positions)
    x_axis(axes, figure, list(positions))
    y_axis(axes, figure)
    if _shows_emm(figure):
        axes.axhline(LEVEL, color=style.GUIDE, dashes=(4, 2), linewidth=0.7, zorder=1)
        _emm_marks(axes, figure, series, looks)
    line = None if reference is None else draw_reference(axes, figure, reference)
    _legend(picture, axes, figure, series, looks, line)
    style.thin_labels(picture, axes.xaxis)
    return picture, drawn_table(figure, series, figure.x)


def _shows_emm(figure: Figure) -> bool:
    return figure.emm and figure.y == "memorization_ratio"


def _looks(figure: Figure, series: Sequence[Series]) -> list[dict[str, Any]]:
    """Colour by hue; marker and dash by style, or the marker by hue where there is no style."""
    hues = list(dict.fromkeys(one.key.get(figure.hue) for one in series))
    styles = list(dict.fromkeys(one.key.get(figure.style) for one in series))
    colours = style.colours(hues)
    markers = style.cycle(styles if figure.style else hues, style.MARKERS)
    dashes = style.cycle(styles, style.DASHES)
    return [
        {
            "color": colours[one.key.get(figure.hue)],
            "marker": markers[one.key.get(figure.style if figure.style else figure.hue)],
            "linestyle": dashes[one.key.get(figure.style)],
        }
        for one in series
    ]


def _line(axes: Axes, one: Series, look: dict[str, Any], positions: dict[Any, float]) -> None:
    x = [positions[value] for value in one.points["x"]]
    y, low, high = (one.points[name].to_numpy(float) for name in ("y", "low", "high"))
    if len(x) > MANY:
        axes.plot(x, y, **{**look, "marker": ""}, zorder=3)
        axes.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0, zorder=2)
        return
    axes.plot(x, y, **look, zorder=3)
    if np.isfinite(low).any():
        bars = {"elinewidth": 0.7, "capsize": 1.4, "capthick": 0.7}
        error_bars(axes, (x, y, low, high), look["color"], **bars)


def _emm_marks(
    axes: Axes, figure: Figure, series: Sequence[Series], looks: Sequence[dict[str, Any]]
) -> None:
    """A drop line at each EMM, or an arrow where it is censored, and a bar over its interval."""
    axes.set_xlim(axes.get_xlim())  # bars that leave the sizes end at the axes
    name, lanes, arrows = emm_column(figure), [], Counter()
    for one, look in zip(series, looks, strict=True):
        if one.emm is None:
            continue
        value, colour = one.emm[name], look["color"]
        if np.isnan(value):
            status = one.emm["status" + name.removeprefix("emm")]
            _edge_arrow(axes, status == "above", arrows[status], colour)
            arrows[status] += 1
        else:
            drop = {"linewidth": 0.8, "dashes": (1.2, 1.2), "zorder": 1.5}
            axes.plot([value, value], [axes.get_ylim()[0], LEVEL], color=colour, **drop)
        ends = np.clip([one.emm[f"{name}_low"], one.emm[f"{name}_high"]], *axes.get_xlim())
        if not ends[0] < ends[1]:  # surely beyond the sizes, as the arrow says
            continue
        height = 1.5 + 3.5 * _free_lane(lanes, *ends)
        axes.plot(ends, [height, height], color=colour, linewidth=2, solid_capstyle="butt")


def _free_lane(lanes: list[list[tuple[float, float]]], low: float, high: float) -> int:
    """The lowest lane in which low..high overlaps no bar; the bar is entered there."""
    for rank, lane in enumerate(lanes):
        if all(high < other[0] or low > other[1] for other in lane):
            lane.append((low, high))
            return rank
    lanes.append([(low, high)])
    return len(lanes) - 1


def _edge_arrow(axes: Axes, above: bool, rank: int, colour: Any) -> None:
    """An arrow out of the axes at the 90 % line, one below the other."""
    tail, head = (0.94, 1.0) if above else (0.06, 0.0)
    height = LEVEL - 5 * rank
    where = {"xycoords": axes.get_yaxis_transform(), "textcoords": axes.get_yaxis_transform()}
    arrow = {"arrowstyle": "-|>,head_width=0.16,head_length=0.32", "color": colour, "lw": 1}
    arrow |= {"shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (head, height), (tail, height), arrowprops=arrow, **where)


def _legend(
    picture: Picture,
    axes: Axes,
    figure: Figure,
    series: Sequence[Series],
    looks: Sequence[dict[str, Any]],
    line: Any,
) -> None:
    labels = [_label(figure, one) for one in series]
    handles = [axes.plot([], [], **look)[0] for look in looks]
    if line is not None:
        named = [pair for pair in zip(handles, labels, strict=True) if pair[1]]
        handles, labels = map(list, zip(*named, (line, "all kept"), strict=True))
    if not any(labels):
        return
    speaking = figure.hue in VALUES or bool(figure.style) or not figure.hue
    title = "" if speaking else setting_name(figure.hue)
    style.legend_above(picture, handles, labels, title)


def _label(figure: Figure, one: Series) -> str:
    """Legend entry of a series, with its EMM where it is marked."""
    if one.emm is None:
        return one.label
    known = f"EMM {emm_text(one.emm, emm_column(figure))}"
    return f"{one.label}: {known}" if one.label else known
