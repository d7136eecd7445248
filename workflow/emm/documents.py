"""What the YAML files hold: experiments with their figures and claims, scales, the config."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict

from emm.measure import FEATURES, MEASURES
from emm.spec import Settings
from emm.texts import from_text

Words = Annotated[
    tuple[str, ...],
    Strict(False),
    BeforeValidator(
        lambda v: re.split(r"\s*,\s*", v.strip()) if isinstance(v, str) else v,
        json_schema_input_type=str | list[str],
    ),
]


def _from_texts(settings: Any) -> Any:
    """Settings whose values may be texts: Snakemake's --config passes nested numbers as such."""
    if not isinstance(settings, dict):
        return settings
    return {
        key: [from_text(key, part) for part in value]
        if isinstance(value, list)
        else from_text(key, value)
        for key, value in settings.items()
    }


Texts = Annotated[dict[str, Any], BeforeValidator(_from_texts)]
Selection = Annotated[
    tuple[Texts, ...],
    Strict(False),
    BeforeValidator(
        lambda v: [v] if isinstance(v, dict) and v else v or [],
        json_schema_input_type=dict[str, Any] | list[dict[str, Any]] | None,
    ),
]
FigureName = Annotated[str, Field(pattern=r"^\w[\w-]*$")]  # a target, a file name and a regex
Scalar = bool | int | float | str | None
PlotKind = Literal[
    *("curve", "points", "bars", "grid", "table", "capacity", "examples"),
    *("metrics", "metrics_table", "plane", "thresholds"),
    *("onsets", "windows", "twins", "pairs"),
    *("levels", "paths", "variance"),
]


class Half(Settings):
    """One of two tables that stand beside each other and share their columns."""

    rows: str = Field(description="Setting of its rows")
    where: dict[str, Scalar | list[Scalar]] = Field({}, description="Its rows of the figure's")


class Figure(Settings):
    """A figure or table of an experiment, drawn from result rows alone."""

    title: str = Field("", description="What the figure shows; the first line of its caption")
    source: str = Field("", description="Where it stands in a paper")
    plot: PlotKind = Field(
        description="Lines, a point per run, a bar per combination of settings, samples beside "
        "their neighbours, a table, EMM and memorization capacity against a setting, training "
        "images, a measure against the level of noise, the paths of trainings between the ideal "
        "denoisers, what seeds change, two measures of trainings against each other, a line or a "
        "row of a table per metric, samples that count as copies against the threshold of the "
        "distance ratio, when memorization sets in, when to stop before it, or how alike samples "
        "of two networks from the same noise are, and these samples",
    )
    x: str = Field(
        "data.size", description="Setting, or `epoch`, on the x axis; of a plane, a column as y"
    )
    y: str = Field(
        "memorization_ratio",
        description="Column of the memorization table, emm or memorization_capacity; the plot "
        "capacity shows both of these unless it is one of them",
    )
    metrics: list[str] = Field(
        [], description="Plots metrics and metrics_table: columns of the memorization table"
    )
    log_y: bool = Field(False, description="Plane, metrics: logarithmic y axis")
    hue: str | None = Field(None, description="Setting that separates the series")
    style: str | None = Field(None, description="Second setting that separates the series")
    emm: bool = Field(False, description="Mark the 90 % line and the EMM of each series")
    where: dict[str, Scalar | list[Scalar]] = Field({}, description="Rows that are drawn")
    epoch: Literal["best", "last", "all"] = Field("best", description="Which checkpoints")
    rows: str | None = Field(None, description="Table: setting of its rows")
    columns: str | None = Field(None, description="Tables: setting of the columns")
    halves: list[Half] = Field([], max_length=2, description="Table: two instead of `rows`")
    also: str | None = Field(None, description="Table: setting that goes with each column")
    best: Literal["rows", "columns"] | None = Field(
        None, description="Table: where the value of most memorization is bold"
    )
    log_x: bool = Field(False, description="Logarithmic x axis")
    reference: dict[str, Scalar | list[Scalar]] = Field(
        {}, description="Row that is drawn as a dashed line instead"
    )
    sample_sizes: list[int] = Field(
        [], description="Numbers of samples to bootstrap, on the x axis eval.num_samples"
    )
    count: int = Field(10, ge=1, description="Grid, examples: images per row")
    lines: int = Field(
        1,
        ge=1,
        description="Grid: rows of samples, above as many of neighbours; examples: rows of images",
    )
    only: Literal["mondrian"] | None = Field(
        None, description="Grid: only samples of this kind, among others of a mixture"
    )
    split: Literal["verdict"] | None = Field(
        None, description="Grid: memorized samples and the others apart"
    )
    caption: str = Field("", description="What the paper shows there")


class Claim(Settings):
    """A sentence of a paper as an inequality over result rows.

    A place is one number of the claim: the runs that agree in `by` and along the axis, or in `by`
    on one side. Filters name published values at every scale, and may name the `experiment`.
    Ratios are in %, distances in grey levels, EMM in images.
    """

    statement: str = Field(description="The claim in one sentence")
    section: str = Field("", description="Where the paper says it")
    figure: FigureName = Field(description="Figure or table that shows it")
    kind: Literal[
        "monotone-decreasing",
        "monotone-increasing",
        "non-monotone",
        "greater",
        "approximately-equal",
        "threshold",
    ] = Field(description="What is claimed")
    metric: str = Field("memorization_ratio", description="What it is claimed of")
    along: str | None = Field(
        None, description="Axis of a (non-)monotone claim: a setting, `epoch` or another metric"
    )
    by: Words = Field((), description="Settings that are held fixed: it is claimed at each value")
    where: dict[str, Scalar | list[Scalar]] = Field({}, description="Rows that it is about")
    left: dict[str, Scalar | list[Scalar]] = Field({}, description="Rows of one side")
    right: dict[str, Scalar | list[Scalar]] = Field({}, description="Rows of the other side")
    over: Literal["mean", "max", "min", "range", "sd"] | None = Field(
        None, description="How several runs at one place become a number; null allows only one"
    )
    op: Literal[">", ">=", "<", "<="] | None = Field(None, description="Comparison with `value`")
    value: float | None = Field(None, description="Threshold, or what should be equalled")
    within: float | None = Field(None, gt=0, description="Largest difference that counts as equal")
    factor: float = Field(
        1.0,
        gt=0,
        description="`greater`: left exceeds so many times right; `approximately-equal`: so many "
        "times right, or for each doubling along the axis, whose ratio may be off by `within`",
    )
    peak: float | None = Field(None, description="`non-monotone`: where the maximum lies")
    turn: Literal["peak", "dip"] | None = Field(
        None,
        description="`non-monotone`: rises and then falls, or falls and then rises; null is either",
    )
    trend: bool = Field(False, description="Only the tendency is claimed, not every step")
    before_epoch: float | None = Field(None, gt=0, description="Only checkpoints up to here")
    checkpoint: Literal["best", "last"] = Field(
        "best", description="Which checkpoint of each evaluation, where `epoch` is no axis"
    )
    interpreted: bool = Field(False, description="Its numbers are our reading, not the paper's")


class Experiment(Settings):
    """One question: a recipe, axes that are swept, and figures."""

    title: str
    source: str = Field("", description="Paper and section")
    recipe: str = Field("ddpmpp", description="A name in recipes.yaml")
    set: dict[str, Any] = Field({}, description="Settings that differ from the recipe in all runs")
    runs: list[dict[str, Any]] = Field(min_length=1, description="Items; lists in one are crossed")
    scaled: bool = Field(True, description="False: the runs are the same at every scale")
    measures: tuple[Literal[MEASURES], ...] = Field(
        (),
        strict=False,
        description="What else is measured of its evaluations, beside their scores",
    )
    figures: dict[FigureName, Figure] = Field({}, description="What is drawn, by name")
    claims: dict[FigureName, Claim] = Field({}, description="What the paper says, by name")


class Rule(Settings):
    """How a scale transforms one setting: a constant, a table of values, or a factor."""

    to: Any = Field(None, description="Constant value")
    map: dict[Any, Any] = Field({}, description="Published value -> value at this scale")
    factor: float | None = Field(None, gt=0, description="For numbers that the map does not list")
    minimum: float = Field(0, description="Lower bound of factor's result")


class Scale(Settings):
    """A transformation of every run."""

    title: str
    comparable: bool = Field(description="Whether values may be compared with published ones")
    run_sd: float = Field(
        0.0,
        ge=0,
        description="Standard deviation of a ratio of 50 % over training seeds, in points, beyond "
        "that of the sampling",
    )
    rules: dict[str, Rule] = Field({}, description="Of all experiments, by setting")
    experiments: dict[str, dict[str, Rule]] = Field(
        {}, description="Rules of single experiments, which replace the general ones"
    )


class Plan(Settings):
    """What a plan assumes of the machines."""

    gpu: str = Field(
        "a100", description="A name in workflow/gpus.yaml, or a file that `emm calibrate` wrote"
    )
    gpus: int = Field(8, ge=1, description="GPUs that are held at a time")
    hours: float = Field(
        24.0, gt=0, description="Longest allocation that is granted; longer trainings take several"
    )
    gpus_per_run: int = Field(
        1, ge=1, description="GPUs of one machine that a long training may share"
    )
    run_hours: float = Field(
        100.0,
        gt=0,
        description="A training that would take longer on one GPU takes 2, 4, ... of them",
    )


class Budget(Settings):
    """What a start may cost at most."""

    gpu_hours: float | None = Field(
        None, gt=0, description="GPU-hours that are left to do by the plan; null is no limit"
    )


class Config(Settings):
    """config.yaml: what to run, at which scale, and where files lie."""

    scale: str = Field("quick", description="A name in workflow/scales")
    experiments: Words = Field(
        ("all",),
        min_length=1,
        description="all, a folder of workflow/experiments, names, or .yaml files",
    )
    select: dict[str, dict[str, Selection]] = Field(
        {},
        description="By scale and experiment: keep only runs with these values; a list keeps what "
        "any of its items allows",
    )
    set: Texts = Field({}, description="Settings forced on every run")
    seeds: int = Field(
        1,
        ge=1,
        description="How many times every run is made, each with other seeds; experiments that "
        "sweep seeds themselves stay as they are",
    )
    weights: dict[str, str] = Field(
        {},
        description="By experiment: file of weights that others trained, which its runs take "
        "instead of training, where the scale leaves them as published",
    )
    results: str = Field("results", description="Folder for everything the workflow writes")
    cache: str = Field("data", description="Folder for downloaded and supplied data")
    plan: Plan = Field(Plan(), description="What `emm plan` and the jobs' time limits assume")
    budget: Budget = Field(Budget(), description="A start that would cost more is refused")
    threads: int = Field(1, ge=1, description="CPU threads of a training or sampling job")
    features: Literal[FEATURES] = Field(
        "classifier",
        description="What the measure `quality` compares images by: a small classifier that is "
        "trained on the labels of the source, pixels, or a network whose weights you have",
    )
    feature_weights: str | None = Field(
        None, description="TorchScript file of the features inception or dinov2"
    )
    gallery: int = Field(64, ge=1, description="Samples per evaluation kept as pictures")
