"""Tables as a stage: the summaries of all evaluations in, two tables out."""

from pathlib import Path

import pandas as pd

from emm.analyse.parquet import read_table, write_table
from emm.analyse.series import plain
from emm.analyse.tables import emm_table
from emm.catalog import Catalog
from emm.errors import UserError
from emm.measure import is_measured
from emm.measure.columns import COLUMNS
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
        frame = _worded(frame)
        frame.insert(2, "experiments", ",".join(sorted(names)))
        settings = catalog.evaluations[evaluation].settings
        asked = {m for name in names for m in catalog.experiments[name].measures}
        for measure in sorted(m for m in asked if is_measured(m, settings)):
            found = _measured(catalog, measure, evaluation)
            frame = frame.merge(COLUMNS[measure](found), on="step", how="left", validate="1:1")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _measured(catalog: Catalog, measure: str, evaluation: tuple[str, str]) -> pd.DataFrame:
    """What was measured of an evaluation; UserError where it is by other features than asked for.

    Distances of different features are in different units.
    """
    path, asked = catalog.measure_file(measure, *evaluation), catalog.config.features
    found = read_table(path)
    for features in set(found.get("quality_features", ())) - {asked}:
        raise UserError(
            f"{path}: compared by the features {features}, where the config has {asked}; remove it"
        )
    return found


def _worded(frame: pd.DataFrame) -> pd.DataFrame:
    """Settings that are words by default as words in all rows: eval.snapshots can be a number."""
    words = [key for key in frame if isinstance(DEFAULTS.get(key), str)]
    return frame.assign(**{key: frame[key].astype(str) for key in words})


def gather_measure(catalog: Catalog, measure: str, output: Path) -> pd.DataFrame:
    """Write all rows of a measure, with the settings of their runs; UserError where none is asked.

    A file that is missing or damaged is a UserError.
    """
    settings = {(row.run_id, row.evaluation_id): row.settings for row in catalog.rows}
    frames = []
    for evaluation in catalog.measured(measure):
        frame = _measured(catalog, measure, evaluation)
        about = {key: [plain(value)] * len(frame) for key, value in settings[evaluation].items()}
        frames.append(pd.concat([frame, pd.DataFrame(about)], axis=1))
    if not frames:
        raise UserError(f"no experiment of {', '.join(catalog.experiments)} measures {measure}")
    rows = _worded(pd.concat(frames, ignore_index=True))
    write_table(output, rows)
    return rows
