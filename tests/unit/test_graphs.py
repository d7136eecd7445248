"""Networks that are replayed on a GPU are just called on a CPU, and forgotten with their owner."""

import gc
import weakref

import torch
from torch import Tensor, nn

from emm import graphs
from emm.graphs import Replayed


class Counting(nn.Module):
    """Adds what it is given, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls: list[tuple[Tensor | None, ...]] = []

    def forward(self, *tensors: Tensor | None) -> Tensor:
        self.calls.append(tensors)
        return self.weight * sum(tensor for tensor in tensors if tensor is not None)


def test_on_a_cpu_the_network_is_called():
    network = Counting()
    replayed = Replayed(network)
    for size in (2, 2, 3):
        x, level = torch.randn(size), torch.randn(size)
        found = replayed(x, level, None)
        assert network.calls[-1] == (x, level, None)
        assert torch.equal(found, x + level)
    assert len(network.calls) == 3
    first = replayed(torch.ones(2))
    replayed(torch.zeros(2))
    assert first.tolist() == [1, 1]
    first.sum().backward()
    assert network.weight.grad == 2


def test_other_weights_are_those_of_the_next_call():
    network = Counting()
    replayed = Replayed.of(network)
    network.load_state_dict({"weight": torch.tensor(3.0)})
    assert replayed(torch.ones(2)).tolist() == [3, 3]


def test_one_for_each_network():
    first, second = Counting(), Counting()
    assert Replayed.of(first) is Replayed.of(first)
    assert Replayed.of(first) is not Replayed.of(second)
    Replayed.of(second)(torch.ones(2))
    assert (len(first.calls), len(second.calls)) == (0, 1)


def test_networks_are_forgotten():
    """They are not kept, nor what was recorded of them."""
    gc.collect()
    before = len(graphs._replayed)
    network = Counting()
    replayed = weakref.ref(Replayed.of(network))
    Replayed.of(network)(torch.ones(2))
    assert len(graphs._replayed) == before + 1
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None
    assert replayed() is None
    assert len(graphs._replayed) == before
