"""Points: every run on its own, beside each other where they share a value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from emm.analyse.metrics import metric
from emm.analyse.names import ordered
from emm.analyse.series import grouped, in_order
from emm.documents import Figure
from emm.figures import style
from emm.figures.axes import draw_reference, error_bars, x_axis, x_positions, y_axis
from emm.figures.select import drawn_name, drawn_rows, legend_label
from emm.masks import DERIVED

WIDTH = 0.56  # of the distance between values, that their points take
LOW, HIGH = "low", "high"


def points(
    figure: Figure, memorization: pd.DataFrame, reference: pd.DataFrame | None = None
) -> tuple[Picture, pd.DataFrame]:
    """The picture of a points figure, and a table of its runs.

    Bars are 95 % intervals. reference: rows of the run that is a dashed line. UserError when there
    is nothing to draw.
    """
    by = [figure.hue] if figure.hue else []
    rows = drawn_rows(figure, memorization, [*by, figure.x, figure.y, *DERIVED])
    drawn = _drawn(figure, rows, by)
    picture, axes = style.panel()
    positions = x_positions(axes, figure, list(drawn[figure.x]))
    groups = in_order(grouped(drawn, by), by)
    looks = _looks([key.get(figure.hue) for key, _ in groups])
    for rank, ((_, members), look) in enumerate(zip(groups, looks, strict=True)):
        _scatter(axes, figure, members, look, _lane(positions, rank, len(groups)), positions)
    x_axis(axes, figure, list(positions))
    y_axis(axes, figure)
    labels = [legend_label(by, key, alone=False) for key, _ in groups if by]
    handles = [axes.plot([], [], **look)[0] for look in looks[: len(labels)]]
    if reference is not None:
        handles.append(draw_reference(axes, figure, reference))
        labels.append("all kept")
    if labels:
        style.legend_above(picture, handles, labels)
    style.thin_labels(picture, axes.xaxis)
    return picture, drawn


def _looks(values: Sequence[Any]) -> list[dict[str, Any]]:
    """Colour and marker of each group."""
    colours, markers = style.colours(values), style.cycle(values, style.MARKERS)
    return [{"color": colours[v], "marker": markers[v], "linestyle": ""} for v in values]


def _drawn(figure: Figure, rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A row per run in drawn units, ordered along the axis."""
    factor = metric(figure.y).factor
    columns = {name: rows[name] for name in [figure.x, *by, "model.skip_mask"] if name in rows}
    columns[drawn_name(figure.y)] = factor * rows[figure.y].astype(float)
    for end in (LOW, HIGH):
        name = f"{figure.y}_{end}"
        columns[end] = factor * rows[name].astype(float) if name in rows else np.nan
    order = {value: rank for rank, value in enumerate(ordered(figure.x, rows[figure.x]))}
    drawn = pd.DataFrame(columns)
    return drawn.sort_values(figure.x, key=lambda c: c.map(order), ignore_index=True, kind="stable")


def _lane(positions: dict[Any, float], rank: int, count: int) -> tuple[float, float]:
    """Where the points of a group stand, relative to their value: from, to."""
    places = np.sort(list(positions.values()))
    step = np.diff(places).min() if len(places) > 1 else 1.0
    width = WIDTH * step / count
    left = -WIDTH * step / 2 + rank * width
    return left + 0.12 * width, left + 0.88 * width


def _scatter(
    axes: Axes,
    figure: Figure,
    members: pd.DataFrame,
    look: dict[str, Any],
    lane: tuple[float, float],
    positions: dict[Any, float],
) -> None:
    for value, same in members.groupby(figure.x, sort=False):
        same = same.sort_values(drawn_name(figure.y), ascending=False)
        share = (np.arange(len(same)) + 0.5) / len(same)
        x = positions[value] + lane[0] + share * (lane[1] - lane[0])
        y = same[drawn_name(figure.y)].to_numpy(float)
        axes.plot(x, y, **look, zorder=3)
        error_bars(axes, (x, y, same[LOW], same[HIGH]), look["color"], elinewidth=0.6)
