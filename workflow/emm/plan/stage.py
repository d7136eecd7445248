"""The plan as files: a table of all jobs, what they come to, and a page with their graph."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emm.catalog import Catalog
from emm.errors import UserError
from emm.files import write_text
from emm.measure import MEASURES
from emm.plan.gpus import find_gpu
from emm.plan.jobs import Job, all_jobs
from emm.plan.page import page
from emm.plan.totals import by_experiment, by_rule, longest_chain, total

COLUMNS = (
    *("rule", "name", "run", "experiments", "gpus", "threads", "mem_mb", "minutes"),
    *("allocations", "hours", "gpu_hours", "final_mb", "passing_mb", "done"),
)


def make_plan(catalog: Catalog) -> tuple[list[Job], set[tuple[str, str]], dict[str, Any]]:
    """All jobs of a catalog, the keys of those that are done, and what they come to, as JSON."""
    jobs, plan = all_jobs(catalog), catalog.config.plan
    gpu = find_gpu(plan.gpu)
    done = {job.key for job in jobs if is_done(catalog, job)}
    done -= set(_drawn_again(jobs, done))
    facts = {
        **total(jobs, plan.gpus),
        "left_gpu_hours": sum(job.gpu_hours for job in jobs if job.key not in done),
        "scale": catalog.config.scale,
        "gpu": gpu.title,
        "gpus": plan.gpus,
        "speeds": gpu.source,
        "rules": by_rule(jobs),
        "experiments": by_experiment(jobs),
        "longest_chain": [" ".join(job.key) for job in longest_chain(jobs)[1]],
    }
    return jobs, done, facts


def is_done(catalog: Catalog, job: Job) -> bool:
    """Whether a job of a run has left its result. Others are never asked: they take no GPU."""
    if job.rule == "train":
        return (catalog.run_folder(job.run) / "run.yaml").exists()
    if job.rule in ("sample", "score"):
        return (catalog.evaluation_folder(*job.name.split("/")) / "summary.parquet").exists()
    if job.rule == "features":
        return (catalog.root / "features" / f"{job.name}.safetensors").exists()
    if job.rule in MEASURES:
        return catalog.measure_file(job.rule, *job.name.split("/")).exists()
    return False


def _drawn_again(jobs: list[Job], done: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Samples that were scored and removed, and that a measure needs still."""
    for job in jobs:
        if job.rule in MEASURES and job.key not in done:
            yield from (key for key in job.needs if key[0] == "sample")


def write_plan(catalog: Catalog, folder: Path) -> dict[str, Any]:
    """Write jobs.csv, plan.json and plan.html to a folder; returns what plan.json holds."""
    jobs, done, facts = make_plan(catalog)
    write_text(folder / "jobs.csv", _table(jobs, done))
    write_text(folder / "plan.json", json.dumps(facts, indent=1))
    write_text(folder / "plan.html", page(catalog, jobs, done, facts))
    return facts


def _table(jobs: list[Job], done: set[tuple[str, str]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(job, job.key in done) for job in jobs)
    return stream.getvalue()


def _row(job: Job, done: bool) -> dict[str, Any]:
    same = ("rule", "name", "run", "gpus", "threads", "mem_mb", "minutes", "allocations")
    return {
        **{key: getattr(job, key) for key in same},
        "experiments": " ".join(job.experiments),
        "hours": f"{job.seconds / 3600:.3f}",
        "gpu_hours": f"{job.gpu_hours:.3f}",
        "final_mb": f"{job.final / 1e6:.1f}",
        "passing_mb": f"{job.passing / 1e6:.1f}",
        "done": int(done),
    }


def check_budget(catalog: Catalog) -> None:
    """UserError where what is left to do costs more GPU-hours than the config allows."""
    limit = catalog.config.budget.gpu_hours
    if limit is None:
        return
    *_, facts = make_plan(catalog)
    left = facts["left_gpu_hours"]
    if left > limit:
        costs = sorted(facts["experiments"], key=lambda row: -row["gpu_hours"])
        each = ", ".join(f"{row['experiment']} {row['gpu_hours']:,.0f}" for row in costs)
        raise UserError(
            f"budget.gpu_hours {limit:g}: {left:,.0f} GPU-hours are left to do on "
            f"{facts['gpu']} ({each}); raise it, or select less"
        )
