"""Flat parameters, and Adam on them, against torch's own optimiser."""

import pytest
import torch
from torch import nn

from emm.train import checkpoint
from emm.train.flat import Adam, FlatParameters
from emm.train.loop import checkpoint_path


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


def ordered() -> list[tuple[nn.Module, FlatParameters]]:
    """The same network with its weights in either order."""
    pair = [network() for _ in range(2)]
    return [
        (built, FlatParameters(built, channels_last=channels_last))
        for built, channels_last in zip(pair, (False, True), strict=True)
    ]


def test_convolutions_in_channels_last_order():
    """What a weight is called and computes does not depend on its place."""
    (plain, contiguous), (built, flat) = ordered()
    assert built[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not built[0].weight.is_contiguous()
    assert built[3].weight.is_contiguous()
    assert flat.channels_last
    assert not torch.equal(flat.values, contiguous.values)
    assert torch.equal(flat.values.sort().values, contiguous.values.sort().values)
    assert torch.equal(flat.values[: 3 * 9 * 2].view(3, 3, 3, 2), plain[0].weight.movedim(1, -1))
    for ours, theirs in zip(built.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.untyped_storage().data_ptr() == flat.values.untyped_storage().data_ptr()


def test_gradients_and_steps_in_channels_last_order():
    (plain, contiguous), (built, flat) = ordered()
    x = torch.randn(5, 2, 3, 3)
    adams = [Adam(each.values, 0.1) for each in (contiguous, flat)]
    for step in range(1, 4):
        found, expected = (
            each.named(each.differentiate(network(x).square().sum()))
            for network, each in ((built, flat), (plain, contiguous))
        )
        assert list(found) == list(expected)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-5)
        flat.gradient.copy_(torch.cat([flat._flat(gradient) for gradient in expected.values()]))
        for adam, each in zip(adams, (contiguous, flat), strict=True):
            adam.step(each.gradient, 1e-2 * step)
        for ours, theirs in zip(built.parameters(), plain.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_checkpoints_do_not_depend_on_the_order(tmp_path):
    """Nor does what a network of either order reads from them."""
    pairs = ordered()
    for (_, flat), name in zip(pairs, ("contiguous", "channels last"), strict=True):
        checkpoint.save(tmp_path / name, flat.named(flat.values), {})
    contents = [(tmp_path / name).read_bytes() for name in ("contiguous", "channels last")]
    assert contents[0] == contents[1]
    tensors, _ = checkpoint.load(tmp_path / "contiguous")
    for other, flat in pairs:
        flat.values.zero_()
        other.load_state_dict(tensors)
        for name, tensor in flat.named(flat.values).items():
            assert torch.equal(tensor, tensors[name])


@pytest.mark.parametrize("precisions", [("fp32", "bf16"), ("bf16", "fp32")])
def test_a_state_in_the_other_order_is_not_resumed(tmp_path, case, capfd, precisions):
    before, after = precisions
    case(3, train__precision=before).run(tmp_path)
    found = case(3, 6, train__precision=after).run(tmp_path)
    said = capfd.readouterr().err
    assert "state.safetensors: has its weights in another order: not resumed from it" in said
    assert "resumed at" not in said
    expected = case(3, 6, train__precision=after).run(tmp_path / "fresh")
    assert torch.equal(found.flat.values, expected.flat.values)
    assert (tmp_path / "state.step-00000003.safetensors").exists() == (found.step < 3)


def test_a_state_in_channels_last_order_is_resumed(tmp_path, case, capfd):
    longer = case(3, 6, train__precision="bf16")
    case(3, train__precision="bf16").run(tmp_path)
    found = longer.run(tmp_path)
    assert "resumed at step 3 of 6" in capfd.readouterr().err
    expected = longer.run(tmp_path / "at once")
    assert torch.equal(found.flat.values, expected.flat.values)
    assert torch.equal(found.averages[0.9], expected.averages[0.9])
    paths = [checkpoint_path(folder, 6) for folder in (tmp_path, tmp_path / "at once")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
