"""Measures: what else is measured of an evaluation's checkpoints or samples, beside its scores."""

from collections.abc import Mapping
from typing import Any

AFTER = {  # by measure: the stage whose output it takes
    "ideals": "train",
    "criteria": "sample",
    "quality": "sample",
    "twins": "sample",
}
MEASURES = tuple(AFTER)
DETERMINISTIC = ("heun", "ddim")  # samplers whose samples are a function of their first noise
LEVELS = 14  # of noise, at which denoisers are compared
PROBES = 128  # noisy images of each kind and level
PROBE_BATCH = 64
GIVEN_FEATURES = ("inception", "dinov2")  # networks whose weights the user has
FEATURES = ("classifier", "pixels", *GIVEN_FEATURES)
EPOCHS = 40  # of the classifier whose features are compared
GROUPS = 20  # of images, each left out once for an interval
SPLITS = 40  # of images into halves, for an interval of measures of neighbours
HELD_OUT = 10_000  # images at most that calibrate criteria of copies
NEIGHBOURS = 5  # k of the balls, as Naeem et al. 2020 choose it
LEAST = 2 * (NEIGHBOURS + 2)  # images of each side: in halves a neighbourhood is not everything
PERCENTS = tuple(range(10, 100, 10))  # thresholds of d1/d2 at which criteria count copies
NEAREST = 50  # training images of a relative distance (Carlini et al. 2023, Section 5.1)


def is_measured(measure: str, settings: Mapping[str, Any]) -> bool:
    """Whether a measure is of an evaluation with these settings, where an experiment has it.

    Twins are compared once, for the second of both.
    """
    return measure != "twins" or settings["data.part"] == 2


def unmeasurable(measure: str, settings: Mapping[str, Any]) -> str:
    """Why a measure means nothing of an evaluation with these settings; empty where it does."""
    augment, sampler = settings["train.augment"], settings["eval.sampler"]
    if measure in ("criteria", "twins") and augment != "none":
        return f"train.augment {augment}: images that were moved would count as new; take none"
    if measure == "twins" and sampler not in DETERMINISTIC:
        return (
            f"eval.sampler {sampler}: adds noise at every step, so that samples do not follow from "
            f"the first; use {' or '.join(DETERMINISTIC)}"
        )
    if measure == "quality" and settings["data.dummy_size"] and settings["eval.label"] != "data":
        return "samples of a training with dummies are of both; take eval.label: data"
    if measure == "quality" and settings["eval.num_samples"] < LEAST:
        return f"eval.num_samples {settings['eval.num_samples']}: it takes {LEAST}"
    if measure == "ideals" and settings["model.base"]:
        return "ideals are those of pixels, and this network is of latents"
    return ""


def twin_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the run whose network is the twin of one of data.part 2: trained on part 1."""
    return {**settings, "data.part": 1}
