"""The replication table as a web page of one file, which needs no network."""

import math
import re
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from emm.analyse.metrics import METRICS, metric
from emm.analyse.replication import OURS
from emm.documents import Scale
from emm.expansion import WORKFLOW
from emm.report.verdicts import (
    KINDS,
    ORIGINS,
    VERDICTS,
    certainty,
    comparison,
    counts,
    joined,
    papers,
    quantity,
)

COMPARED = ("within", "outside")  # verdicts of values that a difference says something about
TEXTS = (
    *("id", "source", "figure", "kind", "experiment", "section", "statement", "metric"),
    *("provenance", "verdict", "note"),
)
MINUS = "\N{MINUS SIGN}"
HEADER = {  # columns of the page, and how their cells are aligned
    **{"Figure": "", "Statement": "", "Published": "number", "Ours": "number"},
    **{"Difference": "number", "Probability": "number", "Verdict": ""},
}


def page(table: pd.DataFrame, scale: Scale) -> str:
    """The page: counts of verdicts, filters, and a row per published value and claim.

    Without JavaScript it shows all rows, by figure.
    """
    environment = Environment(
        loader=FileSystemLoader(WORKFLOW / "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    cited = papers() | {OURS: OURS}
    sources = [source for source in table["source"].unique() if source != OURS]
    numbers, compared = counts(table), bool(table["verdict"].isin(COMPARED).any())
    absent = {"Difference": not compared, "Probability": "claim" not in numbers}
    header = {name: how for name, how in HEADER.items() if not absent.get(name)}
    return environment.get_template("replication.html").render(
        scale=scale,
        comparison=comparison(scale),
        papers=joined((cited.get(name, name) for name in sources), " and "),
        kinds=KINDS,
        verdicts=VERDICTS,
        counts=numbers,
        measured=any(verdict != "not measured" for of in numbers.values() for verdict in of),
        cited=cited if table["source"].nunique() > 1 else {},
        header=header,
        rows=[line(row) for row in sorted(table.to_dict("records"), key=_order)],
    )


def line(row: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a row of the table, and the numbers that it is sorted by."""
    known = {name: "" if isinstance(row[name], float) else row[name] or "" for name in TEXTS}
    ours, interval = _ours(row)
    section = _section(known["section"])
    origin = ORIGINS[row["kind"]].get(known["provenance"], "")
    words = list(VERDICTS[row["kind"]])
    difference = row["ours"] - row["published"] if row["verdict"] in COMPARED else math.nan
    return known | {
        "about": joined((section, known["experiment"], origin, known["note"]), " · "),
        "rank": words.index(row["verdict"]),
        "published": _published(row),
        "published_value": _sortable(row["published"], row["published_low"], row["published_high"]),
        "ours": ours,
        "measured": joined((interval, _runs(row["n_runs"])), " · "),
        "ours_value": _sortable(row["ours"], row["ours_low"], row["ours_high"]),
        "difference": "" if math.isnan(difference) else f"{difference:+,.2f}".replace("-", MINUS),
        "difference_value": _sortable(difference),
        "support": certainty(row["verdict"], row["support"]),
        "support_value": _sortable(row["support"]),
    }


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    """By paper and figure, numbers in names as numbers; claims before values."""
    parts = re.split(r"(\d+)", row["figure"])
    natural = [(int(part) if part.isdigit() else 0, part) for part in parts]
    return row["source"], natural, list(KINDS).index(row["kind"])


def _published(row: dict[str, Any]) -> tuple[str, str]:
    """A published value with the digits that it is printed with."""
    decimals = len(f"{row['published']:g}".partition(".")[2])
    if row["provenance"] == "paper-table" and row["metric"] in METRICS:
        decimals = metric(row["metric"]).decimals
    ends = row["published_low"], row["published_high"]
    return quantity(row["published"], *ends, row["metric"], decimals)


def _ours(row: dict[str, Any]) -> tuple[str, str]:
    """Our number; that of a claim says in its note whether it is a difference of percentages."""
    text, interval = quantity(row["ours"], row["ours_low"], row["ours_high"], row["metric"])
    points = row["kind"] == "claim" and " points" in row["note"]
    return text.replace("%", "points") if points else text, interval


def _section(section: str) -> str:
    """A section as it is cited: "Section 3.1", "Appendix C.3"."""
    return re.sub(r"^(?=[A-Z]\b)", "Appendix ", re.sub(r"^(?=\d)", "Section ", section))


def _runs(number: float) -> str:
    return f"{number:,.0f} run{'s' if number > 1 else ''}" if number > 0 else ""


def _sortable(*numbers: float) -> str:
    """The first number that is one, for sorting; empty when there is none."""
    return next((f"{number:.9g}" for number in numbers if math.isfinite(number)), "")
