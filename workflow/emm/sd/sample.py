"""Samples of fine-tuned U-Nets by diffusers' pipeline and DDIM, and reconstructed training images.

Image i has a CPU generator of its own and prompts take turns, so it depends neither on how many
images are asked for nor on where a killed call went on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emm.data.stage import Subset
from emm.diffusion import shards
from emm.diffusion.sampling import load_average, sample_file
from emm.diffusion.shards import is_done
from emm.files import write_arrays
from emm.sd.base import (
    DDIM,
    Base,
    check_resolution,
    decode_latents,
    encode_images,
    encode_prompts,
    load_base,
)
from emm.sd.finetune import autocast
from emm.sd.origin import find_again
from emm.sd.prompts import UNCONDITIONAL, prompts_of, sample_prompts
from emm.spec import Recipe

RECONSTRUCTIONS = "reconstructions.npz"
LARGEST_BATCH = 32  # images of 256x256 at a time, with guidance on a GPU of 40 GB


def write_samples(
    recipe: Recipe,
    subset: Subset,
    files: Mapping[int, Path],
    folder: Path,
    token: str,
    device: torch.device,
    batch_size: int,
    recorded: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write the samples of checkpoints to `folder`, and the reconstructed training images.

    files: of EMA weights by step, in the folder of their run; token: what tells the files of this
    call from others; recorded: what the record of the run says of its base, which has to be the one
    that is found. What an interrupted call left is taken up. Returns the entry of the index for the
    reconstructions.
    """
    run_folder = next(iter(files.values())).parent.parent
    base = load_base(find_again(recipe.model.base, run_folder, recorded).folder, device)
    painter = Painter(base, recipe, subset, batch_size)
    for step, file in files.items():
        path = folder / sample_file(step)
        if not is_done(path, token):
            load_average(base.unet, file, recipe.train.ema)
            shards.write_samples(
                path,
                recipe.eval.num_samples,
                painter.draw,
                token=token,
                batch_size=painter.batch_size,
                labels=painter.labels,
            )
    write_arrays(folder / RECONSTRUCTIONS, {"images": reconstructions(base, subset.images)})
    return {"reconstructions": RECONSTRUCTIONS}


class Painter:
    """Draws the samples of an evaluation with whatever U-Net weights are loaded into `base`."""

    def __init__(self, base: Base, recipe: Recipe, subset: Subset, batch_size: int) -> None:
        check_resolution(base, subset.images.shape[1])
        self.base, self.recipe, self.size = base, recipe, subset.images.shape[1]
        self.batch_size = min(batch_size, LARGEST_BATCH)
        caption, count = recipe.model.caption, recipe.eval.num_samples
        self.prompt = sample_prompts(caption, subset, count)
        prompts = prompts_of(caption, subset.class_names)
        self.prompts = encode_prompts(base, prompts)
        self.unconditional = encode_prompts(base, [UNCONDITIONAL])
        self.pipeline = make_pipeline(base)

    @property
    def labels(self) -> np.ndarray | None:
        """Class that each sample's prompt names, None where all share one prompt."""
        return None if self.recipe.model.caption == "plain" else self.prompt

    def draw(self, start: int, stop: int) -> np.ndarray:
        """Images uint8 (stop - start, H, W, 3) at the positions from start to stop."""
        batches = [self._batch(first) for first in range(start, stop, self.batch_size)]
        return np.concatenate(batches)[: stop - start]

    @torch.inference_mode()
    def _batch(self, first: int) -> np.ndarray:
        """A full batch from an image on; what is beyond the last repeats it (static shapes)."""
        settings = self.recipe.eval
        chosen = np.arange(first, first + self.batch_size).clip(max=len(self.prompt) - 1)
        precision = autocast(self.base.device, self.recipe.train.precision)
        with precision, self.base.unet.register_forward_hook(in_fp32):
            latents = self.pipeline(
                prompt_embeds=self.prompts[torch.from_numpy(self.prompt[chosen])],
                negative_prompt_embeds=self.unconditional.expand(len(chosen), -1, -1),
                height=self.size,
                width=self.size,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                generator=[generator_of(settings.seed + int(index)) for index in chosen],
                output_type="latent",
            ).images
        return decode_latents(self.base, latents)


def generator_of(seed: int) -> torch.Generator:
    """A generator of one image, on the CPU whatever the device."""
    return torch.Generator().manual_seed(seed)


def in_fp32(network: nn.Module, inputs: Any, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Forward hook: outputs in fp32, in which the pipeline guides and steps then.

    Guidance multiplies the rounding of bf16; the latents are in fp32 anyway.
    """
    return tuple(output.float() for output in outputs)


def make_pipeline(base: Base) -> Any:
    """The pipeline of a model, with DDIM and without a safety checker."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=base.unet,
        scheduler=DDIMScheduler.from_config(base.schedule, **DDIM),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def reconstructions(base: Base, images: np.ndarray) -> np.ndarray:
    """What the autoencoder makes of images uint8 (N, H, W, 3), the best that a copy can be."""
    mean, _ = encode_images(base, images)
    return decode_latents(base, mean)
