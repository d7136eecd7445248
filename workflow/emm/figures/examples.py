"""Examples: the first training images of every data set among the runs, dummies included."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Picture

from emm.analyse.names import series_label
from emm.analyse.series import grouped, in_order, telling
from emm.data.stage import Subset
from emm.documents import Figure
from emm.figures.grids import Block, picture_of
from emm.figures.select import drawn_rows

DATASET, DUMMY = "data.dataset", "data.dummy"


def examples(
    figure: Figure, memorization: pd.DataFrame, subsets: Mapping[str, Subset]
) -> tuple[Picture, pd.DataFrame]:
    """The picture of an examples figure and a table with a row per image.

    subsets: training sets by evaluation. A block per data set, and value of hue and style, with
    figure.lines rows of the images of the first run that has it. UserError without rows.
    """
    by = list(dict.fromkeys(name for name in (DATASET, figure.hue, figure.style) if name))
    rows = _sources(drawn_rows(figure, memorization, [*by, DUMMY]))
    groups = in_order(grouped(rows, by), by)
    names = dict.fromkeys([DATASET, *telling(key for key, _ in groups)])
    blocks, tables = [], []
    for key, members in groups:
        first = members.iloc[0]
        subset, about = subsets[first["evaluation"]], {name: key[name] for name in names}
        images = subset.images[subset.is_dummy == first["dummies"]][: figure.count * figure.lines]
        label = series_label(about)
        heading = label[:1].upper() + label[1:]
        blocks.append(Block(heading, {"": images}, np.zeros(len(images), bool)))
        place = {"evaluation": first["evaluation"], "position": np.arange(len(images))}
        tables.append(pd.DataFrame(about | place))
    return picture_of(blocks, figure.count), pd.concat(tables, ignore_index=True)


def _sources(rows: pd.DataFrame) -> pd.DataFrame:
    """Each row once for its data and, where it has any, once for its dummies."""
    mixed = rows[rows[DUMMY].notna()]
    dummies = mixed.assign(**{DATASET: mixed[DUMMY], "dummies": True})
    return pd.concat([rows.assign(dummies=False), dummies], ignore_index=True)
