"""Which rows a figure draws: its filter, its checkpoints, its series and their points."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emm.analyse.bootstrap import BOOTSTRAPPED, bootstrapped
from emm.analyse.emm import EPSILON
from emm.analyse.metrics import metric
from emm.analyse.names import series_label, value_name
from emm.analyse.series import (
    effective,
    grouped,
    in_order,
    is_seed,
    plain,
    settings_of,
    sizeless,
)
from emm.analyse.tables import best_and_last
from emm.documents import Figure
from emm.errors import UserError
from emm.masks import DERIVED, derived


@dataclass(frozen=True)
class Series:
    """A line, block or row of a figure.

    key: values of the settings that separate it. points: x, y, low, high in drawn units, interval
    ("95 %", "sd" or none) and repetitions. emm: its row of the EMM table, or None.
    """

    key: dict[str, Any]
    label: str
    points: pd.DataFrame
    emm: pd.Series | None = None


def series_of_figure(
    figure: Figure,
    memorization: pd.DataFrame,
    by: Iterable[str | None],
    x: str,
    emm: pd.DataFrame | None = None,
) -> list[Series]:
    """The series that `by` separates, with points along `x`, in order.

    Raises UserError for unknown columns, when no row is left, and when a point would mix
    different settings or checkpoints.
    """
    names = list(dict.fromkeys(name for name in by if name))
    rows = drawn_rows(figure, memorization, [*names, x, figure.y])
    rows = bootstrapped(rows, figure.sample_sizes) if figure.sample_sizes else rows
    return [
        Series(
            key,
            legend_label(names, key),
            _points(figure, members, x),
            None if emm is None else _emm_row(members, emm),
        )
        for key, members in in_order(grouped(rows, names), names)
    ]


def drawn_rows(
    figure: Figure, memorization: pd.DataFrame, needed: Iterable[str] = ()
) -> pd.DataFrame:
    """Rows that pass the figure's filter, at the checkpoints that it shows."""
    for name in [*figure.where, *needed]:
        if name not in memorization and name not in (*DERIVED, *BOOTSTRAPPED):
            raise UserError(f"the memorization table has no column {name!r}")
    rows = effective(memorization)
    if set(needed) & set(DERIVED):
        rows = with_derived(rows)
    for name, wanted in figure.where.items():
        rows = rows[[_matches(plain(cell), wanted) for cell in rows[name]]]
    if rows.empty:
        filters = ", ".join(f"{name}: {wanted}" for name, wanted in figure.where.items())
        raise UserError(f"no rows to draw (where: {filters or 'no filter'})")
    if figure.epoch == "all":
        return rows.sort_values("step", kind="stable")
    chosen = best_and_last(rows)
    return chosen[chosen["checkpoint"] == figure.epoch]


def with_derived(rows: pd.DataFrame) -> pd.DataFrame:
    """Effective rows with what follows from their skip masks."""
    values = [derived(settings) for settings in rows.to_dict("records")]
    return rows.assign(**{name: [value[name] for value in values] for name in DERIVED})


def drawn_table(figure: Figure, series: Iterable[Series], x: str) -> pd.DataFrame:
    """All points of all series in drawn units, one row each, with the EMM that is marked."""
    tables = []
    for one in series:
        table = one.points.rename(columns={"x": x, "y": drawn_name(figure.y)})
        keys = {name: value for name, value in one.key.items() if name not in table}
        for at, (name, value) in enumerate(keys.items()):
            table.insert(at, name, [value] * len(table))
        if one.emm is not None:
            table = table.assign(**_emm_columns(figure, one.emm))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def drawn_name(column: str) -> str:
    """Name of a column whose values are in drawn units."""
    return f"{column}_percent" if metric(column).unit == "%" else column


def emm_column(figure: Figure) -> str:
    """The EMM column that belongs to the checkpoints of a figure."""
    return "emm_last" if figure.epoch == "last" else "emm"


def _emm_columns(figure: Figure, row: pd.Series) -> dict[str, Any]:
    name = emm_column(figure)
    suffix = name.removeprefix("emm")
    columns = [name, f"{name}_low", f"{name}_high", f"status{suffix}", f"bound{suffix}"]
    return {f"emm_{c}" if c.startswith(("status", "bound")) else c: row[c] for c in columns}


def legend_label(names: list[str], key: dict[str, Any], alone: bool = True) -> str:
    """Values alone under a legend title of one setting; with their names when there are two."""
    if len(names) == 1 and alone:
        return value_name(names[0], key[names[0]])
    return series_label(key)


def _matches(cell: Any, wanted: Any) -> bool:
    options = wanted if isinstance(wanted, list | tuple) else [wanted]
    if isinstance(cell, str):  # YAML reads a bare true or 0 as no string
        options = [str(v).lower() if isinstance(v, bool) else str(v) for v in options]
    return cell in options or cell == plain(wanted)


def _points(figure: Figure, rows: pd.DataFrame, x: str) -> pd.DataFrame:
    groups = in_order(grouped(rows, [x]), [x])
    return pd.DataFrame([{"x": key[x], **point(figure.y, members, key)} for key, members in groups])


def point(y: str, rows: pd.DataFrame, key: dict[str, Any]) -> dict[str, Any]:
    """Mean of the repetitions with their sd; of a single one, the value with its interval.

    y, low, high in drawn units, interval and repetitions. UserError where the rows of `key` differ
    in more than seeds, or are several checkpoints of a run.
    """
    check_repetitions(rows, key)
    if rows["evaluation"].duplicated().any():
        raise UserError("a point mixes checkpoints; take x: epoch, or epoch: best or last")
    factor, values = metric(y).factor, rows[y].to_numpy(float)
    mean, low, high, interval = values.mean(), np.nan, np.nan, ""
    if len(values) > 1:
        sd = values.std(ddof=1)
        low, high, interval = mean - sd, mean + sd, "sd"
    elif f"{y}_low" in rows:
        low, high, interval = rows[f"{y}_low"].iloc[0], rows[f"{y}_high"].iloc[0], "95 %"
    drawn = {name: factor * value for name, value in (("y", mean), ("low", low), ("high", high))}
    return {**drawn, "interval": interval, "repetitions": len(values)}


def check_repetitions(rows: pd.DataFrame, key: dict[str, Any]) -> None:
    """Raise UserError when the rows that share `key` differ in more than seeds."""
    for name in settings_of(rows):
        values = {plain(value) for value in rows[name]}
        if len(values) > 1 and not is_seed(name):
            where = " and ".join(f"{k} = {value_name(k, v)}" for k, v in key.items())
            found = ", ".join(sorted(value_name(name, value) for value in values))
            raise UserError(
                f"runs {f'at {where} ' if where else ''}differ in {name} ({found}); "
                f"name it in hue, style or where"
            )


def _emm_row(rows: pd.DataFrame, emm: pd.DataFrame) -> pd.Series | None:
    """The one row of the EMM table whose settings are those of the rows; None if not unique."""
    values = {name: {plain(v) for v in sizeless(rows)[name]} for name in settings_of(rows)}
    candidates = emm[np.isclose(emm["epsilon"], EPSILON)]
    shared = [name for name in settings_of(candidates) if name in values]
    found = [
        row for _, row in candidates.iterrows() if all(plain(row[n]) in values[n] for n in shared)
    ]
    return found[0] if len(found) == 1 else None
