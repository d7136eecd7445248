"""What is computed: runs, their evaluations, and the lines of experiments that ask for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from emm.given import given_files, is_trained
from emm.ids import dummy_settings, features_id, source_id, subset_id
from emm.train.schedules import evaluated_steps


@dataclass(frozen=True)
class Evaluation:
    """How the checkpoints of one run are sampled. Content-addressed beside its run."""

    id: str
    run_id: str
    settings: Mapping[str, Any]

    @property
    def steps(self) -> tuple[int, ...]:
        """Training steps whose checkpoints are sampled, ascending."""
        return tuple(evaluated_steps(self.settings))


@dataclass
class Run:
    """One training: what decides it (settings) and what is recorded for its evaluations."""

    id: str
    settings: Mapping[str, Any]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    experiments: set[str] = field(default_factory=set)

    @property
    def epochs(self) -> float:
        """Length of the longest evaluation that is asked for."""
        return max(e.settings["train.epochs"] for e in self.evaluations.values())

    @property
    def ema(self) -> list[float]:
        """EMA rates that are tracked."""
        return sorted({e.settings["train.ema"] for e in self.evaluations.values()})

    @property
    def recordings(self) -> list[str]:
        """Length and snapshots of each evaluation, as `emm train --record` takes them."""
        settings = (e.settings for e in self.evaluations.values())
        return sorted({f"{all_digits(s['train.epochs'])}:{s['eval.snapshots']}" for s in settings})

    @property
    def snapshots(self) -> list[int]:
        """Steps whose EMA weights are kept."""
        return sorted({step for e in self.evaluations.values() for step in e.steps})

    @property
    def is_optimum(self) -> bool:
        """Whether the run is the closed-form optimum, which needs no training."""
        return self.settings["model.arch"] == "optimum"

    @property
    def is_trained(self) -> bool:
        """Whether the run trains a network of its own."""
        return is_trained(self.settings)

    @property
    def takes_gpu(self) -> bool:
        """Whether its jobs ask for a GPU: unless it is told to stay on the CPU."""
        return self.settings["train.device"] != "cpu"

    @property
    def given(self) -> list[str]:
        """Files of others that its network comes from: weights, or the code of a denoiser."""
        return given_files(self.settings)

    @cached_property
    def subset_id(self) -> str:
        """Id of the training set."""
        return subset_id(self.settings)

    @cached_property
    def source_id(self) -> str:
        """Id of the data source."""
        return source_id(self.settings)

    @cached_property
    def features_id(self) -> str:
        """Id of the features that images of its source are compared by."""
        return features_id(self.settings)

    @cached_property
    def dummy_id(self) -> str | None:
        """Id of the source of its dummies; None without dummies."""
        settings = dummy_settings(self.settings)
        return source_id(settings) if settings else None


@dataclass(frozen=True)
class Row:
    """One line of an experiment: the settings as published and at the scale, and their ids."""

    experiment: str
    published: Mapping[str, Any]
    settings: Mapping[str, Any]
    run_id: str
    evaluation_id: str

    @property
    def key(self) -> str:
        """Name of its evaluation in result tables."""
        return f"{self.run_id}/{self.evaluation_id}"


def all_digits(value: float) -> str:
    """All digits of a number: 40000, 0.5."""
    return repr(value).removesuffix(".0")
