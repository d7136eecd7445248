"""Several metrics of the same runs in one figure: lines, and shares against the threshold."""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import MaxNLocator

from emm.analyse.metrics import metric
from emm.analyse.names import setting_name
from emm.analyse.series import grouped, in_order
from emm.documents import Figure
from emm.figures import style
from emm.figures.axes import error_bars, logarithmic, x_axis, x_positions, y_axis
from emm.figures.select import drawn_name, drawn_rows, legend_label, point, series_of_figure
from emm.measure import PERCENTS
from emm.score.criteria import THRESHOLD

GUIDES = ("n_training",)  # drawn as what others are compared with
THRESHOLDS = {percent / 100: f"ratio_share_{percent}" for percent in PERCENTS}
SMALL = 50  # percent
LINES = {"samples": "-", "held out": (0, (1, 1.2))}


def metrics(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of a line per metric against a setting, and the table of what it shows.

    Points are means over seeds with their sd, or single values with their 95 % interval.
    """
    parts = {}
    for name in figure.metrics:
        one = figure.model_copy(update={"y": name})
        (series,) = series_of_figure(one, memorization, [], figure.x)
        parts[name] = series.points
    picture, axes = style.panel()
    positions = x_positions(axes, figure, list(parts[figure.metrics[0]]["x"]))
    lines = [name for name in figure.metrics if name not in GUIDES]
    shared, labels = _labels(figure)
    colours, markers = style.colours(lines), style.cycle(lines, style.MARKERS)
    for name, points in parts.items():
        look = {"color": style.GUIDE, "dashes": (4, 2), "linewidth": 0.8}
        if name in lines:
            look = {"color": colours[name], "marker": markers[name]}
        _line(axes, points, positions, look, labels[name])
    x_axis(axes, figure, list(positions))
    _y_axis(axes, figure, parts, shared)
    style.legend_above(picture, *axes.get_legend_handles_labels())
    style.thin_labels(picture, axes.xaxis)
    tables = [
        points.rename(columns={"x": figure.x, "y": "value"}).assign(metric=drawn_name(name))
        for name, points in parts.items()
    ]
    return picture, pd.concat(tables, ignore_index=True)


def _line(
    axes: Axes,
    points: pd.DataFrame,
    positions: dict[Any, float],
    look: dict[str, Any],
    label: str,
) -> None:
    x = [positions[value] for value in points["x"]]
    y, low, high = (points[name].to_numpy(float) for name in ("y", "low", "high"))
    axes.plot(x, y, **look, label=label, zorder=3)
    if np.isfinite(low).any():
        bars = {"elinewidth": 0.7, "capsize": 1.4, "capthick": 0.7}
        error_bars(axes, (x, y, low, high), look["color"], **bars)


def _y_axis(axes: Axes, figure: Figure, parts: dict[str, pd.DataFrame], shared: str) -> None:
    """Limits of the first metric, and the unit of all; logarithmic for images where x is.

    Shares that all stay small have an axis of their own.
    """
    unit, highest = metric(figure.metrics[0]).unit, axes.dataLim.y1
    y_axis(axes, figure.model_copy(update={"y": figure.metrics[0]}))
    axes.set_ylabel("Share (%)" if unit == "%" else unit.capitalize() or shared)
    if unit == "%" and highest < SMALL:
        axes.set_ylim(-0.03 * highest, 1.06 * highest)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    least = min(points["y"].min() for points in parts.values())
    if axes.get_xscale() == "log" and unit == "images" and least > 0:
        axes.set_yscale("log", base=2)
        axes.autoscale(axis="y")
        axes.yaxis.set_major_formatter(lambda at, _: f"{at:,.0f}")
    if figure.log_y:
        logarithmic(axes, "y")


def _labels(figure: Figure) -> tuple[str, dict[str, str]]:
    """What to write along the axis of metrics without a unit, and the label of each metric."""
    names = {name: metric(name).name for name in figure.metrics}
    if metric(figure.metrics[0]).unit or len(names) < 2:
        return names[figure.metrics[0]], names
    shared = _shared_words(list(names.values()))
    return shared, {name: words.removeprefix(shared).lstrip(", ") for name, words in names.items()}


def _shared_words(names: Sequence[str]) -> str:
    """The words that all names begin with: "FID" of "FID, held-out images" and "FID, training"."""
    words = zip(*(re.findall(r"[\w-]+", name) for name in names), strict=False)
    return " ".join(together[0] for together in takewhile(lambda w: len(set(w)) == 1, words))


def thresholds(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of samples, and held-out images, that count as copies by threshold of d1/d2.

    A line per value of `hue`; the published threshold lies on it. Returns the table of what it
    shows, in %.
    """
    by = [figure.hue] if figure.hue else []
    rows = drawn_rows(figure, memorization, [*by, *THRESHOLDS.values()])
    groups = in_order(grouped(rows, by), by)
    colours = style.colours([key.get(figure.hue) for key, _ in groups])
    picture, axes = style.panel()
    tables, handles = [], []
    for key, members in groups:
        colour = colours[key.get(figure.hue)]
        for kind, dashes in LINES.items():
            table = _by_threshold(members, key, kind)
            axes.plot(table["threshold"], table["y"], color=colour, linestyle=dashes, zorder=3)
            ends = (table["low"].astype(float), table["high"].astype(float))
            axes.fill_between(table["threshold"], *ends, color=colour, alpha=0.18, linewidth=0)
            tables.append(table.assign(**key, images=kind))
        handles.append(axes.plot([], [], color=colour)[0])
    axes.axvline(float(THRESHOLD), color=style.GUIDE, dashes=(4, 2), linewidth=0.7, zorder=1)
    y_axis(axes, figure.model_copy(update={"y": "memorization_ratio"}))
    axes.set_ylabel("Below the threshold (%)")
    axes.set_xlabel("Threshold of the distance ratio $d_1/d_2$")
    axes.set_xticks(list(THRESHOLDS))
    _kinds_below(picture, axes)
    if by:
        labels = [legend_label(by, key) for key, _ in groups]
        style.legend_above(picture, handles, labels, setting_name(figure.hue))
    drawn = pd.concat(tables, ignore_index=True).rename(columns={"y": "share_percent"})
    return picture, drawn


def _kinds_below(picture: Picture, axes: Axes) -> None:
    """What the dashes mean, under the axes: inside, lines are everywhere."""
    look = {"color": style.GUIDE, "linewidth": 1}
    kinds = [axes.plot([], [], linestyle=dashes, **look)[0] for dashes in LINES.values()]
    place = {"loc": "outside lower center", "ncols": len(kinds), "handlelength": 1.8}
    legend = picture.legend(kinds, ["samples", "held-out images"], **place)
    height = legend.get_window_extent().height / picture.dpi
    picture.set_figheight(picture.get_figheight() + height)


def _by_threshold(rows: pd.DataFrame, key: dict[str, Any], kind: str) -> pd.DataFrame:
    """Shares of one kind of images by threshold, in %, with those of the published one."""
    names = {**THRESHOLDS, float(THRESHOLD): "memorization_ratio"}
    end = "" if kind == "samples" else "_held_out"
    return pd.DataFrame(
        [
            {"threshold": threshold, **point(f"{names[threshold]}{end}", rows, key)}
            for threshold in sorted(names)
        ]
    )
