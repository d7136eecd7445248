"""The order in which a training sees its images."""

import math

import numpy as np
import torch
from torch import Tensor

from emm.seeds import derive


class DataOrder:
    """Which images make up each batch: positions (B,) on a device, a function of the step alone.

    Fixed, as Gu et al. 2023 have it: one permutation by NumPy's RandomState, repeated forever, so
    that batches straddle the ends of epochs. Shuffled, as Yoon et al. 2023 have it: a new
    permutation for each epoch, of which an incomplete last batch is dropped if `whole`, else kept.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        shuffled: bool = False,
        whole: bool = True,
    ) -> None:
        self.size, self.batch_size, self.seed, self.device = size, batch_size, seed, device
        self.shuffled = shuffled
        self.per_epoch = size // batch_size if whole else math.ceil(size / batch_size)
        self._epoch, self._order = -1, torch.empty(0)

    def batch(self, step: int) -> Tensor:
        """Positions of the images of a step, counted from 0."""
        if self.shuffled:
            epoch, part = divmod(step, self.per_epoch)
            return self._of_epoch(epoch)[part * self.batch_size : (part + 1) * self.batch_size]
        first = step * self.batch_size
        positions = torch.arange(first, first + self.batch_size, device=self.device)
        return self._of_epoch(0)[positions % self.size]

    def _of_epoch(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            seed = derive(self.seed, "order", epoch) % 2**32 if self.shuffled else self.seed
            order = np.arange(self.size)
            np.random.RandomState(seed).shuffle(order)
            self._epoch, self._order = epoch, self._moved(torch.from_numpy(order))
        return self._order

    def _moved(self, order: Tensor) -> Tensor:
        """The order on the device, without waiting for what it is doing."""
        if torch.device(self.device).type == "cpu":
            return order
        return order.pin_memory().to(self.device, non_blocking=True)
