"""A model in the form of Stable Diffusion that is built here, without downloads.

For the quick scale and the tests: all parts and files of the real one, a thousandth of its size.
Its U-Net and its text encoder have random weights, so that nothing is known before the training;
its autoencoder is fitted for a moment to the training images, or the ratio in pixels would say
nothing. Letters are its tokens.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emm.diffusion.precondition import to_unit
from emm.files import write_text
from emm.sd.base import require_extra
from emm.sd.limits import FACTOR
from emm.seeds import derive
from emm.train.flat import Adam, FlatParameters

FIT_STEPS, FIT_LR = 250, 0.012
FIT_BATCH, FIT_SIDE = 8, 32  # images, and pixels of the part that is seen at a time
KL_WEIGHT = 2.5e-5  # per latent; keeps the posterior's spread small beside that of the latents
START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH, WIDTH = 77, 32  # of prompts in tokens; of their hidden states
SCHEDULE = {  # of Stable Diffusion
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
MARK = "fitted.txt"


def write_tiny(folder: Path, images: np.ndarray, identity: str, seed: int) -> None:
    """Write a tiny model for training images uint8 (N, H, W, 3), unless that is done.

    identity: what it belongs to; the model of another training is replaced. Takes seconds.
    """
    mark = folder / MARK
    if mark.is_file() and mark.read_text(encoding="utf-8") == identity:
        return
    require_extra()
    torch.manual_seed(derive(seed, "tiny"))
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    vae, tokenizer = _autoencoder(), _tokenizer()
    fit(vae, images, seed, FIT_STEPS)
    parts = {
        "tokenizer": tokenizer,
        "text_encoder": _text_encoder(tokenizer),
        "vae": vae,
        "unet": _unet(),
        "scheduler": _scheduler(),
    }
    for name, part in parts.items():
        part.save_pretrained(partial / name)
    write_text(partial / MARK, identity)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def _tokenizer() -> Any:
    """Bytes as tokens, in the alphabet of CLIP's tokenizer, inside and at the end of a word."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LENGTH)


def _text_encoder(tokenizer: Any) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _autoencoder() -> nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
    )


def _unet() -> nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=1,  # of the heads, in spite of its name, there is one
        cross_attention_dim=WIDTH,
    )


def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(**SCHEDULE)


def fit(vae: nn.Module, images: np.ndarray, seed: int, steps: int) -> None:
    """Fit an autoencoder to square parts of images in place; its latents get unit variance.

    Squared error of the reconstruction and a weak pull of the posterior to the standard normal.
    """
    clean = to_unit(torch.from_numpy(images).permute(0, 3, 1, 2))
    flat = FlatParameters(vae)
    optimizer = Adam(flat.values, weight_decay=0.0)
    generator = torch.Generator()
    for step in range(steps):
        generator.manual_seed(derive(seed, "autoencoder", step))
        batch = _parts(clean, generator)
        posterior = vae.encode(batch).latent_dist
        found = vae.decode(posterior.sample(generator)).sample
        pull = KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        gradient = flat.differentiate(nn.functional.mse_loss(found, batch) + pull)
        gradient /= gradient.norm().clamp(min=1.0)
        optimizer.step(gradient, FIT_LR * (1 - step / steps))
    with torch.no_grad():
        spread = vae.encode(clean).latent_dist.mean.std().item()
    vae.register_to_config(scaling_factor=1 / max(spread, 1e-6))


def _parts(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A batch of random images, cut to one random square that starts at a whole latent."""
    chosen = torch.randint(len(clean), (FIT_BATCH,), generator=generator)
    places = max(clean.shape[-1] - FIT_SIDE, 0) // FACTOR + 1
    top, left = (FACTOR * torch.randint(places, (2,), generator=generator)).tolist()
    return clean[chosen, :, top : top + FIT_SIDE, left : left + FIT_SIDE]
