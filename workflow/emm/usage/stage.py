"""The account as files: a table of all attempts, a page, and a picture of when they ran."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emm.analyse.parquet import write_table
from emm.attempts import FINISHED
from emm.catalog import Catalog
from emm.errors import UserError
from emm.files import atomic_path, write_text
from emm.plan.gpus import find_gpu
from emm.usage.account import Account, frame, make_account
from emm.usage.page import page
from emm.usage.records import BENCHMARKS, LOGS
from emm.usage.timeline import draw
from emm.usage.totals import by_experiment, by_figure, by_rule, standing_out, total

PICTURE = "timeline.png"


def write_usage(catalog: Catalog, folder: Path) -> dict[str, Any]:
    """Write usage.parquet, usage.html and timeline.png to a folder; returns what `--json` prints.

    UserError where nothing has run yet. Where results are there and nothing is known of how they
    came about, the account is empty and says so.
    """
    account = make_account(catalog)
    if not account.attempts and not account.unknown:
        raise UserError(_nothing(catalog, account))
    facts = usage_facts(catalog, account)
    picture = draw(account.attempts)
    with atomic_path(folder / PICTURE) as temporary:
        temporary.write_bytes(picture)
    write_table(folder / "usage.parquet", frame(account.attempts))
    write_text(folder / "usage.html", page(catalog, facts, picture))
    return facts


def _nothing(catalog: Catalog, account: Account) -> str:
    """Why there is no account."""
    if account.elsewhere:
        return (
            f"{catalog.root}: {account.elsewhere} attempts are known, none of them at a job of the "
            "selected experiments; name others with --experiments, or all"
        )
    return (
        f"{catalog.root}: nothing has run yet: no attempts in {LOGS}/ or {BENCHMARKS}/; run the "
        "workflow first, or name another scale"
    )


def usage_facts(catalog: Catalog, account: Account) -> dict[str, Any]:
    """What an account comes to, as JSON."""
    gpu = find_gpu(catalog.config.plan.gpu)
    facts = {
        **total(account),
        "scale": catalog.config.scale,
        "gpu": gpu.title,
        "speeds": gpu.source,
        "rules": by_rule(account),
        "experiments": by_experiment(account),
        "figures": by_figure(account, catalog.figures),
        "standing_out": standing_out(account),
    }
    return facts | {"notes": list(_notes(facts))}


def _notes(facts: dict[str, Any]) -> Iterator[str]:
    """What the account lacks, a line each."""
    missing = facts["all_jobs"] - facts["finished_jobs"] - facts["unknown_jobs"]
    if missing:
        yield f"{missing:,} of {facts['all_jobs']:,} jobs have not finished: results are partial"
    if facts["unknown_jobs"]:
        yield f"{facts['unknown_jobs']:,} jobs are done and left neither a log nor a benchmark"
    if facts["unlogged_attempts"]:
        yield (
            f"{facts['unlogged_attempts']:,} attempts are known from Snakemake's benchmarks alone: "
            "without their host, their GPU, and attempts before them"
        )
    if facts["undated_attempts"]:
        yield f"when {facts['undated_attempts']:,} of them ran is not known: the files are copies"
    if facts["attempts_elsewhere"]:
        yield (
            f"{facts['attempts_elsewhere']:,} attempts at jobs that the config does not select are "
            "left out"
        )
    without = facts["outcomes"].get(FINISHED) and not facts["gpu_hours"]
    if without and facts["planned_gpu_hours"]:
        yield f"everything ran without a GPU; the plan takes {facts['gpu']} for granted"
