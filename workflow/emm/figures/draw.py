"""Draws a figure of an experiment from result tables, in every format."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Picture

from emm.analyse.metrics import CAPACITIES
from emm.analyse.tables import capacity_table
from emm.data.stage import Subset
from emm.documents import Figure
from emm.errors import UserError
from emm.figures import style
from emm.figures.bars import bars
from emm.figures.capacity import capacity
from emm.figures.curves import curve
from emm.figures.examples import examples
from emm.figures.grids import grid
from emm.figures.ideals import levels, paths
from emm.figures.metrics import metrics, thresholds
from emm.figures.onsets import onsets, windows
from emm.figures.plane import plane
from emm.figures.points import points
from emm.figures.tables import latex, markdown, metrics_table, table
from emm.figures.twins import pairs, twins
from emm.figures.variance import variance
from emm.files import atomic_path, write_text

Galleries = Mapping[str, Mapping[str, np.ndarray]] | Mapping[str, Subset]
Parts = Mapping[str, Sequence[frozenset[str]]]
DRAWN = {
    **{"capacity": capacity, "variance": variance, "levels": levels, "paths": paths},
    **{"metrics": metrics, "plane": plane, "thresholds": thresholds},
    **{"onsets": onsets, "windows": windows, "twins": twins},
}
PICTURED = {"grid": grid, "examples": examples, "pairs": pairs}
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


def draw(
    figure: Figure,
    memorization: pd.DataFrame,
    emm: pd.DataFrame | None,
    galleries: Galleries | None,
    stem: Path,
    parts: Parts | None = None,
    shared: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a figure as stem.svg, .pdf, .png and .csv (the values drawn); a table also as text.

    memorization, emm: the tables of that name. galleries: sample pictures by evaluation, for
    grids; training sets by evaluation, for examples. parts: evaluations of the figure's `reference`
    and of its `halves`. shared: settings of all that is drawn, which go into the csv too. The same
    input gives the same bytes. UserError when there is nothing to draw.
    """
    try:
        with style.paper():
            picture, drawn, texts = _picture(
                figure, memorization, emm, galleries or {}, parts or {}
            )
            paths = save(picture, figure.title, stem)
    except UserError as error:
        raise UserError(f"figure {stem.name}: {error}") from error
    drawn = drawn.assign(**{k: v for k, v in (shared or {}).items() if k not in drawn})
    texts = {"csv": drawn.to_csv(index=False, float_format="%.10g"), **texts}
    return paths + [_write(stem, suffix, text) for suffix, text in texts.items()]


def _picture(
    figure: Figure,
    memorization: pd.DataFrame,
    emm: pd.DataFrame | None,
    galleries: Galleries,
    parts: Parts,
) -> tuple[Picture, pd.DataFrame, dict[str, str]]:
    if figure.plot in PICTURED:
        return *PICTURED[figure.plot](figure, memorization, galleries), {}
    if figure.plot in DRAWN:
        return *DRAWN[figure.plot](figure, memorization), {}
    if figure.y in CAPACITIES:
        memorization = capacity_table(memorization)
    if figure.plot == "table":
        picture, drawn, blocks = table(figure, memorization, parts.get("halves", ()))
        return picture, drawn, {"md": markdown(figure, blocks), "tex": latex(figure, blocks)}
    if figure.plot == "metrics_table":
        picture, drawn, blocks = metrics_table(figure, memorization)
        return picture, drawn, {"md": markdown(figure, blocks), "tex": latex(figure, blocks)}
    if figure.plot == "bars":
        return *bars(figure, memorization), {}
    reference = None
    if figure.reference:
        apart = memorization["evaluation"].isin(frozenset().union(*parts["reference"]))
        reference, memorization = memorization[apart], memorization[~apart]
    if figure.plot == "points":
        return *points(figure, memorization, reference), {}
    return *curve(figure, memorization, emm, reference), {}


def save(picture: Picture, title: str, stem: Path) -> list[Path]:
    """Write a picture in every format, without a date."""
    about = {"Title": title} if title else {}
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in UNDATED]
    for path, (suffix, dated) in zip(paths, UNDATED.items(), strict=True):
        with atomic_path(path) as temporary:
            picture.savefig(temporary, format=suffix, metadata={**dated, **about})
    return paths


def _write(stem: Path, suffix: str, text: str) -> Path:
    path = stem.with_name(f"{stem.name}.{suffix}")
    write_text(path, text)
    return path
