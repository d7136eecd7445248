"""Blocks by kernels, run by Triton's interpreter on the CPU, against float64 and plain torch."""

import copy
import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import emm.nets
from emm.nets import ARCHITECTURES, UNet, fused
from emm.nets.blocks import Attention, Block, Resample, group_norm
from emm.nets.dropout import Dropout, share_dropout
from emm.nets.iddpm import HeadAttention, IDDPMUNet, ResidualBlock

LAST = torch.channels_last
EMBEDDING = 8
NCSNPP = {"time_embedding": "fourier", "fourier_scale": 1.0, **ARCHITECTURES["ncsnpp"]}


def missing() -> str:
    """Why Triton cannot interpret the kernels here, or an empty text."""
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "Triton is not installed: pip install triton==3.9.0"
    old = tuple(map(int, version.split(".")[:2])) < (3, 9)
    return f"Triton {version} cannot interpret with this NumPy: 3.9 or newer" if old else ""


def ours(name: str) -> bool:
    """Whether a module was made for the interpreter; triton._C cannot be loaded twice."""
    triton = name.partition(".")[0] == "triton" and not name.startswith("triton._C")
    return triton or name == "emm.nets.kernels"


@pytest.fixture(scope="module")
def interpreted() -> Iterator[None]:
    """Kernels that are interpreted; later tests find the modules that were there before."""
    if reason := missing():
        pytest.skip(reason)
    before = {name: module for name, module in sys.modules.items() if ours(name)}
    compiled = vars(emm.nets).pop("kernels", None)
    with pytest.MonkeyPatch.context() as patch:
        for name in before:
            del sys.modules[name]
        patch.setenv("TRITON_INTERPRET", "1")
        kernels = importlib.import_module("emm.nets.kernels")
        patch.setattr(fused, "_kernels", lambda: kernels)
        yield
    for name in [name for name in sys.modules if ours(name)]:
        # Under another name: Triton reports leaks at exit for what is not in sys.modules.
        sys.modules[f"interpreted.{name}"] = sys.modules.pop(name)
    sys.modules.update(before)
    del emm.nets.kernels
    if compiled is not None:
        emm.nets.kernels = compiled


@pytest.mark.parametrize("value", [None, "0", ""])
def test_kernels_are_not_for_the_cpu(monkeypatch, value):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if value is not None:
        monkeypatch.setenv("TRITON_INTERPRET", value)
    assert not fused.applies(images(2, 32, 4, 4).bfloat16())


def test_without_triton_there_are_no_kernels(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "emm.nets.kernels", raising=False)
    monkeypatch.setattr(emm.nets, "kernels", None, raising=False)
    monkeypatch.delattr(emm.nets, "kernels")
    assert fused._kernels.__wrapped__() is None


class Driver:
    """Triton's driver on a machine where it works, or fails with an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.runtime, self.driver, self.active, self.triton = (self,) * 4
        self.error = error

    def get_current_target(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("driver", "capability", "expected"),
    [
        (Driver(), (8, 0), True),
        (Driver(), (9, 0), True),
        (Driver(), (7, 5), False),
        (None, (9, 0), False),
        (Driver(RuntimeError("Failed to find C compiler.\nSpecify CC")), (9, 0), False),
    ],
)
def test_kernels_are_for_gpus_where_triton_works(monkeypatch, capfd, driver, capability, expected):
    monkeypatch.setattr(fused, "_kernels", lambda: driver)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fused._compiles.__wrapped__(0) is expected
    failed = driver is not None and driver.error is not None
    said = "slower without Triton's kernels: Failed to find C compiler. Specify CC\n"
    assert capfd.readouterr().err == said * failed


@pytest.fixture
def exact(interpreted, monkeypatch) -> None:
    """Kernels take fp32 too, which can be compared with float64 closely."""
    monkeypatch.setattr(fused, "applies", lambda x: x.dtype == torch.float32)


def moved(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights everywhere: fresh blocks end in almost nothing."""
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        fan_in = weight[0].numel() if weight.ndim > 1 else 1
        weight.data += 0.3 * torch.randn(weight.shape, generator=generator) / fan_in**0.5
    return module


def images(*shape: int, seed: int = 1) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (2 * drawn + 1).contiguous(memory_format=LAST)


Function = Callable[..., Tensor | tuple[Tensor, ...]]


def computed(
    function: Function, module: nn.Module, inputs: Sequence[Tensor], slopes: Sequence[Tensor]
) -> list[Tensor]:
    """Outputs of function(module, *inputs), then gradients of the inputs and all parameters."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    outputs = function(module, *inputs)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    slopes = [slope.to(y.dtype) for slope, y in zip(slopes, outputs, strict=True)]
    gradients = torch.autograd.grad(outputs, [*inputs, *module.parameters()], slopes)
    return [*(y.detach() for y in outputs), *gradients]


def assert_close(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert theirs.norm() > 0
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


def compare(
    function: Function,
    plain: Function,
    module: nn.Module,
    inputs: Sequence[Tensor],
    slopes: Sequence[Tensor],
    tolerance: float = 1e-5,
) -> None:
    """Assert that function in fp32 is plain in float64, gradients included."""
    found = computed(function, module, inputs, slopes)
    double = copy.deepcopy(module).double()
    expected = computed(plain, double, [x.double() for x in inputs], slopes)
    assert_close(found, expected, tolerance)


def called(module: nn.Module, *inputs: Tensor) -> Tensor:
    return module(*inputs)


BLOCKS = [  # images, channels in and out, pixels of a side, settings
    (2, 32, 64, 4, {"attention": True}),
    (1, 96, 16, 5, {}),
    (1, 20, 20, 3, {"attention": True}),
    (1, 16, 384, 2, {}),
    (1, 12, 16, 17, {}),
    (1, 32, 16, 16, {}),
    (2, 32, 32, 1, {}),
    (2, 16, 16, 8, {"direction": "down"}),
    (1, 20, 24, 6, {"direction": "down"}),
    (2, 12, 20, 3, {"direction": "up"}),
    (1, 16, 32, 6, {"direction": "down", "taps": (1, 3, 3, 1)}),
    (1, 16, 16, 3, {"direction": "up", "taps": (1, 3, 3, 1)}),
]


@pytest.mark.parametrize(("count", "channels", "width", "size", "settings"), BLOCKS)
def test_blocks(exact, count, channels, width, size, settings):
    options = {"embedding": EMBEDDING, "dropout": 0.0, "taps": (1, 1), **settings}
    block = moved(Block(channels, width, **options))
    inputs = images(count, channels, size, size), torch.randn(count, EMBEDDING)
    slope = images(*block(*inputs).shape, seed=2)
    compare(fused.block, called, block, inputs, [slope])


MODULATED = [  # images, channels in and out, pixels of a side, heads, groups
    (3, 32, 32, 4, 0, 8),
    (2, 16, 96, 5, 3, 4),
    (1, 20, 20, 3, 2, 5),
    (1, 32, 384, 2, 0, 32),
    (2, 32, 16, 16, 0, 1),
]


@pytest.mark.parametrize(("count", "channels", "width", "size", "heads", "groups"), MODULATED)
def test_modulated_blocks(exact, count, channels, width, size, heads, groups):
    block = moved(ResidualBlock(channels, width, EMBEDDING, 0.0, heads, groups))
    inputs = images(count, channels, size, size), torch.randn(count, EMBEDDING)
    slope = images(count, width, size, size, seed=2)
    compare(fused.modulated_block, called, block, inputs, [slope])


@pytest.mark.parametrize("channels", [20, 128])
def test_attention(exact, channels):
    x, slope = images(2, channels, 3, 5), images(2, channels, 3, 5, seed=2)
    compare(fused.attention, called, moved(Attention(channels)), [x], [slope])
    layer = moved(HeadAttention(channels, 4, 4))
    compare(fused.head_attention, called, layer, [x], [slope])


def sliced(x: Tensor) -> Tensor:
    """The same values as a part of the channels of another tensor, as torch.cat hands them back."""
    count = x.shape[1]
    return torch.cat([torch.full_like(x, 7), x, x], dim=1)[:, count : 2 * count]


LAYOUTS = {
    "channels last": lambda x: x,
    "slice": sliced,
    "contiguous": lambda x: x.contiguous(),
    "every other pixel": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "turned": lambda x: x.transpose(2, 3).contiguous(memory_format=LAST).transpose(2, 3),
    "repeated": lambda x: x[:1, :1, :1, :1].expand_as(x),
}


def both_uses(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The norm's result, and x for further use."""
    if x.dtype == torch.float32:
        return fused.activated(x, module)
    return functional.silu(module(x)), x.clone()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_in_any_layout_join(interpreted, layout):
    norm, x = moved(group_norm(12)), images(2, 12, 3, 3)
    slopes = [LAYOUTS[layout](images(*x.shape, seed=seed)) for seed in (2, 3)]
    compare(both_uses, both_uses, norm, [x], slopes)
    slopes[0] = images(*x.shape, seed=4)
    compare(both_uses, both_uses, norm, [x], slopes[::-1])


class Bias(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(channels))


def added(module: Bias, x: Tensor, other: Tensor) -> Tensor:
    if x.dtype == torch.float32:
        return fused.residual(x, other, module.bias)
    return (x + other + module.bias.view(1, -1, 1, 1)) * fused.SQRT_HALF


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("channels", "size"), [(20, 5), (300, 3), (4, 33)])
def test_sums(interpreted, monkeypatch, channels, size, layout):
    """Also where a program of the gradient takes several steps."""
    monkeypatch.setattr(fused, "BLOCKS", 1)
    shape = (3, channels, size, size)
    slope = LAYOUTS[layout](images(*shape, seed=2))
    inputs = images(*shape), images(*shape, seed=3).contiguous()
    compare(added, added, Bias(channels), inputs, [slope])


def test_only_slices_of_channels_are_not_copied():
    x = images(2, 8, 4, 4)
    for layout, change in LAYOUTS.items():
        changed = change(x)
        rows, image, pixel = fused._rows(changed)
        copied = rows.data_ptr() != changed.data_ptr()
        assert copied == (layout not in ("channels last", "slice")), layout
        assert rows.stride() == (image, 1, 4 * pixel, pixel)
        assert torch.equal(rows, changed)


def resampled(module: nn.Module, x: Tensor) -> Tensor:
    return fused.resampled(x, module) if x.dtype == torch.float32 else module(x)


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize(("channels", "size"), [(32, 4), (20, 6), (300, 2)])
def test_resampling(interpreted, channels, size, direction, taps):
    layer = Resample(direction, channels, taps)
    x = images(3, channels, size, size)
    slope = images(*layer(x).shape, seed=2)
    for change in LAYOUTS.values():
        compare(resampled, resampled, layer, [x], [change(slope)])


@pytest.mark.parametrize("offset", [1000.0, -3000.0])
@pytest.mark.parametrize(("channels", "size"), [(32, 8), (12, 17)])
def test_values_far_from_0_keep_their_variance(interpreted, channels, size, offset):
    x = (torch.randn(2, channels, size, size) + offset).contiguous(memory_format=LAST)
    norm = group_norm(channels)
    found, _ = fused.norm(x, norm)
    expected = norm.double()(x.double())
    assert found.std().item() == pytest.approx(1, abs=0.01)
    assert (found - expected).abs().max() < 2e-7 * abs(offset) * 4


def test_channels_far_from_each_other(interpreted):
    """Their distance is the variance of their group, and their shifts take part in it."""
    x, norm = images(2, 32, 5, 5), moved(group_norm(32))
    shift = 100 * torch.randn(2, 32)
    found, _ = fused.activated(x, norm, shift)
    shifted = x.double() + shift.double()[:, :, None, None]
    expected = functional.silu(norm.double()(shifted))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


# Dropout ------------------------------------------------------------------------------------------


def dropped(x: Tensor, rate: float, seed: int | None, layer: nn.Module | None = None) -> Tensor:
    """Result of the norm with dropout, whose zeros are the mask's."""
    if seed is not None:
        torch.manual_seed(seed)
    dropout = Dropout(rate) if layer is None else layer
    with torch.no_grad():
        return fused.activated(x, group_norm(x.shape[1]), None, dropout)[0]


@functools.cache
def mask(rate: float, seed: int) -> Tensor:
    """What a seed keeps of 2^15 elements, in the order of their memory."""
    return order(dropped(images(4, 32, 16, 16), rate, seed) != 0)


def order(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten().double()


def correlation(first: Tensor, second: Tensor) -> float:
    """Times the root of the count: standard normal if they are independent."""
    both = torch.corrcoef(torch.stack([first, second]))
    return float(both[0, 1]) * len(first) ** 0.5


RATES = [0.13, 0.6]
LIMIT = 4.5  # standard deviations


@pytest.mark.parametrize("rate", RATES)
def test_the_rate_of_dropout(interpreted, rate):
    for seed in (0, 1):
        found = mask(rate, seed)
        deviation = (rate * (1 - rate)) ** 0.5
        assert abs(found.mean() - (1 - rate)) < LIMIT * deviation / len(found) ** 0.5
        for parts in (found.view(4, -1), found.view(-1, 32).t()):
            bound = LIMIT * deviation / parts.shape[1] ** 0.5
            assert (parts.mean(1) - (1 - rate)).abs().max() < bound + 1 / parts.shape[1]


@pytest.mark.parametrize("rate", RATES)
def test_what_is_kept_is_scaled(interpreted, rate):
    x = images(4, 32, 16, 16)
    found, whole = dropped(x, rate, 0), dropped(x, 0.0, None)
    kept = found != 0
    torch.testing.assert_close(found[kept], whole[kept] / (1 - rate))


@pytest.mark.parametrize("rate", RATES)
def test_masks_of_neighbours_seeds_and_layers_are_independent(interpreted, rate):
    first = mask(rate, 0)
    assert torch.equal(order(dropped(images(4, 32, 16, 16), rate, 0) != 0), first)
    for lag in (1, 2, 3, 4, 16, 31, 32, 33, 512, 8192):
        assert abs(correlation(first[lag:], first[:-lag])) < LIMIT, lag
    assert abs(correlation(first, mask(rate, 1))) < LIMIT
    second_layer = order(dropped(images(4, 32, 16, 16), rate, None) != 0)  # after the first
    torch.manual_seed(0)
    dropped(images(4, 32, 16, 16), rate, None)
    second_layer = order(dropped(images(4, 32, 16, 16), rate, None) != 0)
    assert abs(correlation(first, second_layer)) < LIMIT


def masked(module: nn.Module, x: Tensor, embedding: Tensor, kept: Tensor) -> Tensor:
    """A block in float64, with a mask in place of its dropout."""
    module.dropout = Given(kept)
    return module(x, embedding)


class Given(nn.Module):
    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.kept = kept

    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept


@pytest.mark.parametrize("kind", ["block", "modulated"])
@pytest.mark.parametrize(("width", "size", "rate"), [(32, 4, 0.13), (12, 5, 0.6)])
def test_the_gradient_has_the_mask_of_the_output(exact, monkeypatch, kind, width, size, rate):
    if kind == "block":
        block = Block(32, width, embedding=EMBEDDING, dropout=rate, taps=(1, 1))
        function = fused.block
    else:
        block = ResidualBlock(32, width, EMBEDDING, rate, 0, 4)
        function = fused.modulated_block
    inputs = images(3, 32, size, size), torch.randn(3, EMBEDDING)
    seen, spatial = [], fused._spatial

    def spied(x: Tensor, layer: nn.Module) -> Tensor:
        seen.append(x)
        return spatial(x, layer)

    monkeypatch.setattr(fused, "_spatial", spied)
    slope = images(3, width, size, size, seed=2)
    found = computed(function, moved(block), inputs, [slope])
    kept = (seen[-1].detach() != 0).double() / (1 - rate)
    assert 0 < kept.count_nonzero() < kept.numel()
    double = copy.deepcopy(block).double()
    plain = functools.partial(masked, kept=kept)
    expected = computed(plain, double, [x.double() for x in inputs], [slope])
    assert_close(found, expected, 1e-5)


def with_gradient(x: Tensor, layer: Dropout, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Result of the norm with dropout, and the gradient of x."""
    x = x.detach().requires_grad_()
    torch.manual_seed(3)
    found, _ = fused.activated(x, group_norm(x.shape[1]), None, layer)
    return found.detach(), torch.autograd.grad(found, x, slope)[0]


@pytest.mark.parametrize("rows", [slice(0, 3), slice(1, 6), slice(5, 6)])
def test_parts_have_the_masks_of_the_whole(interpreted, rows):
    x, slope, layer = images(6, 16, 3, 3), images(6, 16, 3, 3, seed=2), Dropout(0.4)
    expected = with_gradient(x, layer, slope)
    share_dropout(layer, 6, rows)
    found = with_gradient(x[rows], layer, slope[rows])
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs[rows])
    share_dropout(layer, 6, slice(0, 6))
    assert torch.equal(with_gradient(x, layer, slope)[1], expected[1])


def test_nothing_is_drawn_where_nothing_is_dropped(interpreted):
    x = images(2, 32, 4, 4)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    plain = fused.activated(x, group_norm(32))[0]
    assert torch.equal(dropped(x, 0.0, None), plain)
    assert torch.equal(dropped(x, 0.5, None, Dropout(0.5).eval()), plain)
    assert torch.equal(torch.get_rng_state(), before)
    dropped(x, 0.5, None)
    assert not torch.equal(torch.get_rng_state(), before)


# Whole networks -----------------------------------------------------------------------------------

SMALL = {"resolution": 8, "channels": 16, "channel_mult": (1, 2), "num_blocks": 1}
SMALL |= {"attention_levels": (2,), "label_dim": 3, "dropout": 0.0}
NETWORKS = {
    "ddpmpp": lambda: UNet(**SMALL),
    "ncsnpp": lambda: UNet(**SMALL, **NCSNPP, skip_mask="0110"),
    "iddpm": lambda: IDDPMUNet(**SMALL, groups=8),
}


def evaluated(network: nn.Module, dtype: torch.dtype) -> list[Tensor]:
    """Output, and gradient of every parameter, as training computes them."""
    x, level = images(1, 3, 8, 8), torch.tensor([400.0])
    slope = images(1, 6 if isinstance(network, IDDPMUNet) else 3, 8, 8, seed=2)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        output = network(x, level, torch.tensor([2]))
    gradients = torch.autograd.grad((output * slope).sum(), list(network.parameters()))
    return [output.detach().double(), torch.cat([g.double().flatten() for g in gradients])]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("ddpmpp", torch.float16), ("ncsnpp", torch.bfloat16), ("iddpm", torch.float16)],
)
def test_networks_in_16_bits(interpreted, monkeypatch, name, dtype):
    """As near to fp32 as plain autocast; Triton's interpreter cuts off what bf16 would round."""
    torch.manual_seed(0)
    network = moved(NETWORKS[name]())
    calls: list[Any] = []
    activated = fused.activated
    monkeypatch.setattr(fused, "activated", lambda *a: calls.append(a) or activated(*a))
    found = evaluated(network, dtype)
    assert calls
    with monkeypatch.context() as patch:
        patch.delenv("TRITON_INTERPRET")
        calls.clear()
        plain, expected = (evaluated(network, each) for each in (dtype, torch.float32))
        assert not calls
    rounding = 2.5 if dtype == torch.bfloat16 else 1.2
    for ours, theirs, true in zip(found, plain, expected, strict=True):
        assert 0 < (theirs - true).norm() < 0.02 * true.norm()
        assert (ours - true).norm() < rounding * (theirs - true).norm()


def test_kernels_are_for_16_bits_and_channels_last(interpreted, monkeypatch):
    x = images(2, 32, 4, 4)
    assert fused.applies(x.bfloat16())
    assert fused.applies(x.half())
    assert not fused.applies(x)
    assert not fused.applies(x.double())
    assert not fused.applies(x.bfloat16().contiguous())
    assert not fused.applies(x.bfloat16()[..., ::2])
    monkeypatch.setattr(fused, "_kernels", lambda: None)
    assert not fused.applies(x.bfloat16())
