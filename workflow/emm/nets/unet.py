"""DDPM++ and NCSN++ U-Nets (Song et al. 2021, in the form of Karras et al. 2022, App. F)."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from emm.errors import UserError
from emm.limits import check_network
from emm.nets import fused
from emm.nets.blocks import NEAR_ZERO, Block, MappingNetwork, Merge, conv, group_norm

TIME_EMBEDDINGS = ("positional", "fourier")
ENCODERS = ("standard", "residual")


class Level(nn.Module):
    """Blocks of one resolution: `entry` arrives at it (or opens the decoder), `blocks` stay."""

    def __init__(
        self, entry: Sequence[Block], blocks: Sequence[Block], merge: Merge | None = None
    ) -> None:
        super().__init__()
        self.entry = nn.ModuleList(entry)
        self.merge = merge
        self.blocks = nn.ModuleList(blocks)


class UNet(nn.Module):
    """U-Net with a skip from every encoder output, taken last in first out by the decoder.

    Levels count from 1, the full resolution. `attention_levels` attend in all encoder blocks and
    in the last decoder block; the bottom of the network always attends once. `skip_mask` has one
    bit per skip in the order in which the encoder makes them; a 0 replaces the skip by zeros, in
    training and sampling, and leaves widths and parameters alone (Gu et al. 2023, Section 4.3).
    `time_feature_mult` is the number of time features over `channels`. `label_dim` is the number
    of labels, 0 for an unconditional network; `label_vectors` (label_dim, dim) stand for them.

    Initial weights and Fourier frequencies are drawn from torch's global generator: the same
    `torch.manual_seed` before the constructor gives the same network. Raises UserError for
    settings that do not fit together.
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int = 3,
        channels: int = 128,
        channel_mult: Sequence[int] = (2, 2, 2),
        num_blocks: int = 2,
        attention_levels: Sequence[int] = (2,),
        time_embedding: str = "positional",
        fourier_scale: float = 16.0,
        encoder: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
        time_feature_mult: int = 1,
        label_dim: int = 0,
        label_vectors: Tensor | None = None,
        dropout: float = 0.13,
        skip_mask: str | None = None,
    ) -> None:
        super().__init__()
        levels = len(channel_mult)
        self.resolution, self.image_channels = resolution, image_channels
        self.label_dim = label_dim
        self.skip_mask = "1" * (levels * (num_blocks + 1)) if skip_mask is None else skip_mask
        _check_choices(time_embedding, encoder)
        check_network(
            resolution=resolution,
            channels=channels,
            channel_mult=channel_mult,
            num_blocks=num_blocks,
            attention_levels=attention_levels,
            skip_mask=self.skip_mask,
        )
        self.mapping = MappingNetwork(
            time_feature_mult * channels,
            4 * channels,
            time_embedding=time_embedding,
            fourier_scale=fourier_scale,
            label_dim=label_dim,
            label_vectors=label_vectors,
        )
        widths = (channels, *(channels * mult for mult in channel_mult))
        block = partial(Block, embedding=4 * channels, dropout=dropout, taps=resample_filter)
        self.stem = conv(image_channels, channels, 3)
        self.encoder = _encoder(widths, num_blocks, attention_levels, block)
        self.decoder = _decoder(widths, num_blocks, attention_levels, block)
        self.head_norm = group_norm(widths[1])
        self.head_conv = conv(widths[1], image_channels, 3, gain=NEAR_ZERO)
        if encoder == "residual":
            _add_merges(self.encoder, image_channels, widths, resample_filter)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Shape (B, C, H, W), noise levels (B,), labels (B,) as int64 indices, to (B, C, H, W).

        Labels (B, K) stand for the mean of K of them. Raises UserError if labels are missing or not
        expected.
        """
        _check_labels(self.label_dim, labels)
        embedding = self.mapping(c_noise, labels)
        outputs = self._encode(x, embedding)
        x = self._decode(outputs, embedding)
        if fused.applies(x):
            return self.head_conv(fused.activated(x, self.head_norm)[0])
        return self.head_conv(functional.silu(self.head_norm(x)))

    def _encode(self, image: Tensor, embedding: Tensor) -> list[Tensor]:
        x, pyramid = self.stem(image), image
        outputs = [x]
        for level in self.encoder.values():
            for block in level.entry:
                x = block(x, embedding)
                if level.merge is not None:
                    x = pyramid = level.merge(x, pyramid)
                outputs.append(x)
            for block in level.blocks:
                x = block(x, embedding)
                outputs.append(x)
        return outputs

    def _decode(self, outputs: list[Tensor], embedding: Tensor) -> Tensor:
        x = outputs[-1]
        kept = zip(outputs, self.skip_mask, strict=True)
        skips = [skip if bit == "1" else torch.zeros_like(skip) for skip, bit in kept]
        for level in self.decoder.values():
            for block in level.entry:
                x = block(x, embedding)
            for block in level.blocks:
                x = block(torch.cat([x, skips.pop()], dim=1), embedding)
        return x


def _encoder(
    widths: Sequence[int], num_blocks: int, attends: Sequence[int], block: Callable[..., Block]
) -> nn.ModuleDict:
    """Encoder levels from the full resolution down; `widths` starts with that of the stem."""
    levels = nn.ModuleDict()
    for level, (above, width) in enumerate(pairwise(widths), start=1):
        entry = [block(above, above, direction="down")] if level > 1 else []
        inputs = [above] + [width] * (num_blocks - 1)
        blocks = [block(size, width, attention=level in attends) for size in inputs]
        levels[f"level{level}"] = Level(entry, blocks)
    return levels


def _decoder(
    widths: Sequence[int], num_blocks: int, attends: Sequence[int], block: Callable[..., Block]
) -> nn.ModuleDict:
    """Decoder levels from the bottom up; each block takes its level's newest unused skip."""
    levels, bottom = nn.ModuleDict(), widths[-1]
    entry = [block(bottom, bottom, attention=True), block(bottom, bottom)]
    below = bottom
    for level in range(len(widths) - 1, 0, -1):
        width, above = widths[level], widths[level - 1]
        inputs = [below + width] + [2 * width] * (num_blocks - 1)
        blocks = [block(size, width) for size in inputs]
        blocks.append(block(width + above, width, attention=level in attends))
        levels[f"level{level}"] = Level(entry, blocks)
        entry, below = [block(width, width, direction="up")], width
    return levels


def _add_merges(
    levels: nn.ModuleDict, image_channels: int, widths: Sequence[int], taps: Sequence[int]
) -> None:
    """The residual image pyramid of NCSN++, from level 2 on."""
    pyramid = image_channels
    for level in range(2, len(widths)):
        width = widths[level - 1]
        levels[f"level{level}"].merge = Merge(pyramid, width, taps)
        pyramid = width


def _check_choices(time_embedding: str, encoder: str) -> None:
    if time_embedding not in TIME_EMBEDDINGS:
        choices = " or ".join(TIME_EMBEDDINGS)
        raise UserError(f"model.time_embedding: {time_embedding!r} is unknown; use {choices}")
    if encoder not in ENCODERS:
        raise UserError(f"encoder: {encoder!r} is unknown; use {' or '.join(ENCODERS)}")


def _check_labels(label_dim: int, labels: Tensor | None) -> None:
    if label_dim and labels is None:
        raise UserError(f"network: labels are missing; pass one of 0..{label_dim - 1} per image")
    if not label_dim and labels is not None:
        raise UserError("network: labels were passed to an unconditional network; pass none")
