# In:  the config. Out: the catalog of everything that it selects, and look-ups in it.
#
# The catalog is built once per start from YAML alone; the functions here only look things up.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from emm import catalog, ids
from emm.errors import UserError
from emm.spec import RECIPE_VERSION, option

try:
    CATALOG = catalog.load(config)
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)

ROOT = str(CATALOG.root)
RUNS = CATALOG.runs
THREADS = CATALOG.config.threads
CONFIG = CATALOG.config.model_dump_json()
RUN = f"{ROOT}/runs/{{run}}"
EVALUATION = f"{RUN}/{{evaluation}}"
TABLES = expand("{root}/tables/{name}.parquet", root=ROOT, name=["memorization", "emm"])
EVALUATIONS = [f"{ROOT}/runs/{run}/{name}" for run, name in CATALOG.evaluations]


wildcard_constraints:
    source="|".join(CATALOG.sources),
    subset="|".join(CATALOG.subsets),
    run="|".join(RUNS),
    evaluation="|".join({name for _, name in CATALOG.evaluations}),


def options(settings):
    """Command-line options, one per setting."""
    return [option(key, value) for key, value in settings.items()]


def pictures(wildcards):
    """Galleries that a figure shows; none for curves and tables."""
    planned = CATALOG.figures[wildcards.figure]
    names = {f"{ROOT}/runs/{row.run_id}/{row.evaluation_id}" for row in planned.rows}
    return [f"{name}/gallery.npz" for name in sorted(names)] if planned.is_grid else []
