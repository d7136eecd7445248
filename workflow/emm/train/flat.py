"""All parameters of a network in one tensor, so that Adam and EMA are single operations."""

import torch
from torch import Tensor, nn


class FlatParameters:
    """Parameters and gradients of a network as views of two flat fp32 tensors.

    Element-wise optimisers give the same numbers on the flat tensor as on the parts.
    """

    def __init__(self, network: nn.Module):
        self.network = network
        parts = [parameter.detach().reshape(-1) for parameter in network.parameters()]
        self.values = nn.Parameter(torch.cat(parts).float())
        self.values.grad = torch.zeros_like(self.values)
        self._point_into(self.values.data, self.values.grad)

    def _point_into(self, values: Tensor, gradients: Tensor) -> None:
        start = 0
        for parameter in self.network.parameters():
            part = slice(start, start + parameter.numel())
            parameter.data = values[part].view_as(parameter)
            parameter.grad = gradients[part].view_as(parameter)
            start = part.stop

    def named(self, values: Tensor) -> dict[str, Tensor]:
        """Cut a flat tensor into named tensors shaped like the parameters."""
        named, start = {}, 0
        for name, parameter in self.network.named_parameters():
            part = slice(start, start + parameter.numel())
            named[name] = values[part].view_as(parameter)
            start = part.stop
        return named
