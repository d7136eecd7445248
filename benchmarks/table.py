"""Rows as a table: in a terminal, and from all files of results in docs/performance.md.

    python benchmarks/table.py       # writes the table of docs/performance.md

Goals that no file has a row for are there as well, not measured.
"""

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common import RESULTS, Goal, Row
from rich.console import Console
from rich.table import Table

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- table: python benchmarks/table.py -->\n", "<!-- end of table -->\n"
HEADS = ("what", "instead of", "target", "measured", "", "machine")
MISSED = "**missed**"


def main() -> None:
    from bench import MODULES

    goals = [goal for name in MODULES for goal in importlib.import_module(name).GOALS]
    PAGE.write_text(with_table(PAGE.read_text(), markdown(results(), goals)))


def with_table(page: str, table: str) -> str:
    """A page with its table, between the two markers, replaced."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Contents of all files that bench.py has written."""
    contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [content for content in contents if "modules" in content]


def markdown(contents: Iterable[Mapping[str, Any]], goals: Iterable[Goal]) -> str:
    """The table of all machines in Markdown, and of the goals that none has a row for."""
    rows = [
        (content["device"], row, content["machine"])
        for content in contents
        for module in content["modules"].values()
        for row in module["rows"]
        if not row["part"]
    ]
    found = {(device, row["what"], row["against"]) for device, row, _ in rows}
    lines = [HEADS, ("---",) * len(HEADS), *(cells(row, machine) for _, row, machine in rows)]
    for goal in goals:
        if (goal.device, goal.what, goal.against) not in found:
            missing = "a GPU" if goal.device == "cuda" else "a CPU"
            lines.append((goal.what, goal.against, str(goal.target), "not measured", "", missing))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cells(row: Mapping[str, Any], machine: str) -> tuple[str, ...]:
    """Cells of a row as it stands in a file of results."""
    verdict = {True: "met", False: MISSED, None: ""}[row["passed"]]
    return (row["what"], row["against"], row["target"] or "", measured(row), verdict, machine)


def measured(row: Mapping[str, Any]) -> str:
    """What was measured, with its spread, or why nothing was."""
    if row["measured"] is None:
        return f"not measured: {row['note']}"
    spread = row["details"].get("ratio_min_max")
    between = f" ({spread[0]:.3g} to {spread[1]:.3g})" if spread else ""
    note = f"; {row['note']}" if row["note"] else ""
    return f"{row['measured']:.3g} {row['unit']}{between}{note}"


def show(rows: Iterable[Row]) -> None:
    """Print rows as a table."""
    table = Table(*HEADS[:-1], "seconds")
    for line in _lines(rows):
        table.add_row(*line, end_section=True)
    Console(width=None if Console().is_terminal else 120).print(table)


def _lines(rows: Iterable[Row]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        verdict = {True: "met", False: "[bold red]MISSED", None: ""}[row.passed]
        seconds = " / ".join(f"{value:.3g}" for value in row.details.get("seconds", {}).values())
        yield row.what, row.against, str(row.target or ""), measured(vars(row)), verdict, seconds


if __name__ == "__main__":
    main()
