"""Grids: generated samples above their nearest training images, memorized ones framed."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from emm.analyse.names import series_label, value_name
from emm.analyse.series import grouped, in_order, telling
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.select import check_repetitions, drawn_rows

Gallery = Mapping[str, NDArray[Any]]
MARGIN, LABELS, GAP, HEADING, SPACE, KEY = 0.03, 0.5, 0.035, 0.17, 0.07, 0.2  # inches
PER_SAMPLE = ("sample", "samples", "nearest", "d1_squared", "d2_squared", "memorized", "labels")
VERDICTS = ("memorized", "not memorized")
FRAME = 1.1  # points
FEW_IMAGES, FEW_BLOCKS = 10, 6  # per row and per figure that one column of a paper holds


class Block(NamedTuple):
    """Images under a heading: rows of each part below those of the one before.

    parts: images (N, H, W, C) by what stands beside them; framed: which of the first part, (N,).
    """

    heading: str
    parts: Mapping[str, NDArray[np.uint8]]
    framed: NDArray[np.bool_]

    @property
    def images(self) -> NDArray[np.uint8]:
        """Those of the first part."""
        return next(iter(self.parts.values()))


class Shown(NamedTuple):
    """Pairs of one block: settings that tell it, the row of its checkpoint, and images."""

    label: Mapping[str, Any]
    verdict: str
    row: pd.Series
    gallery: Gallery


def grid(
    figure: Figure, memorization: pd.DataFrame, galleries: Mapping[str, Gallery]
) -> tuple[Picture, pd.DataFrame]:
    """The picture of a grid figure and a table with a row per image pair.

    A block per series (hue, style, x), or two by verdict: figure.lines rows of samples above as
    many of neighbours; many blocks stand in two columns. UserError when a series has no gallery.
    """
    shown = list(_shown(figure, memorization, galleries))
    blocks = [
        Block(
            _heading(figure, one),
            {"generated": one.gallery["samples"], "nearest": one.gallery["nearest"]},
            one.gallery["memorized"],
        )
        for one in shown
    ]
    picture = picture_of(blocks, figure.count, key=True)
    return picture, pd.concat([_pairs(one) for one in shown], ignore_index=True)


def picture_of(blocks: Sequence[Block], count: int, key: bool = False) -> Picture:
    """Blocks below each other with at most `count` images per row; many stand in two columns.

    key: say what a frame means.
    """
    count = max(1, *(min(count, len(block.images)) for block in blocks))
    columns = 1 if len(blocks) <= FEW_BLOCKS else 2
    width = style.DOUBLE if columns > 1 or count > FEW_IMAGES else style.SINGLE
    labels = LABELS if any(any(block.parts) for block in blocks) else 0
    cell = (width / columns - 2 * MARGIN - labels - (count - 1) * GAP) / count
    rows = math.ceil(len(blocks) / columns)
    tops = _tops(blocks, rows, count, cell)
    picture, axes = style.canvas(width, tops[-1] + KEY * key)
    for place, block in enumerate(blocks):
        left = place // rows * width / columns + MARGIN + labels
        top = tops[place % rows] + MARGIN
        heading = {"va": "center_baseline", "fontsize": 8}
        axes.text(left, top + HEADING / 2 - 0.02, block.heading, **heading)
        _draw(axes, block, count, cell, left, top + HEADING)
    if key:
        _key(axes, tops[-1] + MARGIN)
    return picture


def _tops(blocks: Sequence[Block], rows: int, count: int, cell: float) -> list[float]:
    """Where each row of blocks begins, and where the last one ends."""
    heights = [_lines(block, count) * (cell * _aspect(block) + GAP) for block in blocks]
    steps = [HEADING + max(heights[row::rows]) + SPACE for row in range(rows)]
    return list(itertools.accumulate(steps, initial=0.0))


def _shown(
    figure: Figure, memorization: pd.DataFrame, galleries: Mapping[str, Gallery]
) -> Iterator[Shown]:
    """The pairs of each block; a verdict that no sample has gets none."""
    by = [name for name in (figure.hue, figure.style, figure.x) if name and name != "epoch"]
    rows = drawn_rows(figure.model_copy(update={"epoch": "all"}), memorization, by)
    groups = in_order(grouped(rows, dict.fromkeys(by)), dict.fromkeys(by))
    names = telling(key for key, _ in groups)
    for key, members in groups:
        check_repetitions(members, key)
        row, gallery = _chosen(members, galleries)
        label = {name: key[name] for name in names}
        pairs = {verdict: _pick(figure, gallery, verdict) for verdict in ("", *VERDICTS)}
        wanted = [v for v in VERDICTS if len(pairs[v]["samples"])] if figure.split else []
        for verdict in wanted or [""]:
            yield Shown(label, verdict, row, pairs[verdict])


def _pick(figure: Figure, gallery: Gallery, verdict: str) -> Gallery:
    """The first pairs of a gallery of the kind and the verdict that a block shows."""
    chosen = np.ones(len(gallery["samples"]), bool)
    if figure.only:
        if figure.only not in gallery:
            raise UserError(
                f"only: which samples are {figure.only} is known where data.dataset is mondrian"
            )
        chosen &= gallery[figure.only]
    if verdict:
        chosen &= gallery["memorized"] == (verdict == "memorized")
    most = min(figure.count * figure.lines, int(gallery.get("count", len(chosen))))
    at = np.flatnonzero(chosen)[:most]
    numbered = {"sample": np.arange(len(chosen)), **gallery}
    return {name: np.asarray(numbered[name])[at] for name in PER_SAMPLE}


def _chosen(members: pd.DataFrame, galleries: Mapping[str, Gallery]) -> tuple[pd.Series, Gallery]:
    """The gallery of the first repetition that has one, with the row of its checkpoint."""
    for evaluation in dict.fromkeys(members["evaluation"]):
        if gallery := galleries.get(evaluation):
            rows = members[members["evaluation"] == evaluation]
            epochs = rows["epoch"].to_numpy(float) - float(np.ravel(gallery["epoch"])[0])
            return rows.iloc[int(np.abs(epochs).argmin())], gallery
    raise UserError(f"no gallery of evaluation {members['evaluation'].iloc[0]}")


def _draw(axes: Axes, block: Block, count: int, cell: float, left: float, top: float) -> None:
    """Rows of `count` images of each part."""
    height = cell * _aspect(block)
    lines = _lines(block, count) // len(block.parts)
    if not lines:
        return
    for rank, (name, part) in enumerate(block.parts.items()):
        first = top + rank * lines * (height + GAP)
        for line in range(lines):
            images = part[line * count : (line + 1) * count]
            y, right = first + line * (height + GAP), left + len(images) * (cell + GAP) - GAP
            place = {"extent": (left, right, y + height, y), "aspect": "auto"}
            axes.imshow(_strip(images, cell), interpolation="nearest", **place)
        label = {"ha": "right", "va": "center", "fontsize": 7.5}
        axes.text(left - 0.05, first + (lines * (height + GAP) - GAP) / 2, name, **label)
    style.resize(axes, *axes.figure.get_size_inches())
    for i in np.flatnonzero(block.framed):
        x, y = left + i % count * (cell + GAP), top + i // count * (height + GAP)
        _frame(axes, x, y, cell, height)


def _lines(block: Block, count: int) -> int:
    """Rows of images of a block."""
    return len(block.parts) * math.ceil(len(block.images) / count)


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


def _aspect(block: Block) -> float:
    return block.images.shape[1] / block.images.shape[2]


def _heading(figure: Figure, one: Shown) -> str:
    """What is shown, and how much of it is memorized."""
    return ": ".join(filter(None, [series_label(one.label), _share(figure, one)]))


def _share(figure: Figure, one: Shown) -> str:
    hits, of = one.row["n_memorized"], one.row["n_samples"]
    if figure.only:
        hits, of = (one.row[f"{name}_{figure.only}"] for name in ("n_memorized", "n"))
    verdict = one.verdict or VERDICTS[0]
    if verdict == VERDICTS[1]:
        hits = of - hits
    if not figure.only:
        return f"{100 * hits / of:.1f} % {verdict}"
    kind = value_name("data.dataset", figure.only)
    if not of:
        return f"none of {one.row['n_samples']:,.0f} samples is {kind}"
    return f"{hits:,.0f} of {of:,.0f} {kind} samples {verdict}"


def _pairs(one: Shown) -> pd.DataFrame:
    """A row per drawn pair; distances are L2 over all values, in grey levels."""
    gallery, count = one.gallery, len(one.gallery["samples"])
    return pd.DataFrame(
        {
            **{name: [value] * count for name, value in one.label.items()},
            "evaluation": one.row["evaluation"],
            "epoch": one.row["epoch"],
            "position": np.arange(count),
            "sample": gallery["sample"],
            "label": gallery["labels"],
            "d1": np.sqrt(gallery["d1_squared"].astype(float)),
            "d2": np.sqrt(gallery["d2_squared"].astype(float)),
            "memorized": gallery["memorized"].astype(bool),
        }
    )
