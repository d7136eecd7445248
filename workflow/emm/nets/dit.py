"""Diffusion transformer (Peebles and Xie 2023, adaLN-Zero), with optional windows of attention.

Noise level and label enter as in the U-Nets, through `MappingNetwork`. Initial weights come from
torch's global generator.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from emm.limits import check_dit
from emm.nets.blocks import MappingNetwork, linear, zeroed
from emm.nets.dropout import Dropout
from emm.nets.labels import check_labels

NORM_EPS = 1e-6
MLP_RATIO = 4
MAX_PERIOD = 10_000.0  # of the features of a position


class DiT(nn.Module):
    """Transformer on patches of an image whose every block is scaled, shifted and gated by adaLN.

    `patch`: pixels per side of a token. `window`: side, in tokens, of the square around itself that
    each token attends to, odd; None is the whole image. `label_dim` is the number of labels, 0 for
    an unconditional network. A fresh network returns zeros. Raises UserError for settings that do
    not fit together, and for labels that are missing or not expected.
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int = 3,
        channels: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch: int = 2,
        window: int | None = None,
        time_embedding: str = "positional",
        fourier_scale: float = 16.0,
        label_dim: int = 0,
        label_vectors: Tensor | None = None,
        dropout: float = 0.13,
    ) -> None:
        super().__init__()
        check_dit(resolution=resolution, channels=channels, heads=heads, patch=patch, window=window)
        self.resolution, self.image_channels = resolution, image_channels
        self.patch, self.label_dim = patch, label_dim
        side = resolution // patch
        self.mapping = MappingNetwork(
            channels,
            channels,
            time_embedding=time_embedding,
            fourier_scale=fourier_scale,
            label_dim=label_dim,
            label_vectors=label_vectors,
        )
        self.stem = nn.Conv2d(image_channels, channels, patch, stride=patch)
        nn.init.xavier_uniform_(self.stem.weight.view(channels, -1))
        nn.init.zeros_(self.stem.bias)
        self.register_buffer("positions", positions(side, channels), persistent=False)
        seen = None if window is None else neighbourhood(side, window)
        self.register_buffer("seen", seen, persistent=False)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, heads, dropout) for _ in range(depth)
        )
        self.head = Head(channels, patch**2 * image_channels)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Shape (B, C, H, W), noise levels (B,), labels (B,) as int64 indices, to (B, C, H, W)."""
        check_labels(self.label_dim, labels)
        embedding = self.mapping(c_noise, labels)
        features = self.stem(x)
        tokens = features.flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = block(tokens, embedding, self.seen)
        patches = self.head(tokens, embedding).transpose(1, 2)
        return functional.pixel_shuffle(patches.unflatten(2, features.shape[2:]), self.patch)


class TransformerBlock(nn.Module):
    """Self-attention and two linear layers, each a residual branch under adaLN-Zero."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = Dropout(dropout)
        self.modulation = zeroed(nn.Linear(channels, 6 * channels))
        self.norm_in, self.norm_out = (_norm(channels) for _ in range(2))
        self.qkv = linear(channels, 3 * channels)
        self.projection = linear(channels, channels)
        self.hidden = linear(channels, MLP_RATIO * channels)
        self.output = linear(MLP_RATIO * channels, channels)

    def forward(self, x: Tensor, embedding: Tensor, seen: Tensor | None = None) -> Tensor:
        """Tokens (B, N, C), embedding (B, C) and who sees whom (N, N), or None, to (B, N, C)."""
        parts = self.modulation(embedding).unsqueeze(1).chunk(6, dim=-1)
        shift_in, scale_in, gate_in, shift_out, scale_out, gate_out = parts
        x = x + gate_in * self._attend(self.norm_in(x) * (1 + scale_in) + shift_in, seen)
        hidden = self.hidden(self.norm_out(x) * (1 + scale_out) + shift_out)
        hidden = self.dropout(functional.gelu(hidden, approximate="tanh"))
        return x + gate_out * self.output(hidden)

    def _attend(self, x: Tensor, seen: Tensor | None) -> Tensor:
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = (part.transpose(1, 2) for part in parts.unbind(2))  # (B, heads, N, .)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.projection(mixed.transpose(1, 2).flatten(2))


class Head(nn.Module):
    """Norm under adaLN and a linear layer to the pixels of each patch, which starts at zero."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.modulation = zeroed(nn.Linear(channels, 2 * channels))
        self.norm = _norm(channels)
        self.output = zeroed(nn.Linear(channels, outputs))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Tokens (B, N, C) and embedding (B, C) to (B, N, outputs)."""
        shift, scale = self.modulation(embedding).unsqueeze(1).chunk(2, dim=-1)
        return self.output(self.norm(x) * (1 + scale) + shift)


def positions(side: int, channels: int) -> Tensor:
    """Fixed features of side x side positions, in rows: (side^2, channels), as Peebles and Xie.

    Sines, then cosines of the row at falling frequencies, then the same of the column.
    """
    quarter = channels // 4
    exponents = torch.arange(quarter, dtype=torch.float64) / quarter
    angles = torch.outer(torch.arange(side, dtype=torch.float64), MAX_PERIOD**-exponents)
    along = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = along.repeat_interleave(side, dim=0), along.repeat(side, 1)
    return torch.cat([rows, columns], dim=1).float()


def neighbourhood(side: int, window: int) -> Tensor:
    """Which of side x side tokens see each other: within a square of `window` tokens, (N, N) bool.

    The square is centred on the token and cut at the edges (An et al. 2024).
    """
    place = torch.arange(side)
    near = (place[:, None] - place).abs() <= window // 2
    pairs = near[:, None, :, None] & near[None, :, None, :]
    return pairs.reshape(side**2, side**2)


def _norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=NORM_EPS, elementwise_affine=False)
