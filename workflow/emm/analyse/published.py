"""Published values: what a paper prints or draws, and which of our runs should give the same."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from emm.analyse.names import SIZE, labelled, plain_text, value_name
from emm.analyse.places import (
    DIFFERENCE,
    EMM,
    OF_NETWORK,
    PARAMETERS,
    SPREAD,
    WITHOUT_EFFECT,
    identity,
)
from emm.documents import Experiment, Scalar
from emm.filters import Row, value_of
from emm.masks import DERIVED, full_mask
from emm.spec import DEFAULTS, Recipe, Settings, differing, parse
from emm.yamlfile import load_yaml

PEAK = "argmax_num_blocks"
RANK, WHICH, MASK, BLOCKS = "model.skip_rank", "eval.epoch", "model.skip_mask", "model.num_blocks"
NETWORK = ("model.", "data.dataset", "labels.kind")  # what decides the size of a network
CARRIED_OUT = (*WITHOUT_EFFECT, "train.precision", "train.accumulation", "eval.snapshots")
SWEPT = {EMM: SIZE, PEAK: BLOCKS}  # the setting that a metric is found along
NAMES = {  # of a metric and its unit in a sentence
    "memorization_ratio": ("memorization ratio", "%"),
    "knn_distance": ("KNN distance", "grey levels"),
    EMM: ("EMM", "images"),
    PARAMETERS: ("network parameters", "million"),
    DIFFERENCE: ("parameters that labels add to the network", "%"),
    "n_samples": ("generated samples", ""),
    "n_mondrian": ("Mondrian samples", ""),
    "n_memorized_mondrian": ("memorized Mondrian samples", ""),
    SPREAD: ("standard deviation of the memorization ratio over seeds", "points"),
    PEAK: ("residual blocks per level with the highest memorization ratio", ""),
}
EXTREMES = {"max": "highest ", "min": "lowest ", None: ""}


class Published(Settings):
    """One published number."""

    id: str
    figure: str = Field(description="Figure, table or section where it stands")
    metric: Literal[
        "memorization_ratio",
        "knn_distance",
        "emm",
        "parameters_million",
        "parameters_difference_percent",
        "memorization_ratio_sd",
        "argmax_num_blocks",
        "n_samples",
        "n_mondrian",
        "n_memorized_mondrian",
    ]
    value: float
    uncertainty: float = Field(ge=0, description="Half width; 0 is as printed")
    provenance: Literal["paper-table", "paper-text", "digitised"]
    run: dict[str, Scalar | list[Scalar]] = Field(description="What differs from the defaults")
    relation: Literal["approx", "in", ">", ">=", "<", "<="] | None = None
    low: float | None = None
    high: float | None = None
    interpreted: bool = Field(False, description="low and high are our reading of a wording")
    seeds: int = Field(1, ge=1, description="Training seeds that it is the mean or the spread of")
    over: Literal["max", "min"] | None = Field(None, description="Which of several runs is meant")
    same_as: str | None = None
    note: str = ""

    @property
    def is_range(self) -> bool:
        """Whether the paper gives a relation, so that a range is as good as the value."""
        return self.low is not None and self.high is not None

    @property
    def statement(self) -> str:
        """What the number is: "memorization ratio at |D| = 1k, weight decay 0.01, %"."""
        name, unit = NAMES[self.metric]
        parts = [_words(key, value) for key, value in self.run.items() if not self._implied(key)]
        at = f" at {', '.join(parts)}" if parts else " of the basic run"
        return f"{EXTREMES[self.over]}{name}{at}{f', {unit}' if unit else ''}"

    def _implied(self, key: str) -> bool:
        return key == "labels.num_classes" and self.run.get("labels.kind") != "random"


class Source(Settings):
    """A file of published values: the paper, the settings it leaves unsaid, and its numbers."""

    source: str = Field(description="Short name of the paper")
    cited: str = Field(description="How experiments cite it")
    title: str
    defaults: dict[str, Scalar | list[Scalar]]
    values: list[Published]

    @cached_property
    def told(self) -> frozenset[str]:
        """All settings that the paper speaks of."""
        return frozenset(self.defaults).union(*(value.run for value in self.values))


def load_published(path: Path) -> Source:
    """A file of published values, validated."""
    return parse(Source, load_yaml(path), str(path))


def cites(experiment: Experiment, source: Source) -> bool:
    """Whether an experiment is of the paper, by the `source` that it names."""
    return experiment.source.startswith(source.cited)


def matching(value: Published, source: Source, rows: Iterable[Row]) -> list[list[Row]]:
    """Our rows for a published value, one list per run; those of a list differ in seeds only.

    For a metric that is found along a setting, one list holds the rows along it. What the paper
    does not say is free; of several candidates those with the fewest settings off their defaults
    (`off`) are meant, so that variations of our own do not count.
    """
    wanted = _wanted(value, source)
    found = [row for row in rows if all(_agrees(row, *pair, source) for pair in wanted.items())]
    swept = [SWEPT[value.metric]] if value.metric in SWEPT else []
    several = [key for key, content in value.run.items() if isinstance(content, list)]
    families = _alike(found, [*swept, *several, *([MASK] if _describes_mask(value) else [])])
    families.sort(key=lambda rows: off(rows[0], value, source))
    return _alike(families[0] if families else [], swept)


def off(row: Row, value: Published, source: Source) -> int:
    """How many of the settings that a paper leaves open for a value differ from their defaults."""
    return len(differing(row.published, Recipe.model_fields).keys() - _wanted(value, source).keys())


def varies(row: Row, recipe: Mapping[str, Any], source: Source) -> bool:
    """Whether a row differs from its recipe in what the paper nowhere speaks of.

    Seeds, and how a training is carried out, make no other experiment.
    """
    base, own = DEFAULTS | recipe, row.published
    changed = {key for key in own if own[key] != base[key] and not key.endswith(".seed")}
    if own["train.iterations"] is not None:
        changed.discard("train.epochs")  # follow from the steps and the size
    return not changed <= {*source.told, *CARRIED_OUT}


def _alike(rows: Iterable[Row], free: Sequence[str]) -> list[list[Row]]:
    """Rows that agree in all settings but seeds and the free ones."""
    alike: dict[Any, list[Row]] = {}
    for row in rows:
        alike.setdefault(tuple(identity(row, free).items()), []).append(row)
    return list(alike.values())


def _wanted(value: Published, source: Source) -> dict[str, Any]:
    """The settings that a row has to have."""
    wanted = source.defaults | value.run
    left_out = {RANK, WHICH, SWEPT.get(value.metric)}
    if wanted["labels.kind"] != "random":
        left_out.add("labels.num_classes")
    if _describes_mask(value):
        left_out.add(MASK)
    return {
        key: content
        for key, content in wanted.items()
        if key not in left_out
        and not key.endswith(".seed")
        and (value.metric not in OF_NETWORK or key.startswith(NETWORK))
    }


def _agrees(row: Row, key: str, wanted: Any, source: Source) -> bool:
    found = value_of(row, key)
    if key == MASK:
        full = full_mask(row.published)
        return found in ("all", full) if wanted == source.defaults[MASK] else found == wanted
    if found is None:
        return key not in DERIVED and wanted == source.defaults.get(key)
    if isinstance(found, tuple):
        return found == tuple(wanted)
    return found in wanted if isinstance(wanted, list) else found == wanted


def _words(key: str, value: Any) -> str:
    """A setting in a sentence."""
    if isinstance(value, list) and not isinstance(DEFAULTS.get(key), tuple):
        return " or ".join([_words(key, value[0]), *(value_name(key, v) for v in value[1:])])
    return plain_text(labelled(key, tuple(value) if isinstance(value, list) else value))


def _describes_mask(value: Published) -> bool:
    return any(key in DERIVED for key in value.run)
