"""All parameters of a network in one tensor, so that Adam and EMA are single operations."""

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class FlatParameters:
    """Parameters of a network as views of one flat fp32 tensor, and their gradient as another.

    Element-wise optimisers give the same numbers on the flat tensor as on the parts.
    channels_last: whether weights of convolutions lie in that order, as tensor cores take them.
    """

    def __init__(self, network: nn.Module, *, channels_last: bool = False):
        self.network, self.channels_last = network, channels_last
        self._parameters = list(network.parameters())
        self.values = torch.cat([self._flat(p.detach()) for p in self._parameters]).float()
        self.gradient = torch.zeros_like(self.values)
        for parameter, part in zip(self._parameters, self._cut(self.values), strict=True):
            parameter.data = part

    def differentiate(self, loss: Tensor) -> Tensor:
        """Gradient of a scalar, flat; the same tensor at every call. Zero where nothing depends."""
        parts = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        return torch.cat([self._flat(part) for part in parts], out=self.gradient)

    def named(self, values: Tensor) -> dict[str, Tensor]:
        """Cut a flat tensor into named tensors shaped like the parameters."""
        names = (name for name, _ in self.network.named_parameters())
        return dict(zip(names, self._cut(values), strict=True))

    def _cut(self, values: Tensor) -> list[Tensor]:
        """Views of a flat tensor, shaped like the parameters."""
        parts = values.split([parameter.numel() for parameter in self._parameters])
        return [self._shaped(part, p) for part, p in zip(parts, self._parameters, strict=True)]

    def _flat(self, tensor: Tensor) -> Tensor:
        reordered = self.channels_last and tensor.ndim == 4
        return (tensor.permute(0, 2, 3, 1) if reordered else tensor).reshape(-1)

    def _shaped(self, part: Tensor, like: Tensor) -> Tensor:
        if not self.channels_last or like.ndim != 4:
            return part.view_as(like)
        count, channels, height, width = like.shape
        return part.view(count, height, width, channels).permute(0, 3, 1, 2)


class Adam:
    """Adam (Kingma and Ba 2015) on a flat tensor, in one kernel.

    Weight decay is a coupled L2 penalty, or decoupled as in AdamW (Loshchilov and Hutter 2019).

    The kernel is that of torch.optim.Adam(fused=True), whose Python side imports the compiler:
    more than a second per process.
    """

    def __init__(self, values: Tensor, weight_decay: float, decoupled: bool = False):
        self.values, self.weight_decay = values, weight_decay
        self.kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self.steps = torch.zeros((), device=values.device)
        self.exp_avg = torch.zeros_like(values)
        self.exp_avg_sq = torch.zeros_like(values)

    @torch.no_grad()
    def step(self, gradient: Tensor, lr: float) -> None:
        """Update the values in place."""
        self.steps += 1
        self.kernel(
            [self.values],
            [gradient],
            [self.exp_avg],
            [self.exp_avg_sq],
            [],
            [self.steps],
            lr=lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self.weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )
