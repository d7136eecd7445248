"""Bars: one for each combination of settings that the drawn runs have, named at its left."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from emm.analyse.metrics import CHANCE, metric
from emm.analyse.names import series_label
from emm.analyse.series import Group, grouped, in_order, is_seed, settings_of, sizeless, telling
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.select import drawn_name, drawn_rows, legend_label, point

HEIGHT = 0.15  # inches of a bar
GAP = 0.6  # between the bars of two combinations, in bars
MARGINS = 0.42  # inches below and above the bars


def bars(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of a bars figure, and a table with a row per bar in drawn units.

    A bar is the runs that differ in seeds alone: their mean with its standard deviation, or a
    single value with its 95 % interval. figure.hue colours bars beside each other. UserError when
    there is nothing to draw.
    """
    by = [figure.hue] if figure.hue else []
    rows = drawn_rows(figure, memorization, [*by, figure.y])
    rows = sizeless(rows[rows[figure.y].notna()])
    if rows.empty:
        raise UserError(f"no run has a value of {figure.y}")
    names = [name for name in settings_of(rows) if name not in by and not is_seed(name)]
    combinations = in_order(grouped(rows, names), names)
    told = telling(key for key, _ in combinations)
    labels = _labels([key for key, _ in combinations], told)
    table = _table(figure, dict(zip(labels, combinations, strict=True)), told, by)
    return _picture(figure, table, by), table


def _labels(keys: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """A label per combination, of as few of the settings `names` as tell it from the others."""
    first, others = names[:1], names[1:]
    subsets = [
        [*first, *more] for n in range(len(names)) for more in itertools.combinations(others, n)
    ]
    labels = []
    for key in keys:
        enough = next((chosen for chosen in subsets if _tells(key, keys, chosen)), list(names))
        labels.append(series_label({name: key[name] for name in enough}))
    return labels


def _tells(key: Mapping[str, Any], keys: Iterable[Mapping[str, Any]], names: Iterable[str]) -> bool:
    """Whether no other key has the same values of `names`."""
    names = list(names)
    return sum(all(other[name] == key[name] for name in names) for other in keys) == 1


def _table(
    figure: Figure, combinations: Mapping[str, Group], told: Sequence[str], by: Sequence[str]
) -> pd.DataFrame:
    rows = []
    for label, (settings, members) in combinations.items():
        about = {name: settings[name] for name in told}
        for key, same in in_order(grouped(members, by), by):
            values = point(figure.y, same, key) | _chance(figure, same)
            rows.append({"bar": label, **about, **key, **values})
    return pd.DataFrame(rows).rename(columns={"y": drawn_name(figure.y)})


def _chance(figure: Figure, rows: pd.DataFrame) -> dict[str, float]:
    """What the metric would be by chance, in drawn units, where the table has that."""
    column = CHANCE.get(figure.y)
    return {"chance": metric(column).factor * rows[column].mean()} if column in rows else {}


def _picture(figure: Figure, table: pd.DataFrame, by: Sequence[str]) -> Picture:
    picture, axes = style.panel()
    places, ticks = _places(list(table["bar"]))
    values = [key.get(figure.hue) for key, _ in in_order(grouped(table, by), by)]
    colours = style.colours(values)
    of_bar = [colours[value] for value in (table[figure.hue] if by else [None] * len(table))]
    ends = _draw(axes, places, table, drawn_name(figure.y), of_bar)
    _axes(axes, figure, ends)
    axes.set_yticks(list(ticks.values()), [label or "all runs" for label in ticks])
    axes.set_ylim(max(places) + 0.5 + GAP / 2, -0.5 - GAP / 2)
    picture.set_figheight(HEIGHT * (max(places) + 1) + MARGINS)
    handles = [axes.barh([0], [0], color=colours[value]) for value in values] if by else []
    named = [legend_label(list(by), {figure.hue: value}, alone=False) for value in values if by]
    if "chance" in table:
        look = {"color": "white", "linestyle": "", "marker": "D", "markersize": 3.2}
        edge = {"markeredgecolor": "0.15", "markeredgewidth": 0.6, "zorder": 4}
        handles += axes.plot(table["chance"], places, **look, **edge)
        named.append("by chance")
    if handles:
        style.legend_above(picture, handles, named)
    return picture


def _places(labels: Sequence[str]) -> tuple[list[float], dict[str, float]]:
    """Where each bar stands, and the middle of those of each label; bars of a label touch."""
    places: list[float] = []
    for rank, label in enumerate(labels):
        above = places[-1] if places else -1.0
        places.append(above + 1 + (GAP if rank and label != labels[rank - 1] else 0))
    found = pd.Series(places).groupby(list(labels), sort=False).mean()
    return places, found.to_dict()


def _draw(
    axes: Axes, places: Sequence[float], table: pd.DataFrame, column: str, colours: Sequence[Any]
) -> np.ndarray:
    """Bars with their intervals and values; returns where each ends."""
    values, low, high = (table[name].to_numpy(float) for name in (column, "low", "high"))
    axes.barh(places, values, height=0.92, color=colours, linewidth=0)
    reach = np.maximum(np.nan_to_num([values - low, high - values]), 0)
    axes.errorbar(values, places, xerr=reach, linestyle="", ecolor="0.15", elinewidth=0.7)
    ends = np.fmax(values, high)
    for place, end, value in zip(places, ends, values, strict=True):
        text = f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"
        about = {"textcoords": "offset points", "va": "center", "fontsize": 6.5}
        axes.annotate(text, (end, place), (2.5, 0), **about)
    return ends


def _axes(axes: Axes, figure: Figure, ends: np.ndarray) -> None:
    """The metric's axis, with room for the numbers behind the bars."""
    shown = metric(figure.y)
    low, high = shown.limits or (0, max(ends.max(), 1e-9))
    axes.set_xlim(low, low + 1.14 * (high - low))
    axes.set_xlabel(shown.label, loc="right")  # a long one reaches below the names
    if shown.limits:
        axes.set_xticks(np.linspace(low, high, 6))
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
