"""A tiny model and subsets, shared by the tests of this folder. Nothing is downloaded."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from emm.data.sources import load_source
from emm.data.stage import Subset, build_subset
from emm.sd import tiny
from emm.sd.base import Base, load_base
from emm.spec import Recipe, nested

CPU = torch.device("cpu")
SETTINGS = {
    "data.dataset": "digits_rgb",
    "data.size": 10,
    "data.resolution": 32,
    "model.arch": "stable_diffusion",
    "model.base": "tiny",
    "train.lr": 1e-3,
    "train.batch_size": 4,
    "train.accumulation": 2,
    "train.epochs": 2.0,
    "train.warmup_steps": 2,
    "train.lr_schedule": "cosine",
    "train.weight_decay": 1e-6,
    "train.ema": 0.9999,
    "train.ema_ramp": "steps",
    "train.device": "cpu",
    "eval.num_samples": 5,
    "eval.sampler": "ddim",
    "eval.steps": 3,
    "eval.snapshots": 1,
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small kernels on busy cores, and bit-identical results."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def settings() -> dict:
    """Dotted settings of a fine-tuning."""
    return dict(SETTINGS)


@pytest.fixture(scope="session")
def recipe_of():
    """Recipes with other settings: recipe_of(model__caption="class")."""

    def make(**changed) -> Recipe:
        named = {name.replace("__", "."): value for name, value in changed.items()}
        return Recipe.model_validate(nested(SETTINGS | named))

    return make


@pytest.fixture(scope="session")
def digits():
    """Subsets of the digits as paintings of 32 pixels."""
    source = load_source("digits_rgb")

    def make(size: int, **options) -> Subset:
        return build_subset(source, size=size, **{"resolution": 32, **options})

    return make


@pytest.fixture(scope="session")
def folder(tmp_path_factory, digits):
    """Folder of a tiny model whose autoencoder has hardly been fitted."""
    path = tmp_path_factory.mktemp("model") / "base"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "FIT_STEPS", 3)
        tiny.write_tiny(path, digits(10).images, "tests", 0)
    return path


@pytest.fixture
def base(folder) -> Base:
    """The tiny model, loaded."""
    return load_base(folder, CPU)


@pytest.fixture
def quickly(monkeypatch) -> None:
    """Tiny models that are built during a test are hardly fitted."""
    monkeypatch.setattr(tiny, "FIT_STEPS", 3)
