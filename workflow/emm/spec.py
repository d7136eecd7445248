"""Settings of runs, evaluations, experiments, scales and the config: names, defaults, units.

The only place where a setting gets a name and a default. The defaults are the basic run of
Gu et al. 2023 (DDPM++ under VP on CIFAR-10), so a setting that equals its default never enters
an id.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError
from pydantic_core import PydanticCustomError

from emm.errors import UserError

RECIPE_VERSION = 1  # raised when training or sampling code changes results: every run reruns

Levels = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Strict(False)]
Words = Annotated[
    tuple[str, ...],
    Strict(False),
    BeforeValidator(
        lambda v: re.split(r"\s*,\s*", v.strip()) if isinstance(v, str) else v,
        json_schema_input_type=str | list[str],
    ),
]
LabelKind = Annotated[
    Literal["none", "true", "random", "unique"],
    BeforeValidator(lambda v: "true" if v is True else v),  # YAML reads a bare true as a boolean
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
M = TypeVar("M", bound=BaseModel)


def _snapshots(value: Any) -> Any:
    if value == "published" or (type(value) is int and value >= 1):
        return value
    raise PydanticCustomError("snapshots", "Input should be 'published' or an integer from 1")


Snapshots = Annotated[
    Literal["published"] | Annotated[int, Field(ge=1)], BeforeValidator(_snapshots)
]


class Settings(BaseModel):
    """A group of settings: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Data(Settings):
    """The images of a subset and how they are chosen."""

    dataset: str = Field("cifar10", description="Source of the images")
    path: str | None = Field(None, description="Folder or array file of the source `folder`")
    size: int | None = Field(None, ge=2, description="Number of training images; null is all")
    resolution: int | None = Field(
        32, ge=2, description="Height and width in pixels; null is the source's own"
    )
    num_classes: int | None = Field(
        None, ge=1, description="The first so many classes of the source; null is all"
    )
    alpha: float | None = Field(
        None, ge=0, le=1, description="Share of the second kind of images, for sources that blend"
    )
    selection: Literal["balanced_prefix", "random"] = Field(
        "balanced_prefix", description="Class-balanced nested prefixes, or a seeded random order"
    )
    seed: int = Field(0, ge=0, description="Seed of the random selection and of generated sources")
    cross_width: int = Field(1, ge=1, description="Mondrian: width of the cross in pixels")
    cross_position: Literal["random", "centre"] = Field(
        "random", description="Mondrian: where the cross stands"
    )
    cross_margin: int = Field(4, ge=0, description="Mondrian: least distance to the edge, pixels")


class Labels(Settings):
    """What the network is told about each image."""

    kind: LabelKind = Field("none", description="No labels, classes, random or one per image")
    num_classes: int = Field(
        0, ge=0, description="Number of label classes; chosen for random, else it follows the data"
    )
    seed: int = Field(1024, ge=0, description="Seed of random labels")


class Model(Settings):
    """The denoising network and its preconditioning."""

    arch: Literal["ddpmpp", "ncsnpp", "optimum"] = Field(
        "ddpmpp", description="Network, or the closed-form optimum of the training set"
    )
    channels: int = Field(128, ge=4, description="Channel width of the first level")
    channel_mult: Levels = Field((2, 2, 2), min_length=1, description="Width factor of each level")
    num_blocks: int = Field(2, ge=1, description="Residual blocks per level in the encoder")
    attention_levels: Levels = Field(
        (2,), description="Levels with attention; 1 is full resolution"
    )
    time_embedding: Literal["positional", "fourier"] = Field(
        "positional", description="Features of the noise level"
    )
    fourier_scale: float = Field(16.0, gt=0, description="Standard deviation of the frequencies")
    dropout: float = Field(0.13, ge=0, lt=1, description="Dropout rate in training")
    skip_mask: str = Field(
        "all",
        pattern="^(all|[01]+)$",
        description="A bit per skip connection in encoder order; 0 replaces it by zeros",
    )
    precond: Literal["vp", "ve", "edm"] = Field("vp", description="Preconditioning and loss")


class Train(Settings):
    """Optimisation. Fields in `recorded` say what is kept of a run, not what it computes."""

    recorded: ClassVar[frozenset[str]] = frozenset({"epochs", "ema", "device"})

    lr: float = Field(2e-4, gt=0, description="Learning rate of Adam after warm-up")
    batch_size: int = Field(512, ge=1, description="Images per step")
    epochs: float = Field(40000, gt=0, description="Training length in passes over the subset")
    warmup_epochs: float = Field(200, ge=0, description="Ramp of learning rate and EMA, epochs")
    weight_decay: float = Field(0.0, ge=0, description="Coupled L2 penalty of Adam")
    ema: float = Field(0.99929, ge=0, lt=1, description="Final EMA rate per step")
    seed: int = Field(
        1024, ge=0, lt=2**32, description="Seed of initialisation, noise and data order"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Of the network")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes the GPU when there is one; cuda refuses to do without"
    )


class Eval(Settings):
    """How checkpoints are sampled."""

    num_samples: int = Field(10000, ge=1, description="Images per checkpoint")
    steps: int = Field(18, ge=2, description="Noise levels of the Heun sampler")
    sigma_max: float = Field(80.0, gt=0, description="First noise level, in image units [-1, 1]")
    sigma_min: float | None = Field(
        None, gt=0, description="Last noise level; null is 0.002, and 0.02 under VE"
    )
    rho: float = Field(7.0, gt=0, description="Exponent of the noise levels")
    seed: int = Field(0, ge=0, description="Seed of image 0; image i has seed + i")
    snapshots: Snapshots = Field(
        "published",
        description="Evaluated checkpoints: every 2.5 million images as published, or so many, "
        "evenly spaced",
    )


class Recipe(Settings):
    """A complete configuration of one training and its evaluation."""

    data: Data = Data()
    labels: Labels = Labels()
    model: Model = Model()
    train: Train = Train()
    eval: Eval = Eval()


class Half(Settings):
    """One of two tables that stand beside each other and share their columns."""

    rows: str = Field(description="Setting of its rows")
    where: dict[str, Scalar | list[Scalar]] = Field({}, description="Its rows of the figure's")


class Figure(Settings):
    """A figure or table of an experiment, drawn from result rows alone."""

    title: str = Field("", description="What the figure shows; the first line of its caption")
    source: str = Field("", description="Where it stands in a paper")
    plot: Literal["curve", "points", "grid", "table"] = Field(
        description="Lines, a point per run, images, or a table"
    )
    x: str = Field("data.size", description="Setting, or `epoch`, on the x axis")
    y: str = Field("memorization_ratio", description="Column of the memorization table")
    hue: str | None = Field(None, description="Setting that separates the series")
    style: str | None = Field(None, description="Second setting that separates the series")
    emm: bool = Field(False, description="Mark the 90 % line and the EMM of each series")
    where: dict[str, Scalar | list[Scalar]] = Field({}, description="Rows that are drawn")
    epoch: Literal["best", "last", "all"] = Field("best", description="Which checkpoints")
    rows: str | None = Field(None, description="Table: setting of its rows")
    columns: str | None = Field(None, description="Table: setting of its columns")
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
    count: int = Field(10, ge=1, description="Grid: images per row")
    lines: int = Field(1, ge=1, description="Grid: rows of samples, above as many of neighbours")
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
    factor: float = Field(1.0, gt=0, description="`greater`: left exceeds so many times right")
    peak: float | None = Field(None, description="`non-monotone`: where the maximum lies")
    trend: bool = Field(False, description="Only the tendency is claimed, not every step")
    before_epoch: float | None = Field(None, gt=0, description="Only checkpoints up to here")
    interpreted: bool = Field(False, description="Its numbers are our reading, not the paper's")


class Experiment(Settings):
    """One question: a recipe, axes that are swept, and figures."""

    title: str
    source: str = Field("", description="Paper and section")
    recipe: str = Field("ddpmpp", description="A name in recipes.yaml")
    set: dict[str, Any] = Field({}, description="Settings that differ from the recipe in all runs")
    runs: list[dict[str, Any]] = Field(min_length=1, description="Items; lists in one are crossed")
    scaled: bool = Field(True, description="False: the runs are the same at every scale")
    figures: dict[FigureName, Figure] = {}
    claims: dict[FigureName, Claim] = {}


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
        description="Standard deviation of a ratio of 50 % over training seeds, in points",
    )
    rules: dict[str, Rule] = {}
    experiments: dict[str, dict[str, Rule]] = Field(
        {}, description="Rules of single experiments, which replace the general ones"
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
    results: str = Field("results", description="Folder for everything the workflow writes")
    cache: str = Field("data", description="Folder for downloaded and supplied data")
    threads: int = Field(1, ge=1, description="CPU threads of a training or sampling job")
    gallery: int = Field(64, ge=1, description="Samples per evaluation kept as pictures")


def flatten(recipe: BaseModel) -> dict[str, Any]:
    """Dotted names and values of nested settings: {"data.size": 1000, ...}."""
    groups = recipe.model_dump()
    return {f"{name}.{key}": value for name, keys in groups.items() for key, value in keys.items()}


def nested(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Dotted settings by group, the inverse of `flatten`."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        group, key = name.split(".")
        groups.setdefault(group, {})[key] = value
    return groups


DEFAULTS = flatten(Recipe())
TEXTS = ("data.dataset", "data.path", "model.skip_mask")  # also when they look like numbers


def parse_recipe(settings: Mapping[str, Any], where: str) -> Recipe:
    """Validated Recipe from dotted settings; UserError names `where`, key and allowed values."""
    for name in settings:
        if name not in DEFAULTS:
            raise UserError(f"{where}: unknown setting {name!r}{suggestion(name, DEFAULTS)}")
    return parse(Recipe, nested(settings), where)


def parse(model: type[M], content: Any, where: str) -> M:
    """Validate content against a model; the first problem as a one-line UserError."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {_explain(error, model)}") from error


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line from a pydantic error: key, problem, value, and allowed keys for a typo."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"] if part != "[key]") or "content"
    if problem["type"] == "extra_forbidden":
        owner = _model_at(model, problem["loc"][:-1])
        return f"unknown key {key!r}{suggestion(str(problem['loc'][-1]), owner.model_fields)}"
    value = "" if problem["type"] == "missing" else f", not {problem['input']!r}"
    message = problem["msg"].lower().replace("tuple", "list").split(" after validation")[0]
    return f"{key}: {message}{value}{_hint(problem['type'], problem['input'])}"


def _hint(problem: str, value: Any) -> str:
    """What to write instead of a text that is a number, or of a number that should be a text."""
    if problem == "string_type" and type(value) in (int, float):
        return " (write it in quotes)"
    if problem not in ("int_type", "float_type") or not isinstance(value, str):
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    whole = problem == "int_type" and number.is_integer()
    return f" (write {int(number) if whole else number!r}, without quotes)"


def _model_at(model: type[BaseModel], loc: Iterable[int | str]) -> type[BaseModel]:
    """The settings model that a location inside `model` belongs to."""
    for part in loc:
        field = model.model_fields.get(str(part))
        for candidate in _models_in(field.annotation) if field else ():
            model = candidate
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """The end of an error message: the nearest allowed name, or all of them."""
    import difflib

    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; allowed: {', '.join(allowed)}"


def digest(content: Any) -> str:
    """Eight hexadecimal digits that identify a JSON-like value."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def differing(settings: Mapping[str, Any], prefixes: Iterable[str]) -> dict[str, Any]:
    """Settings of some groups (or single settings) that differ from their defaults, sorted."""
    chosen = tuple(prefixes)
    return {
        key: value
        for key, value in sorted(settings.items())
        if any(key == p or key.startswith(p + ".") for p in chosen) and value != DEFAULTS[key]
    }


def from_text(key: str, value: Any) -> Any:
    """The value of a setting that is written as text: JSON, or a plain word; others as they are."""
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value)
    except json.JSONDecodeError:
        return value
    return value if key in TEXTS and type(read) in (int, float) else read  # skip_mask=101


def option(key: str, value: Any) -> str:
    """A setting as a command-line option that `emm` reads back: --set=data.size=1000."""
    text = value if isinstance(value, str) and not _is_json(value) else json.dumps(value)
    return f"--set={key}={text}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True
