"""Repetitions of an experiment with other seeds: what they draw anew, and which have their own.

A repetition draws everything anew that is drawn: the subset where it is random, random labels,
initialisation with data order and noise, and the noise of the samples. Networks that were trained
on the same images make nearly the same samples of the same noise (Zhang et al. 2024), so with
shared noise the error of the sampling would not show in the spread.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from emm.documents import Experiment
from emm.expansion import values_of

STEPS = {  # from a repetition to the next; image i of a sampling has seed eval.seed + i
    **{"data.seed": 1, "labels.seed": 1, "train.seed": 1},
    **{"eval.seed": 1_000_000},
}


def repetitions(experiment: Experiment, seeds: int) -> range:
    """Numbers of the repetitions: 0 is as published, and the only one where seeds are swept."""
    return range(1 if sweeps_seeds(experiment) else seeds)


def sweeps_seeds(experiment: Experiment) -> bool:
    """Whether the runs of an experiment differ in a seed already."""
    found: dict[str, set[Any]] = {}
    for key, value in _seeds(experiment):
        found.setdefault(key, set()).add(value)
    return any(len(values) > 1 for values in found.values())


def _seeds(experiment: Experiment) -> Iterator[tuple[str, Any]]:
    for item in experiment.runs:
        for key, content in item.items():
            if key in STEPS:
                yield from ((key, value) for value in values_of(key, content))


def repeated(settings: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Settings of a repetition; number 0 leaves them as they are."""
    if not number:
        return dict(settings)
    return dict(settings) | {key: settings[key] + number * by for key, by in STEPS.items()}
