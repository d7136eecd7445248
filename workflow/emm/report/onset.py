"""When memorization sets in, for the terminal and as JSON: onsets, their law, and the collapse."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from emm.analyse.names import SIZE, plain_text, series_label
from emm.analyse.onset import (
    LEVELS,
    Collapse,
    Run,
    collapse,
    laws,
    onset_table,
    runs_of,
)
from emm.analyse.series import effective, series_of, telling
from emm.analyse.windows import window_table
from emm.figures.capacity import law_text

KEPT = ("level", "status", "bound", "onset_step", "onset_step_low", "onset_step_high")
PLATEAU = ("ratio", "ratio_low", "ratio_high", "growth", "growth_low", "growth_high")


def onset_facts(memorization: pd.DataFrame) -> list[dict[str, Any]]:
    """What `emm onset` says of each series: `label`, `onsets`, `laws`, `collapse`, `windows`.

    Tables as lists of records; what lies beyond the checkpoints is NaN or infinite. UserError
    where no run has two checkpoints.
    """
    rows = effective(memorization)
    series = list(_with_several(series_of(rows)))
    if not series:
        runs_of(rows)
    names = telling(settings for settings, _ in series)
    found = []
    for settings, members in series:
        label = plain_text(series_label({name: settings[name] for name in names}))
        found.append({"label": label or "all runs", **_facts(runs_of(members))})
    return found


def _with_several(series: Sequence[tuple[dict, pd.DataFrame]]) -> Iterator[tuple]:
    """Series with a run of two checkpoints."""
    for settings, members in series:
        sampled = members[(members["n_samples"] > 0) & (members["step"] > 0)]
        if sampled["evaluation"].duplicated().any():
            yield settings, members


def _facts(runs: Sequence[Run]) -> dict[str, Any]:
    table, fallen = onset_table(runs), collapse(runs)
    columns = ["evaluation", SIZE, *KEPT, "onset_epoch", *PLATEAU]
    return {
        "onsets": table[columns].to_dict("records"),
        "laws": [
            {"level": level, "slope": law.slope, "low": law.low, "high": law.high,
             "text": law_text(law)}
            for level, law in laws(table) if law is not None
        ],
        "collapse": None if fallen is None else fallen._asdict(),
        "windows": _windows(runs),
    }  # fmt: skip


def _windows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    if not any("fid" in run.rows and run.rows["fid"].notna().any() for run in runs):
        return []
    found = window_table(runs)
    return found[[SIZE, *(name for name in found if "." not in name)]].to_dict("records")


def print_onsets(facts: Sequence[dict[str, Any]], console: Console) -> None:
    """Print a table per series, and below it what follows for all its sizes."""
    for one in facts:
        console.print(_table(one))
        for law in one["laws"]:
            console.print(f"onset of {_percent(law['level'])} over the size: {law['text']}")
        if one["collapse"] is not None:
            console.print(_fallen(Collapse(**one["collapse"])))
        if one["windows"]:
            console.print(_good(one["windows"][0]))
        for window in one["windows"]:
            console.print(_window(window))


def _table(one: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"Onset of memorization in steps: {one['label']}")
    names = [f"{_percent(level)} memorized" for level in LEVELS]
    for name in ("Images", *names, "At the end", "Gained in the last half"):
        table.add_column(name, justify="right")
    rows = pd.DataFrame(one["onsets"])
    for _, run in rows.groupby("evaluation", sort=False):
        last = run.iloc[0]
        cells = [_onset(row) for _, row in run.iterrows()]
        table.add_row(f"{last[SIZE]:,.0f}", *cells, _share(last, "ratio"), _share(last, "growth"))
    return table


def _onset(row: pd.Series) -> str:
    """A step with its interval, or the side on which it lies."""
    if row["status"] != "bracketed":
        return f"{'>' if row['status'] == 'above' else '<'} {row['bound']:,.0f}"
    ends = (row["onset_step_low"], row["onset_step_high"])
    low, high = ("-" if np.isinf(end) else f"{end:,.0f}" for end in ends)
    return f"{row['onset_step']:,.0f} ({low} to {high})"


def _share(row: pd.Series, name: str) -> str:
    low, high = (100 * row[f"{name}_{end}"] for end in ("low", "high"))
    return f"{100 * row[name]:.0f} % ({low:.0f} to {high:.0f})"


def _fallen(found: Collapse) -> str:
    edge = ", the last that is tried" if found.at_end else ""
    return (
        f"curves of all sizes fall best on one another over step / n^a with a = "
        f"{found.exponent:.2f}{edge} ({_ends(found)}): they differ by "
        f"{found.spread:.1f} points, over steps by {found.of_steps:.1f}, over epochs by "
        f"{found.of_epochs:.1f} (one curve, sampled alike: {found.noise:.1f})"
    )


def _ends(found: Collapse) -> str:
    known = np.isfinite([found.low, found.high]).all()
    return f"{found.low:.2f} to {found.high:.2f}" if known else "interval open"


def _good(row: dict[str, Any]) -> str:
    """What counts as good, for all sizes."""
    found = (
        f"good: an FID of at most {row['limit']:.3g}, for the lowest is {row['fid_best']:.3g} "
        f"({row['size_best']:,.0f} images, step {row['step_best']:,.0f})"
    )
    late = "; it still falls at the end, so that good steps are at the least those that follow"
    return found + (late if row["limit_falls"] else "")


def _window(row: dict[str, Any]) -> str:
    """When samples of a training are good, when copies come, and when to stop."""
    size, start, end = (row[name] for name in (SIZE, "tau_gen", "tau_mem"))
    copied = f"{_percent(row['level'])} memorized {_from(row, 'tau_mem')}"
    if np.isinf(start):
        lowest = f"its lowest FID is {row['fid_lowest']:.3g}"
        return f"{size:,.0f} images: never good ({lowest}), {copied}"
    good = f"{size:,.0f} images: good {_from(row, 'tau_gen')}, {copied}"
    last = "the end" if np.isinf(end) else f"{end:,.0f}"
    advice = f"stop between {start:,.0f} and {last}" if start < end else "copies come first"
    return f"{good}: {advice} (good first in {_percent(round(row['window'], 2))} of draws)"


def _from(row: dict[str, Any], name: str) -> str:
    """The step from which on something holds, with its interval."""
    ends = [row[f"{name}_{end}"] for end in ("low", "high")]
    low, high = (_step(row, end) for end in ends)
    if np.isinf(row[name]):
        return f"never ({low} or later)" if np.isfinite(ends[0]) else "never"
    return f"from step {_step(row, row[name])} ({low} to {high})"


def _step(row: dict[str, Any], step: float) -> str:
    if np.isinf(step):
        return "never"
    return f"{step:,.0f}" if step > 0 else f"{row['first_step']:,.0f} or earlier"


def _percent(level: float) -> str:
    return f"{100 * level:g} %"
