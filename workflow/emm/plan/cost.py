"""How long the jobs of a run take on a GPU: its operations over what the GPU does of them."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from emm.data.catalogue import source_info
from emm.given import OPTIMUM, OWN
from emm.limits import UNETS
from emm.plan.gpus import Gpu
from emm.plan.layers import layers
from emm.runs import Evaluation, Run
from emm.sd import STABLE_DIFFUSION
from emm.spec import DEFAULTS
from emm.train.schedules import training_size

BATCH = 256  # images that are sampled at a time
SD_PASS, SD_DECODE = 0.18e12, 0.6e12  # operations at 256x256 pixels: the U-Net, the decoder
SD_PARAMETERS = 860e6
DISTANCES = 5e12  # operations per second of exact distances, whatever the precision of networks


class Network(NamedTuple):
    """Operations of a forward pass per image, and parameters."""

    operations: float
    parameters: float


def network(settings: Mapping[str, Any]) -> Network:
    """The network of a run; a denoiser of the user's own counts as nothing."""
    if settings["model.arch"] == STABLE_DIFFUSION:
        scale = (settings["data.resolution"] / 256) ** 2
        return Network(SD_PASS * scale, SD_PARAMETERS)
    if settings["model.arch"] in UNETS:
        keys = [key for key in settings if key.startswith("model.")]
        keys += ["data.dataset", "data.resolution", "labels.num_classes"]
        return _network(tuple((key, settings[key]) for key in keys))
    if settings["model.arch"] == OPTIMUM:
        return Network(4.0 * training_size(settings) * components(settings), 0)
    return Network(0, 0)


@lru_cache(maxsize=4096)
def _network(items: tuple[tuple[str, Any], ...]) -> Network:
    settings = DEFAULTS | dict(items)
    resolution, channels = _shape(settings)
    found = layers(settings, channels, resolution)
    return Network(
        sum(layer.operations for layer in found), sum(layer.parameters for layer in found)
    )


def _shape(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Resolution and channels of the images; 32 pixels and 3 where only the files tell."""
    info = source_info(settings["data.dataset"])
    return settings["data.resolution"] or info.resolution or 32, info.channels or 3


def components(settings: Mapping[str, Any]) -> int:
    """Numbers per image."""
    resolution, channels = _shape(settings)
    return resolution**2 * channels


def training_operations(run: Run) -> float:
    """Operations of a whole training: three forward passes per image."""
    if not run.is_trained:
        return 0.0
    images = run.snapshots[-1] * run.settings["train.batch_size"]
    return 3 * images * network(run.settings).operations


def training_seconds(run: Run, gpu: Gpu) -> float:
    """Seconds of a training, without the starts of its jobs."""
    if not run.is_trained:
        return 0.0
    steps = run.snapshots[-1] * gpu.step_seconds
    return training_operations(run) / gpu.rate(run.settings["train.precision"]) + steps


def sampling_operations(evaluation: Evaluation) -> float:
    """Operations of the samples of all checkpoints of an evaluation."""
    settings = evaluation.settings
    images = settings["eval.num_samples"] * len(evaluation.steps)
    work = passes(settings) * network(settings).operations
    if settings["model.arch"] == STABLE_DIFFUSION:
        work += SD_DECODE * (settings["data.resolution"] / 256) ** 2
    return images * work


def passes(settings: Mapping[str, Any]) -> int:
    """Passes of the network per sample: Heun's method takes two per step but the last."""
    steps = settings["eval.steps"]
    if settings["eval.sampler"] == "heun":
        return 2 * steps - 1
    guided = settings["model.arch"] == STABLE_DIFFUSION and settings["eval.guidance"] != 1
    return 2 * steps if guided else steps


def sampling_seconds(evaluation: Evaluation, gpu: Gpu) -> float:
    """Seconds of sampling all checkpoints, without the start of the job."""
    settings = evaluation.settings
    if settings["model.arch"] == OWN:
        return 0.0
    batches = math.ceil(settings["eval.num_samples"] / BATCH) * len(evaluation.steps)
    launches = batches * passes(settings) * gpu.step_seconds / 3
    return sampling_operations(evaluation) / gpu.rate(settings["train.precision"]) + launches


def scoring_seconds(evaluation: Evaluation, gpu: Gpu) -> float:
    """Seconds of the exact neighbours of all samples, without the start of the job."""
    settings = evaluation.settings
    pairs = settings["eval.num_samples"] * training_size(settings) * len(evaluation.steps)
    rate = DISTANCES if gpu.gpu else gpu.rate("fp32")
    return 2.0 * pairs * components(settings) / rate
