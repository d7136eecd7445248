"""Features of images: pixels, a small classifier that is trained here, or a network of others."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from emm.data.sources import Source
from emm.data.subsets import random_order, resize
from emm.diffusion.precondition import to_unit
from emm.errors import UserError
from emm.measure import EPOCHS, GIVEN_FEATURES
from emm.seeds import derive
from emm.train import checkpoint
from emm.train.progress import Progress

Features = Callable[[np.ndarray], Tensor]  # uint8 (N, H, W, C) -> float64 (N, d)
WIDTHS = (32, 64, 128)
DIMENSIONS = 64
BATCH = 128
PEAK_RATE, DECAY = 3e-3, 0.05
HELD_OUT = 0.1  # of the labelled images, which only the accuracy sees
CLASSIFIER = "classifier of features"
DINO_SIDE = 224
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation


class Classifier(nn.Module):
    """A small convolutional network; its features are the 64 numbers before the last layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        widths = (channels, *WIDTHS)
        self.stages = nn.ModuleList(
            nn.Sequential(_layer(before, width), _layer(width, width))
            for before, width in pairwise(widths)
        )
        self.hidden = nn.Linear(WIDTHS[-1], DIMENSIONS)
        self.head = nn.Linear(DIMENSIONS, classes)

    def features(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] to features (N, 64)."""
        x = images
        for rank, stage in enumerate(self.stages):
            x = stage(functional.avg_pool2d(x, 2, ceil_mode=True) if rank else x)
        return self.hidden(x.mean((2, 3))).relu()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.head(self.features(images))


def _layer(before: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, width, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


def write_classifier(
    output: Path, source: Source, resolution: int | None, device: torch.device, seed: int = 0
) -> float:
    """Train a classifier on the labels of a source and write it; returns its held-out accuracy.

    UserError for a source with fewer than two classes.
    """
    rows = random_order(np.flatnonzero(source.labels >= 0), seed, "features")
    labels, found = np.unique(source.labels[rows], return_inverse=True)
    if len(labels) < 2:
        raise UserError(
            "features classifier: the source has no two classes to tell apart; set features: "
            "pixels, or give feature_weights"
        )
    images = resize(source.images[rows], resolution or min(source.images.shape[1:3]))
    inputs, targets = _inputs(images), torch.from_numpy(found)
    kept = max(1, round(HELD_OUT * len(rows)))
    network = _train(inputs[kept:], targets[kept:], len(labels), device, seed)
    accuracy = _accuracy(network, inputs[:kept], targets[:kept], device)
    about = {"kind": CLASSIFIER, "channels": images.shape[3], "classes": len(labels)}
    about |= {"resolution": images.shape[1], "n_images": len(rows) - kept, "seed": seed}
    about |= {"accuracy": accuracy, "n_held_out": kept}
    checkpoint.save(output, network.state_dict(), about)
    return accuracy


def _train(
    images: Tensor, labels: Tensor, classes: int, device: torch.device, seed: int
) -> Classifier:
    torch.manual_seed(derive(seed, "features"))
    network = Classifier(images.shape[1], classes).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=DECAY)
    parts = -(-len(images) // BATCH)  # of an epoch, equal in size: normalization needs several
    steps = EPOCHS * parts
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(derive(seed, "features/order"))
    with Progress("classifier: step", steps) as progress:
        for step in range(steps):
            if step % parts == 0:
                batches = torch.randperm(len(images), generator=generator).tensor_split(parts)
            rows = batches[step % parts]
            found = network(to_unit(images[rows].to(device)))
            loss = functional.cross_entropy(found, labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress(step + 1)
    return network.eval()


@torch.inference_mode()
def _accuracy(network: Classifier, images: Tensor, labels: Tensor, device: torch.device) -> float:
    parts = (network(to_unit(part.to(device))).argmax(1).cpu() for part in images.split(BATCH))
    return float((torch.cat(list(parts)) == labels).double().mean())


def load_features(kind: str, weights: Path | None, device: torch.device) -> Features:
    """The features called `kind`, one of FEATURES; all but pixels take a file of weights.

    inception: a TorchScript module that takes uint8 (N, 3, H, W) in 0..255 and resizes itself;
    dinov2: one that takes floats (N, 3, 224, 224), normalised by ImageNet's mean and standard
    deviation. Both give (N, d). UserError where a file is missing or is none.
    """
    if kind == "pixels":
        if weights is not None:
            raise UserError(f"features pixels: take no weights; leave out {weights}")
        return lambda images: to_unit(_inputs(images).to(device)).double().flatten(1)
    if weights is None:
        hint = " (`emm features` trains them)" if kind not in GIVEN_FEATURES else ""
        raise UserError(f"features {kind}: name a file of weights{hint}")
    if kind in GIVEN_FEATURES:
        network = _torchscript(weights, device)
        prepare = _for_inception if kind == "inception" else _for_dino
        return lambda images: _extract(network, prepare, images, device, weights)
    classifier, about = _load_classifier(weights, device)

    def features(images: np.ndarray) -> Tensor:
        if images.shape[3] != about["channels"]:
            raise UserError(
                f"{weights}: features of {about['channels']} channels, images of {images.shape[3]}"
            )
        return _extract(classifier.features, to_unit, images, device, weights)

    return features


def _load_classifier(path: Path, device: torch.device) -> tuple[Classifier, dict[str, Any]]:
    tensors, about = checkpoint.load(path)
    if about.get("kind") != CLASSIFIER:
        raise UserError(f"{path}: not features; `emm features` writes them")
    network = Classifier(about["channels"], about["classes"])
    network.load_state_dict(tensors)
    return network.to(device).eval(), about


def _torchscript(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A TorchScript module; one whose argument return_features says so is asked for features."""
    if not path.is_file():
        raise UserError(f"feature_weights: {path}: no such file")
    try:
        module = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"feature_weights: {path}: not a TorchScript module ({reason})") from error
    names = {argument.name for argument in module.forward.schema.arguments}
    asked = {"return_features": True} if "return_features" in names else {}
    return lambda images: module(images, **asked)


@torch.inference_mode()
def _extract(
    network: Callable[[Tensor], Tensor],
    prepare: Callable[[Tensor], Tensor],
    images: np.ndarray,
    device: torch.device,
    path: Path,
) -> Tensor:
    """Features of images, a batch at a time; UserError for what is no (N, d)."""
    parts = []
    for part in _inputs(images).split(BATCH):
        try:
            found = network(prepare(part.to(device)))
        except (RuntimeError, torch.jit.Error) as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError(f"{path}: takes no such images ({reason})") from error
        if not isinstance(found, Tensor) or found.shape[:1] != part.shape[:1] or found.ndim != 2:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"{path}: gives {shape} for {len(part)} images; need (N, features)")
        parts.append(found.double())
    return torch.cat(parts)


def _inputs(images: np.ndarray) -> Tensor:
    """Images (N, H, W, C) as (N, C, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _for_inception(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _for_dino(images: Tensor) -> Tensor:
    colours = _for_inception(images).float() / 255
    side = (DINO_SIDE, DINO_SIDE)
    large = functional.interpolate(colours, side, mode="bicubic", antialias=True)
    mean, spread = (torch.tensor(part, device=images.device).view(3, 1, 1) for part in IMAGENET)
    return (large - mean) / spread
