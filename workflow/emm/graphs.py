"""CUDA graphs: what a GPU computes again and again, recorded once and started by one call."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WARMUPS = 2  # calls before the recording: kernels are chosen and compiled in them
_replayed: Any = weakref.WeakKeyDictionary()


class Captured:
    """A function of tensors, for the shapes of an example, as a CUDA graph.

    It must not wait for the GPU. What it returns is overwritten by the next call. Random numbers of
    torch's default generator are drawn anew in each, after `torch.manual_seed` as without a graph.
    pool: that of another graph, whose memory this one takes too, but for what that one returns.
    warm: whether the function has run for these shapes.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *example: Tensor | None,
        pool: Any = None,
        warm: bool = False,
    ) -> None:
        self.inputs = [None if x is None else x.clone() for x in example]
        current, stream = torch.cuda.current_stream(), torch.cuda.Stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(0 if warm else WARMUPS):
                function(*self.inputs)
        current.wait_stream(stream)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # the graph has memory of its own
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph, pool=pool):
                self.outputs = function(*self.inputs)
        except BaseException:
            torch.cuda.set_stream(current)  # a recording that fails leaves its own behind
            raise

    def __call__(self, *tensors: Tensor | None) -> Any:
        """What the function returns for tensors of these shapes."""
        for place, tensor in zip(self.inputs, tensors, strict=True):
            if place is not None:
                place.copy_(tensor)
        self.graph.replay()
        return self.outputs


class Replayed:
    """A network, evaluated as a CUDA graph where it is on a GPU; one graph for each shape.

    Other weights may be loaded into the network meanwhile.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._captured: dict[Any, Captured] = {}

    @classmethod
    def of(cls, network: nn.Module) -> "Replayed":
        """The one of a network, with what it has recorded."""
        if network not in _replayed:
            _replayed[network] = cls(weakref.proxy(network))
        return _replayed[network]

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        """The network's output; overwritten by the next call."""
        if not tensors[0].is_cuda:
            return self.network(*tensors)
        shapes = tuple(None if x is None else (x.shape, x.dtype) for x in tensors)
        weights = next(self.network.parameters()).data_ptr()
        key = (shapes, weights, self.network.training, torch.is_inference_mode_enabled())
        if key not in self._captured:
            self._captured[key] = Captured(self.network, *tensors)
        return self._captured[key](*tensors)
