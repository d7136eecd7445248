"""Networks: plain torch modules without training logic."""

from typing import Any

from torch import Tensor

from emm.errors import UserError
from emm.limits import NETWORKS
from emm.nets.dit import DiT
from emm.nets.iddpm import IDDPMUNet
from emm.nets.unet import UNet
from emm.nets.weights import load_published, read_weights

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ddpmpp": {"encoder": "standard", "resample_filter": (1, 1), "time_feature_mult": 1},
    "ncsnpp": {"encoder": "residual", "resample_filter": (1, 3, 3, 1), "time_feature_mult": 2},
}

__all__ = ["ARCHITECTURES", "DiT", "IDDPMUNet", "UNet", "build", "load_published", "read_weights"]


def build(
    model: Any,
    *,
    resolution: int,
    image_channels: int,
    label_dim: int,
    label_vectors: Tensor | None = None,
    dropout: float | None = None,
) -> UNet | IDDPMUNet | DiT:
    """Network of the settings `model`; `dropout` overrides that of the settings.

    `model` has the attributes arch, channels, channel_mult, num_blocks, attention_levels, dropout,
    and heads for iddpm, time_embedding, fourier_scale and skip_mask (bits, or "all") for the
    other U-Nets; dit has depth, heads, patch and window instead of levels. `label_vectors`:
    (label_dim, dim) where vectors stand for the labels. Weights come from
    torch's global generator. Raises UserError for an unknown `arch` and for settings that do not
    fit together.
    """
    if model.arch not in NETWORKS:
        raise UserError(f"model.arch: {model.arch!r} is unknown; use {' or '.join(NETWORKS)}")
    shared = {
        "resolution": resolution,
        "image_channels": image_channels,
        "channels": model.channels,
        "label_dim": label_dim,
        "label_vectors": label_vectors,
        "dropout": model.dropout if dropout is None else dropout,
    }
    if model.arch == "dit":
        own = ("depth", "heads", "patch", "window", "time_embedding", "fourier_scale")
        return DiT(**shared, **{key: getattr(model, key) for key in own})
    common = shared | {
        "channel_mult": model.channel_mult,
        "num_blocks": model.num_blocks,
        "attention_levels": model.attention_levels,
    }
    if model.arch == "iddpm":
        return IDDPMUNet(**common, heads=model.heads, groups=model.groups)
    return UNet(
        **common,
        time_embedding=model.time_embedding,
        fourier_scale=model.fourier_scale,
        skip_mask=None if model.skip_mask == "all" else model.skip_mask,
        **ARCHITECTURES[model.arch],
    )
