"""The parts of a Stable Diffusion model (Rombach et al. 2022), from its folder.

Parts lie in the folders of diffusers: tokenizer, text_encoder, vae, unet, scheduler. A safety
checker is never loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emm.diffusion.precondition import to_unit
from emm.errors import UserError

PARTS = ("tokenizer", "text_encoder", "vae", "unet", "scheduler")
IMAGES_AT_A_TIME = 8  # of the autoencoder, whose activations are the largest
DDIM = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}  # as the base's own


@dataclass(frozen=True)
class Base:
    """Parts of a model on a device. The U-Net is trained, the others are frozen.

    schedule: configuration of the noise schedule; folder: what it was loaded from.
    """

    tokenizer: Any
    text_encoder: nn.Module
    vae: nn.Module
    unet: nn.Module
    schedule: dict[str, Any]
    folder: Path

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        return next(self.unet.parameters()).device


def require_extra() -> None:
    """UserError without diffusers and transformers; they say no more than errors from here on."""
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise UserError(
            f"model.arch stable_diffusion: {error.name} is not installed; install the extra: "
            "pip install 'emm[sd]'"
        ) from error
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def require_parts(folder: Path) -> None:
    """UserError for a folder that lacks one of PARTS."""
    for part in PARTS:
        if not (folder / part).is_dir():
            raise UserError(f"{folder}: has no folder {part}; not a Stable Diffusion model")


def load_base(folder: Path, device: torch.device) -> Base:
    """A model from its folder, in fp32 and evaluation mode; UserError if parts do not fit."""
    require_extra()
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    require_parts(folder)
    plain = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    try:
        parts = Base(
            CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
            AutoencoderKL.from_pretrained(folder / "vae", **plain),
            UNet2DConditionModel.from_pretrained(folder / "unet", **plain),
            dict(DDIMScheduler.load_config(folder / "scheduler")),
            folder,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: cannot be loaded ({first_line(error)})") from error
    _check(parts)
    for part in (parts.text_encoder, parts.vae, parts.unet):
        part.requires_grad_(part is parts.unet).eval().to(device)
    return parts


def _check(base: Base) -> None:
    """UserErrors for parts that load without complaint and yet are wrong."""
    known, expected = len(base.tokenizer), base.text_encoder.config.vocab_size
    if known != expected:  # a folder without a vocabulary gives two words
        raise UserError(f"{base.folder}: the tokenizer has {known} tokens, the encoder {expected}")
    kind = base.schedule.get("prediction_type", "epsilon")
    if kind != "epsilon":
        raise UserError(f"{base.folder}: predicts {kind}; only models that predict noise are read")
    latent, width = base.vae.config.latent_channels, base.text_encoder.config.hidden_size
    unet = base.unet.config
    if (unet.in_channels, unet.cross_attention_dim) != (latent, width):
        raise UserError(f"{base.folder}: the U-Net does not fit the autoencoder or the encoder")


def check_resolution(base: Base, resolution: int) -> None:
    """UserError for images that the levels of autoencoder and U-Net cannot halve."""
    levels = len(base.vae.config.block_out_channels) + len(base.unet.config.block_out_channels) - 2
    if resolution % 2**levels:
        raise UserError(
            f"data.resolution {resolution}: {base.folder} needs a multiple of {2**levels}"
        )


@torch.no_grad()
def encode_prompts(base: Base, prompts: Sequence[str]) -> Tensor:
    """Hidden states of the text encoder (P, tokens, width), of prompts that all differ."""
    length = base.text_encoder.config.max_position_embeddings
    padding = {"padding": "max_length", "max_length": length, "truncation": True}
    tokens = base.tokenizer(list(prompts), return_tensors="pt", **padding).input_ids
    if len({tuple(row) for row in tokens.tolist()}) < len(set(prompts)):
        raise UserError(f"{base.folder}: the tokenizer cannot tell the prompts apart")
    return base.text_encoder(tokens.to(base.device))[0]


@torch.no_grad()
def encode_images(base: Base, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (N, C, h, w) of the latents of uint8 images (N, H, W, 3)."""
    parts = []
    for start in range(0, len(images), IMAGES_AT_A_TIME):
        part = torch.from_numpy(images[start : start + IMAGES_AT_A_TIME]).permute(0, 3, 1, 2)
        latents = base.vae.encode(to_unit(part.to(base.device))).latent_dist
        parts.append((latents.mean, latents.std))
    scale = base.vae.config.scaling_factor
    mean, std = (torch.cat(kind) for kind in zip(*parts, strict=True))
    return mean * scale, std * scale


@torch.no_grad()
def decode_latents(base: Base, latents: Tensor) -> np.ndarray:
    """Images uint8 (N, H, W, 3) of latents (N, C, h, w), rounded as diffusers does."""
    scaled = latents.float() / base.vae.config.scaling_factor
    parts = [
        (base.vae.decode(part).sample / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        for part in scaled.split(IMAGES_AT_A_TIME)
    ]
    return torch.cat(parts).permute(0, 2, 3, 1).cpu().numpy()


def first_line(error: Exception) -> str:
    """The first line of an error, for a message of one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
