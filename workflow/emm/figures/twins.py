"""Figures of two networks from the same noise: how alike their samples are, and the samples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Picture

from emm.analyse.metrics import metric
from emm.analyse.names import series_label
from emm.analyse.series import grouped, in_order
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.axes import error_bars, x_axis, x_positions
from emm.figures.grids import Block, Gallery, picture_of
from emm.figures.select import check_repetitions, drawn_rows, series_of_figure

PART = "data.part"
LINES = {  # what is drawn, with its name and look
    "twin_similarity": ("two networks, same noise", {"marker": "o", "linestyle": "-"}),
    "twin_similarity_nearest": (
        "sample and most similar training image",
        {"marker": "s", "linestyle": (0, (4, 1.5))},
    ),
    "twin_similarity_unpaired": (
        "two networks, different noise",
        {"marker": "^", "linestyle": (0, (1, 1.2))},
    ),
}


def twins(figure: Figure, memorization: pd.DataFrame) -> tuple[Picture, pd.DataFrame]:
    """The picture of similarities along x, of pairs, by chance and with training images; a table.

    UserError where the measure twins is missing, or a point would mix different settings.
    """
    picture, axes = style.panel()
    colours, tables, handles = style.colours(list(LINES)), [], []
    for name, (_, look) in LINES.items():
        chosen = figure.model_copy(update={"y": name})
        rows = memorization[memorization[name].notna()] if name in memorization else memorization
        (series,) = series_of_figure(chosen, rows, [], figure.x)
        points, place = series.points, x_positions(axes, figure, list(series.points["x"]))
        x = [place[value] for value in points["x"]]
        y, low, high = (points[end].to_numpy(float) for end in ("y", "low", "high"))
        handles += axes.plot(x, y, color=colours[name], **look, zorder=3)
        bars = {"elinewidth": 0.7, "capsize": 1.4, "capthick": 0.7}
        error_bars(axes, (x, y, low, high), colours[name], **bars)
        tables.append(points.rename(columns={"x": figure.x, "y": "similarity"}).assign(of=name))
    x_axis(axes, figure, list(place))
    axes.axhline(0, color=style.GUIDE, linewidth=0.6, zorder=1)
    axes.set_ylim(top=1.02)
    axes.set_ylabel("Similarity")
    axes.spines[["top", "right"]].set_visible(False)
    style.legend_above(picture, handles, [label for label, _ in LINES.values()])
    style.thin_labels(picture, axes.xaxis)
    return picture, pd.concat(tables, ignore_index=True)


def pairs(
    figure: Figure, memorization: pd.DataFrame, galleries: Mapping[str, Gallery]
) -> tuple[Picture, pd.DataFrame]:
    """The picture of samples of both networks, between their nearest training images; a table.

    A block per value of the hue. UserError where a block has not one gallery of each half, of the
    same checkpoint.
    """
    by = [figure.hue] if figure.hue else []
    rows = drawn_rows(figure, memorization, [*by, PART])
    blocks, tables = [], []
    for key, members in in_order(grouped(rows, by), by):
        both = _both(key, members, galleries)
        parts = {
            f"{word} {number}": both[number][name][: figure.count]
            for number, name, word in (
                *((1, "nearest", "nearest"), (1, "samples", "network")),
                *((2, "samples", "network"), (2, "nearest", "nearest")),
            )
        }
        found = members[members[PART] == 2].iloc[0]
        heading = ": ".join(filter(None, [series_label(key), _likeness(found)]))
        count = len(parts["network 1"])
        blocks.append(Block(heading, parts, np.zeros(count, bool)))
        tables.append(_table(key, both, count))
    return picture_of(blocks, figure.count), pd.concat(tables, ignore_index=True)


def _both(
    key: Mapping[str, Any], members: pd.DataFrame, galleries: Mapping[str, Gallery]
) -> dict[int, Gallery]:
    """Galleries by half, of one checkpoint."""
    found, epochs = {}, set()
    for about, part in grouped(members, [PART]):
        check_repetitions(part, {**key, **about})
        evaluation = part["evaluation"].iloc[0]
        if evaluation not in galleries:
            raise UserError(f"no gallery of evaluation {evaluation}")
        found[about[PART]] = galleries[evaluation]
        epochs.add(float(np.ravel(galleries[evaluation]["epoch"])[0]))
    if set(found) != {1, 2} or len(epochs) > 1:
        where = series_label(key) or "all rows"
        raise UserError(f"plot: pairs needs data.part 1 and 2 of one checkpoint, at {where}")
    return found


def _likeness(row: pd.Series) -> str:
    value = row.get("twin_similarity")
    return "" if pd.isna(value) else f"{metric('twin_similarity').name.lower()} {value:.2f}"


def _table(key: Mapping[str, Any], both: Mapping[int, Gallery], count: int) -> pd.DataFrame:
    """A row per pair: distances of each sample to its nearest training image, in grey levels."""
    distances = {
        f"d1_network_{part}": np.sqrt(np.asarray(gallery["d1_squared"][:count], float))
        for part, gallery in sorted(both.items())
    }
    repeated = {name: [value] * count for name, value in key.items()}
    return pd.DataFrame({**repeated, "position": np.arange(count), **distances})
