"""Series: result rows that agree in every setting except training set size and seeds."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from emm.analyse.names import PER_IMAGE, SIZE, ordered

Group = tuple[dict[str, Any], pd.DataFrame]  # the settings that its rows share, and the rows


def settings_of(frame: pd.DataFrame) -> list[str]:
    """Columns that hold settings: those with a dotted name."""
    return [name for name in frame.columns if "." in name]


def is_seed(setting: str) -> bool:
    """Whether a setting is a seed: its values are repetitions, never series."""
    return setting.endswith(".seed")


def plain(value: Any) -> Any:
    """A table cell as a hashable value: tuples for lists, None for missing, Python numbers."""
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(plain(part) for part in value)
    if isinstance(value, np.generic):
        value = value.item()
    missing = value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
    return None if missing else value


def effective(memorization: pd.DataFrame) -> pd.DataFrame:
    """Rows with the settings as they act, all cells plain and the index renumbered.

    The run length is the horizon (a shorter run is a prefix of a longer one), in steps alone where
    these decide it, and a size that is left open is the number of images used.
    """
    rows = memorization.reset_index(drop=True)
    for name in settings_of(rows):
        rows[name] = pd.Series([plain(cell) for cell in rows[name]], dtype=object)
    if "train.epochs" in rows:
        rows["train.epochs"] = pd.Series([plain(cell) for cell in rows["horizon"]], dtype=object)
    if {"train.epochs", "train.iterations"} <= set(rows):  # so many epochs depend on the size
        rows["train.epochs"] = rows["train.epochs"].where(rows["train.iterations"].isna(), None)
    if {"model.fourier_scale", "model.time_embedding"} <= set(rows):  # heeded by Fourier only
        fourier = rows["model.time_embedding"] == "fourier"
        rows["model.fourier_scale"] = rows["model.fourier_scale"].where(fourier, None)
    if SIZE in rows and "n_training" in rows:
        rows[SIZE] = rows[SIZE].where(rows[SIZE].notna(), rows["n_training"])
    return rows


def grouped(rows: pd.DataFrame, settings: Iterable[str]) -> list[Group]:
    """Values and rows of each group that agrees in `settings`, in order of appearance."""
    settings = list(settings)
    groups: dict[tuple[Any, ...], list[int]] = {}
    keys = zip(*(rows[name] for name in settings), strict=True) if settings else ((),) * len(rows)
    for position, key in enumerate(keys):
        groups.setdefault(tuple(plain(value) for value in key), []).append(position)
    return [
        (dict(zip(settings, key, strict=True)), rows.iloc[positions])
        for key, positions in groups.items()
    ]


def series_of(rows: pd.DataFrame, settings: Iterable[str] | None = None) -> list[Group]:
    """The series of effective rows in order, each with the settings that differ between series."""
    names = settings_of(rows) if settings is None else settings
    names = [name for name in names if name != SIZE and not is_seed(name) and name in rows]
    groups = grouped(sizeless(rows), names)
    differing = [name for name in names if len({key[name] for key, _ in groups}) > 1]
    return [
        ({name: key[name] for name in differing}, rows.loc[members.index])
        for key, members in in_order(groups, differing)
    ]


def sizeless(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without the number of unique labels and vectors: it is the size again, no series."""
    if not {"labels.kind", "labels.num_classes"} <= set(rows):
        return rows
    unique = rows["labels.kind"].isin(PER_IMAGE)
    kept = rows["labels.num_classes"].astype(object).where(~unique, None)
    return rows.assign(**{"labels.num_classes": kept})


def in_order(groups: list[Group], names: Iterable[str]) -> list[Group]:
    """Groups sorted by the usual order of their values, the first name first."""
    rank = {
        name: {v: i for i, v in enumerate(ordered(name, (key[name] for key, _ in groups)))}
        for name in names
    }
    return sorted(groups, key=lambda group: [rank[name][group[0][name]] for name in rank])


def telling(keys: Iterable[dict[str, Any]]) -> list[str]:
    """The fewest settings, in order and words before numbers, that tell the series apart."""
    keys = list(keys)
    names = sorted(keys[0], key=lambda name: not isinstance(keys[0][name], str)) if keys else []
    chosen: list[str] = []
    for name in names:
        if _distinct(keys, [*chosen, name]) > _distinct(keys, chosen):
            chosen.append(name)
    return chosen


def _distinct(keys: list[dict[str, Any]], names: list[str]) -> int:
    return len({tuple(key[name] for name in names) for key in keys})
