"""The one style of all figures: sizes of a paper's columns, fonts, colours, legends, ticks."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

SINGLE, DOUBLE = 3.3, 6.8  # widths of one and two columns in inches
DPI = 300
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
MEMORIZED = "#d55e00"  # frame of a memorized sample
GUIDE = "0.45"
TOUCH = 2.5  # points between tick labels
WIDE = 20  # largest over smallest value from which on a linear axis crowds the small ones
SETTINGS = {
    "font.family": ["STIXGeneral"],  # comes with matplotlib: the same picture on every machine
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.labelsize": 8.5,
    "axes.titlesize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.1,
    "legend.columnspacing": 1.2,
    "legend.labelspacing": 0.3,
    "legend.borderaxespad": 0.2,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.6,
    "lines.markeredgewidth": 0.0,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "axes.labelpad": 2.5,
    "figure.dpi": DPI,  # text is measured as it is printed
    "savefig.dpi": DPI,
    "pdf.fonttype": 42,
    "svg.hashsalt": "emm",
    "svg.fonttype": "path",
}


@contextmanager
def paper() -> Iterator[None]:
    """The style, for the drawing and the saving of a figure."""
    with mpl.rc_context({**sns.plotting_context("paper"), **sns.axes_style("ticks"), **SETTINGS}):
        yield


def colours(values: Sequence[Any]) -> dict[Any, Any]:
    """A colour per value, safe for colour-blind readers: a ramp for three or more numbers."""
    numbers = all(isinstance(value, int | float) for value in values)
    if (numbers and len(values) > 2) or len(values) > 7:
        palette = sns.color_palette("viridis", len(values) + 1)[: len(values)]
    else:
        safe = sns.color_palette("colorblind")
        palette = [safe[i] for i in (0, 1, 2, 4, 5, 9, 7)]
    return dict(zip(values, palette, strict=False))


def cycle(values: Sequence[Any], kinds: Sequence[Any]) -> dict[Any, Any]:
    """A marker or dash per value, repeated when there are more values than kinds."""
    return {value: kinds[i % len(kinds)] for i, value in enumerate(values)}


def legend_above(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], title: str = ""
) -> None:
    """A legend above the axes, as wide as the figure allows; the figure grows by its height."""
    for lines in range(1, len(labels) + 1):
        columns = math.ceil(len(labels) / lines)
        place = {"loc": "outside upper center", "ncols": columns, "title": title or None}
        legend = figure.legend(handles, labels, **place)
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
            return
        legend.remove()


def thin_labels(figure: Figure, axis: Axis) -> None:
    """Blank tick labels that would touch others; the ticks stay, and so do both end labels.

    The figure needs fixed ticks and no more changes of its layout.
    """
    figure.draw_without_rendering()
    labels = [tick.label1 for tick in sorted(axis.get_major_ticks(), key=lambda t: t.get_loc())]
    taken: list[Bbox] = []
    for label in [*labels[:1], *labels[:0:-1][:1], *labels[1:-1]]:
        box = label.get_window_extent()
        if any(box.padded(TOUCH * figure.dpi / 72).overlaps(other) for other in taken):
            label.set_visible(False)
        elif label.get_text():
            taken.append(box)


def panel() -> tuple[Figure, Axes]:
    """An empty picture of one column with axes that its labels are laid out around."""
    picture = Figure(figsize=(SINGLE, 2.1), layout="constrained")
    picture.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    return picture, picture.add_subplot()


def panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    """An empty picture of two columns with axes beside each other that share their y axis."""
    picture = Figure(figsize=(DOUBLE, 2.4), layout="constrained")
    picture.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    return picture, picture.subplots(1, count, sharey=True)


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty picture whose coordinates are inches from the top left."""
    picture = Figure(figsize=(width, height))
    axes = picture.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    resize(axes, width, height)
    return picture, axes


def resize(axes: Axes, width: float, height: float) -> None:
    """Give a canvas its size and its coordinates, which images and lines may have changed."""
    axes.figure.set_size_inches(width, height)
    axes.set(xlim=(0, width), ylim=(height, 0))


def suits_log(values: Sequence[float]) -> bool:
    """Whether positive numbers suit a log axis: they grow by one factor, or span a wide range."""
    if len(values) < 3 or min(values) <= 0:
        return False
    steps = np.diff(np.log(np.sort(np.asarray(values, float))))
    return bool(np.allclose(steps, steps[0], rtol=0.05) or max(values) >= WIDE * min(values))
