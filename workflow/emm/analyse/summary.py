"""The closing summary of a workflow in the terminal: ratios and EMM of every series."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from emm.analyse.emm import EPSILON
from emm.analyse.names import plain_text, rounded, series_label
from emm.analyse.parquet import read_table
from emm.analyse.series import effective, plain, series_of, telling
from emm.analyse.tables import best_and_last, curve
from emm.catalog import Catalog
from emm.errors import UserError
from emm.score.criteria import wilson_interval


def print_summary(
    memorization: pd.DataFrame,
    emm: pd.DataFrame,
    console: Console | None = None,
    epsilon: float = EPSILON,
) -> None:
    """Print the best ratio per series and size with its 95 % interval, then the series' EMM.

    Ratios are pooled over seeds, in %, with Wilson intervals; EMM in images. `emm` is the
    emm_table of the same rows.
    """
    table = Table(box=box.SIMPLE_HEAD, title="Memorization at the best checkpoints")
    table.add_column("Series")
    for name in ("Images", "Memorized", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = best_and_last(effective(memorization))
    rows = rows[(rows["checkpoint"] == "best") & (rows["n_samples"] > 0)]
    series = series_of(rows)
    names = telling(settings for settings, _ in series)
    for settings, members in series:
        label = plain_text(series_label({name: settings[name] for name in names}))
        _add_ratios(table, label or "all runs", members)
        _add_emm(table, emm, settings, epsilon)
    (console or Console()).print(table)


def experiment_tables(catalog: Catalog, name: str) -> pd.DataFrame:
    """The table of what is selected: that of the experiment if it is a single one, or of all.

    UserError where nothing of it was run.
    """
    folder, names = catalog.root / "tables", list(catalog.experiments)
    own = folder / names[0] / f"{name}.parquet"
    if len(names) == 1 and own.exists():
        return read_table(own)
    path = folder / f"{name}.parquet"
    rows = read_table(path) if path.exists() else None
    if rows is None or not _concerns(rows, names):
        raise UserError(
            f"nothing of {', '.join(names)} in {folder} yet; run snakemake --profile "
            f"profiles/local --config experiments={','.join(names)}"
        )
    return rows


def memorization_table(catalog: Catalog, path: Path | None) -> pd.DataFrame:
    """A memorization table in a file, or that of what is selected; UserError for another table."""
    if path is None:
        return experiment_tables(catalog, "memorization")
    table = read_table(path)
    missing = [name for name in ("evaluation", "step", "n_memorized") if name not in table]
    if missing:
        raise UserError(f"{path}: no column {missing[0]!r}; give tables/memorization.parquet")
    return table


def _concerns(rows: pd.DataFrame, names: list[str]) -> bool:
    """Whether rows are of some of these experiments, where they say of which they are."""
    if "experiments" not in rows:
        return True
    return bool(rows["experiments"].str.split(",").explode().isin(names).any())


def emm_text(row: pd.Series, name: str = "emm") -> str:
    """An EMM as text: "47.6", "≥ 256" or "< 16" when censored."""
    suffix = name.removeprefix("emm")
    if row[f"status{suffix}"] == "bracketed":
        return rounded(row[name])
    sign = "≥" if row[f"status{suffix}"] == "above" else "<"
    return f"{sign} {row[f'bound{suffix}']:,.0f}"


def emm_interval(row: pd.Series, name: str = "emm") -> str:
    """The 95 % interval of an EMM as text; an infinite end is the sizes' own, with its sign."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    smallest, largest = min(row["sizes"]), max(row["sizes"])
    if low == high and np.isinf(low):
        return ""
    lower = f"< {smallest:,.0f}" if np.isinf(low) else rounded(low)
    upper = f"≥ {largest:,.0f}" if np.isinf(high) else rounded(high)
    return f"{lower} to {upper}"


def emm_bracket(row: pd.Series, name: str = "emm") -> str:
    """The sizes that were run next to an EMM, which lies anywhere between: "between 8 and 100".

    Its interval is of the curve that joins them; nothing where the EMM is censored.
    """
    suffix = name.removeprefix("emm")
    if row[f"status{suffix}"] != "bracketed":
        return ""
    below = max((size for size in row["sizes"] if size < row[name]), default=None)
    above = min((size for size in row["sizes"] if size > row[name]), default=None)
    if below is None or above is None:
        return ""
    return f"between {below:,.0f} and {above:,.0f}"


def _add_ratios(table: Table, label: str, members: pd.DataFrame) -> None:
    sizes, hits, samples = curve(members)
    for size, hit, count in zip(sizes, hits.sum(axis=0), samples.sum(axis=0), strict=True):
        low, high = (100 * end for end in wilson_interval(int(hit), int(count)))
        table.add_row(
            label, f"{size:,.0f}", f"{100 * hit / count:.1f} %", f"{low:.1f} to {high:.1f}"
        )
        label = ""


def _add_emm(table: Table, emm: pd.DataFrame, settings: dict[str, Any], epsilon: float) -> None:
    for _, row in emm[np.isclose(emm["epsilon"], epsilon)].iterrows():
        if all(plain(row[name]) == value for name, value in settings.items() if name in row):
            text, interval = f"[bold]{emm_text(row)}[/bold]", emm_interval(row)
            name = f"[bold]EMM ({100 * (1 - epsilon):g} %)[/bold]"
            table.add_row(name, text, emm_bracket(row), interval)
    table.add_section()
