"""The plan as a page that opens in a browser without a network: totals, and the graph of jobs.

The graph is drawn by stage, with the number of jobs in each; experiments open to their runs, and
runs to their jobs.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from html import escape
from typing import Any

from emm.catalog import Catalog
from emm.measure import AFTER, MEASURES
from emm.plan.jobs import Job

Done = Set[tuple[str, str]]
STAGES = (  # columns of the graph, from left to right
    ("data",),
    ("subset",),
    ("train",),
    ("sample",),
    ("score", *MEASURES),
    ("experiment_tables", "tables", "measure_table"),
    ("figure", "replication", "usage", "advice"),
    ("pages",),
    ("report",),
)
ARROW = '<span class="to">&rarr;</span>'
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em;
       color: #1a1a1a; background: #fff }
table { border-collapse: collapse; margin: .8em 0 } caption { text-align: left; font-weight: 600 }
th, td { padding: .15em .8em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, td.words { text-align: left } th { border-bottom: 1px solid #888 }
.graph { display: flex; align-items: center; flex-wrap: wrap; gap: .2em; margin: 1em 0 }
.stage { display: flex; flex-direction: column; gap: .3em }
.chain { display: flex; align-items: center; gap: .2em } .to { color: #888; padding: 0 .2em }
.box { border: 1px solid #4477aa; border-radius: .3em; padding: .2em .6em; background: #eef4fb;
       white-space: nowrap } .gpu { background: #fdf0e3; border-color: #cc7722 }
.done { opacity: .5 } small { color: #555 } details { margin: .25em 0 .25em 1em }
summary { cursor: pointer } details details { margin-left: 1.5em }
.bar { display: inline-block; height: .6em; background: #cc7722; vertical-align: baseline }
"""


def page(catalog: Catalog, jobs: Sequence[Job], done: Done, facts: Mapping[str, Any]) -> str:
    """The page: totals, costs by rule and experiment, and the graph of all jobs.

    done: keys of the jobs that are.
    """
    title = f"Plan: {catalog.scale.title}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _summary(facts),
        _stages(jobs),
        _rules(facts["rules"]),
        "<h2>Experiments, runs and jobs</h2>",
        "<p>Open an experiment for its runs, and a run for its jobs. A run that several "
        "experiments share is done once; its cost counts in each of them. Faded: done.</p>",
        *(_experiment(catalog, row, jobs, done, facts) for row in facts["experiments"]),
    ]
    return document(title, parts)


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page of a title and pieces of HTML, in the one style of plans and accounts."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def named(rows: Iterable[tuple[str, str]]) -> str:
    """A table of two columns: what, and how much of it in words."""
    cells = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="words">{escape(text)}</td></tr>'
        for name, text in rows
    )
    return f"<table>{cells}</table>"


def table(caption: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are numbers, but for those of the first column."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in rows
    )
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{body}</table>"


def _summary(facts: Mapping[str, Any]) -> str:
    chain = ", ".join(facts["longest_chain"][:5])
    rows = [
        ("Jobs", f"{facts['jobs']:,}, of {facts['runs']:,} runs"),
        (
            "GPU-hours",
            f"{hours(facts['gpu_hours'])}, {hours(facts['left_gpu_hours'])} left",
        ),
        ("CPU-hours of other jobs", hours(facts["cpu_hours"])),
        ("Allocations", f"{facts['allocations']:,}"),
        (f"Time on {facts['gpus']} GPUs", f"{hours(facts['wall_hours'])} hours"),
        ("Longest chain", f"{hours(facts['longest_chain_hours'])} hours: {chain}"),
        ("Disk", f"{facts['final_gb']:,.1f} GB in the end, {facts['peak_gb']:,.1f} GB at most"),
        ("Speeds", f"{facts['gpu']}: {facts['speeds']}"),
    ]
    return named(rows)


def hours(value: float) -> str:
    """Hours with as many digits as help."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _stages(jobs: Iterable[Job]) -> str:
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[job.rule].append(job)
    columns = []
    for stage in STAGES:
        boxes = "".join(_stage(rule, groups[rule]) for rule in stage if groups[rule])
        columns.append(f'<div class="stage">{boxes}</div>')
    return f"<h2>Stages</h2><div class='graph'>{ARROW.join(columns)}</div>"


def _stage(rule: str, jobs: Sequence[Job]) -> str:
    cost = sum(job.gpu_hours for job in jobs)
    text = f"<b>{rule}</b> &times; {len(jobs):,}"
    text += f"<br><small>{hours(cost)} GPU-hours</small>" if cost else ""
    return f'<div class="box{" gpu" if cost else ""}">{text}</div>'


def _rules(rows: Iterable[Mapping[str, Any]]) -> str:
    names = ("rule", "jobs", "allocations", "GPU-hours", "CPU-hours", "GB in the end")
    cells = (
        (
            *(row["rule"], f"{row['jobs']:,}", f"{row['allocations']:,}"),
            *(hours(row["gpu_hours"]), hours(row["cpu_hours"]), f"{row['final_gb']:,.1f}"),
        )
        for row in rows
    )
    return table("By rule", names, cells)


def _experiment(
    catalog: Catalog,
    row: Mapping[str, Any],
    jobs: Iterable[Job],
    done: Done,
    facts: Mapping[str, Any],
) -> str:
    name = row["experiment"]
    runs: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        if job.run and name in job.experiments:
            runs[job.run].append(job)
    width = 12 * row["gpu_hours"] / max(facts["gpu_hours"], 1e-9)
    title = escape(catalog.experiments[name].title)
    head = (
        f"<summary><b>{escape(name)}</b> {title} &middot; {len(runs)} runs, "
        f"{hours(row['gpu_hours'])} GPU-hours, {hours(row['own_gpu_hours'])} of runs of its own "
        f'<span class="bar" style="width: {width:.2f}em"></span></summary>'
    )
    return f"<details>{head}{''.join(_run(*item, done) for item in runs.items())}</details>"


def _run(run: str, jobs: Sequence[Job], done: Done) -> str:
    """A run: its training, then each of its evaluations with what is done of it."""
    train, *rest = jobs
    chains: dict[tuple[str, bool], list[Job]] = {}
    for job in rest:
        chains.setdefault((job.name, AFTER.get(job.rule) == "train"), []).append(job)
    rows = [ARROW.join(_box(job, done) for job in chain) for chain in chains.values()]
    evaluations = "".join(f'<div class="chain">{row}</div>' for row in rows)
    graph = f'{_box(train, done)}{ARROW}<div class="stage">{evaluations}</div>'
    cost = sum(job.gpu_hours for job in jobs)
    head = f"<summary>{escape(run)} &middot; {hours(cost)} GPU-hours</summary>"
    return f'<details>{head}<div class="graph">{graph}</div></details>'


def _box(job: Job, done: Done) -> str:
    """A job: what it takes, and what each of its allocations is asked for."""
    classes = ["box", *(["gpu"] if job.gpus else []), *(["done"] if job.key in done else [])]
    shared = f"{job.gpus} GPUs, " if job.gpus > 1 else ""
    asked = f"{shared}{duration(job.minutes / 60)}, {job.mem_mb / 1000:g} GB"
    times = f"{job.allocations} &times; " if job.allocations > 1 else ""
    text = f"<b>{job.rule}</b> {duration(job.seconds / 3600)}<br><small>{times}{asked}</small>"
    return f'<div class="{" ".join(classes)}">{text}</div>'


def duration(value: float) -> str:
    """Hours in the unit that reads best."""
    return f"{hours(value)} h" if value >= 1 else f"{max(60 * value, 1):.0f} min"
