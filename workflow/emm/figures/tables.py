"""Tables: values of two settings crossed, as a picture, Markdown and LaTeX."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.text import Text

from emm.analyse.metrics import metric
from emm.analyse.names import labelled, ordered, plain_text, setting_name, short_name, value_name
from emm.analyse.series import effective, plain
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.select import drawn_name, drawn_table, series_of_figure

LINE, RULE, EDGE = 0.17, 0.03, 0.01  # heights of lines, around rules, above the first: inches
PAD = 0.14  # space between columns, inches
LATEX = str.maketrans({"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "±": r"$\pm$"})


class Cell(NamedTuple):
    """Text of a table cell, and whether it is bold."""

    text: str
    bold: bool = False


class Block(NamedTuple):
    """One of the tables that stand beside each other: header lines, then a line per value."""

    head: list[list[Cell]]
    body: list[list[Cell]]


def table(
    figure: Figure, memorization: pd.DataFrame, halves: Sequence[frozenset[str]] = ()
) -> tuple[Picture, pd.DataFrame, list[Block]]:
    """The picture of a table figure, its values (one row per cell), and the text of its cells.

    halves: evaluations of each half of a figure that has two. `best` marks the value that means
    most memorization where the figure says that values compete. UserError when the rows do not
    make a table.
    """
    parts = list(_parts(figure, memorization, halves))
    drawn = [_drawn(part, rows) for part, rows in parts]
    blocks = [_block(part, values) for (part, _), values in zip(parts, drawn, strict=True)]
    return _picture(figure, blocks), pd.concat(drawn, ignore_index=True), blocks


def metrics_table(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame, Any]:
    """A table with a line per metric and a column per value of `columns`: as `table` returns.

    Its values are in drawn units, a row per cell with the ends of its interval. UserError when a
    cell would mix different settings.
    """
    parts = []
    for name in figure.metrics:
        one = figure.model_copy(update={"y": name})
        (series,) = series_of_figure(one, memorization, [], figure.columns)
        shown = series.points.rename(columns={"x": figure.columns, "y": "value"})
        parts.append(shown.assign(metric=name, unit=metric(name).unit))
    values = ordered(figure.columns, parts[0][figure.columns].map(plain))
    head = [Cell("Criterion"), *(Cell(value_name(figure.columns, value)) for value in values)]
    body = [_metric_line(name, part) for name, part in zip(figure.metrics, parts, strict=True)]
    blocks = [Block([head], body)]
    front = [figure.columns, "metric", "value", "unit", "low", "high", "interval", "repetitions"]
    return _picture(figure, blocks), pd.concat(parts, ignore_index=True)[front], blocks


def _metric_line(name: str, points: pd.DataFrame) -> list[Cell]:
    decimals, unit = metric(name).decimals, metric(name).unit
    decimals -= unit == "%" and decimals == 2  # of many criteria side by side
    texts = ("-" if np.isnan(value) else f"{value:,.{decimals}f}" for value in points["value"])
    return [Cell(metric(name).label), *map(Cell, texts)]


def _over(figure: Figure) -> str:
    """What stands above the columns: the metric of all cells, or what the columns are."""
    return setting_name(figure.columns) if figure.metrics else metric(figure.y).label


def _parts(
    figure: Figure, memorization: pd.DataFrame, halves: Sequence[frozenset[str]]
) -> Iterator[tuple[Figure, pd.DataFrame]]:
    """The tables of a figure, each with its rows."""
    if not figure.columns or not (figure.rows or figure.halves):
        raise UserError("a table needs `rows` (or `halves`) and `columns`")
    if not figure.halves:
        yield figure, memorization
    for half, wanted in zip(figure.halves, halves, strict=True):
        shown = memorization[memorization["evaluation"].isin(wanted)]
        yield figure.model_copy(update={"rows": half.rows}), shown


def _drawn(figure: Figure, memorization: pd.DataFrame) -> pd.DataFrame:
    """Values of a table, a row per cell, with the best ones marked."""
    series = series_of_figure(figure, memorization, [figure.rows], figure.columns)
    drawn = drawn_table(figure, series, figure.columns)
    if figure.also:
        drawn = drawn.merge(_also(figure, memorization), on=figure.columns, how="left")
    drawn["best"] = False
    if figure.best:
        shown = drawn[drawn_name(figure.y)].round(metric(figure.y).decimals)
        line = drawn[figure.rows if figure.best == "rows" else figure.columns]
        compared = shown.groupby(line.map(lambda value: str(plain(value))))
        limit = compared.transform("min" if metric(figure.y).best == "low" else "max")
        drawn["best"] = (shown == limit) & (compared.transform("size") > 1)
    return drawn


def _also(figure: Figure, memorization: pd.DataFrame) -> pd.DataFrame:
    """The value of a second setting at each value of the columns'."""
    pairs = effective(memorization)[[figure.columns, figure.also]].drop_duplicates()
    if pairs[figure.columns].duplicated().any():
        raise UserError(f"also: {figure.also} has several values at one {figure.columns}")
    return pairs


def _block(figure: Figure, drawn: pd.DataFrame) -> Block:
    values = {name: [*map(plain, drawn[name])] for name in (figure.rows, figure.columns)}
    rows, columns = (ordered(name, column) for name, column in values.items())
    if figure.rows == "train.ema":  # the usual rate first, as in the paper
        rows = rows[::-1]
    keys = zip(*values.values(), strict=True)
    at = dict(zip(keys, (row for _, row in drawn.iterrows()), strict=True))
    head = [[_corner(figure.rows), *(Cell(labelled(figure.columns, c)) for c in columns)]]
    if figure.also:
        also = dict(zip(values[figure.columns], drawn[figure.also], strict=True))
        head.append([_corner(figure.also), *(Cell(_number(figure.also, also[c])) for c in columns)])
        head[0] = [_corner(figure.columns), *(Cell(value_name(figure.columns, c)) for c in columns)]
    name = labelled if figure.also else _number
    body = [
        [Cell(name(figure.rows, row)), *(_cell(figure, at.get((row, c))) for c in columns)]
        for row in rows
    ]
    return Block(head, body)


def _corner(setting: str) -> Cell:
    name = short_name(setting)
    return Cell(name[:1].upper() + name[1:])


def _number(setting: str, value: Any) -> str:
    """A value, small numbers as powers of ten in mathematics."""
    if type(value) is float and 0 < value < 0.01:
        mantissa, exponent = f"{value:.3e}".split("e")
        return rf"${float(mantissa):g}\times10^{{{int(exponent)}}}$"
    return value_name(setting, value)


def markdown(figure: Figure, blocks: Sequence[Block]) -> str:
    """The table in Markdown, its metric in the corner and best values in bold."""
    (first, *others), body = _joined(blocks)
    corner = f"{first[0].text} / {_over(figure)}"
    lines = [[corner, *(cell.text for cell in first[1:])]]
    lines.append([rule for block in blocks for rule in ["---", *["---:"] * (_width(block) - 1)]])
    for line in [*others, *body]:
        lines.append([f"**{cell.text}**" if cell.bold else cell.text for cell in line])
    escaped = [[plain_text(text).replace("|", r"\|") for text in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def latex(figure: Figure, blocks: Sequence[Block]) -> str:
    """The table in LaTeX; needs the package booktabs."""
    head, body = ([[_latex_cell(c) for c in line] for line in part] for part in _joined(blocks))
    label = _over(figure).translate(LATEX)
    starts = np.cumsum([1, *(_width(block) for block in blocks)])
    over = [rf"\multicolumn{{{_width(block) - 1}}}{{c}}{{{label}}}" for block in blocks]
    rules = [
        rf"\cmidrule(l){{{start + 1}-{stop - 1}}}" for start, stop in itertools.pairwise(starts)
    ]
    lines = [
        rf"\begin{{tabular}}{{{''.join('l' + 'r' * (_width(block) - 1) for block in blocks)}}}",
        r"\toprule",
        "& " + " & & ".join(over) + r" \\",
        "".join(rules),
        *(" & ".join(line) + r" \\" for line in head),
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _joined(blocks: Sequence[Block]) -> tuple[list[list[Cell]], list[list[Cell]]]:
    """Header lines and lines of tables beside each other; the shorter ones end with empty lines."""
    return _beside([b.head for b in blocks]), _beside([b.body for b in blocks])


def _beside(parts: Sequence[list[list[Cell]]]) -> list[list[Cell]]:
    longest = max(len(part) for part in parts)
    padded = [[*part, *[[Cell("")] * len(part[0])] * (longest - len(part))] for part in parts]
    return [[cell for line in lines for cell in line] for lines in zip(*padded, strict=True)]


def _width(block: Block) -> int:
    return len(block.head[0])


def _cell(figure: Figure, row: pd.Series | None) -> Cell:
    if row is None:
        return Cell("-")
    value, decimals = row[drawn_name(figure.y)], metric(figure.y).decimals
    if np.isnan(value):
        return Cell("beyond")  # a capacity that the sizes do not bracket
    spread = f" ± {row['high'] - value:.{decimals}f}" if row["interval"] == "sd" else ""
    return Cell(f"{value:.{decimals}f}{spread}", bool(row["best"]))


def _latex_cell(cell: Cell) -> str:
    text = cell.text.translate(LATEX)
    return rf"\textbf{{{text}}}" if cell.bold else text


def _picture(figure: Figure, blocks: Sequence[Block]) -> Picture:
    """Booktabs style: three rules, the metric above its columns, best values in bold."""
    head, body = _joined(blocks)
    height = LINE * (len(head) + len(body) + 1) + 4 * RULE
    picture, axes = style.canvas(style.SINGLE, height)
    widths = _widths(axes, [*head, *body])
    ends = np.cumsum(widths)
    style.resize(axes, ends[-1], height)
    firsts = np.cumsum([0, *(_width(block) for block in blocks)])
    for rank, line in enumerate([*head, *body]):
        y = LINE * (rank + 1.5) + RULE * (2 if rank < len(head) else 3)
        for column, (cell, end) in enumerate(zip(line, ends, strict=True)):
            first = column in firsts
            _put(axes, cell, end - widths[column] if first else end, y, first)
    for start, stop in itertools.pairwise(firsts):
        left, right = ends[start], ends[stop - 1]
        middle = {"x": (left + right) / 2, "ha": "center", "va": "center_baseline"}
        axes.text(y=RULE + LINE / 2, s=_over(figure), **middle)
        _rule(axes, left + PAD / 2, right, RULE + LINE, 0.4)
    under = LINE * (len(head) + 1) + 2.5 * RULE
    for y, weight in ((EDGE, 0.9), (under, 0.5), (height - EDGE, 0.9)):
        _rule(axes, 0, ends[-1], y, weight)
    return picture


def _widths(axes: Axes, lines: list[list[Cell]]) -> list[float]:
    """Column widths in inches that fill one or two columns of a paper, or more if they must."""
    columns = zip(*lines, strict=True)
    widths = [max(_text_width(axes, cell) for cell in column) + PAD for column in columns]
    needed = sum(widths)
    width = style.SINGLE if needed <= style.SINGLE else max(style.DOUBLE, needed)
    return [column + (width - needed) / len(widths) for column in widths]


def _rule(axes: Axes, left: float, right: float, y: float, weight: float) -> None:
    axes.plot([left, right], [y, y], color="k", linewidth=weight, solid_capstyle="butt")


def _put(axes: Axes, cell: Cell, x: float, y: float, first: bool = False) -> Text:
    place = {"ha": "left", "x": x + PAD / 2} if first else {"ha": "right", "x": x - PAD / 2}
    weight = "bold" if cell.bold else "normal"
    return axes.text(y=y, s=cell.text, va="center_baseline", weight=weight, **place)


def _text_width(axes: Axes, cell: Cell) -> float:
    """Width of a cell's text in inches."""
    text = _put(axes, cell, 0, 0)
    width = text.get_window_extent().width / axes.figure.dpi
    text.remove()
    return width
