"""How long the jobs of a run take on a GPU: its operations over what the GPU does of them."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from emm.data.catalogue import source_info
from emm.given import OPTIMUM, OWN
from emm.limits import NETWORKS
from emm.measure import EPOCHS, GROUPS, HELD_OUT, LEVELS, PROBE_BATCH, PROBES, SPLITS
from emm.plan.gpus import Gpu
from emm.plan.layers import layers
from emm.runs import Evaluation, Run
from emm.sd import STABLE_DIFFUSION, TINY
from emm.spec import DEFAULTS
from emm.train.schedules import epoch_size, stored_size, training_size

BATCH = 256  # images that are sampled at a time
BASIC_LAYERS = 140  # of the basic network, that of DEFAULTS
SELECTION = 500  # products that keeping the nearest of many costs per pair, as on a CPU
DISTANCES = 5e12  # operations per second of exact distances, whatever the precision of networks
CLASSIFIER = 38e3  # operations per pixel of a forward pass of the classifier of features
GIVEN = {"inception": (12e9, 2048), "dinov2": (160e9, 1024)}  # operations of a pass, features
CLASSIFIER_SIZE = 64  # features of the classifier


class Network(NamedTuple):
    """Operations of a forward pass per image, parameters, and layers."""

    operations: float
    parameters: float
    layers: int = 0


SD = Network(0.18e12, 860e6, 391)  # the U-Net at 256x256 pixels
SD_TINY = Network(1.84e8, 253e3, 116)
SD_DECODE, SD_TINY_DECODE = 0.6e12, 7.2e8  # operations of the decoder, per image


def network(settings: Mapping[str, Any]) -> Network:
    """The network of a run; a denoiser of the user's own counts as nothing."""
    if settings["model.arch"] == STABLE_DIFFUSION:
        found = SD_TINY if settings["model.base"] == TINY else SD
        return found._replace(operations=found.operations * _sd_scale(settings))
    if settings["model.arch"] in NETWORKS:
        keys = [key for key in settings if key.startswith("model.")]
        keys += ["data.dataset", "data.resolution"]
        keys += ["labels.kind", "labels.num_classes", "labels.dim"]
        return _network(tuple((key, settings[key]) for key in keys))
    if settings["model.arch"] == OPTIMUM:
        return Network(4.0 * stored_size(settings) * components(settings), 0)
    return Network(0, 0)


def _sd_scale(settings: Mapping[str, Any]) -> float:
    return (settings["data.resolution"] / 256) ** 2


@lru_cache(maxsize=4096)
def _network(items: tuple[tuple[str, Any], ...]) -> Network:
    settings = DEFAULTS | dict(items)
    resolution, channels = _shape(settings)
    found = layers(settings, channels, resolution)
    return Network(
        sum(layer.operations for layer in found),
        sum(layer.parameters for layer in found),
        len(found),
    )


def _shape(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Resolution and channels of the images; 32 pixels and 3 where only the files tell."""
    info = source_info(settings["data.dataset"])
    return settings["data.resolution"] or info.resolution or 32, info.channels or 3


def components(settings: Mapping[str, Any]) -> int:
    """Numbers per image."""
    resolution, channels = _shape(settings)
    return resolution**2 * channels


def step_operations(settings: Mapping[str, Any]) -> float:
    """Operations of a training step: three forward passes per image."""
    return 3 * settings["train.batch_size"] * network(settings).operations


def step_seconds(settings: Mapping[str, Any], gpu: Gpu) -> float:
    """Seconds of a training step."""
    work = step_operations(settings) / gpu.rate(settings["train.precision"])
    return work + relative_layers(settings) * gpu.step_seconds


def relative_layers(settings: Mapping[str, Any]) -> float:
    """Layers of a network over those of the basic one: each is started, however small."""
    return network(settings).layers / BASIC_LAYERS


def training_operations(run: Run) -> float:
    """Operations of a whole training; some steps of Stable Diffusion are of fewer images."""
    if not run.is_trained:
        return 0.0
    filled = training_size(run.settings) / epoch_size(run.settings)
    return run.snapshots[-1] * filled * step_operations(run.settings)


def training_seconds(run: Run, gpu: Gpu) -> float:
    """Seconds of a training, without the starts of its jobs."""
    if not run.is_trained:
        return 0.0
    launches = run.snapshots[-1] * relative_layers(run.settings) * gpu.step_seconds
    return training_operations(run) / gpu.rate(run.settings["train.precision"]) + launches


def sampling_operations(evaluation: Evaluation) -> float:
    """Operations of the samples of all checkpoints of an evaluation."""
    settings = evaluation.settings
    images = settings["eval.num_samples"] * len(evaluation.steps)
    work = passes(settings) * network(settings).operations
    if settings["model.arch"] == STABLE_DIFFUSION:
        decode = SD_TINY_DECODE if settings["model.base"] == TINY else SD_DECODE
        work += decode * _sd_scale(settings)
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
    launches = batches * passes(settings) * _pass_launches(settings, gpu)
    return sampling_operations(evaluation) / gpu.rate(settings["train.precision"]) + launches


def ideals_seconds(evaluation: Evaluation, gpu: Gpu) -> float:
    """Seconds of comparing all checkpoints with ideal denoisers, without the start of the job.

    Both kinds of probes pass the network at all levels of noise; the optimum costs two products
    with the training set, in double precision, and once for all checkpoints.
    """
    settings = evaluation.settings
    if settings["model.arch"] == OWN:
        return 0.0
    images = 2 * PROBES * LEVELS
    batches = math.ceil(images / PROBE_BATCH) * len(evaluation.steps)
    work = len(evaluation.steps) * images * network(settings).operations
    optimum = 4.0 * images * training_size(settings) * components(settings)
    launches = batches * _pass_launches(settings, gpu)
    return (work + 2 * optimum) / gpu.rate(settings["train.precision"]) + launches


def features_seconds(run: Run, gpu: Gpu) -> float:
    """Seconds of training a classifier on a whole source, without the start of the job."""
    resolution, _ = _shape(run.settings)
    images = source_info(run.settings["data.dataset"]).size or stored_size(run.settings)
    return 3 * EPOCHS * images * CLASSIFIER * resolution**2 / gpu.rate("fp32")


def quality_seconds(evaluation: Evaluation, gpu: Gpu, features: str) -> float:
    """Seconds of comparing all samples with held-out images, without the start of the job.

    The features (config.yaml's), five matrices of pairs, of which three are compared in
    each of the halves, and the roots of covariances without each group of either side, for two
    references; a root counts as ten products.
    """
    count, checkpoints = evaluation.settings["eval.num_samples"], len(evaluation.steps)
    resolution, _ = _shape(evaluation.settings)
    own = {"pixels": (0.0, components(evaluation.settings))}
    own["classifier"] = (CLASSIFIER * resolution**2, CLASSIFIER_SIZE)
    operations, size = (GIVEN | own)[features]
    passes = (checkpoints + 2) * count * operations
    pairs = checkpoints * (5 * 2.0 * size + 3 * SPLITS * SELECTION) * count**2
    roots = checkpoints * 3 * GROUPS * 10 * 2.0 * size**3
    return (passes + 2 * (pairs + roots)) / gpu.rate("fp32")


def _pass_launches(settings: Mapping[str, Any], gpu: Gpu) -> float:
    return relative_layers(settings) * gpu.step_seconds / 3


def pass_seconds(settings: Mapping[str, Any], images: int, gpu: Gpu) -> float:
    """Seconds of one pass of the network over a batch of images that are sampled."""
    work = images * network(settings).operations / gpu.rate(settings["train.precision"])
    return work + _pass_launches(settings, gpu)


def scoring_seconds(evaluation: Evaluation, gpu: Gpu) -> float:
    """Seconds of the exact neighbours of all samples, without the start of the job."""
    settings = evaluation.settings
    reference = training_size(settings) * _members(settings)
    pairs = settings["eval.num_samples"] * reference * len(evaluation.steps)
    rate = DISTANCES if gpu.gpu else gpu.rate("fp32")
    return 2.0 * pairs * components(settings) / rate


def criteria_seconds(evaluation: Evaluation, gpu: Gpu) -> float:
    """Seconds of all criteria of copying of all samples, without the start of the job.

    Samples are compared with the training set and among themselves, and once for all checkpoints
    held-out and training images with the training set; keeping the nearest of the pairs costs as
    much as some products more.
    """
    settings = evaluation.settings
    samples, training = settings["eval.num_samples"], training_size(settings)
    pairs = samples * (samples + training) * len(evaluation.steps)
    pairs += training * (training + HELD_OUT)
    rate = DISTANCES if gpu.gpu else gpu.rate("fp32")
    return 2.0 * pairs * (components(settings) + SELECTION) / rate


def twins_seconds(evaluation: Evaluation, gpu: Gpu) -> float:
    """Seconds of comparing twins: exact neighbours and similarities of both networks' samples."""
    return 4 * scoring_seconds(evaluation, gpu)


def _members(settings: Mapping[str, Any]) -> int:
    """Images that a sample is compared with per training image: those of its orbit, and itself."""
    augment, side = settings["train.augment"], 2 * settings["train.shift"] + 1
    if augment == "none":
        return 1
    return (2 if "flip" in augment else 1) * (side**2 if "shift" in augment else 1) + 1
