"""Schedules of a training in images, steps and epochs; plain Python, no torch.

Published rules count in thousands of images with floors (behaviour of the papers' code): the
ramps of learning rate and EMA, and the distance between snapshots. None of them depends on the
length of the training, so a shorter run is a prefix of a longer one.
"""

import math
from collections.abc import Mapping
from typing import Any

from emm.data.catalogue import repeated_images
from emm.errors import UserError
from emm.given import is_trained
from emm.sd import STABLE_DIFFUSION

PUBLISHED_EMA = 0.99929
EMA_HALF_LIFE = 500_000  # images; 0.5 ** (512 / 500_000) is the published 0.99929
PUBLISHED_BATCH = 512  # the default EMA counts 512 images per step, whatever the batch
PUBLISHED_RAMP = 200  # epochs
LOG_SNAPSHOTS = 12
SNAPSHOT_IMAGES = 50_000  # an "epoch" of the published snapshot cadence


def total_steps(epochs: float, size: int, batch_size: int) -> int:
    """Steps of a training of `epochs` passes over `size` images: the last batch is a whole one."""
    return math.ceil(epochs * size / batch_size - 1e-6)  # epochs of whole steps are rounded


def epoch_of(step: int, size: int, batch_size: int) -> float:
    """Passes over the training set after `step` steps."""
    return step * batch_size / size


def warmup_factor(images: int, size: int, warmup_epochs: float) -> float:
    """Learning-rate factor after `images` seen: linear over the warm-up, 0 at the first step.

    As published the warm-up is 1000 * floor(size / 5) images, which is 200 epochs.
    """
    ramp = 5 * max(size // 5, 1) * warmup_epochs
    return min(images / ramp, 1.0) if ramp else 1.0


def ema_rate(rate: float, images: int, size: int, batch_size: int, warmup_epochs: float) -> float:
    """EMA decay of one step, for a final rate per step, after `images` were seen before it.

    The half-life grows with the epochs until the ramp ends; the first step has decay 0. A final
    rate other than the published one scales the same ramp and counts the true batch (Table 2 of
    Gu et al. 2023).
    """
    batch = PUBLISHED_BATCH if rate == PUBLISHED_EMA else batch_size
    ramp_images = _floored_hundredth(size) * 100 * PUBLISHED_RAMP
    stretch = PUBLISHED_RAMP / warmup_epochs if warmup_epochs else math.inf
    progress = min(images * stretch / ramp_images, 1.0) if images else 0.0
    half_life = EMA_HALF_LIFE * progress * ramp_images / (size * PUBLISHED_RAMP)
    ramp = 0.5 ** (batch / half_life) if half_life else 0.0
    return ramp if rate == PUBLISHED_EMA else rate / PUBLISHED_EMA * ramp


def check_ema(rate: float, size: int, batch_size: int, warmup_epochs: float) -> None:
    """UserError where `ema_rate` ends at 1 or more: the average would run away."""
    last = ema_rate(rate, 2**62, size, batch_size, warmup_epochs)
    if last >= 1:
        raise UserError(
            f"train.ema {rate}: with train.ema_ramp epochs and train.batch_size {batch_size} the "
            f"rate would end at {last:.6f}; use a smaller one, or ema_ramp steps or none"
        )


def _floored_hundredth(size: int) -> float:
    """size / 100 with the published floor; below 100 images, where the floor is 0, without it."""
    return size // 100 if size >= 100 else size / 100


def annealed(schedule: str, step: int, steps: int, warmup_steps: int = 0) -> float:
    """Learning-rate factor of step 0, 1, .. of `steps`, which falls to 0 unless constant.

    It falls from the end of the warm-up on, as diffusers has it.
    """
    part = max(step - warmup_steps, 0) / max(steps - warmup_steps, 1)
    return {
        "constant": 1.0,
        "linear": 1 - part,
        "cosine": (1 + math.cos(math.pi * part)) / 2,
    }[schedule]


def snapshot_steps(snapshots: str | int, epochs: float, size: int, batch_size: int) -> list[int]:
    """Steps whose EMA weights are evaluated, ascending; the last is the end of the training.

    "published": every 50 * ceil(50000 / batch) * batch images (2,508,800 at batch 512); "log": the
    end and before it sqrt(2) fold fewer each time, 12 in all; "log18": 18; a number: so many,
    evenly spaced.
    """
    last = total_steps(epochs, size, batch_size)
    if str(snapshots).startswith("log"):
        count = int(str(snapshots)[3:] or LOG_SNAPSHOTS)
        return sorted({math.ceil(last * 2.0 ** -(index / 2)) for index in range(count)})
    if snapshots == "published":
        every = 50 * math.ceil(SNAPSHOT_IMAGES / batch_size)
        return sorted({*range(every, last + 1, every), last})
    count = min(int(snapshots), last)
    return sorted({math.ceil(last * index / count) for index in range(1, count + 1)})


def evaluated_steps(settings: Mapping[str, Any]) -> list[int]:
    """The `snapshot_steps` of a run and an evaluation, given as dotted settings.

    A run that trains nothing has the step 0.
    """
    if not is_trained(settings):
        return [0]
    keys = ("eval.snapshots", "train.epochs")
    batch_size = settings["train.batch_size"]
    return snapshot_steps(*(settings[key] for key in keys), epoch_size(settings), batch_size)


def training_size(settings: Mapping[str, Any]) -> int:
    """Distinct images that a run trains on, dummies included."""
    return settings["data.size"] + settings["data.dummy_size"]


def stored_size(settings: Mapping[str, Any]) -> int:
    """The same with every copy of a repeated image counted."""
    repeated = repeated_images(settings["data.size"], settings["data.duplicated"])
    return training_size(settings) + repeated * (settings["data.copies"] - 1)


def epoch_size(settings: Mapping[str, Any]) -> int:
    """Images that the steps of an epoch count for.

    Copies of repeated images do not lengthen it: runs of as many epochs draw as many images,
    however often some of them stand in the training set.

    Stable Diffusion steps on the incomplete last batch of an epoch too, which counts as a whole
    one: 100 images at batch 64 are 2 steps.
    """
    size, batch_size = training_size(settings), settings["train.batch_size"]
    partial = settings["model.arch"] == STABLE_DIFFUSION
    return math.ceil(size / batch_size) * batch_size if partial else size


def epoch_at(step: int, settings: Mapping[str, Any]) -> float:
    """`epoch_of` a run, given as dotted settings."""
    return epoch_of(step, epoch_size(settings), settings["train.batch_size"])


def respaced(steps: int, spacing: str) -> list[int]:
    """Ascending steps 0..steps-1 that are kept.

    spacing: a number N of steps spread evenly from the first to the last, or "ddimN", every
    k-th step from 0 with the k that gives N of them. Raises UserError where there is none.
    """
    number = spacing.removeprefix("ddim")
    count = int(number) if number.isdecimal() else 0
    if not 1 <= count <= steps:
        raise UserError(f"spacing {spacing!r}: use a number from 1 to {steps}, or ddim and one")
    if not spacing.startswith("ddim"):
        gap = (steps - 1) / (count - 1) if count > 1 else 0
        return [round(index * gap) for index in range(count)]
    for stride in range(1, steps + 1):
        kept = range(0, steps, stride)
        if len(kept) == count:
            return list(kept)
    raise UserError(f"spacing {spacing!r}: no stride keeps {count} of {steps} steps")
