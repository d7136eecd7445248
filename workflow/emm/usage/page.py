"""The account as a page that opens in a browser without a network."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from emm.catalog import Catalog
from emm.plan.page import document, hours, named, table

LISTED, EXAMPLES = 20, 3  # jobs that were tried often; those of a rule that asked for too much
NONE = "\N{EN DASH}"
SPREADS = (  # columns, with their unit, what they show, and its factor
    ("time asked for", "min", "requested_minutes", 1.0),
    ("used", "min", "minutes", 1.0),
    ("memory asked for", "GB", "requested_mem_mb", 1e-3),
    ("used", "GB", "mem_mb", 1e-3),
    ("CPU", "% of a core", "cpu_percent", 1.0),
    ("GPU", "%", "gpu_percent", 1.0),
    ("GPU memory", "GB", "gpu_memory_mb", 1e-3),
)
HOURS = ("hours", "planned", "GPU-hours", "planned GPU-hours")
Facts = Mapping[str, Any]


def page(catalog: Catalog, facts: Facts, picture: bytes) -> str:
    """The page: totals, requested against used by rule, what stands out, costs, the timeline.

    picture: the timeline as PNG, which becomes part of the page.
    """
    title = f"Usage: {catalog.scale.title}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _summary(facts),
        "".join(f"<p>{escape(note[:1].upper() + note[1:])}.</p>" for note in facts["notes"]),
        _rules(facts["rules"]),
        _requests(facts["rules"]),
        _standing_out(facts["standing_out"]),
        "<h2>When it ran</h2>",
        _image(picture),
        "<h2>Experiments and figures</h2>",
        "<p>Runs that several experiments, or several figures, share count in each of them; "
        "&ldquo;its own&rdquo; is what no other one needs.</p>",
        _experiments(facts["experiments"]),
        _figures(facts["figures"]),
    ]
    return document(title, parts)


def _summary(facts: Facts) -> str:
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in facts["outcomes"].items())
    gpus = ", ".join(f"{name} ({count:,})" for name, count in facts["gpus_seen"].items())
    done = f"{facts['finished_jobs']:,} finished, of {facts['all_jobs']:,} of the plan"
    rows = [
        ("Jobs", f"{facts['jobs']:,}, of {facts['runs']:,} runs; {done}"),
        ("Attempts", f"{facts['attempts']:,}" + (f": {outcomes}" if outcomes else "")),
        (
            "GPU-hours",
            f"{hours(facts['gpu_hours'])}, planned for the same jobs "
            f"{hours(facts['planned_gpu_hours'])}",
        ),
        (
            "Hours of jobs, on whatever",
            f"{hours(facts['hours'])}, planned for the same jobs {hours(facts['planned_hours'])}",
        ),
        ("GPUs that attempts ran on", gpus or "none known"),
        ("The plan's speeds", f"{facts['gpu']}: {facts['speeds']}"),
    ]
    return named(rows)


def _rules(rows: Iterable[Facts]) -> str:
    names = ("rule", "jobs", "attempts", "ended early", *HOURS)
    cells = (
        (
            *(row["rule"], f"{row['jobs']:,}", f"{row['attempts']:,}", f"{row['ended_early']:,}"),
            *_hours(row),
        )
        for row in rows
    )
    return table("By rule", names, cells)


def _hours(row: Facts) -> tuple[str, ...]:
    keys = ("hours", "planned_hours", "gpu_hours", "planned_gpu_hours")
    return tuple(hours(row[key]) for key in keys)


def _requests(rows: Iterable[Facts]) -> str:
    """What an attempt asks for and takes."""
    names = ("rule", *(f"{what}, {unit}" for what, unit, _, _ in SPREADS))
    cells = (
        (row["rule"], *(_spread(row[key], factor) for _, _, key, factor in SPREADS)) for row in rows
    )
    return table("An attempt, asked for and used: median (max)", names, cells)


def _spread(spread: Facts | None, factor: float) -> str:
    """Median and maximum; a dash where they are not known."""
    if spread is None:
        return NONE
    return f"{_number(factor * spread['median'])} ({_number(factor * spread['max'])})"


def _number(value: float) -> str:
    """A number with as many digits as help."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _standing_out(rows: Sequence[Facts]) -> str:
    """Jobs that were killed or tried often, one by one, and by rule those that ask for too much."""
    often = [row for row in rows if row["often"]]
    items = [_item(row, row["often"]) for row in often]
    if len(items) > LISTED:
        items[LISTED:] = [f"<li>and {len(items) - LISTED:,} more</li>"]
    for rule in dict.fromkeys(row["rule"] for row in rows):
        wasted = [row for row in rows if row["rule"] == rule and row["wasted"]]
        items += [_wasted(rule, wasted)] if wasted else []
    found = f"<ul>{''.join(items)}</ul>" if items else ""
    nothing = "<p>No job was tried often or asked for far more than it took.</p>"
    return f"<h2>What stands out</h2>{found or nothing}"


def _item(row: Facts, reasons: Iterable[str]) -> str:
    why = escape("; ".join(reasons))
    return f"<li><b>{escape(row['rule'])}</b> {escape(row['name'])}: {why}</li>"


def _wasted(rule: str, rows: Sequence[Facts]) -> str:
    count = f"{len(rows):,} {'jobs' if len(rows) > 1 else 'job'}"
    examples = "".join(_item(row, row["wasted"]) for row in rows[:EXAMPLES])
    rest = ", such as" if len(rows) > EXAMPLES else ""
    head = f"<b>{escape(rule)}</b>: {count} asked for far more than was taken{rest}"
    return f"<li>{head}<ul>{examples}</ul></li>"


def _image(picture: bytes) -> str:
    content = base64.b64encode(picture).decode()
    about = "A bar per attempt at a job, by host and GPU, over time"
    return f'<img src="data:image/png;base64,{content}" alt="{about}" style="max-width: 100%">'


def _experiments(rows: Iterable[Facts]) -> str:
    names = ("experiment", "jobs", "attempts", *HOURS, "its own hours", "its own GPU-hours")
    cells = (
        (row["experiment"], f"{row['jobs']:,}", f"{row['attempts']:,}", *_hours(row), *_own(row))
        for row in rows
    )
    return table("By experiment", names, cells)


def _figures(rows: Sequence[Facts]) -> str:
    names = (
        *("figure", "experiment", "jobs", "finished", "hours", "GPU-hours"),
        *("its own hours", "its own GPU-hours"),
    )
    begun = [row for row in rows if row["hours"]]
    cells = (
        (
            *(row["figure"], row["experiment"], f"{row['jobs']:,}", f"{row['finished_jobs']:,}"),
            *(hours(row["hours"]), hours(row["gpu_hours"]), *_own(row)),
        )
        for row in begun
    )
    others = len(rows) - len(begun)
    rest = f"<p>Of {others:,} other figures nothing has run.</p>" if others else ""
    return table("By figure", names, cells) + rest


def _own(row: Facts) -> tuple[str, str]:
    return hours(row["own_hours"]), hours(row["own_gpu_hours"])
