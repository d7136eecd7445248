"""What a fine-tuning can be, in plain Python: asked when a run is planned."""

from collections.abc import Mapping
from typing import Any

from emm.data.catalogue import SourceInfo
from emm.errors import UserError
from emm.sd import STABLE_DIFFUSION
from emm.spec import DEFAULTS

FACTOR = 8  # pixels per latent of the autoencoder, in height and width
HEEDED = {f"model.{key}" for key in ("arch", "base", "caption")}
UNHEEDED = {
    "train.order",  # a new one for each epoch, of which the last batch may be incomplete
    *("eval.sigma_max", "eval.sigma_min", "eval.rho", "eval.label", "eval.rounding"),
}


def check(settings: Mapping[str, Any], info: SourceInfo) -> None:
    """UserError for dotted settings of Stable Diffusion that do not fit together.

    info: the entry of the run's source. Other networks pass, unless they are given a base.
    """
    base, arch = settings["model.base"], settings["model.arch"]
    if arch != STABLE_DIFFUSION:
        if base is not None:
            raise UserError(f"model.base: goes with model.arch stable_diffusion, not {arch}")
        return
    if base is None:
        raise UserError(
            "model.base: needed with model.arch stable_diffusion; name a folder or a model of the "
            "hub, or tiny"
        )
    _check_images(settings, info)
    _check_training(settings)
    if settings["eval.guidance"] < 1:
        raise UserError(
            f"eval.guidance {settings['eval.guidance']:g}: use 1, which is none, or more"
        )


def _check_images(settings: Mapping[str, Any], info: SourceInfo) -> None:
    dataset, resolution = settings["data.dataset"], settings["data.resolution"]
    if info.channels not in (None, 3):
        raise UserError(f"data.dataset {dataset}: Stable Diffusion takes colour images alone")
    if resolution is not None and resolution % FACTOR:
        raise UserError(
            f"data.resolution {resolution}: Stable Diffusion takes multiples of {FACTOR}"
        )
    if settings["model.caption"] == "class" and info.classes == 0:
        raise UserError(f"model.caption class: {dataset} has no classes; use plain")


def _check_training(settings: Mapping[str, Any]) -> None:
    kind, batch, parts = (
        settings[key] for key in ("labels.kind", "train.batch_size", "train.accumulation")
    )
    if kind != "none":
        raise UserError(
            f"labels.kind {kind}: Stable Diffusion is told prompts, by model.caption; use none"
        )
    if settings["train.augment"] != "none":
        raise UserError(
            f"train.augment {settings['train.augment']}: Stable Diffusion is tuned on "
            "latents of the images as they are; use none"
        )
    if batch % parts:
        raise UserError(
            f"train.accumulation {parts}: does not divide train.batch_size {batch} into equal parts"
        )


def unheeded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of the settings that a fine-tuning does not heed."""
    unused = {key for key in DEFAULTS if key.startswith("model.") and key not in HEEDED} | UNHEEDED
    if settings["train.warmup_steps"] and settings["train.ema_ramp"] != "epochs":
        unused.add("train.warmup_epochs")
    return {key: DEFAULTS[key] for key in unused}
