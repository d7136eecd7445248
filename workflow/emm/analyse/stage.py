"""Tables as a stage: the summaries of all evaluations in, two tables out."""

from pathlib import Path

import pandas as pd

from emm.analyse.parquet import read_table, write_table
from emm.analyse.tables import emm_table
from emm.catalog import Catalog
from emm.spec import DEFAULTS


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
    """Summaries of the evaluations of a catalog, with the experiments that each belongs to."""
    users: dict[tuple[str, str], set[str]] = {}
    for row in catalog.rows:
        users.setdefault((row.run_id, row.evaluation_id), set()).add(row.experiment)
    frames = []
    for evaluation, names in users.items():
        frame = read_table(catalog.evaluation_folder(*evaluation) / "summary.parquet")
        words = [key for key in frame if isinstance(DEFAULTS.get(key), str)]
        frame[words] = frame[words].astype(str)  # eval.snapshots is a word or a number
        frame.insert(2, "experiments", ",".join(sorted(names)))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
