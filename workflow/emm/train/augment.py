"""Random flips and shifts of the images of a batch, on their device."""

import torch
from torch import Tensor

from emm.seeds import derive
from emm.spec import Train


def augmented(images: Tensor, settings: Train, step: int, rows: slice) -> Tensor:
    """Images uint8 (B, C, H, W), these rows of a batch, each after a random move (emm.data.orbits).

    train.augment none returns them as they are. Else the moves of the whole batch are drawn by
    (run seed, "augment", step): a resumed training, and one that several processes share, sees the
    same images.
    """
    if settings.augment == "none":
        return images
    flip, down, right = (drawn[rows] for drawn in _draw(settings, step, images.device))
    return move(images, flip, down, right)


def _draw(settings: Train, step: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Whether to mirror, and pixels to shift down and right, for each image of a batch."""
    generator = torch.Generator(device).manual_seed(derive(settings.seed, "augment", step))
    shape, reach = (settings.batch_size,), settings.shift if "shift" in settings.augment else 0
    draw = {"generator": generator, "device": device}
    flip = torch.randint(2 if "flip" in settings.augment else 1, shape, **draw)
    down, right = (torch.randint(-reach, reach + 1, shape, **draw) for _ in range(2))
    return flip, down, right


def move(images: Tensor, flip: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images (B, C, H, W) mirrored where `flip` is 1, then shifted, with zeros where nothing is."""
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device) - down[:, None]
    x = torch.arange(width, device=images.device) - right[:, None]
    x = torch.where(flip[:, None] == 1, width - 1 - x, x)
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    image = torch.arange(len(images), device=images.device)[:, None, None]
    y, x = y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]
    pixels = images[image, :, y, x] * inside[..., None]  # (B, H, W, C)
    return pixels.permute(0, 3, 1, 2).contiguous()
