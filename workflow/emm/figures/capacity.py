"""Capacity: EMM and memorization capacity against a setting, with the power law that fits them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from emm.analyse.fits import Law, points_from, power_law
from emm.analyse.metrics import CAPACITIES, metric
from emm.analyse.names import SIZE, series_label, setting_name, value_name
from emm.analyse.series import grouped, in_order
from emm.analyse.tables import capacity_table
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.axes import error_bars
from emm.figures.select import check_repetitions, drawn_rows

MARKERS = {"emm": "o", "memorization_capacity": "s"}
ASIDE = 1.04  # factor along x between lines, so that none hides another


@dataclass(frozen=True)
class Line:
    """Capacities along x: columns x, images, low, high, status, bound; `law` where one fits."""

    key: dict[str, Any]
    measure: str
    points: pd.DataFrame
    law: Law | None

    @property
    def bracketed(self) -> int:
        """How many of its points are bracketed: of the others only the side tells."""
        return int((self.points["status"] == "bracketed").sum())


def capacity(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of a capacity figure and a table with a row per point.

    Both axes are logarithmic. Bars are 95 % intervals of the bootstrap as far as the sizes reach;
    an arrow starts at the largest or smallest size where these do not bracket a capacity. Legend
    and table tell how many points of a law are bracketed. UserError when a point would mix
    different settings.
    """
    lines = _lines(figure, memorization)
    picture, axes = style.panel()
    colours = style.colours([_colour(figure, line) for line in lines])
    handles, labels = [], []
    for rank, line in enumerate(lines):
        look = {"color": colours[_colour(figure, line)], "marker": MARKERS[line.measure]}
        aside = ASIDE ** (rank - (len(lines) - 1) / 2)
        handles.append(draw_law(axes, line.points, line.law, look, aside))
        labels.append(_label(figure, line))
    _axes(axes, figure, lines)
    style.legend_above(picture, handles, labels)
    style.thin_labels(picture, axes.xaxis)
    return picture, pd.concat([_table(figure, line) for line in lines], ignore_index=True)


def _lines(figure: Figure, memorization: pd.DataFrame) -> list[Line]:
    by = [name for name in (figure.hue, figure.style) if name]
    kept = drawn_rows(figure.model_copy(update={"epoch": "all"}), memorization, [*by, figure.x])
    rows = capacity_table(kept)
    lines = []
    for key, members in in_order(grouped(rows, by), by):
        for measure in [figure.y] if figure.y in CAPACITIES else CAPACITIES:
            points = _points(figure, members, measure)
            law = power_law(points_from(points))
            lines.append(Line(key, measure, points.drop(columns="draws"), law))
    return lines


def _points(figure: Figure, rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A row per value of x, ascending."""
    found = []
    for key, members in in_order(grouped(rows, [figure.x]), [figure.x]):
        check_repetitions(members, key)
        row = members.iloc[0]
        ends = {name: row[f"{measure}_{name}"] for name in ("low", "high", "status", "bound")}
        at = float(key[figure.x])
        found.append({"x": at, "images": row[measure], **ends, "draws": row[f"{measure}_draws"]})
    points = pd.DataFrame(found)
    if not (points["x"] > 0).all():
        raise UserError(f"x: {figure.x} has values that are not above 0; a logarithm needs these")
    return points


def draw_law(
    axes: Axes,
    points: pd.DataFrame,
    law: Law | None,
    look: dict[str, Any],
    aside: float = 1.0,
    value: str = "images",
) -> Any:
    """Points with bars, arrows, and the law as a dashed line; returns the handle of the legend.

    points: columns x, low, high, status, bound, and that of their values.
    """
    known = points[points["status"] == "bracketed"]
    x, y, low, high = (known[name].to_numpy(float) for name in ("x", value, "low", "high"))
    bars = {"elinewidth": 0.7, "capsize": 1.4, "capthick": 0.7}
    error_bars(axes, (aside * x, y, low, high), look["color"], **bars)
    for _, point in points[points["status"] != "bracketed"].iterrows():
        _arrow(axes, aside * point["x"], point, look["color"])
    if law is not None:
        ends = np.array([x.min(), x.max()])
        curve = np.exp(law.intercept) * ends**law.slope
        dashes = {"dashes": (3, 1.5), "linewidth": 0.9, "zorder": 2}
        axes.plot(aside * ends, curve, color=look["color"], **dashes)
    return axes.plot(aside * x, y, linestyle="", **look, zorder=3)[0]


def _arrow(axes: Axes, x: float, point: pd.Series, colour: Any) -> None:
    """From the largest size upwards or from the smallest downwards, with a bar at the size."""
    up = point["status"] == "above"
    head = point["bound"] * (1.25 if up else 0.8)
    arrow = {"arrowstyle": "-|>,head_width=0.16,head_length=0.32", "color": colour, "lw": 1}
    arrow |= {"shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (x, head), (x, point["bound"]), arrowprops=arrow)
    axes.plot([x], [point["bound"]], color=colour, marker="_", markeredgewidth=1, zorder=3)
    axes.update_datalim([(x, head)])


def _axes(axes: Axes, figure: Figure, lines: Sequence[Line]) -> None:
    """Logarithmic axes, with ticks at the values of the setting."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set(xlabel=setting_name(figure.x), ylabel="Capacity (images)")
    values = sorted({value for line in lines for value in line.points["x"]})
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: value_name(figure.x, at)))
    axes.yaxis.set_major_locator(LogLocator(base=2))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: value_name(SIZE, round(at))))
    axes.margins(x=0.1, y=0.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _colour(figure: Figure, line: Line) -> Any:
    """What decides the colour: the hue, or the measure where there is none."""
    return line.key.get(figure.hue, line.measure)


def _label(figure: Figure, line: Line) -> str:
    """The name of a line, and below it its law and how many points are bracketed."""
    name = ": ".join(filter(None, [metric(line.measure).name, series_label(line.key)]))
    noun = "widths" if figure.x == "model.channels" else "points"
    count = f"{line.bracketed} of {len(line.points)} {noun}"
    if line.law is None:
        return f"{name}\nno slope, {count} inside the sizes"
    return f"{name}\n{law_text(line.law)}, {count} inside the sizes"


def law_text(law: Law) -> str:
    """The slope of a law with its interval: "slope 1.02 (0.95 to 1.10)"."""
    low, high = law.low, law.high
    ends = f"{low:.2f} to {high:.2f}"
    if not np.isfinite([low, high]).all():
        ends = f"{low:.2f} or more" if np.isfinite(low) else f"{high:.2f} or less"
    known = np.isfinite([low, high]).any()
    return f"slope {law.slope:.2f} ({ends if known else 'interval open'})"


def _table(figure: Figure, line: Line) -> pd.DataFrame:
    about = dict.fromkeys(("slope", "slope_low", "slope_high", "scatter"), np.nan)
    if (law := line.law) is not None:
        about = {"slope": law.slope, "slope_low": law.low, "slope_high": law.high}
        about["scatter"] = law.scatter
    about |= {"n_bracketed": line.bracketed, "n_censored": len(line.points) - line.bracketed}
    table = line.points.rename(columns={"x": figure.x})
    return table.assign(measure=line.measure, **{**line.key, **about})
