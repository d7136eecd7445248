"""Devices, and a subset and a network on one of them."""

import contextlib
import ctypes
import sys

import torch
from torch import Tensor

from emm import nets
from emm.data.stage import Subset
from emm.devices import take_gpus
from emm.diffusion.discrete import DiscreteDenoiser
from emm.diffusion.precondition import Denoiser
from emm.errors import UserError
from emm.nets.labels import label_vectors
from emm.processes import is_member, local_rank
from emm.seeds import derive
from emm.spec import Recipe


def choose_device(wanted: str) -> torch.device:
    """The device of a job: auto is the GPU if there is one; cuda without a GPU is a UserError.

    Processes that share a training have one each.
    """
    if wanted != "cpu" and not is_member():
        take_gpus()
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError("train.device cuda: no CUDA device is visible; use auto or cpu")
    # Published precision is fp32 throughout; TF32 would be a deviation.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if not available or wanted == "cpu":
        keep_freed_memory()
        return torch.device("cpu")
    if is_member():
        torch.cuda.set_device(local_rank())
    return torch.device("cuda")


def check_precision(precision: str, device: torch.device) -> None:
    """Say so where a GPU has to emulate bf16, which takes longer than fp32."""
    if precision != "bf16" or device.type != "cuda":
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        told = f"{name} has no bf16 and emulates it: train.precision fp16 or fp32 is faster"
        print(told, file=sys.stderr, flush=True)


def keep_freed_memory() -> None:
    """Let the C library reuse freed memory instead of returning it to the system.

    By default glibc maps and unmaps every tensor above 128 KiB, which costs a small network a
    thousand page faults a step. Elsewhere this does nothing.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # glibc's malloc.h
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 1 << 30)
        mallopt(top_pad, 64 << 20)


def as_tensors(subset: Subset, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Images (N, C, H, W) uint8 and labels (N,) int64, None if unconditional, on a device."""
    images = torch.from_numpy(subset.images).permute(0, 3, 1, 2).contiguous().to(device)
    labels = torch.from_numpy(subset.labels).to(device) if subset.label_dim else None
    return images, labels


def build_denoiser(
    recipe: Recipe, subset: Subset, device: torch.device
) -> Denoiser | DiscreteDenoiser:
    """A freshly initialised denoiser for a subset; weights depend on train.seed alone."""
    _, height, width, channels = subset.images.shape
    if height != width:
        raise UserError(f"images of {height}x{width} pixels: networks take square ones")
    check_precision(recipe.train.precision, device)
    torch.manual_seed(derive(recipe.train.seed, "init"))
    network = nets.build(
        recipe.model,
        resolution=height,
        image_channels=channels,
        label_dim=subset.label_dim,
        label_vectors=_vectors(recipe, subset),
    )
    if recipe.model.precond == "cosine":
        steps = recipe.model.diffusion_steps
        return DiscreteDenoiser(network, steps, recipe.train.precision).to(device)
    model, train = recipe.model, recipe.train
    built = Denoiser(network, model.precond, train.precision, model.prediction, train.weighting)
    return built.to(device)


def _vectors(recipe: Recipe, subset: Subset) -> Tensor | None:
    """The vectors that stand for the labels of a subset, if any do."""
    told = recipe.labels
    return label_vectors(subset.label_dim, told.dim, told.seed) if told.kind == "vectors" else None
