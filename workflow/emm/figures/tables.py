"""Tables: values of two settings crossed, as a picture, Markdown and LaTeX."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.text import Text

from emm.analyse.names import labelled, metric, ordered, plain_text, short_name, value_name
from emm.analyse.series import plain
from emm.errors import UserError
from emm.figures import style
from emm.figures.select import drawn_name, drawn_table, series_of_figure
from emm.spec import Figure

LINE, RULE, EDGE = 0.17, 0.03, 0.01  # heights of lines, around rules, above the first: inches
PAD = 0.14  # space between columns, inches
LATEX = str.maketrans({"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "±": r"$\pm$"})


class Cell(NamedTuple):
    """Text of a table cell, and whether it is bold."""

    text: str
    bold: bool = False


def table(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of a table figure and its values, one row per cell.

    `best` marks the value that means most memorization where a column has several. UserError when
    the rows do not make a table.
    """
    if not figure.rows or not figure.columns:
        raise UserError("a table needs `rows` and `columns`")
    series = series_of_figure(figure, memorization, [figure.rows], figure.columns)
    drawn = drawn_table(figure, series, figure.columns)
    shown = drawn[drawn_name(figure.y)].round(metric(figure.y).decimals)
    columns = drawn[figure.columns].map(lambda value: str(plain(value)))
    compared = shown.groupby(columns)
    limit = compared.transform("min" if metric(figure.y).best == "low" else "max")
    drawn["best"] = (shown == limit) & (compared.transform("size") > 1)
    return _picture(figure, cells(figure, drawn)), drawn


def markdown(figure: Figure, drawn: pd.DataFrame) -> str:
    """The table in Markdown, its metric in the corner and best values in bold."""
    head, *body = cells(figure, drawn)
    corner = f"{head[0].text} / {metric(figure.y).label}"
    lines = [[corner, *(cell.text for cell in head[1:])], ["---", *["---:"] * (len(head) - 1)]]
    lines += [[f"**{cell.text}**" if cell.bold else cell.text for cell in line] for line in body]
    escaped = [[plain_text(text).replace("|", r"\|") for text in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def latex(figure: Figure, drawn: pd.DataFrame) -> str:
    """The table in LaTeX; needs the package booktabs."""
    head, *body = [[_latex_cell(cell) for cell in line] for line in cells(figure, drawn)]
    label = metric(figure.y).label.translate(LATEX)
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        rf"& \multicolumn{{{len(head) - 1}}}{{c}}{{{label}}} \\",
        rf"\cmidrule(l){{2-{len(head)}}}",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def cells(figure: Figure, drawn: pd.DataFrame) -> list[list[Cell]]:
    """Header and lines of the table as text; the best values are bold."""
    values = {name: drawn[name].map(plain) for name in (figure.rows, figure.columns)}
    rows, columns = (ordered(name, column) for name, column in values.items())
    keys = zip(*values.values(), strict=True)
    at = dict(zip(keys, (row for _, row in drawn.iterrows()), strict=True))
    corner = short_name(figure.rows)
    head = [corner[:1].upper() + corner[1:], *(labelled(figure.columns, c) for c in columns)]
    return [[Cell(text) for text in head]] + [
        [Cell(value_name(figure.rows, row)), *(_cell(figure, at.get((row, c))) for c in columns)]
        for row in rows
    ]


def _cell(figure: Figure, row: pd.Series | None) -> Cell:
    if row is None:
        return Cell("-")
    value, decimals = row[drawn_name(figure.y)], metric(figure.y).decimals
    spread = f" ± {row['high'] - value:.{decimals}f}" if row["interval"] == "sd" else ""
    return Cell(f"{value:.{decimals}f}{spread}", bool(row["best"]))


def _latex_cell(cell: Cell) -> str:
    text = cell.text.translate(LATEX)
    return rf"\textbf{{{text}}}" if cell.bold else text


def _picture(figure: Figure, lines: list[list[Cell]]) -> Picture:
    """Booktabs style: three rules, the metric above its columns, best values in bold."""
    height = LINE * (len(lines) + 1) + 4 * RULE
    picture, axes = style.canvas(style.SINGLE, height)
    widths = _widths(axes, lines)
    ends = np.cumsum(widths)
    style.resize(axes, ends[-1], height)
    for rank, line in enumerate(lines):
        y = LINE * (rank + 1.5) + RULE * (2 if rank == 0 else 3)
        _put(axes, line[0], 0, y, first=True)
        for cell, end in zip(line[1:], ends[1:], strict=True):
            _put(axes, cell, end, y)
    middle = {"x": (ends[0] + ends[-1]) / 2, "ha": "center", "va": "center_baseline"}
    axes.text(y=RULE + LINE / 2, s=metric(figure.y).label, **middle)
    _rule(axes, ends[0] + PAD / 2, ends[-1], RULE + LINE, 0.4)
    for y, weight in ((EDGE, 0.9), (2 * LINE + 2.5 * RULE, 0.5), (height - EDGE, 0.9)):
        _rule(axes, 0, ends[-1], y, weight)
    return picture


def _widths(axes: Axes, lines: list[list[Cell]]) -> list[float]:
    """Column widths in inches that fill one or two columns of a paper, or more if they must."""
    columns = zip(*lines, strict=True)
    widths = [max(_width(axes, cell) for cell in column) + PAD for column in columns]
    needed = sum(widths)
    width = style.SINGLE if needed <= style.SINGLE else max(style.DOUBLE, needed)
    return [column + (width - needed) / len(widths) for column in widths]


def _rule(axes: Axes, left: float, right: float, y: float, weight: float) -> None:
    axes.plot([left, right], [y, y], color="k", linewidth=weight, solid_capstyle="butt")


def _put(axes: Axes, cell: Cell, x: float, y: float, first: bool = False) -> Text:
    place = {"ha": "left", "x": x + PAD / 2} if first else {"ha": "right", "x": x - PAD / 2}
    weight = "bold" if cell.bold else "normal"
    return axes.text(y=y, s=cell.text, va="center_baseline", weight=weight, **place)


def _width(axes: Axes, cell: Cell) -> float:
    """Width of a cell's text in inches."""
    text = _put(axes, cell, 0, 0)
    width = text.get_window_extent().width / axes.figure.dpi
    text.remove()
    return width
