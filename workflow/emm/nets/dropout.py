"""Dropout whose masks do not depend on the parts in which a batch is computed."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Dropout at a rate; of a part of a batch, with the masks that the whole batch would have."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.count: int | None = None  # of the whole batch, where only a part of it comes
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


def share_dropout(network: nn.Module, count: int, part: slice) -> None:
    """Let the dropout of a network see a part of batches of `count` images."""
    whole = part == slice(0, count)
    for module in network.modules():
        if isinstance(module, Dropout):
            module.count, module.part = None if whole else count, part
