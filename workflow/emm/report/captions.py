"""What was found, as reStructuredText: the captions of figures and the summary of the report."""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from emm.analyse.names import plain_text, series_label
from emm.analyse.replication import left_out, sections
from emm.analyse.series import grouped
from emm.analyse.summary import emm_bracket, emm_interval, emm_text
from emm.documents import Scale
from emm.figures.select import emm_column
from emm.files import checked
from emm.planned import PlannedFigure
from emm.report.verdicts import (
    VERDICTS,
    certainty,
    comparison,
    counts,
    joined,
    listed,
)
from emm.spec import TEXTS

MARKUP = re.compile(r"([\\*`_|<>\[\]])")


def caption(planned: PlannedFigure, drawn: Path, table: pd.DataFrame, scale: Scale) -> str:
    """Caption of a figure: what the paper shows there, and what we found.

    drawn: the csv that the figure was drawn from, whose EMMs are told. table: the replication
    table, whose claims and values at this figure are told.
    """
    about = table[[_belongs(name, planned.name) for name in table["figure"]]]
    found = [*_emms(planned, drawn), *_claims(about), *_values(about)]
    heading = f"**What we found** ({escaped(scale.title)}):"
    return "\n\n".join([planned.caption, heading, "\n".join(found)] if found else [planned.caption])


def summary(table: pd.DataFrame, scale: Scale) -> str:
    """The scale and how many claims and values have which verdict."""
    lines = [
        f"- {title}: {listed(of)}"
        for title, rows in sections(table).items()
        for of in counts(rows).values()
    ]
    return "\n\n".join([f"**{escaped(scale.title)}.** {comparison(scale)}", "\n".join(lines)])


def escaped(text: str) -> str:
    """Text without reStructuredText markup."""
    return MARKUP.sub(r"\\\1", text)


def _belongs(named: str, figure: str) -> bool:
    """Whether something said of a figure, or of all its panels, is said of this one."""
    return re.fullmatch(re.escape(named) + "[a-z]?", figure) is not None


def _claims(about: pd.DataFrame) -> Iterator[str]:
    """A line per claim that was measured, in the order of verdicts."""
    claims = about[about["kind"] == "claim"]
    for verdict in VERDICTS["claim"]:
        if verdict == "not measured":
            continue
        for row in claims[claims["verdict"] == verdict].to_dict("records"):
            support = joined(certainty(verdict, row["support"]), " ")
            about = f" ({support})" if support else ""
            missing = f" ({note})" if (note := left_out(row["note"])) else ""
            yield f"- *{verdict}*{about}: {escaped(row['statement'])}{escaped(missing)}"
    if missing := int((claims["verdict"] == "not measured").sum()):
        yield f"- Claims: {missing} not measured"


def _values(about: pd.DataFrame) -> Iterator[str]:
    numbers = counts(about).get("value")
    if numbers:
        yield f"- Published values: {listed(numbers)}"


def _emms(planned: PlannedFigure, drawn: Path) -> Iterator[str]:
    """A line per series whose EMM the figure marks; what its rows share goes mostly unsaid."""
    figure, name = planned.figure, emm_column(planned.figure)
    table = checked(drawn, _read_csv)
    if name not in table:
        return
    unsaid = {figure.x, *planned.shared} - {figure.hue, figure.style}
    keys = [key for key in table if "." in key and key not in unsaid]
    for settings, rows in grouped(table, keys):
        label = plain_text(series_label(settings))
        yield f"- {joined(('EMM', escaped(label)))}: {_emm(rows, name, figure.x)}"


def _emm(rows: pd.DataFrame, name: str, x: str) -> str:
    suffix = name.removeprefix("emm")
    row = rows.iloc[0].rename(
        {f"emm_{part}{suffix}": f"{part}{suffix}" for part in ("status", "bound")}
    )
    row["sizes"] = sorted(rows[x])
    interval, bracket = emm_interval(row, name), emm_bracket(row, name)
    about = joined((f"95 % interval {interval}" if interval else "", bracket))
    return f"{emm_text(row, name)} images" + (f" ({about})" if about else "")


def _read_csv(path: Path) -> pd.DataFrame:
    words = dict.fromkeys(TEXTS, str)
    return pd.read_csv(path, dtype=words, keep_default_na=False, na_values=[""])
