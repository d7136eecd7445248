"""U-Net of improved DDPM (Nichol and Dhariwal 2021), the network of Yoon et al. 2023."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from emm.limits import check_iddpm
from emm.nets import fused
from emm.nets.blocks import full_precision, zeroed
from emm.nets.dropout import Dropout
from emm.nets.labels import LabelEmbedding, check_labels, make_label_input

NORM_EPS = 1e-5
MAX_PERIOD = 10_000.0  # of the time features


class IDDPMUNet(nn.Module):
    """U-Net whose blocks are scaled and shifted by the time, with attention in several heads.

    Levels count from 1, the full resolution; every block of `attention_levels` attends, and the
    middle of the network once. Each level but the deepest ends with a convolution of stride 2,
    and every encoder output, that one included, is a skip. With `learned_variance` the output has
    twice the channels of an image: the noise, then the interpolation of the variance. `label_dim`
    is the number of labels, 0 for an unconditional network; their embedding is added to that of
    the time. `label_vectors` (label_dim, dim) stand for the labels, instead of a row each. `groups`
    of each norm are 32 as published. A fresh network returns zeros. Weights come from torch's
    global generator. Raises UserError for settings that do not fit together.
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int = 3,
        channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        num_blocks: int = 3,
        attention_levels: Sequence[int] = (2, 3),
        heads: int = 4,
        groups: int = 32,
        label_dim: int = 0,
        label_vectors: Tensor | None = None,
        dropout: float = 0.3,
        learned_variance: bool = True,
    ) -> None:
        super().__init__()
        check_iddpm(
            resolution=resolution,
            channels=channels,
            channel_mult=channel_mult,
            num_blocks=num_blocks,
            attention_levels=attention_levels,
            heads=heads,
            groups=groups,
        )
        self.resolution, self.image_channels = resolution, image_channels
        self.channels, self.label_dim = channels, label_dim
        embedding = 4 * channels
        self.time_hidden = nn.Linear(channels, embedding)
        self.time_output = nn.Linear(embedding, embedding)
        self.labels = make_label_input(LabelEmbedding, label_dim, embedding, label_vectors)
        self.stem = nn.Conv2d(image_channels, channels, 3, padding=1)
        widths = [channels, *(channels * mult for mult in channel_mult)]

        def block(inputs: int, outputs: int, level: int) -> ResidualBlock:
            attends = heads if level in attention_levels else 0
            return ResidualBlock(inputs, outputs, embedding, dropout, attends, groups)

        self.encoder, skips = nn.ModuleList(), [channels]
        for level, (above, width) in enumerate(pairwise(widths), start=1):
            inputs = [above] + [width] * (num_blocks - 1)
            down = level < len(channel_mult)
            resample = nn.Conv2d(width, width, 3, stride=2, padding=1) if down else None
            self.encoder.append(Stage([block(size, width, level) for size in inputs], resample))
            skips += [width] * (num_blocks + down)
        bottom = widths[-1]
        self.middle = nn.ModuleList(
            ResidualBlock(bottom, bottom, embedding, dropout, attends, groups)
            for attends in (heads, 0)
        )
        self.decoder, last = nn.ModuleList(), bottom
        for level in range(len(channel_mult), 0, -1):
            width, blocks = widths[level], []
            for _ in range(num_blocks + 1):
                blocks.append(block(last + skips.pop(), width, level))
                last = width
            resample = nn.Conv2d(width, width, 3, padding=1) if level > 1 else None
            self.decoder.append(Stage(blocks, resample))
        self.head_norm = group_norm(last, groups)
        outputs = image_channels * (2 if learned_variance else 1)
        self.head_conv = zeroed(nn.Conv2d(last, outputs, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), times (B,) in 0..1000 and labels (B,) to (B, C or 2 C, H, W).

        Raises UserError if labels are missing or not expected.
        """
        check_labels(self.label_dim, labels)
        embedding = self._embed(time, labels)
        x = self.stem(x)
        skips = [x]
        for stage in self.encoder:
            for block in stage.blocks:
                x = block(x, embedding)
                skips.append(x)
            if stage.resample is not None:
                x = stage.resample(x)
                skips.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for stage in self.decoder:
            for block in stage.blocks:
                x = block(torch.cat([x, skips.pop()], dim=1), embedding)
            if stage.resample is not None:
                x = stage.resample(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        if fused.applies(x):
            return self.head_conv(fused.activated(x, self.head_norm)[0])
        return self.head_conv(functional.silu(self.head_norm(x)))

    def _embed(self, time: Tensor, labels: Tensor | None) -> Tensor:
        """Outside autocast: the time reaches 1000."""
        with full_precision(time.device):
            features = time_features(time, self.channels)
            embedding = self.time_output(functional.silu(self.time_hidden(features)))
            return embedding if self.labels is None else embedding + self.labels(labels)


class Stage(nn.Module):
    """Blocks of one resolution and the convolution that leaves it, if one does."""

    def __init__(self, blocks: Sequence[nn.Module], resample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample


class ResidualBlock(nn.Module):
    """Two convolutions, the second after a norm that the embedding scales and shifts.

    `heads`: of the attention that follows, 0 for none; `groups`: of each norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        dropout: float,
        heads: int,
        groups: int = 32,
    ) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.norm_in = group_norm(in_channels, groups)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.norm_out = group_norm(out_channels, groups)
        self.conv_out = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        projected = in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if projected else None
        self.attention = HeadAttention(out_channels, heads, groups) if heads else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Shape (B, C, H, W) and (B, E) to (B, C', H, W)."""
        if fused.applies(x):
            return fused.modulated_block(self, x, embedding)
        hidden = self.conv_in(functional.silu(self.norm_in(x)))
        scale, shift = self.modulation(functional.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        hidden = functional.silu(self.norm_out(hidden) * (1 + scale) + shift)
        hidden = self.conv_out(self.dropout(hidden))
        x = hidden + (x if self.shortcut is None else self.shortcut(x))
        return x if self.attention is None else self.attention(x)


class HeadAttention(nn.Module):
    """Residual self-attention over pixels; channels are cut into heads, each into q, k and v."""

    def __init__(self, channels: int, heads: int, groups: int = 32) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels, groups)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.projection = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, H, W) in and out; logits and softmax are computed in fp32."""
        if fused.applies(x):
            return fused.head_attention(self, x)
        parts = self.qkv(self.norm(x)).flatten(2).unflatten(1, (self.heads, 3, -1))
        query, key, value = parts.transpose(-1, -2).unbind(2)  # (B, heads, HW, C / heads)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.projection(mixed.transpose(-1, -2).reshape(x.shape))


def time_features(time: Tensor, count: int) -> Tensor:
    """Cosines, then sines of the time (B,), fractional or not, at falling frequencies: (B, count).

    The frequencies are 10000^(-i / half) for i below half = count / 2 (Nichol and Dhariwal 2021).
    """
    half = count // 2
    exponents = torch.arange(half, dtype=torch.float32, device=time.device) / half
    angles = torch.outer(time.float(), MAX_PERIOD**-exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def group_norm(channels: int, groups: int = 32) -> nn.GroupNorm:
    """Group norm of `groups`; single channels as groups would lose the brightness of an image."""
    return nn.GroupNorm(groups, channels, eps=NORM_EPS)
