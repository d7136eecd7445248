"""The replication table: every published value and every claim beside what the results say."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emm.analyse.agreement import Agreement
from emm.analyse.claims import judge
from emm.analyse.parquet import read_table, write_table
from emm.analyse.places import Group, groups_of
from emm.analyse.published import Source, cites, load_published
from emm.analyse.simulate import Measurements
from emm.catalog import Catalog
from emm.documents import Claim, Experiment
from emm.errors import UserError
from emm.expansion import published_files
from emm.files import write_text

OURS = "this project"
PAPERS_CLAIMS, OWN_CLAIMS, VALUES = "Claims of the papers", f"Claims of {OURS}", "Published values"
SELECT = "are left out by `select`"  # the end of such a note
BAR = r"\|"  # in a cell of a Markdown table
COLUMNS = {  # and what a row has that does not say otherwise
    **{"id": "", "source": "", "figure": "", "kind": "", "experiment": "", "section": ""},
    **{"statement": "", "metric": "", "published": np.nan, "published_low": np.nan},
    **{"published_high": np.nan, "provenance": "", "ours": np.nan, "ours_low": np.nan},
    **{"ours_high": np.nan, "n_runs": 0, "verdict": "", "support": np.nan},
    **{"comparable": False, "note": ""},
}


def write_replication(catalog: Catalog, memorization: Path, output: Path) -> pd.DataFrame:
    """Write the replication table of a catalog as Parquet, and beside it as .csv and .md.

    Raises UserError unless the output ends in .parquet.
    """
    if output.suffix != ".parquet":
        raise UserError(f"--output {output}: the table is a Parquet file; end it with .parquet")
    sources = [load_published(path) for path in published_files()]
    table = replication_table(catalog, read_table(memorization), sources)
    write_text(output.with_suffix(".csv"), table.to_csv(index=False))
    write_text(output.with_suffix(".md"), markdown(table, catalog))
    write_table(output, table)
    return table


def replication_table(
    catalog: Catalog, memorization: pd.DataFrame, sources: Sequence[Source]
) -> pd.DataFrame:
    """A row per published value, then per claim of the selected experiments.

    Values (kind "value"): published and ours with 95 % intervals, in %, grey levels, images,
    millions. Their verdict is "within" where the intervals overlap, "outside", "not measured", or
    at a scale that is no copy of the paper "not comparable".

    Claims (kind "claim"): `ours` is the number that the claim hinges on, with its 95 % interval, in
    the unit of `metric` (points where it is a difference of percentages), published what it is
    compared with if that is a number; `note` says which number it is and where it was decided. The
    verdict is "supported" or "contradicted" from a probability of 0.95, "undecided", or "not
    measured". `support` is the probability that the claim is true, for "contradicted" that it is
    false.
    """
    measurements = Measurements(memorization, catalog.scale.run_sd)
    rows = [*_values(catalog, measurements, sources), *_claims(catalog, measurements, sources)]
    table = pd.DataFrame([COLUMNS | row for row in rows], columns=list(COLUMNS))
    return table.assign(comparable=catalog.scale.comparable)


def _values(
    catalog: Catalog, measurements: Measurements, sources: Iterable[Source]
) -> Iterable[dict[str, Any]]:
    for source in sources:
        agreement = Agreement(catalog, measurements, source)
        selected = any(source.cited in one.source for one in catalog.experiments.values())
        for value in source.values:
            compared = agreement.compare(value)
            if compared["verdict"] == "not measured" and not selected:
                continue  # of a paper that was not asked for
            yield {
                "id": value.id,
                "source": source.source,
                "figure": value.figure,
                "kind": "value",
                "statement": value.statement,
                "metric": value.metric,
                "provenance": "interpreted" if value.interpreted else value.provenance,
                **compared,
            }


def _claims(
    catalog: Catalog, measurements: Measurements, sources: Sequence[Source]
) -> Iterable[dict[str, Any]]:
    for name, experiment in catalog.experiments.items():
        papers = (s.source for s in sources if cites(experiment, s))
        source = OURS if is_ours(experiment) else next(papers, experiment.source)
        for claim_name, claim in experiment.claims.items():
            yield {
                "id": f"{name}.{claim_name}",
                "source": source,
                "figure": claim.figure,
                "kind": "claim",
                "experiment": name,
                "section": claim.section,
                "statement": claim.statement,
                **_judged(catalog, measurements, name, claim_name, claim),
            }


def is_ours(experiment: Experiment) -> bool:
    """Whether an experiment is this project's or a user's own, and so are its claims."""
    return not experiment.source or experiment.source.startswith("This project")


def _provenance(experiment: Experiment, claim: Claim) -> str:
    if is_ours(experiment):
        return "ours"
    return "interpreted" if claim.interpreted else "paper-text"


def _judged(
    catalog: Catalog, measurements: Measurements, experiment: str, name: str, claim: Claim
) -> dict[str, Any]:
    where = f"experiment {experiment}: claim {name}"
    found = judge(claim, groups_of(claim, experiment, catalog.rows, where), measurements)
    left_out = ""
    if catalog.left_out:
        rows = catalog.rows + catalog.left_out
        left_out = _left_out(catalog, groups_of(claim, experiment, rows, where))
    return {
        "metric": found.metric,
        "published": found.published,
        "provenance": _provenance(catalog.experiments[experiment], claim),
        "ours": found.ours,
        "ours_low": found.low,
        "ours_high": found.high,
        "n_runs": found.n_runs,
        "verdict": found.verdict,
        "support": found.support,
        "note": "; ".join(filter(None, [found.note, left_out])),
    }


def left_out(note: str) -> str:
    """The part of a note that says which evaluations `select` left out, or nothing."""
    return next((part for part in note.split("; ") if part.endswith(SELECT)), "")


def _left_out(catalog: Catalog, groups: Iterable[Group]) -> str:
    """How many evaluations that a claim is about are not among those that the config selects."""
    about = {entry.row.key for group in groups for place in group.places for entry in place.entries}
    missing = len(about - {row.key for row in catalog.rows})
    return f"{missing} of its {len(about)} evaluations {SELECT}" if missing else ""


def markdown(table: pd.DataFrame, catalog: Catalog) -> str:
    """The table as Markdown: verdicts counted, claims, then values."""
    lines = ["# Replication", "", f"Scale {catalog.config.scale}: {catalog.scale.title}.", ""]
    for title, rows in sections(table).items():
        counts = ", ".join(
            f"{n} {verdict}" for verdict, n in rows["verdict"].value_counts().items()
        )
        is_value = title == VALUES
        lines += [f"## {title}", "", f"{counts or 'None'}.", "", *_lines(rows, is_value), ""]
    return "\n".join(lines)


def sections(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The table's parts by what they are: claims of papers, claims of ours, published values."""
    is_claim, is_own = table["kind"] == "claim", table["provenance"] == "ours"
    parts = {PAPERS_CLAIMS: is_claim & ~is_own, OWN_CLAIMS: is_claim & is_own, VALUES: ~is_claim}
    return {title: table[chosen] for title, chosen in parts.items() if chosen.any()}


def _lines(rows: pd.DataFrame, is_value: bool) -> list[str]:
    head = ["Shown in", "Statement", "Verdict", "Support", "Published", "Ours", "Note"]
    shown = [head, ["---"] * len(head)]
    for row in rows.to_dict("records"):
        published, ours = (
            _interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))
            for name in ("published", "ours")
        )
        support = "" if np.isnan(row["support"]) else f"{row['support']:.2f}"
        words = [row["figure"], row["statement"], row["verdict"]]
        shown.append([*words, support, published, ours, row["note"]])
    if is_value:
        shown = [
            [cell for cell, name in zip(line, head, strict=True) if name != "Support"]
            for line in shown
        ]
    return [f"| {' | '.join(cell.replace('|', BAR) for cell in line)} |" for line in shown]


def _interval(value: float, low: float, high: float) -> str:
    """A number with its 95 % interval: "92.1 (91.0 to 93.2)"; its bounds if it has no value."""
    words = "" if np.isnan(value) else f"{value:.4g}"
    if np.isnan(low) or low == high:
        return words
    return f"{words} ({low:.4g} to {high:.4g})".strip()
