# In:  the catalog. Out: what the rules of figures and of features look up in it.

FEATURES = Known(CATALOG.features)


def features_of(wildcards):
    """The file of features that samples are compared by, if they need one."""
    if CATALOG.config.features == "pixels":
        return []
    run = RUNS[wildcards.run]
    own = f"{ROOT}/features/{run.features_id}.safetensors"
    return [CATALOG.config.feature_weights or own]


def features_job(wildcards):
    """What the training of features asks for."""
    return REQUESTS.job("features", FEATURES[wildcards.features])


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
    planned = CATALOG.figures[wildcards.figure]
    names = ["memorization", "emm", *planned.tables]
    return {
        name: f"{ROOT}/tables/{planned.experiment}/{name}.parquet" for name in names
    }


def not_selected(name):
    """The input of a figure that the config leaves out: says why, and what to do."""

    def refuse(wildcards):
        raise WorkflowError(CATALOG.other_figures[name])

    return refuse


def pictures(wildcards):
    """Galleries or training sets that a figure shows; none for curves and tables."""
    planned = CATALOG.figures[wildcards.figure]
    if planned.figure.plot in ("grid", "pairs"):
        return sorted({f"{ROOT}/runs/{row.key}/gallery.npz" for row in planned.rows})
    if planned.figure.plot == "examples":
        subsets = {RUNS[row.run_id].subset_id for row in planned.rows}
        return sorted(f"{ROOT}/subsets/{name}.npz" for name in subsets)
    return []
