"""Advice as a page of Markdown: where the EMM lies, what moves it, and what shows it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from emm.analyse.advice import VERDICTS, Effect, Estimate, Family, distinct_effects, estimates
from emm.analyse.names import plain_text, rounded, series_label
from emm.analyse.series import telling
from emm.catalog import Catalog

WIDE = 1000  # factor between the ends of an interval from which on it says nothing


def advice_page(
    catalog: Catalog, found: Sequence[Family], size: int | None, wanted: Mapping[str, Any]
) -> str:
    """The page for a training set of `size` images (or none) and networks with wanted settings.

    found: the families of the catalog. UserError when no result can tell.
    """
    known, run_sd = estimates(found, wanted), catalog.scale.run_sd
    names, about = _names(known), f" for {size:,} images" if size else ""
    parts = [
        f"# Advice{about}",
        f"Scale {catalog.config.scale}: {catalog.scale.title}. All numbers are of the data, "
        "networks and training lengths of these figures, and hold for no others.",
        "## Where the EMM is",
        "Up to so many training images at least 90 % of the samples are copies. Intervals (95 %) "
        f"hold the counting of samples and {run_sd:g} points between training seeds.",
        _table(_head(size), (_line(one, size, names) for one in known)),
        *_effects(found),
    ]
    if not found:
        parts[2:] = ["No figure of these results marks the EMM of two series (`emm: true`, `hue`)."]
    return "\n\n".join(parts) + "\n"


def _head(size: int | None) -> list[str]:
    head = ["Network and data", "EMM (images)", "From", "Figure"]
    return [*head, f"{size:,} images are"] if size else head


def _names(known: Sequence[Estimate]) -> list[str]:
    """The fewest settings that tell the networks apart."""
    keys = [{k: v for k, v in one.settings.items() if not k.startswith("eval.")} for one in known]
    shared = set.intersection(*(set(key) for key in keys)) if keys else set()
    return telling({k: key[k] for k in sorted(shared)} for key in keys)


def _line(one: Estimate, size: int | None, names: Iterable[str]) -> list[str]:
    told = dict.fromkeys([*names, one.family.hue])
    words = series_label({name: one.settings.get(name) for name in told})
    interval = _interval(one.low, one.high, rounded)
    value = "" if np.isnan(one.value) else rounded(one.value)
    source = one.source
    if one.source == "power law" and one.family.law is not None:
        law = one.family.law
        source = f"power law, exponent {law.slope:.2f} {_interval(law.low, law.high)}"
    cells = [plain_text(words), f"{value} {interval}".strip(), source, one.family.figure.name]
    return [*cells, one.compared(size)] if size else cells


def _interval(low: float, high: float, text: Any = "{:.2f}".format) -> str:
    """An interval in brackets, open where an end is: "(≥ 12)", "(3 to 5)"."""
    if 0 < low * WIDE < high < np.inf:
        return "(unknown)"
    if not np.isfinite(high):
        return f"(≥ {text(low)})" if np.isfinite(low) and low else "(unknown)"
    return (
        f"({text(low)} to {text(high)})" if low > 0 or text(low)[:1] == "-" else f"(< {text(high)})"
    )


def _effects(found: Sequence[Family]) -> list[str]:
    """What moves the EMM, and what is not seen to: distinct comparisons, the strongest first."""
    distinct = distinct_effects(found)
    head = ["Change", "Of", "Factor on the EMM", "Runs", "Figure", "Experiment"]
    by_verdict = {v: [e for e in distinct if e.verdict == v] for v in VERDICTS}
    moved = by_verdict["raises"] + by_verdict["lowers"]
    count = len(distinct) - len(by_verdict["beyond the sizes"])
    parts = [
        "## What moves it",
        f"The 95 % interval excludes 1 in {len(moved)} of {count} comparisons; chance alone would "
        f"make about {0.05 * count:.0f} of them.",
        _table(head, map(_row, sorted(moved, key=lambda e: e.strength, reverse=True)))
        if moved
        else "Nothing.",
    ]
    titles = {
        "no effect seen": "No effect seen",
        "beyond the sizes": "Beyond the sizes that were run",
    }
    for verdict, title in titles.items():
        if rows := by_verdict[verdict]:
            parts += [f"## {title}", _table(head, map(_row, rows))]
    return parts


def _row(effect: Effect) -> list[str]:
    family = effect.family
    value = "" if np.isnan(effect.factor) else f"{effect.factor:.2f}"
    interval = _interval(effect.low, effect.high)
    where = plain_text(series_label(family.style)) or family.figure.figure.title
    runs = family.base.runs + effect.changed.runs
    figure, experiment = family.figure.name, family.figure.experiment
    return [effect.change, where, f"{value} {interval}".strip(), str(runs), figure, experiment]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)
