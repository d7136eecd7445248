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
from emm.checkout import plan_lightly, start_without_limit, use_checkout
from emm.errors import ending_in_a_line
from emm.expansion import published_files
from emm.measure import MEASURES
from emm.plan.jobs import SMALL, Requests
from emm.spec import RECIPE_VERSION
from emm.texts import option

use_checkout()
with ending_in_a_line():
    CATALOG = catalog.load(config, claims=workflow.is_main_process)
    CATALOG.require_files()
    REQUESTS = Requests(CATALOG.config)
plan_lightly()


def what(config):
    """A config as JSON: what is computed, not how."""
    how = {"cache", "threads", "plan", "budget"}
    return config.model_dump_json(exclude=how)


class Known(dict):
    """Entries of the catalog by name."""

    def __missing__(self, name):
        name = name if isinstance(name, str) else "/".join(name)
        raise WorkflowError(f"{name}: is not among what the config selects")


ROOT = str(CATALOG.root)
RUNS = Known(CATALOG.runs)
SUBSETS = Known(CATALOG.subsets)
EVALUATIONS = Known(CATALOG.evaluations)
SOURCES = Known(CATALOG.sources)
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
    from emm.controller import mend_status_queries, take_over
    from emm.plan.stage import check_budget

    with ending_in_a_line():
        check_budget(CATALOG)
        take_over(ROOT, workflow)
        mend_status_queries(workflow)
    start_without_limit(workflow)
    for notice in CATALOG.notices:
        print(f"note: {notice}", file=sys.stderr)


# Snakemake writes these into every path and searches them whenever it fills one in: hundreds of
# names would be most of its work. Known refuses those that are not there.
wildcard_constraints:
    experiment="|".join(map(re.escape, CATALOG.experiments)),
    source="[^/]+",
    subset="[^/]+",
    run="[^/]+",
    evaluation="[^/]+",


def options(settings):
    """Command-line options, one per setting."""
    return [option(key, value) for key, value in settings.items()]


def folders(wildcards):
    """A folder of images and its sub-folders, whose times tell that images came or went."""
    settings = SOURCES[wildcards.source]
    if settings["data.dataset"] != "folder":
        return []
    path = Path(settings["data.path"])
    return [path, *(entry for entry in sorted(path.glob("*/")) if entry.is_dir())]


def dummies(wildcards):
    """The source of the dummies in a subset, if it has any."""
    source = SUBSETS[wildcards.subset].dummy_id
    return [f"{ROOT}/sources/{source}.npz"] if source else []


def job(rule, wildcards):
    """What the job of a run, or of one of its evaluations, asks for."""
    evaluation = EVALUATIONS.get((wildcards.run, wildcards.get("evaluation", "")))
    return REQUESTS.job(rule, RUNS[wildcards.run], evaluation)


def written_anew(wildcards):
    """What a changed file of weights or code writes again, beside a record that is ancient."""
    run = RUNS[wildcards.run]
    return [f"{ROOT}/runs/{run.id}/metrics.parquet"] if run.given else []


def measured(measure, experiment):
    """Files of a measure of the evaluations of an experiment, or of all."""
    found = CATALOG.measured(measure, experiment)
    return [str(CATALOG.measure_file(measure, *key)) for key in found]


def twin(wildcards):
    """Folder of the same evaluation of the run that was trained on the other half."""
    return f"{ROOT}/runs/" + "/".join(CATALOG.twin(wildcards.run, wildcards.evaluation))


def results_of(experiment):
    """What tables of an experiment, or of all, are made of: summaries, measures and records."""
    rows = [row for row in CATALOG.rows if experiment in (None, row.experiment)]
    return {
        "measures": [path for name in MEASURES for path in measured(name, experiment)],
        "summaries": sorted({f"{ROOT}/runs/{row.key}/summary.parquet" for row in rows}),
        "records": sorted({f"{ROOT}/runs/{row.run_id}/run.yaml" for row in rows}),
    }
