"""Grids: generated samples above their nearest training images, memorized ones framed."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from emm.analyse.names import series_label
from emm.analyse.series import grouped, in_order, telling
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.select import check_repetitions, drawn_rows

Gallery = Mapping[str, NDArray[Any]]
MARGIN, LABELS, GAP, HEADING, SPACE, KEY = 0.03, 0.5, 0.035, 0.17, 0.07, 0.2  # inches
PER_SAMPLE = ("samples", "nearest", "d1_squared", "d2_squared", "memorized", "labels")
FRAME = 1.1  # points
FEW_IMAGES, FEW_BLOCKS = 10, 6  # per row and per figure that one column of a paper holds


def grid(
    figure: Figure, memorization: pd.DataFrame, galleries: Mapping[str, Gallery]
) -> tuple[Picture, pd.DataFrame]:
    """The picture of a grid figure and a table with a row per image pair.

    A block per series (hue, style, x): figure.lines rows of samples above as many of neighbours;
    many blocks stand in two columns. UserError when a series has no gallery.
    """
    blocks = _blocks(figure, memorization, galleries)
    count = max(min(figure.count, len(gallery["samples"])) for _, _, gallery in blocks)
    columns = 1 if len(blocks) <= FEW_BLOCKS else 2
    width = style.DOUBLE if columns > 1 or count > FEW_IMAGES else style.SINGLE
    cell = (width / columns - 2 * MARGIN - LABELS - (count - 1) * GAP) / count
    tallest = max(_aspect(gallery) for _, _, gallery in blocks)
    lines = 2 * math.ceil(max(len(gallery["samples"]) for _, _, gallery in blocks) / count)
    rows, step = math.ceil(len(blocks) / columns), HEADING + lines * (cell * tallest + GAP) + SPACE
    picture, axes = style.canvas(width, rows * step + KEY)
    for place, (label, row, gallery) in enumerate(blocks):
        left = place // rows * width / columns + MARGIN + LABELS
        top = place % rows * step + MARGIN
        heading = {"va": "center_baseline", "fontsize": 8}
        axes.text(left, top + HEADING / 2 - 0.02, _heading(label, row), **heading)
        _block(axes, gallery, count, cell, left, top + HEADING)
    _key(axes, rows * step + MARGIN)
    return picture, pd.concat([_pairs(*block) for block in blocks], ignore_index=True)


def _blocks(
    figure: Figure, memorization: pd.DataFrame, galleries: Mapping[str, Gallery]
) -> list[tuple[dict[str, Any], pd.Series, Gallery]]:
    """Settings that tell each block, the table row of its checkpoint, and the images shown."""
    by = [name for name in (figure.hue, figure.style, figure.x) if name and name != "epoch"]
    rows = drawn_rows(figure.model_copy(update={"epoch": "all"}), memorization, by)
    groups = in_order(grouped(rows, dict.fromkeys(by)), dict.fromkeys(by))
    names = telling(key for key, _ in groups)
    blocks = []
    for key, members in groups:
        check_repetitions(members, key)
        row, gallery = _chosen(members, galleries)
        shown = {
            name: np.asarray(gallery[name])[: figure.count * figure.lines] for name in PER_SAMPLE
        }
        blocks.append(({name: key[name] for name in names}, row, shown))
    return blocks


def _chosen(members: pd.DataFrame, galleries: Mapping[str, Gallery]) -> tuple[pd.Series, Gallery]:
    """The gallery of the first repetition that has one, with the row of its checkpoint."""
    for evaluation in dict.fromkeys(members["evaluation"]):
        if gallery := galleries.get(evaluation):
            rows = members[members["evaluation"] == evaluation]
            epochs = rows["epoch"].to_numpy(float) - float(np.ravel(gallery["epoch"])[0])
            return rows.iloc[int(np.abs(epochs).argmin())], gallery
    raise UserError(f"no gallery of evaluation {members['evaluation'].iloc[0]}")


def _block(axes: Axes, gallery: Gallery, count: int, cell: float, left: float, top: float) -> None:
    """Rows of `count` samples above rows of their neighbours."""
    height = cell * _aspect(gallery)
    lines = math.ceil(len(gallery["samples"]) / count)
    for rank, (name, kind) in enumerate({"generated": "samples", "nearest": "nearest"}.items()):
        first = top + rank * lines * (height + GAP)
        for line in range(lines):
            images = gallery[kind][line * count : (line + 1) * count]
            y, right = first + line * (height + GAP), left + len(images) * (cell + GAP) - GAP
            place = {"extent": (left, right, y + height, y), "aspect": "auto"}
            axes.imshow(_strip(images, cell), interpolation="nearest", **place)
        label = {"ha": "right", "va": "center", "fontsize": 7.5}
        axes.text(left - 0.05, first + (lines * (height + GAP) - GAP) / 2, name, **label)
    style.resize(axes, *axes.figure.get_size_inches())
    for i in np.flatnonzero(gallery["memorized"]):
        x, y = left + i % count * (cell + GAP), top + i // count * (height + GAP)
        _frame(axes, x, y, cell, height)


def _frame(axes: Axes, x: float, y: float, width: float, height: float) -> None:
    """A thin frame around an image, in the gap between images."""
    half = FRAME / 72 / 2
    corner, size = (x - half, y - half), (width + 2 * half, height + 2 * half)
    look = {"fill": False, "edgecolor": style.MEMORIZED, "linewidth": FRAME}
    axes.add_patch(Rectangle(corner, *size, **look, joinstyle="miter"))


def _key(axes: Axes, top: float) -> None:
    left, size = MARGIN + LABELS, 0.09
    _frame(axes, left, top + KEY / 2 - MARGIN - size / 2, size, size)
    text = r"memorized: $d_1 < d_2 / 3$"
    axes.text(left + size + 0.06, top + KEY / 2 - MARGIN, text, va="center", fontsize=7.5)


def _strip(images: NDArray[np.uint8], cell: float) -> NDArray[np.uint8]:
    """Images (k, H, W, C) beside each other as RGB, in whole pixels of at least print size."""
    height, width, channels = images.shape[1:]
    scale = max(1, math.ceil(style.DPI * cell / width))
    if channels == 1:
        images = np.repeat(images, 3, axis=-1)
    tiles = images.repeat(scale, axis=1).repeat(scale, axis=2)
    gap = round(GAP / cell * width * scale)
    padded = np.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    joined = padded.transpose(1, 0, 2, 3).reshape(height * scale, -1, 3)
    return joined[:, : joined.shape[1] - gap]


def _aspect(gallery: Gallery) -> float:
    return gallery["samples"].shape[1] / gallery["samples"].shape[2]


def _heading(label: Mapping[str, Any], row: pd.Series) -> str:
    share = f"{100 * row['memorization_ratio']:.1f} % memorized"
    name = series_label(label)
    return f"{name}: {share}" if name else share


def _pairs(label: Mapping[str, Any], row: pd.Series, gallery: Gallery) -> pd.DataFrame:
    """A row per drawn pair; distances are L2 over all values, in grey levels."""
    count = len(gallery["samples"])
    return pd.DataFrame(
        {
            **{name: [value] * count for name, value in label.items()},
            "evaluation": row["evaluation"],
            "epoch": row["epoch"],
            "position": np.arange(count),
            "label": gallery["labels"],
            "d1": np.sqrt(gallery["d1_squared"].astype(float)),
            "d2": np.sqrt(gallery["d2_squared"].astype(float)),
            "memorized": gallery["memorized"].astype(bool),
        }
    )
