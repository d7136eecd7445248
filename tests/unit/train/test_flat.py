"""Flat parameters, and Adam on them, against torch's own optimiser."""

import pytest
import torch
from torch import nn

from emm.train.flat import Adam, FlatParameters


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(3, 4))


def gradients(parts: list[torch.Tensor], step: int) -> list[torch.Tensor]:
    """Gradients over many orders of magnitude, some of them zero."""
    generator = torch.Generator().manual_seed(step)
    drawn = [torch.randn(part.shape, generator=generator) for part in parts]
    return [g * 10 ** (4 * torch.randn(g.shape, generator=generator)) * (g > -1) for g in drawn]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("theirs_is", [torch.optim.Adam, torch.optim.AdamW])
def test_adam_equals_torchs_step_by_step(theirs_is, weight_decay, fused):
    ours, theirs = network(), network()
    flat = FlatParameters(ours)
    adam = Adam(flat.values, weight_decay, decoupled=theirs_is is torch.optim.AdamW)
    optimizer = theirs_is(
        theirs.parameters(), lr=0, eps=1e-8, weight_decay=weight_decay, fused=fused
    )
    for step in range(60):
        lr = 2e-3 * min(step / 10, 1)
        parts = gradients(list(theirs.parameters()), step)
        for parameter, gradient in zip(theirs.parameters(), parts, strict=True):
            parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        adam.step(torch.cat([part.reshape(-1) for part in parts]), lr)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=0 if fused else 1e-7)
    assert adam.steps.item() == 60
    assert (flat.values - FlatParameters(network()).values).abs().min() > 0


def test_decay_is_coupled():
    """The penalty enters the gradient: after one step of Adam it is invisible in the size."""
    values = torch.tensor([1.0, -4.0])
    Adam(values, weight_decay=0.5).step(torch.zeros(2), lr=0.01)
    torch.testing.assert_close(values, torch.tensor([0.99, -3.99]))


def test_decay_is_decoupled_where_that_is_asked():
    """The penalty shrinks the values by its share of the learning rate, whatever their size."""
    values = torch.tensor([1.0, -4.0])
    Adam(values, weight_decay=0.5, decoupled=True).step(torch.zeros(2), lr=0.01)
    torch.testing.assert_close(values, torch.tensor([0.995, -3.98]))


def test_parameters_are_views_of_one_tensor():
    built = network()
    flat = FlatParameters(built)
    with torch.no_grad():
        flat.values.zero_()
    assert all(not p.any() for p in built.parameters())


def test_flat_gradient():
    built, plain = network(), network()
    flat = FlatParameters(built)
    x = torch.randn(5, 2, 3, 3)
    found = flat.differentiate(built(x).square().sum())
    plain(x).square().sum().backward()
    assert torch.equal(found, torch.cat([p.grad.reshape(-1) for p in plain.parameters()]))
    first = next(built.parameters())
    found = flat.differentiate(first.square().sum())
    assert torch.equal(found[: first.numel()], 2 * first.detach().reshape(-1))
    assert not found[first.numel() :].any()
    assert found is flat.gradient


def test_named_parts_are_those_of_the_network():
    built = network()
    flat = FlatParameters(built)
    named = flat.named(flat.values.clone())
    assert list(named) == [name for name, _ in built.named_parameters()]
    for name, parameter in built.named_parameters():
        assert torch.equal(named[name], parameter)
