"""Building blocks of the DDPM++ and NCSN++ U-Nets (Song et al. 2021; Karras et al. 2022, App. F).

Initial weights and Fourier frequencies come from torch's global generator: call
`torch.manual_seed` before a network is built.
"""

import contextlib
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from emm.limits import norm_groups
from emm.nets import fused
from emm.nets.dropout import Dropout
from emm.nets.labels import LabelLookup, make_label_input

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

NORM_EPS = 1e-6
SQRT_HALF = math.sqrt(0.5)  # keeps the variance of a sum of two branches
NEAR_ZERO = 1e-5  # gain of layers that start as almost nothing
QKV_GAIN = math.sqrt(0.2)
MAX_PERIOD = 10_000.0  # of positional time features, in units of c_noise / 2 pi


def conv(in_channels: int, out_channels: int, size: int, *, gain: float = 1.0) -> nn.Conv2d:
    """Convolution that keeps the image size: Xavier-uniform weights times `gain`, zero bias."""
    layer = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def linear(in_features: int, out_features: int) -> nn.Linear:
    """Linear layer: Xavier-uniform weights, zero bias."""
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def zeroed(layer: Layer) -> Layer:
    """The same layer with zero weights and bias."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm in `norm_groups`; UserError where they do not divide the channels."""
    return nn.GroupNorm(norm_groups(channels), channels, eps=NORM_EPS)


def full_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """Context in which autocast is off on `device`."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


class Resample(nn.Module):
    """Halves ("down") or doubles ("up") height and width with a fixed separable filter.

    `taps`: filter of even length. [1, 1] is the 2x2 mean or the nearest neighbour. `padding`
    defaults to the one that keeps the pixel grid centred.
    """

    def __init__(
        self, direction: str, channels: int, taps: Sequence[int], padding: int | None = None
    ) -> None:
        super().__init__()
        self.direction, self.channels = direction, channels
        self.padding = len(taps) // 2 - 1 if padding is None else padding
        self.plain = list(taps) == [1, 1]
        if not self.plain:
            row = torch.tensor(taps, dtype=torch.float32) / sum(taps)
            row = 2 * row if direction == "up" else row
            kernel = torch.outer(row, row).repeat(channels, 1, 1, 1)
            self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, C, H/2, W/2) or (B, C, 2H, 2W)."""
        if self.plain and self.direction == "down":
            return functional.avg_pool2d(x, 2)
        if self.plain:
            return functional.interpolate(x, scale_factor=2.0, mode="nearest")
        resample = functional.conv2d if self.direction == "down" else functional.conv_transpose2d
        return resample(x, self.kernel, stride=2, padding=self.padding, groups=self.channels)


class Attention(nn.Module):
    """Residual self-attention over pixels with one head of full width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = conv(channels, 3 * channels, 1, gain=QKV_GAIN)
        self.projection = conv(channels, channels, 1, gain=NEAR_ZERO)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, H, W) in and out; logits and softmax are computed in fp32."""
        if fused.applies(x):
            return fused.attention(self, x)
        tokens = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)
        query, key, value = tokens.contiguous().unsqueeze(1).chunk(3, dim=-1)  # (B, 1, HW, C)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed.squeeze(1).transpose(1, 2).reshape(x.shape)
        return (x + self.projection(mixed)) * SQRT_HALF


class Block(nn.Module):
    """Residual block: two convolutions, a shift by the embedding, optional attention.

    `embedding`: features of the time embedding. `direction`: "down" or "up" resamples by two
    with the filter `taps`, None keeps the size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding: int,
        dropout: float,
        taps: Sequence[int],
        direction: str | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.resample = Resample(direction, in_channels, taps) if direction else None
        self.norm_in = group_norm(in_channels)
        self.conv_in = conv(in_channels, out_channels, 3)
        self.shift = linear(embedding, out_channels)
        self.norm_out = group_norm(out_channels)
        self.conv_out = conv(out_channels, out_channels, 3, gain=NEAR_ZERO)
        projected = in_channels != out_channels or direction is not None
        self.shortcut = conv(in_channels, out_channels, 1) if projected else None
        self.attention = Attention(out_channels) if attention else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Shape (B, C, H, W) and (B, E) to (B, C', H', W')."""
        if fused.applies(x):
            return fused.block(self, x, embedding)
        hidden = functional.silu(self.norm_in(x))
        if self.resample is not None:
            hidden, x = self.resample(hidden), self.resample(x)
        hidden = self.conv_in(hidden) + self.shift(embedding)[:, :, None, None]
        hidden = self.conv_out(self.dropout(functional.silu(self.norm_out(hidden))))
        x = x if self.shortcut is None else self.shortcut(x)
        x = (x + hidden) * SQRT_HALF
        return x if self.attention is None else self.attention(x)


class Merge(nn.Module):
    """Residual image pyramid of NCSN++: adds the convolved, halved pyramid to the features."""

    def __init__(self, in_channels: int, out_channels: int, taps: Sequence[int]) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, 3)
        self.conv.padding = (len(taps) // 2,) * 2  # the filter's margin, which it then takes off
        self.resample = Resample("down", out_channels, taps, padding=0)

    def forward(self, x: Tensor, pyramid: Tensor) -> Tensor:
        """Shape (B, C', H, W) and (B, C, 2H, 2W) to (B, C', H, W): features and next pyramid."""
        return (x + self.resample(self.conv(pyramid))) * SQRT_HALF


class MappingNetwork(nn.Module):
    """Noise level and label to the embedding that shifts every block.

    `time_embedding`: "positional", frequencies 1 to 1/10000 in a geometric row; or "fourier",
    random normal frequencies times `fourier_scale`, a buffer that is never trained. `label_vectors`
    (label_dim, dim) stand for the labels, instead of a row of weights each.
    """

    def __init__(
        self,
        features: int,
        embedding: int,
        *,
        time_embedding: str,
        fourier_scale: float,
        label_dim: int,
        label_vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        if time_embedding == "positional":
            exponents = torch.arange(features // 2) / (features // 2 - 1)
            frequencies = MAX_PERIOD**-exponents
        else:
            frequencies = 2 * math.pi * (torch.randn(features // 2) * fourier_scale)
        self.register_buffer("frequencies", frequencies, persistent=time_embedding == "fourier")
        self.labels = make_label_input(LabelLookup, label_dim, features, label_vectors)
        self.hidden = linear(features, embedding)
        self.output = linear(embedding, embedding)

    def forward(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Shape (B,) and (B,) or (B, K) to (B, E), outside autocast: c_noise reaches 999."""
        with full_precision(c_noise.device):
            angles = torch.outer(c_noise.to(self.frequencies.dtype), self.frequencies)
            features = torch.cat([angles.sin(), angles.cos()], dim=1)
            if self.labels is not None:
                features = features + self.labels(labels)
            return functional.silu(self.output(functional.silu(self.hidden(features))))
