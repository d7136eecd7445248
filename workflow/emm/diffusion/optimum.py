"""The closed-form optimum of denoising score matching (Gu et al. 2023, Section 2)."""

import torch
from torch import Tensor

from emm.errors import UserError


class Optimum:
    """The denoiser that minimises the training loss on a finite set exactly.

    D*(x, sigma) is the mean of the training images weighted by
    softmax(-||x - y_n||^2 / (2 sigma^2)); with labels, over the images of that label only. A label
    without images has no optimum: UserError. `images` is (N, C, H, W) in [-1, 1], `labels` (N,).
    Computed in float64: at the last noise level a rounding error of fp32 in the distances would
    move the exponents by more than 100.
    """

    def __init__(self, images: Tensor, labels: Tensor | None = None):
        self.shape = images.shape[1:]
        self.flat = images.flatten(1).double()
        self.labels = labels

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Denoised images, shaped like x: (B, C, H, W), sigma (B,), labels (B,) or None."""
        distances = self._squared_distances(x.flatten(1).double())
        if labels is not None:
            distances = distances.masked_fill(self._excluded(labels), torch.inf)
        logits = -distances / (2 * sigma.double().view(-1, 1) ** 2)
        weights = torch.softmax(logits - logits.amax(1, keepdim=True), dim=1)
        return (weights @ self.flat).view(len(x), *self.shape).to(x.dtype)

    def _squared_distances(self, x: Tensor) -> Tensor:
        """||x - y_n||^2 up to a constant per row, which the softmax does not see."""
        return self.flat.square().sum(1) - 2 * (x @ self.flat.T)

    def _excluded(self, labels: Tensor) -> Tensor:
        if self.labels is None:
            raise ValueError("labels given for an unconditional optimum")
        excluded = labels.view(-1, 1) != self.labels.view(1, -1)
        empty = labels[excluded.all(1)]
        if len(empty):
            raise UserError(
                f"label {int(empty[0])} has no training image, so its optimum is undefined; "
                "choose labels.kind none or unique, or a larger data.size"
            )
        return excluded
