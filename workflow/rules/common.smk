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
from emm.errors import UserError
from emm.spec import RECIPE_VERSION, option

use_checkout()
try:
    CATALOG = catalog.load(config)
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def what(config):
    """A config as JSON: what is computed, not how."""
    return config.model_dump_json(exclude={"cache", "threads"})


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


def is_large(run):
    """Whether a run has the 860 million parameters of Stable Diffusion."""
    return RUNS[run].settings["model.base"] not in (None, "tiny")


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


def panels(names):
    """Figures of several panels, with the names of these: {"fig2": ["fig2a", "fig2b"]}."""
    groups = {}
    for name in names:
        if found := re.fullmatch(r"(.*\d)[a-z]", name):
            groups.setdefault(found[1], []).append(name)
    return {name: parts for name, parts in groups.items() if name not in names}


def experiment_of(wildcards):
    """The experiment that a figure belongs to."""
    return CATALOG.experiments[CATALOG.figures[wildcards.figure].experiment]


def paper_and_section(wildcards):
    """Where a figure stands in the report: its paper, and the section with what it asks."""
    experiment = experiment_of(wildcards)
    paper, _, section = experiment.source.partition(", ")
    title = f"{section}: {experiment.title}" if section else experiment.title
    return paper or "Own experiments", title


def experiment_tables(wildcards):
    """Tables of the experiment that a figure belongs to."""
    experiment = CATALOG.figures[wildcards.figure].experiment
    return {
        name: f"{ROOT}/tables/{experiment}/{name}.parquet"
        for name in ["memorization", "emm"]
    }


def not_selected(name):
    """The input of a figure that the config leaves out: says why, and what to do."""

    def refuse(wildcards):
        raise WorkflowError(CATALOG.other_figures[name])

    return refuse


def pictures(wildcards):
    """Galleries or training sets that a figure shows; none for curves and tables."""
    planned = CATALOG.figures[wildcards.figure]
    if planned.figure.plot == "grid":
        return sorted({f"{ROOT}/runs/{row.key}/gallery.npz" for row in planned.rows})
    if planned.figure.plot == "examples":
        subsets = {RUNS[row.run_id].subset_id for row in planned.rows}
        return sorted(f"{ROOT}/subsets/{name}.npz" for name in subsets)
    return []
