"""Figures as a stage: tables and pictures in, one figure in every format out."""

from pathlib import Path

import pandas as pd

from emm.analyse.parquet import read_table
from emm.analyse.places import samples_at_scale
from emm.catalog import Catalog
from emm.data.stage import Subset, read_subset
from emm.errors import UserError
from emm.figures.draw import draw
from emm.files import read_arrays
from emm.planned import PlannedFigure
from emm.spec import suggestion


def draw_figure(
    catalog: Catalog,
    name: str,
    memorization: Path,
    emm: Path,
    stem: Path,
    measure: Path | None = None,
) -> list[Path]:
    """Draw a figure of the catalog as stem.svg, .pdf, .png and .csv; returns the paths.

    measure: the table that a figure of single levels of noise is drawn from.
    """
    if name in catalog.other_figures:
        raise UserError(catalog.other_figures[name])
    if name not in catalog.figures:
        raise UserError(f"no figure {name!r}{suggestion(name, catalog.figures)}")
    planned = catalog.figures[name]
    rows = _rows_of(planned, read_table(_drawn_from(planned, memorization, measure)))
    pictures = PICTURES.get(planned.figure.plot, lambda *_: None)(catalog, planned)
    chosen = {"where": {}, "sample_sizes": sample_sizes(planned)}  # the catalog has the rows
    figure = planned.figure.model_copy(update=chosen)
    return draw(figure, rows, read_table(emm), pictures, stem, planned.parts, planned.shared)


def _drawn_from(planned: PlannedFigure, memorization: Path, measure: Path | None) -> Path:
    """The table whose rows are drawn; UserError where a measure's is needed and not given."""
    if not planned.tables:
        return memorization
    if measure is None:
        wanted = memorization.with_name(f"{planned.tables[0]}.parquet")
        raise UserError(f"figure {planned.name}: --measure is needed, as {wanted}")
    return measure


def sample_sizes(planned: PlannedFigure) -> list[int]:
    """Numbers of samples to bootstrap, shrunk as the scale shrinks those of the figure's runs."""
    return [samples_at_scale(planned.rows[0], size) for size in planned.figure.sample_sizes]


def _rows_of(planned: PlannedFigure, memorization: pd.DataFrame) -> pd.DataFrame:
    wanted = {row.key for row in planned.rows}
    return memorization[memorization["evaluation"].isin(wanted)]


def galleries(catalog: Catalog, planned: PlannedFigure) -> dict[str, dict]:
    """Pictures of the evaluations that a figure shows, by evaluation."""
    return {
        row.key: read_arrays(
            catalog.evaluation_folder(row.run_id, row.evaluation_id) / "gallery.npz"
        )
        for row in planned.rows
    }


def subsets(catalog: Catalog, planned: PlannedFigure) -> dict[str, Subset]:
    """Training sets of the evaluations that a figure shows, by evaluation."""
    names = {row.run_id: catalog.runs[row.run_id].subset_id for row in planned.rows}
    read = {
        name: read_subset(catalog.root / "subsets" / f"{name}.npz") for name in set(names.values())
    }
    return {row.key: read[names[row.run_id]] for row in planned.rows}


PICTURES = {"grid": galleries, "examples": subsets, "pairs": galleries}
