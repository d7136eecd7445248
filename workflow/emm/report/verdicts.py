"""The replication table as people read it: verdicts in words, values with both uncertainties."""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from emm.analyse.metrics import metric
from emm.analyse.names import rounded
from emm.analyse.parquet import read_table
from emm.analyse.published import load_published
from emm.analyse.replication import COLUMNS
from emm.documents import Scale
from emm.errors import UserError
from emm.expansion import published_files

KINDS = {"claim": "Claims", "value": "Published values"}
MISSING = "Its runs are not among these results."
VERDICTS = {  # of each kind, from what a reader looks for first, and what the word means
    "claim": {
        "contradicted": "Some comparison of it fails with a probability of at least 95 % for all.",
        "undecided": "Neither, because of noise, missing runs, or an EMM beyond the sizes.",
        "supported": "True with a probability of at least 95 %.",
        "not measured": MISSING,
    },
    "value": {
        "outside": "They differ by more than both 95 % intervals together allow.",
        "within": "They differ by no more than both 95 % intervals together allow.",
        "not comparable": "Measured at a scale that is no copy of the paper's runs.",
        "not measured": MISSING,
    },
}
ORIGINS = {  # of each kind, where it comes from
    "claim": {"interpreted": "numbers are our reading", "ours": "a claim of this project"},
    "value": {
        "paper-table": "from the table",
        "paper-text": "from the text",
        "digitised": "read off the figure",
        "interpreted": "from the text, its range is our reading",
    },
}


def read_replication(path: Path | str) -> pd.DataFrame:
    """The replication table; a UserError when it is damaged or not such a table."""
    table = read_table(path)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise UserError(f"{path}: no column {missing[0]!r}; write it again with `emm replicate`")
    for kind, verdict in set(zip(table["kind"], table["verdict"], strict=True)):
        if verdict not in VERDICTS.get(kind, {}):
            raise UserError(f"{path}: a {kind} cannot be {verdict!r}; write it again")
    return table


def comparison(scale: Scale) -> str:
    """Whether values at a scale may be compared with published ones."""
    if scale.comparable:
        return "Runs are as published: values may be compared with the paper's."
    return (
        "At this scale values may not be compared with the published ones. "
        "Claims are inequalities; they are evaluated all the same."
    )


def papers() -> dict[str, str]:
    """How each paper with published values is cited, by its name in the table."""
    sources = [load_published(path) for path in published_files()]
    return {source.source: source.cited for source in sources}


def counts(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """How many rows of each kind have each verdict, those that occur, in the order of VERDICTS."""
    found = table.groupby(["kind", "verdict"]).size()
    return {
        kind: {verdict: int(found[kind, verdict]) for verdict in words if (kind, verdict) in found}
        for kind, words in VERDICTS.items()
        if (table["kind"] == kind).any()
    }


def listed(numbers: dict[str, int]) -> str:
    """Counts in words: "12 supported, 1 undecided"."""
    return ", ".join(f"{number:,} {verdict}" for verdict, number in numbers.items())


def unit(name: str) -> str:
    """Unit of a metric, or nothing."""
    return metric(name).unit or ("%" if name.endswith("_percent") else "")


def quantity(
    value: float, low: float, high: float, name: str, decimals: int | None = None
) -> tuple[str, str]:
    """A value of a metric with unit, and its interval where that cannot follow a ±.

    "92.1 ± 0.5 %", or "98.6 %" and "97.1 to 99.2"; "≥ 1,000 images". low, high: its interval;
    infinite, or the end of a percentage's range, where it is bounded on one side only; NaN when
    there is none. decimals: that a value has at least. Empty when there is nothing to say.
    """
    if not any(math.isfinite(number) for number in (value, low, high)):
        return "", ""
    text, interval = _number(value, low, high, name, decimals)
    return joined((text, unit(name)), " "), interval


def percent(probability: float) -> str:
    """A probability in percent, nothing for NaN; never 0 or 100, which no sample can tell."""
    if math.isnan(probability):
        return ""
    if 0.01 <= probability <= 0.99:
        return f"{100 * probability:.0f} %"
    return "> 99 %" if probability > 0.5 else "< 1 %"


def certainty(verdict: str, support: float) -> tuple[str, str]:
    """A claim's support in percent, and what it is the probability of unless of the verdict."""
    text = percent(support)
    return text, "that it is true" if text and verdict == "undecided" else ""


def joined(words: Iterable[str], separator: str = ", ") -> str:
    """Words that are there, with something between them."""
    return separator.join(word for word in words if word)


def _number(
    value: float, low: float, high: float, name: str, decimals: int | None
) -> tuple[str, str]:
    """The parts of `quantity`, without the unit."""
    if (math.isnan(low) and math.isnan(high)) or low == high:
        return _plain(low if math.isnan(value) else value, name, decimals), ""
    least, most = 0.0, 100.0 if unit(name) == "%" else math.inf
    low, high = (least if math.isnan(low) else low), (most if math.isnan(high) else high)
    if high in (most, math.inf) and low > least and not value > low:
        return f"≥ {_plain(low, name)}", ""
    if low in (least, -math.inf) and high < most and not value < high:
        return f"≤ {_plain(high, name)}", ""
    places = max(_places((high - low) / 2), decimals or 0)
    first, last = (_rounded(end, places) for end in (low, high))
    if math.isnan(value):
        return f"{first} to {last}", ""
    centre, up, down = _rounded(value, places), high - value, value - low
    if round(abs(up - down), places) <= 10**-places:
        return f"{centre} ± {_rounded(max(up, down), places)}", ""
    return centre, f"{first} to {last}"


def _places(uncertainty: float) -> int:
    """Decimals that show an uncertainty with one digit, or two if it starts with 1 or 2."""
    if not 0 < uncertainty < math.inf:
        return 0
    first = math.floor(math.log10(uncertainty))
    return max(0, (1 if uncertainty / 10**first < 3 else 0) - first)


def _rounded(value: float, places: int) -> str:
    return "∞" if math.isinf(value) else f"{value:,.{places}f}"


def _plain(value: float, name: str, decimals: int | None = None) -> str:
    """A value without uncertainty: as many digits as it has, or as its table prints."""
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    if unit(name) == "images":
        return f"{value:,.0f}" if value == round(value) else rounded(value)
    text = f"{value:,.{metric(name).decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
