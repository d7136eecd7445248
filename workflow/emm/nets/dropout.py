"""Dropout whose masks do not depend on how many processes share a batch."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class Shares(Protocol):
    """Says which part of a batch is this process'."""

    size: int

    def part(self, count: int) -> slice:
        """This process' part of a batch."""


class Dropout(nn.Module):
    """Dropout at a rate; of a part of a batch, with the masks that the whole batch would have."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.count: int | None = None  # of the whole batch, where this process has a part of it
        self.part = slice(None)

    def forward(self, x: Tensor) -> Tensor:
        """Zero entries of x (B, ...) at random, and scale up the others; the identity in eval."""
        if not self.training or not self.rate:
            return x
        if self.count is None:
            return functional.dropout(x, self.rate)
        kept = functional.dropout(_ones(x, self.count), self.rate)
        return x * kept[self.part]


def _ones(x: Tensor, count: int) -> Tensor:
    """Ones for a whole batch, laid out as a part of it is."""
    last = torch.channels_last
    channels_last = x.dim() == 4 and x.is_contiguous(memory_format=last) and not x.is_contiguous()
    layout = last if channels_last else torch.contiguous_format
    return torch.ones((count, *x.shape[1:]), dtype=x.dtype, device=x.device).contiguous(
        memory_format=layout
    )


def share_dropout(network: nn.Module, count: int, team: Shares) -> None:
    """Let the dropout of a network see this process' part of batches of `count` images."""
    if team.size > 1:
        for module in network.modules():
            if isinstance(module, Dropout):
                module.count, module.part = count, team.part(count)
