"""What moves the EMM: the factor that each change of a setting makes, with its interval."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from emm.analyse.advice import VERDICTS, Effect
from emm.analyse.names import plain_text, series_label
from emm.figures import style
from emm.figures.draw import save
from emm.files import write_text

TITLE = "What moves the EMM"
COLOURS = dict(zip(VERDICTS, ("#d55e00", "#0173b2", "0.25", "0.6"), strict=True))
WORDS = {"raises": "raises the EMM", "lowers": "lowers it"}
HEIGHT = 0.14  # inches of a line
MARGINS = 0.5  # inches above and below the lines
WIDEST = 30.0  # factor at either edge, beyond which arrows point


def draw_effects(effects: Sequence[Effect], stem: Path) -> None:
    """Write the picture of effects as stem.svg, .pdf and .png, and stem.csv of what it shows."""
    with style.paper():
        picture, table = effects_picture(effects)
        save(picture, TITLE, stem)
    write_text(stem.with_name(f"{stem.name}.csv"), table.to_csv(index=False, float_format="%.10g"))


def effects_picture(effects: Sequence[Effect]) -> tuple[Picture, pd.DataFrame]:
    """A line per comparison, with its 95 % interval on a logarithmic axis, and a table of them.

    Settings stand together, those with the clearest effect first. An EMM beyond the sizes that were
    run leaves only a bound: a line without a point, which an arrow ends. Two of them leave nothing
    to draw.
    """
    table = effects_table(effects)
    picture, axes = style.panel()
    picture.set_size_inches(style.DOUBLE, HEIGHT * max(len(table), 4) + MARGINS)
    if table.empty:
        axes.set_axis_off()
        axes.annotate("No two EMMs to compare", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return picture, table
    reach = _reach(table)
    for place, row in enumerate(table.to_dict("records")):
        _line(axes, place, row, reach)
    _axes(axes, table, reach)
    shown = [verdict for verdict in VERDICTS if verdict in set(table["verdict"])]
    handles = [axes.plot([], [], color=COLOURS[verdict], marker="o")[0] for verdict in shown]
    style.legend_above(picture, handles, [WORDS.get(verdict, verdict) for verdict in shown])
    return picture, table


def effects_table(effects: Sequence[Effect]) -> pd.DataFrame:
    """A row per comparison of which something is known, in the order in which they are drawn."""
    effects = [effect for effect in effects if effect.is_bounded]
    strongest: dict[str, float] = {}
    for effect in effects:
        hue = effect.family.hue
        strongest[hue] = max(effect.strength, strongest.get(hue, -np.inf))
    ordered = sorted(effects, key=lambda e: (-strongest[e.family.hue], e.family.hue))
    names = ["setting", "change", "where", "factor", "low", "high", "verdict", "runs", "figure"]
    return pd.DataFrame([_row(effect) for effect in ordered], columns=names)


def _row(effect: Effect) -> tuple[object, ...]:
    family = effect.family
    where = plain_text(series_label(family.style))
    runs = family.base.runs + effect.changed.runs
    numbers = effect.factor, effect.low, effect.high
    return (family.hue, effect.change, where, *numbers, effect.verdict, runs, family.figure.name)


def _reach(table: pd.DataFrame) -> float:
    """The factor at the edges of the axis: that of the widest bounded interval, within limits."""
    ends = np.abs(np.log(table[["factor", "low", "high"]].replace(0, np.nan).to_numpy(float)))
    known = ends[np.isfinite(ends)]
    return float(np.clip(1.15 * np.exp(known.max(initial=0.0)), 2.0, WIDEST))


def _line(axes: Axes, place: int, row: dict[str, object], reach: float) -> None:
    colour = COLOURS[str(row["verdict"])]
    low, high = (float(np.clip(row[end], 1 / reach, reach)) for end in ("low", "high"))
    axes.plot([low, high], [place, place], color=colour, linewidth=1.0, solid_capstyle="butt")
    for end, beyond, marker in ((low, row["low"] < low, "<"), (high, row["high"] > high, ">")):
        if beyond:
            axes.plot(end, place, color=colour, marker=marker, markersize=3.2, clip_on=False)
    if 1 / reach <= row["factor"] <= reach:
        axes.plot(row["factor"], place, color=colour, marker="o", zorder=3)


def _axes(axes: Axes, table: pd.DataFrame, reach: float) -> None:
    axes.axvline(1, color=style.GUIDE, linewidth=0.7, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(1 / reach, reach)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g}"))
    axes.set_xlabel("Factor on the EMM")
    labels = [
        ", ".join(filter(None, pair)) for pair in zip(table["change"], table["where"], strict=True)
    ]
    axes.set_yticks(range(len(table)), labels)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    starts = np.flatnonzero(table["setting"] != table["setting"].shift())[1:]
    for start in starts:
        axes.axhline(start - 0.5, color="0.85", linewidth=0.5, zorder=0)
    for place, name in enumerate(table["figure"]):
        where = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        look = {"va": "center", "color": style.GUIDE, "fontsize": 6.5, "annotation_clip": False}
        axes.annotate(name, (1.0, place), (4, 0), **where, **look)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
