"""The gradient of a batch: in parts where memory is short, replayed as a CUDA graph on a GPU."""

import sys
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from emm.errors import UserError
from emm.graphs import Captured
from emm.nets.dropout import share_dropout
from emm.train.flat import FlatParameters

SHORTAGES = ("allocate memory", "out of memory", "ALLOC_FAILED")  # of torch, CUDA and its libraries


class Trainable(Protocol):
    """A network and what it is trained for: levels of noise, and the loss at them."""

    network: nn.Module

    def draw_level(self, count: int, generator: torch.Generator) -> Tensor:
        """Levels of noise (count,) of a batch."""

    def loss(self, images: Tensor, labels: Tensor | None, noise: Tensor, level: Tensor) -> Tensor:
        """Loss of clean images (B, C, H, W), a scalar, their mean."""

    def train(self) -> nn.Module:
        """Switch dropout on."""


@dataclass(frozen=True)
class Batch:
    """Images (B, C, H, W), labels (B,) or None, noise and its levels (B,), in their order."""

    images: Tensor
    labels: Tensor | None
    noise: Tensor
    level: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> "Batch":
        labels = None if self.labels is None else self.labels[rows]
        return Batch(self.images[rows], labels, self.noise[rows], self.level[rows])


class Gradients:
    """Loss and flat gradient of batches, the same up to rounding in however many parts.

    count: images of a whole batch, of which `rows` are this process'; the loss is the mean over all
    of it. Where memory does not suffice for a batch, it is halved until it does, and says so.
    """

    def __init__(
        self,
        denoiser: Trainable,
        flat: FlatParameters,
        count: int,
        rows: slice,
        *,
        scale: float = 1.0,
        graphs: bool = True,
    ) -> None:
        self.denoiser, self.flat, self.scale = denoiser, flat, scale
        self.count, self.rows = count, rows
        self.graphs = graphs and flat.values.is_cuda
        self.parts = 1
        self._captured: dict[int, Captured] = {}

    def __call__(self, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
        """Loss, a scalar, and its gradient times `scale`; overwritten by the next call.

        seed: of torch's generators before each part, which draw dropout.
        """
        while True:
            try:
                return self._sum(batch, seed)
            except RuntimeError as error:
                if not _is_memory(error):
                    raise
                problem = " ".join(str(error).split())
            if self.parts >= len(batch):
                raise UserError(
                    f"memory does not suffice for a single image: {problem}; make the network "
                    "smaller or take a larger GPU"
                )
            self._halve(len(batch))

    def _halve(self, count: int) -> None:
        self.parts = min(2 * self.parts, count)
        self._captured.clear()
        if self.flat.values.is_cuda:
            torch.cuda.empty_cache()
        print(f"memory is short: batches in {self.parts} parts", file=sys.stderr, flush=True)

    def _sum(self, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
        total = loss = None
        for index in range(self.parts):
            rows = slice(*(len(batch) * edge // self.parts for edge in (index, index + 1)))
            part_loss, gradient = self._part(index, rows, batch[rows], seed)
            if self.parts == 1:
                return part_loss, gradient
            total = gradient.clone() if total is None else total.add_(gradient)
            loss = part_loss.clone() if loss is None else loss.add_(part_loss)
        return loss, total

    def _part(self, index: int, rows: slice, part: Batch, seed: int) -> tuple[Tensor, Tensor]:
        if index not in self._captured:
            first = self.rows.start + rows.start
            share_dropout(self.denoiser.network, self.count, slice(first, first + len(part)))
            if self.graphs:
                self._captured[index] = self._capture(part)
        compute = self._captured.get(index, self._plain)
        torch.manual_seed(seed)
        return compute(*vars(part).values())

    def _capture(self, part: Batch) -> Captured:
        others = self._captured.values()
        pool = next((other.graph.pool() for other in others), None)
        # Beside another part's memory there may be none for a call outside of the recording.
        warm = any(len(other.inputs[0]) == len(part) for other in others)
        return Captured(self._plain, *vars(part).values(), pool=pool, warm=warm)

    def _plain(self, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Loss and gradient of the tensors of a batch, or of some rows of one."""
        part = Batch(*tensors)
        loss = self.denoiser.loss(part.images, part.labels, part.noise, part.level)
        if len(part) != self.count:
            loss = loss * (len(part) / self.count)
        gradient = self.flat.differentiate(loss * self.scale)
        return loss.detach(), gradient


def _is_memory(error: Exception) -> bool:
    """Whether an error, or the one in whose handling it came, says that an allocation failed."""
    said = any(words in str(error) for words in SHORTAGES)
    if said or isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error.__context__, Exception) and _is_memory(error.__context__)
