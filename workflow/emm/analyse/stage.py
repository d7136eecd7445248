"""Tables as a stage: the summaries of all evaluations in, two tables out."""

from pathlib import Path

import pandas as pd

from emm.analyse.parquet import read_table, write_table
from emm.analyse.tables import emm_table
from emm.catalog import Catalog


def write_tables(catalog: Catalog, memorization: Path, emm: Path) -> tuple[pd.DataFrame, ...]:
    """Write the memorization table (a row per checkpoint) and the EMM table (a row per series).

    A summary that is missing or damaged is a UserError.
    """
    rows = gather(catalog)
    write_table(memorization, rows)
    series = emm_table(rows)
    write_table(emm, series)
    return rows, series


def gather(catalog: Catalog) -> pd.DataFrame:
    """Summaries of all evaluations of a catalog, with the experiments that each belongs to."""
    frames = []
    for run_id, evaluation_id in catalog.evaluations:
        frame = read_table(catalog.evaluation_folder(run_id, evaluation_id) / "summary.parquet")
        users = {
            row.experiment
            for row in catalog.rows
            if (row.run_id, row.evaluation_id) == (run_id, evaluation_id)
        }
        frame.insert(2, "experiments", ",".join(sorted(users)))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
