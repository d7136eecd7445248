"""Fine-tuning of the U-Net on latents and prompts that are computed once.

As diffusers' text-to-image example does it (Gu et al. 2023, Appendix F): a posterior sample of the
autoencoder anew at each exposure, a uniform step of the base's own process, plain squared error of
the noise, AdamW, gradients clipped to norm 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from emm.data.stage import Subset
from emm.sd import TINY
from emm.sd.base import Base, check_resolution, encode_images, encode_prompts, load_base
from emm.sd.origin import Origin, find_base
from emm.sd.prompts import prompts_of, training_prompts
from emm.seeds import derive
from emm.spec import Recipe
from emm.train.loop import repeat
from emm.train.order import DataOrder
from emm.train.state import Plan, State, initial_state

LARGEST_NORM = 1.0
LOSS_SCALES = {"fp32": 1.0, "bf16": 1.0, "fp16": 1024.0}  # static
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Latents:
    """A training set as the U-Net sees it, on its device.

    mean, std: of the latents (N, C, h, w); prompts: hidden states (P, tokens, width);
    prompt: number of the prompt of each image (N,).
    """

    mean: Tensor
    std: Tensor
    prompts: Tensor
    prompt: Tensor


def fine_tune(
    recipe: Recipe,
    subset: Subset,
    plan: Plan,
    folder: Path,
    device: torch.device,
    report: Callable[[int, str], None] = lambda step, text: None,
) -> tuple[State, Origin]:
    """Fine-tune model.base to the end of the plan, resuming from `folder`; see `repeat`.

    Returns also where the model comes from. It is part of the plan's identity (`Origin.identity`):
    a training does not go on with another base than it began with.
    """
    if recipe.model.base == TINY:
        from emm.sd.tiny import write_tiny

        write_tiny(folder / "base", subset.images, plan.identity, recipe.train.seed)
    origin = find_base(recipe.model.base, folder)
    plan = replace(plan, identity=origin.identity(plan.identity))
    base = load_base(origin.folder, device)
    check_resolution(base, subset.images.shape[1])
    latents = encode_subset(base, subset, recipe.model.caption)
    state = initial_state(base.unet, plan, decoupled=True)
    advance = Step(base, latents, plan, len(subset))
    base.unet.train()
    return repeat(advance, state, plan, folder, report), origin


def encode_subset(base: Base, subset: Subset, caption: str) -> Latents:
    """Latents and prompts of a training set, computed once."""
    mean, std = encode_images(base, subset.images)
    prompts = encode_prompts(base, prompts_of(caption, subset.class_names))
    prompt = torch.from_numpy(training_prompts(caption, subset)).to(mean.device)
    return Latents(mean, std, prompts, prompt)


class Step:
    """One update of the U-Net; every draw is seeded by (run seed, purpose, step).

    A batch is computed in parts of batch_size / accumulation images. The mean loss of a part
    counts 1 / accumulation, whatever its size, so that a short last part weighs its images more:
    as accelerate does it.
    """

    def __init__(self, base: Base, latents: Latents, plan: Plan, size: int) -> None:
        from diffusers import DDPMScheduler

        settings, device = plan.settings, base.device
        self.unet, self.latents, self.plan = base.unet, latents, plan
        self.process = DDPMScheduler.from_config(base.schedule)
        self.order = DataOrder(
            size, settings.batch_size, settings.seed, device, shuffled=True, whole=False
        )
        self.part = settings.batch_size // settings.accumulation
        self.generator = torch.Generator(device)
        self.gradient: Tensor | None = None

    def __call__(self, state: State) -> None:
        """Advance the state by one update."""
        settings = self.plan.settings
        self.generator.manual_seed(derive(settings.seed, "noise", state.step))
        torch.manual_seed(derive(settings.seed, "dropout", state.step))
        batch = self.order.batch(state.step)
        gradient, loss = self._gradient(state, batch)
        clip(gradient)
        state.update(self.plan, gradient, loss)

    def _gradient(self, state: State, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of a batch, summed over its parts, and its mean loss."""
        settings = self.plan.settings
        if self.gradient is None:
            self.gradient = torch.zeros_like(state.flat.values)
        gradient, total = self.gradient.zero_(), torch.zeros((), device=batch.device)
        scale = LOSS_SCALES[settings.precision]
        for part in batch.split(self.part):
            loss = self._loss(part)
            gradient += state.flat.differentiate(loss * (scale / settings.accumulation))
            total += loss.detach() * len(part) / len(batch)
        return gradient.div_(scale), total

    def _loss(self, chosen: Tensor) -> Tensor:
        """Mean squared error of the noise that the U-Net finds in some images."""
        mean, std = self.latents.mean[chosen], self.latents.std[chosen]
        draw = {"generator": self.generator, "device": mean.device}
        clean = mean + std * torch.randn(mean.shape, **draw)
        noise = torch.randn(mean.shape, **draw)
        steps = torch.randint(len(self.process.alphas_cumprod), (len(chosen),), **draw)
        prompts = self.latents.prompts[self.latents.prompt[chosen]]
        noisy = self.process.add_noise(clean, noise, steps)
        with autocast(mean.device, self.plan.settings.precision):
            found = self.unet(noisy, steps, prompts).sample
        return nn.functional.mse_loss(found.float(), noise)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context in which the U-Net computes in a precision; its weights stay fp32."""
    dtype = DTYPES[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def clip(gradient: Tensor) -> None:
    """Shorten a gradient to LARGEST_NORM in place; one that is not finite becomes 0."""
    norm = gradient.norm()
    factor = torch.where(norm.isfinite(), (LARGEST_NORM / (norm + 1e-6)).clamp(max=1.0), 0.0)
    torch.nan_to_num_(gradient, nan=0.0, posinf=0.0, neginf=0.0).mul_(factor)
