"""Settings of runs, evaluations, experiments, scales and the config: names, defaults, units.

The only place where a setting gets a name and a default. The defaults are the basic run of
Gu et al. 2023 (DDPM++ under VP on CIFAR-10), so a setting that equals its default never enters
an id.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError
from pydantic_core import PydanticCustomError

from emm.errors import UserError

RECIPE_VERSION = 3  # raised when training or sampling code changes results: every run reruns
TENSOR_CORES_VERSION = 1  # the same for trainings in 16 bits alone, which begin anew

Levels = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Strict(False)]
LabelKind = Annotated[
    Literal["none", "constant", "true", "random", "unique", "vectors"],
    BeforeValidator(lambda v: "true" if v is True else v),  # YAML reads a bare true as a boolean
]


M = TypeVar("M", bound=BaseModel)


SNAPSHOTS = r"published|log([1-9]\d?)?"


def _snapshots(value: Any) -> Any:
    named = isinstance(value, str) and re.fullmatch(SNAPSHOTS, value)
    if named or (type(value) is int and value >= 1):
        return value
    allowed = "Input should be 'published', 'log' ('log18' for so many) or an integer from 1"
    raise PydanticCustomError("snapshots", allowed)


Snapshots = Annotated[
    Annotated[str, Field(pattern=f"^({SNAPSHOTS})$")] | Annotated[int, Field(ge=1)],
    BeforeValidator(_snapshots),
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
    only_class: str | None = Field(
        None, description="Name of the one class that is taken; null is all"
    )
    alpha: float | None = Field(
        None, ge=0, le=1, description="Share of the second kind of images, for sources that blend"
    )
    selection: Literal["balanced_prefix", "random"] = Field(
        "balanced_prefix", description="Class-balanced nested prefixes, or a seeded random order"
    )
    part: int = Field(1, ge=1, le=2, description="Which of two disjoint subsets of this size")
    seed: int = Field(0, ge=0, description="Seed of the random selection and of generated sources")
    cross_width: int = Field(1, ge=1, description="Mondrian: width of the cross in pixels")
    cross_position: Literal["random", "centre"] = Field(
        "random", description="Mondrian: where the cross stands"
    )
    cross_margin: int = Field(4, ge=0, description="Mondrian: least distance to the edge, pixels")
    dummy: str | None = Field(
        None, description="Source of dummies, which are added to the training images as a class"
    )
    dummy_size: int = Field(0, ge=0, description="Number of dummies")
    duplicated: float = Field(
        0.0, ge=0, lt=1, description="Share of the training images that are repeated"
    )
    copies: int = Field(
        1, ge=1, description="How often each repeated image stands in the training set"
    )


class Labels(Settings):
    """What the network is told about each image."""

    kind: LabelKind = Field(
        "none",
        description="No labels, one for all images, classes, random, one per image, or one per "
        "image for which a fixed random vector stands",
    )
    num_classes: int = Field(
        0, ge=0, description="Number of label classes; chosen for random, else it follows the data"
    )
    seed: int = Field(1024, ge=0, description="Seed of random labels and of vectors")
    dim: int = Field(128, ge=1, description="Length of the vectors that stand for labels")


class Model(Settings):
    """The denoising network and its preconditioning."""

    arch: Literal["ddpmpp", "ncsnpp", "iddpm", "dit", "stable_diffusion", "optimum", "denoiser"] = (
        Field(
            "ddpmpp",
            description="Network, closed-form optimum of the training set, or your own denoiser",
        )
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
    heads: int = Field(4, ge=1, description="iddpm, dit: heads of each attention")
    groups: int = Field(
        32, ge=1, description="iddpm: groups of each norm; narrow networks need fewer"
    )
    depth: int = Field(12, ge=1, description="dit: transformer blocks")
    patch: int = Field(2, ge=1, description="dit: height and width of a token in pixels")
    window: int | None = Field(
        None,
        ge=1,
        description="dit: side of the square of tokens that each one sees; null is all",
    )
    dropout: float = Field(0.13, ge=0, lt=1, description="Dropout rate in training")
    skip_mask: str = Field(
        "all",
        pattern="^(all|[01]+)$",
        description="A bit per skip connection in encoder order; 0 replaces it by zeros",
    )
    precond: Literal["vp", "ve", "edm", "cosine"] = Field(
        "vp", description="Preconditioning and loss; cosine is the discrete process of iddpm"
    )
    prediction: Literal["preconditioned", "noise", "image", "velocity"] = Field(
        "preconditioned",
        description="What the network predicts; noise levels and input scaling stay those of "
        "model.precond",
    )
    diffusion_steps: int = Field(4000, ge=2, description="Steps of the discrete process")
    weights: str | None = Field(
        None, description="File of weights that others trained; then nothing is trained"
    )
    denoiser: str | None = Field(
        None,
        description="denoiser: your callable (x, sigma, labels), as file.py:name or module:name",
    )
    base: str | None = Field(
        None, description="stable_diffusion: folder or hub name (@revision) that is fine-tuned"
    )
    caption: Literal["plain", "class"] = Field(
        "plain", description="stable_diffusion: one prompt for all images, or one per class"
    )


class Train(Settings):
    """Optimisation. Fields in `recorded` say what is kept of a run, not what it computes."""

    recorded: ClassVar[frozenset[str]] = frozenset({"epochs", "iterations", "ema", "device"})

    lr: float = Field(2e-4, gt=0, description="Learning rate of Adam after warm-up")
    batch_size: int = Field(512, ge=1, description="Images per step")
    epochs: float = Field(40000, gt=0, description="Training length in passes over the subset")
    iterations: int | None = Field(
        None, ge=1, description="Training length in steps, which then decides train.epochs"
    )
    warmup_epochs: float = Field(200, ge=0, description="Ramp of learning rate and EMA, epochs")
    warmup_steps: int = Field(0, ge=0, description="Ramp of the learning rate in steps, instead")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Learning rate after the ramp; others end at 0"
    )
    accumulation: int = Field(
        1, ge=1, description="stable_diffusion: parts of a batch that are computed one by one"
    )
    order: Literal["fixed", "shuffled"] = Field(
        "fixed",
        description="One order for all epochs, or a new one for each and whole batches only",
    )
    weighting: Literal["published", "uniform", "truncated_snr", "min_snr", "edm", "sigmoid"] = (
        Field(
            "published",
            description="Weight of the denoised image's squared error by noise level: that of "
            "model.precond; uniform is the plain squared error of what is predicted",
        )
    )
    augment: Literal["none", "flip", "shift", "flip_shift"] = Field(
        "none",
        description="Each image of a batch is mirrored at random, shifted into black, or both; "
        "samples are compared with all that a training image can become",
    )
    shift: int = Field(2, ge=1, description="Largest shift in each direction, pixels")
    weight_decay: float = Field(0.0, ge=0, description="Coupled L2 penalty of Adam")
    ema: float = Field(0.99929, ge=0, lt=1, description="Final EMA rate per step")
    ema_ramp: Literal["epochs", "steps", "none"] = Field(
        "epochs",
        description="EMA rate before its final value: the half-life grows over the warm-up, "
        "(1 + s) / (10 + s) after s steps, or the final rate from the initial weights on",
    )
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
    sampler: Literal["heun", "ancestral", "ddim"] = Field(
        "heun", description="Sampler; a discrete process takes ancestral or ddim"
    )
    steps: int = Field(18, ge=2, description="Noise levels of the sampler")
    sigma_max: float = Field(80.0, gt=0, description="First noise level, in image units [-1, 1]")
    sigma_min: float | None = Field(
        None, gt=0, description="Last noise level; null is 0.002, and 0.02 under VE"
    )
    rho: float = Field(7.0, gt=0, description="Exponent of the noise levels")
    seed: int = Field(0, ge=0, description="Seed of image 0; image i has seed + i")
    label: Literal["drawn", "trained", "mixed", "mean", "unseen", "data", "dummy"] = Field(
        "drawn",
        description="Labels of the samples: drawn among all, those of drawn training images, means "
        "of two of these, the mean of all, ones that training never saw, or that of the data or of "
        "the dummies",
    )
    rounding: Literal["floor", "round"] = Field(
        "floor", description="Grey levels of a discrete process's samples; floor as published"
    )
    guidance: float = Field(7.5, ge=0, description="stable_diffusion: classifier-free guidance")
    snapshots: Snapshots = Field(
        "published",
        description="Evaluated checkpoints: every 2.5 million images as published, the end and "
        "earlier ones at distances of sqrt(2) for log (12 in all; log18: 18), or so many, evenly "
        "spaced",
    )


class Recipe(Settings):
    """A complete configuration of one training and its evaluation."""

    data: Data = Data()
    labels: Labels = Labels()
    model: Model = Model()
    train: Train = Train()
    eval: Eval = Eval()


def flatten(recipe: BaseModel) -> dict[str, Any]:
    """Dotted names and values of nested settings: {"data.size": 1000, ...}."""
    groups = recipe.model_dump()
    return {f"{name}.{key}": value for name, keys in groups.items() for key, value in keys.items()}


def nested(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Dotted settings by group, the inverse of `flatten`."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        group, key = _parts(name)
        groups.setdefault(group, {})[key] = value
    return groups


@functools.lru_cache
def _parts(name: str) -> tuple[str, str]:
    group, key = name.split(".")
    return group, key


DEFAULTS = flatten(Recipe())
TEXTS = (  # also when they look like numbers
    *("data.dataset", "data.path", "data.only_class", "data.dummy"),
    *("model.skip_mask", "model.weights", "model.denoiser", "model.base"),
)


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
    chosen = among(settings, prefixes)
    return {key: value for key, value in chosen.items() if value != DEFAULTS[key]}


def among(settings: Mapping[str, Any], prefixes: Iterable[str]) -> dict[str, Any]:
    """Settings of some groups, or single settings, sorted."""
    return {key: settings[key] for key in _among(tuple(settings), tuple(prefixes))}


@functools.lru_cache
def _among(keys: tuple[str, ...], prefixes: tuple[str, ...]) -> tuple[str, ...]:
    groups = tuple(f"{prefix}." for prefix in prefixes)
    return tuple(sorted(key for key in keys if key in prefixes or key.startswith(groups)))
