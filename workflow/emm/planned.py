"""Figures as they are planned: their rows, and the caption that follows from these."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from emm.analyse.metrics import OF_FEATURES
from emm.analyse.names import labelled, plain_text, value_name
from emm.documents import Figure
from emm.masks import DERIVED, derived
from emm.runs import Row

KEYS = {  # how a figure is read
    "curve": "Bars and bands: 95 % intervals, or the standard deviation over seeds.",
    "emm": "Dashed: 90 %. A bar at the bottom: the EMM's 95 % interval, below a dotted line at the "
    "EMM; an arrow at the edge: the EMM lies beyond the sizes of the series.",
    "points": "A point per run, with its 95 % interval.",
    "bars": "Each bar with its value and 95 % interval, or standard deviation over seeds.",
    "table": "Bold: the most memorization where the paper marks it. A dash: not run.",
    "grid": "Framed: memorized, the nearest image is less than a third as far as the second.",
    "capacity": "Bars: 95 % intervals. An arrow: beyond the sizes of the series. Dashed: the most "
    "likely power law, arrows as censored points, with the 95 % interval of its exponent, which "
    "holds the scatter about the line.",
    "variance": "Points: standard deviations, bars their 95 % intervals. Dashed: what counting so "
    "many samples makes.",
    "examples": "The first training images of each data set.",
    "levels": "Solid: at held-out images, dotted: at training images. Bands: 95 % intervals.",
    "plane": "A path per training, from its first checkpoint (small) to its last (large), which "
    "has its 95 % intervals.",
    "metrics": "Bars: 95 % intervals, or the standard deviation over seeds.",
    "metrics_table": "A dash: not known.",
    "thresholds": "Solid: samples, dotted: held-out images. Bands: 95 % intervals. Dashed: the "
    "published threshold of 1/3.",
    "onsets": "Bars: 95 % intervals of the sampling and of the course between checkpoints. An "
    "arrow: beyond the checkpoints. Dashed: the most likely power law, arrows as censored points, "
    "with the 95 % interval of its exponent.",
    "windows": "Points with 95 % intervals: the first good step, and the onset of memorization; "
    "shaded between them where samples are good first. A cross: never as good. A triangle: beyond "
    "the checkpoints. A line that reaches the edge: an interval without that end.",
    "twins": "Cosine of images less the mean training image. Bars: 95 % intervals over pairs.",
    "pairs": "Below each other: the same noise, between the training images nearest to each.",
    "paths": "A path per training, from its first checkpoint (small) to its last (large).",
}
FEATURES = {  # that images are compared by, in a caption
    "classifier": "a small classifier that is trained here, on 90 % of the labelled images of the "
    "source, training and held-out images among them",
    "pixels": "pixels, which are the images themselves",
    "inception": "Inception, by the weights that were given",
    "dinov2": "DINOv2, by the weights that were given",
}
DATA = (  # settings that a caption tells of every figure
    *("data.dataset", "data.resolution", "data.only_class", "data.size"),
    *("data.dummy", "data.dummy_size", "model.base"),
)


@dataclass(frozen=True)
class PlannedFigure:
    """A figure with its name and the rows that its experiment has.

    parts: evaluations of its reference line and of the halves of a table, by field name. features:
    what images are compared by, where it shows that.
    """

    name: str
    experiment: str
    figure: Figure
    rows: tuple[Row, ...]
    parts: Mapping[str, tuple[frozenset[str], ...]] = field(default_factory=dict)
    features: str = "classifier"

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the figure in the report."""
        return {"figure": self.name, "shows": self.figure.title}

    @property
    def tables(self) -> tuple[str, ...]:
        """What it is drawn from besides the memorization and EMM tables: tables of measures."""
        return ("ideals",) if self.figure.plot == "levels" else ()

    @property
    def caption(self) -> str:
        """Caption in the report: what is shown and how to read it, and what the paper finds."""
        figure = self.figure
        key = KEYS["emm" if figure.emm else figure.plot]
        asked = (self._as_run, self._features, self._weights)
        lines = (figure.title, figure.source, figure.caption, *asked, key)
        return "\n\n".join(line for line in lines if line)

    @cached_property
    def shared(self) -> dict[str, Any]:
        """Settings of its data and of its filter that all rows share, as run at this scale.

        What is absent (a base model, dummies) is left out, but for a number that is asked for.
        """
        asked, found = self.figure.where, {}
        for name in dict.fromkeys((*DATA, *asked)):
            values = {as_run(row, name) for row in self.rows}
            if (
                len(values) == 1
                and (value := values.pop()) is not None
                and (value or name in asked)
            ):
                found[name] = value
        return found

    @property
    def _as_run(self) -> str:
        """What a caption written for the paper cannot tell, as a scale changes it."""
        texts = (_said(name, value, self.shared) for name, value in self.shared.items())
        text = ", ".join(filter(None, texts))
        return f"As run: {text}." if text else ""

    @property
    def _features(self) -> str:
        """By what, and how many, images are compared; empty where the figure shows no such thing.

        Distances of different features, or of other numbers of images, do not compare.
        """
        figure = self.figure
        if figure.plot != "windows" and not {figure.x, figure.y, *figure.metrics} & OF_FEATURES:
            return ""
        counts = sorted({row.settings["eval.num_samples"] for row in self.rows})
        numbers = " or ".join(f"{count:,}" for count in counts)
        return (
            f"Compared by the features of {FEATURES[self.features]}: {numbers} samples with as "
            "many held-out images, or all samples that there are such images for."
        )

    @property
    def _weights(self) -> str:
        """Which networks of others the figure shows."""
        files = filter(None, (row.settings["model.weights"] for row in self.rows))
        names = ", ".join(dict.fromkeys(f"``{Path(file).name}``" for file in files))
        return f"Sampled here: {names}, which others trained." if names else ""


def as_run(row: Row, name: str) -> Any:
    """A setting of a row at the scale, or what follows from its skip mask."""
    return derived(row.settings)[name] if name in DERIVED else row.settings[name]


def _said(name: str, value: Any, shared: Mapping[str, Any]) -> str:
    """A setting in the words of a caption; empty for what another says."""
    text = value_name(name, value)
    if name == "data.dummy" and "data.dummy_size" in shared:
        return ""
    if name == "data.dummy_size":
        kind = value_name("data.dummy", shared["data.dummy"]) if "data.dummy" in shared else ""
        return f"{text} {kind or 'dummies'}" if value else "no dummies"
    special = {
        "data.resolution": f"{text}×{text} pixels",  # noqa: RUF001
        "data.only_class": f"only the class ``{text}``",
        "data.size": f"{text} training images",
        "train.epochs": f"{text} epochs",
        "model.time_embedding": f"{text} time embedding",
        "model.base": f"base model ``{text}``",
    }
    return special.get(name) or plain_text(labelled(name, value))
