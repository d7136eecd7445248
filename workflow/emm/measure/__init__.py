"""Measures: what else is measured of an evaluation's checkpoints or samples, beside its scores."""

from collections.abc import Mapping
from typing import Any

AFTER = {"ideals": "train", "twins": "sample"}  # by measure: the stage whose output it takes
MEASURES = tuple(AFTER)
LEVELS = 14  # of noise, at which denoisers are compared
PROBES = 128  # noisy images of each kind and level
PROBE_BATCH = 64


def is_measured(measure: str, settings: Mapping[str, Any]) -> bool:
    """Whether a measure is of an evaluation with these settings, where an experiment has it.

    Twins are compared once, for the second of both.
    """
    return measure != "twins" or settings["data.part"] == 2


def twin_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the run whose network is the twin of one of data.part 2: trained on part 1."""
    return {**settings, "data.part": 1}
