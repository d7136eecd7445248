# In:  the config. Out: the catalog of everything that it selects, and look-ups in it.
#
# The catalog is built once per start from YAML alone; the functions here only look things up.
import re
import sys
from os.path import relpath
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from snakemake.exceptions import WorkflowError

from emm import catalog, ids
from emm.analyse.published import published_files
from emm.checkout import start_without_limit, use_checkout
from emm.controller import mend_status_queries, take_over
from emm.errors import ending_in_a_line
from emm.plan.jobs import SMALL, Requests
from emm.plan.stage import check_budget
from emm.spec import RECIPE_VERSION, option

use_checkout()
with ending_in_a_line():
    CATALOG = catalog.load(config)
    CATALOG.require_files()
    REQUESTS = Requests(CATALOG.config)


def what(config):
    """A config as JSON: what is computed, not how."""
    return config.model_dump_json(exclude={"cache", "threads", "plan", "budget"})


ROOT = str(CATALOG.root)
RUNS = CATALOG.runs
THREADS = CATALOG.config.threads
CONFIG = what(CATALOG.config)
RUN = f"{ROOT}/runs/{{run}}"
EVALUATION = f"{RUN}/{{evaluation}}"
TABLES = expand(
    "{root}/tables/{name}.parquet",
    root=ROOT,
    name=["memorization", "emm", "replication"],
)
PUBLISHED = [relpath(path) for path in published_files()]


onstart:
    with ending_in_a_line():
        check_budget(CATALOG)
        take_over(ROOT, workflow)
        mend_status_queries(workflow)
    start_without_limit(workflow)
    for notice in CATALOG.notices:
        print(f"note: {notice}", file=sys.stderr)


wildcard_constraints:
    experiment="|".join(map(re.escape, CATALOG.experiments)),
    source="|".join(CATALOG.sources),
    subset="|".join(CATALOG.subsets),
    run="|".join(RUNS),
    evaluation="|".join({name for _, name in CATALOG.evaluations}),


def options(settings):
    """Command-line options, one per setting."""
    return [option(key, value) for key, value in settings.items()]


def folders(wildcards):
    """A folder of images and its sub-folders, whose times tell that images came or went."""
    settings = CATALOG.sources[wildcards.source]
    if settings["data.dataset"] != "folder":
        return []
    path = Path(settings["data.path"])
    return [path, *(entry for entry in sorted(path.glob("*/")) if entry.is_dir())]


def dummies(wildcards):
    """The source of the dummies in a subset, if it has any."""
    source = CATALOG.subsets[wildcards.subset].dummy_id
    return [f"{ROOT}/sources/{source}.npz"] if source else []


def job(rule, wildcards):
    """What the job of a run, or of one of its evaluations, asks for."""
    evaluation = CATALOG.evaluations.get(
        (wildcards.run, wildcards.get("evaluation", ""))
    )
    return REQUESTS.job(rule, RUNS[wildcards.run], evaluation)


def written_anew(wildcards):
    """What a changed file of weights or code writes again, beside a record that is ancient."""
    run = RUNS[wildcards.run]
    return [f"{ROOT}/runs/{run.id}/metrics.parquet"] if run.given else []


def results_of(experiment):
    """Summaries of the evaluations, and records of the runs, of an experiment or of all."""
    rows = [row for row in CATALOG.rows if experiment in (None, row.experiment)]
    return {
        "summaries": sorted({f"{ROOT}/runs/{row.key}/summary.parquet" for row in rows}),
        "records": sorted({f"{ROOT}/runs/{row.run_id}/run.yaml" for row in rows}),
    }
