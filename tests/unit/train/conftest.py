"""A tiny training on handwritten digits, shared by the tests of this folder."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emm.data.sources import load_source
from emm.data.stage import Subset, build_subset
from emm.spec import Recipe, nested
from emm.train.device import as_tensors, build_denoiser
from emm.train.loop import Plan, State, train

CPU = torch.device("cpu")
SETTINGS = {
    "data.dataset": "digits",
    "data.resolution": 4,
    "model.channels": 4,
    "model.channel_mult": [1],
    "model.num_blocks": 1,
    "model.attention_levels": [],
    "model.precond": "edm",
    "train.lr": 2e-3,
    "train.batch_size": 4,
    "train.warmup_epochs": 2.0,
    "train.device": "cpu",
}


@dataclasses.dataclass
class Case:
    """What a training of these tests consists of; `run` trains in a folder."""

    recipe: Recipe
    subset: Subset
    plan: Plan

    def run(self, folder: Path, **changed: Any) -> State:
        plan = dataclasses.replace(self.plan, **changed)
        images, labels = as_tensors(self.subset, CPU)
        denoiser = build_denoiser(self.recipe, self.subset, CPU)
        return train(denoiser, images, labels, plan, folder)


@pytest.fixture(scope="session")
def settings() -> dict[str, Any]:
    """Dotted settings of the training."""
    return dict(SETTINGS)


@pytest.fixture(scope="session")
def digits() -> Callable[..., Subset]:
    """Subsets of the digits at 4 pixels."""
    source = load_source("digits")
    return lambda size, **options: build_subset(source, size=size, resolution=4, **options)


@pytest.fixture(scope="session")
def case(digits) -> Callable[..., Case]:
    """Cases with other settings: case(steps, "train.lr"=1.0, ema=..., size=...)."""

    def make(*snapshots: int, size: int = 10, ema=(0.9,), labels: str = "none", **changed) -> Case:
        named = {name.replace("__", "."): value for name, value in changed.items()}
        recipe = Recipe.model_validate(nested(SETTINGS | named))
        plan = Plan("tiny", recipe.train, size, tuple(ema), snapshots)
        return Case(recipe, digits(size, label_kind=labels), plan)

    return make


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Bit-identical results need the same number of threads."""
    torch.set_num_threads(1)
