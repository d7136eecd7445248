"""U-Nets: parameter counts of Gu et al. 2023, layout, skips, labels, initial weights, errors."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from emm.errors import UserError
from emm.nets import ARCHITECTURES, UNet, build
from emm.nets.blocks import Attention, Block, LabelLookup, MappingNetwork, Resample
from emm.nets.cost import parameters

NCSNPP = {"time_embedding": "fourier", **ARCHITECTURES["ncsnpp"]}
FFHQ = {"resolution": 64, "channel_mult": (1, 2, 2, 2), "attention_levels": (3,)}


def unmaterialised(**settings) -> UNet:
    with torch.device("meta"):
        return UNet(**{"resolution": 32, **settings})


def tiny(seed: int = 0, **settings) -> UNet:
    """Small network in evaluation mode whose layers all matter (no near-zero gains)."""
    torch.manual_seed(seed)
    sizes = {"resolution": 8, "channels": 8, "channel_mult": (1, 2), "num_blocks": 1}
    network = UNet(**{**sizes, **settings}).eval()
    for name, weight in network.named_parameters():
        if name.endswith(("conv_out.weight", "projection.weight", "head_conv.weight")):
            torch.nn.init.xavier_uniform_(weight)
    return network


def batch(network: UNet, size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    shape = (size, network.image_channels, network.resolution, network.resolution)
    images = torch.randn(shape, generator=generator)
    return images, torch.rand(size, generator=generator) * 9


def decoder_blocks(network: UNet) -> list[Block]:
    return [block for level in network.decoder.values() for block in level.blocks]


COUNTS = [
    (128, 1, 24_821_507),
    (128, 2, 35_125_251),
    (128, 3, 45_428_995),
    (128, 4, 55_732_739),
    (128, 6, 76_340_227),
    (128, 8, 96_947_715),
    (128, 10, 117_555_203),
    (128, 12, 138_162_691),
    (64, 2, 8_797_187),
    (64, 4, 13_956_355),
    (96, 2, 19_769_859),
    (96, 4, 31_367_043),
    (160, 2, 54_863_363),
    (160, 4, 87_053_443),
    (192, 2, 78_984_195),
    (192, 4, 125_329_155),
    (224, 2, 107_487_747),
    (224, 4, 170_559_875),
    (256, 2, 140_374_019),
    (256, 4, 222_745_603),
    (256, 6, 305_117_187),
    (256, 8, 387_488_771),
    (256, 10, 469_860_355),
    (320, 2, 219_294_723),
]


@pytest.mark.parametrize(("channels", "num_blocks", "count"), COUNTS)
def test_parameter_count_of_every_width_and_depth(channels, num_blocks, count):
    assert parameters(unmaterialised(channels=channels, num_blocks=num_blocks)) == count


VARIANTS = [
    ({"time_embedding": "fourier"}, 35_125_251),
    ({"resolution": 16}, 35_125_251),
    ({"resolution": 8}, 35_125_251),
    ({"skip_mask": "000000000"}, 35_125_251),
    ({"skip_mask": "010110001"}, 35_125_251),
    ({"label_dim": 1}, 35_125_507),
    ({"label_dim": 10}, 35_126_659),
    ({"label_dim": 5_000}, 35_765_379),
    ({"label_dim": 50_000, "num_blocks": 4}, 62_132_867),
    (NCSNPP, 35_788_035),
    ({**NCSNPP, "label_dim": 10}, 35_788_035 + 11 * 256),
    ({**NCSNPP, "skip_mask": "000000000"}, 35_788_035),
    (FFHQ, 39_390_339),
    ({**FFHQ, "resolution": 16}, 39_390_339),
    ({**FFHQ, "skip_mask": "0" * 12}, 39_390_339),
]


@pytest.mark.parametrize(("settings", "count"), VARIANTS)
def test_parameter_count_of_variants(settings, count):
    assert parameters(unmaterialised(**settings)) == count


def attending(network: UNet) -> list[str]:
    found = [name for name, layer in network.named_modules() if isinstance(layer, Attention)]
    return [name.removesuffix(".attention") for name in found]


@pytest.mark.parametrize("resolution", [32, 16, 8])
def test_attention_follows_the_level_at_every_resolution(resolution):
    assert attending(unmaterialised(resolution=resolution)) == [
        "encoder.level2.blocks.0",
        "encoder.level2.blocks.1",
        "decoder.level3.entry.0",
        "decoder.level2.blocks.2",
    ]


def test_attention_of_the_ffhq_network_is_at_level_3():
    assert attending(unmaterialised(**FFHQ)) == [
        "encoder.level3.blocks.0",
        "encoder.level3.blocks.1",
        "decoder.level4.entry.0",
        "decoder.level3.blocks.2",
    ]


def test_attention_is_a_softmax_over_pixels():
    torch.manual_seed(0)
    layer = Attention(8).double()
    torch.nn.init.xavier_uniform_(layer.projection.weight)
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    query, key, value = layer.qkv(layer.norm(x)).reshape(2, 3, 8, 9).unbind(1)
    weights = torch.einsum("bcq,bck->bqk", query, key).div(math.sqrt(8)).softmax(2)
    mixed = torch.einsum("bqk,bck->bcq", weights, value).reshape(x.shape)
    expected = (x + layer.projection(mixed)) / math.sqrt(2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_filter_1_1_is_pooling_and_nearest_neighbour(direction):
    x = torch.randn(2, 3, 6, 6)
    filtered = Resample(direction, 3, (2, 2))  # the same filter after normalisation
    torch.testing.assert_close(Resample(direction, 3, (1, 1))(x), filtered(x))


def test_filter_1_3_3_1_is_the_normalised_binomial():
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 4] = 1
    row = torch.tensor([0.0, 1, 3, 0]) / 8  # what outputs 1 to 4 see of input 4, taken in pairs
    down = Resample("down", 1, (1, 3, 3, 1))(x)[0, 0]
    torch.testing.assert_close(down, torch.outer(row, row))
    up = Resample("up", 1, (1, 3, 3, 1))(x)[0, 0]
    taps = torch.tensor([1.0, 3, 3, 1]) / 4
    torch.testing.assert_close(up[7:11, 7:11], torch.outer(taps, taps))
    assert up.sum() == pytest.approx(4)


def silenced(network: UNet, mask: str) -> UNet:
    """The network with hooks that zero the skips of the mask where the decoder reads them."""
    skip_widths = (16, 8, 8, 8)  # as the decoder takes them
    for block, width, bit in zip(decoder_blocks(network), skip_widths, mask[::-1], strict=True):

        def hook(_block, arguments, width=width, bit=bit):
            x, embedding = arguments
            assert x[:, -width:].any()
            return torch.cat([x[:, :-width], x[:, -width:] * int(bit)], dim=1), embedding

        block.register_forward_pre_hook(hook)
    return network


@pytest.mark.parametrize("architecture", [{}, NCSNPP])
@pytest.mark.parametrize("mask", ["0111", "1011", "1101", "1110", "0000", "0110"])
def test_a_zero_in_the_mask_replaces_exactly_that_skip_by_zeros(architecture, mask):
    masked = tiny(**architecture, skip_mask=mask)
    expected = silenced(tiny(**architecture), mask)(*batch(masked))
    output = masked(*batch(masked))
    assert torch.equal(output, expected)
    assert not torch.equal(output, tiny(**architecture)(*batch(masked)))


def test_the_mask_also_holds_in_training():
    network = tiny(skip_mask="1110").train()
    inputs: list[torch.Tensor] = []
    hook = network.decoder["level2"].blocks[0].register_forward_pre_hook
    hook(lambda _block, arguments: inputs.append(arguments[0]))
    network(*batch(network))
    assert not inputs[0][:, 16:].any()
    assert inputs[0][:, :16].any()


def test_dropout_acts_in_training_only():
    network = tiny(dropout=0.5)
    inputs = batch(network)
    assert torch.equal(network(*inputs), network(*inputs))
    network.train()
    assert not torch.equal(network(*inputs), network(*inputs))
    without = tiny(dropout=0.0).train()
    assert torch.equal(without(*inputs), tiny(dropout=0.5)(*inputs))


def test_labels_are_a_linear_layer_on_scaled_one_hot_vectors():
    torch.manual_seed(0)
    lookup = LabelLookup(5, 4).double()
    torch.nn.init.normal_(lookup.bias)
    labels = torch.tensor([3, 0, 3])
    one_hot = functional.one_hot(labels, 5).double() * math.sqrt(5)
    weight = lookup.weight.detach().t().clone().requires_grad_()
    expected = functional.linear(one_hot, weight, lookup.bias)
    torch.testing.assert_close(lookup(labels), expected)
    lookup(labels).square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(lookup.weight.grad, weight.grad.t())
    assert not lookup.weight.grad.is_sparse


def test_adam_moves_labels_that_are_absent_from_the_batch():
    lookup = LabelLookup(3, 2)
    optimizer = torch.optim.Adam(lookup.parameters(), lr=1e-3)
    for label in (0, 1):
        before = lookup.weight.detach().clone()
        optimizer.zero_grad()
        lookup(torch.tensor([label])).sum().backward()
        optimizer.step()
    moved = (lookup.weight.detach() - before).abs().sum(1) > 0
    assert moved.tolist() == [True, True, False]


def test_labels_change_the_output():
    network = tiny(label_dim=3)
    images, c_noise = batch(network, 2)
    outputs = [network(images, c_noise, torch.full((2,), label)) for label in (0, 2)]
    assert not torch.allclose(*outputs)


def test_positional_features():
    mapping = MappingNetwork(8, 4, time_embedding="positional", fourier_scale=16.0, label_dim=0)
    expected = torch.tensor([10_000 ** (-i / 3) for i in range(4)])
    torch.testing.assert_close(mapping.frequencies, expected)
    assert "frequencies" not in mapping.state_dict()


def test_fourier_frequencies_are_a_stored_constant_of_the_given_scale():
    torch.manual_seed(0)
    mapping = MappingNetwork(4096, 4, time_embedding="fourier", fourier_scale=10.0, label_dim=0)
    assert "frequencies" in mapping.state_dict()
    assert "frequencies" not in dict(mapping.named_parameters())
    assert mapping.frequencies.std() == pytest.approx(2 * math.pi * 10, rel=0.05)


def test_the_mapping_stays_in_fp32_under_autocast():
    network = tiny(label_dim=2)
    c_noise, labels = torch.tensor([932.58, 998.3]), torch.tensor([0, 1])
    expected = network.mapping(c_noise, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = network.mapping(c_noise, labels)
        output = network(*batch(network, 2), labels)
    assert torch.equal(embedding, expected)
    assert output.dtype == torch.bfloat16
    reference = network(*batch(network, 2), labels)
    assert (output - reference).abs().max() < 0.05 * reference.abs().max()


def test_channels_last_gives_the_same_output():
    network = tiny(**NCSNPP)
    images, c_noise = batch(network)
    expected = network(images, c_noise)
    network.to(memory_format=torch.channels_last)
    output = network(images.to(memory_format=torch.channels_last), c_noise)
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", [{}, NCSNPP])
def test_gradients_equal_finite_differences(architecture):
    network = tiny(resolution=4, channels=4, fourier_scale=0.1, **architecture).double()
    images, c_noise = (tensor.double().requires_grad_() for tensor in batch(network, 1))
    weight = network.encoder["level2"].blocks[0].attention.qkv.weight.detach().requires_grad_()

    def output(images, c_noise, weight):
        replaced = {"encoder.level2.blocks.0.attention.qkv.weight": weight}
        return torch.func.functional_call(network, replaced, (images, c_noise)).flatten()[:6]

    assert torch.autograd.gradcheck(output, (images, c_noise, weight))


def test_the_global_seed_decides_all_weights_and_frequencies():
    def state(seed):
        torch.manual_seed(seed)
        return UNet(resolution=8, channels=8, label_dim=2, **NCSNPP).state_dict()

    first, again, other = state(1), state(1), state(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    random = [name for name in first if name.endswith("weight") and "norm" not in name]
    assert not any(
        torch.equal(first[name], other[name]) for name in [*random, "mapping.frequencies"]
    )


def test_initial_weights_are_xavier_uniform_with_the_published_gains():
    torch.manual_seed(0)
    network = UNet(resolution=8, channels=32, label_dim=40, **NCSNPP)
    for name, tensor in network.named_parameters():
        if "norm" in name:
            assert (tensor == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert not tensor.any(), name
        else:
            _check_xavier(name, tensor.detach())


def _check_xavier(name: str, weight: torch.Tensor) -> None:
    small = name.endswith(("conv_out.weight", "projection.weight", "head_conv.weight"))
    gain = 1e-5 if small else math.sqrt(0.2) if "qkv" in name else 1.0
    area = weight[0, 0].numel() if weight.ndim == 4 else 1
    bound = gain * math.sqrt(6 / ((weight.shape[0] + weight.shape[1]) * area))
    assert weight.abs().max() <= bound * (1 + 1e-6), name
    assert weight.abs().max() > 0.97 * bound, name
    assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.1), name


BAD_SETTINGS = [
    ({"resolution": 30}, "data.resolution: 30 px cannot be halved 2 times; use a multiple of 4"),
    ({"resolution": 2}, "data.resolution: 2 px"),
    ({"skip_mask": "11111111"}, "model.skip_mask: '11111111' is not 9 characters 0 or 1"),
    ({"skip_mask": "11111111x"}, "model.skip_mask: '11111111x' is not 9 characters"),
    ({"skip_mask": "1" * 9, "num_blocks": 4}, "is not 15 characters .* 3 levels with 4 blocks"),
    ({"attention_levels": (4,)}, r"model.attention_levels: level 4 does not .* to 3"),
    ({"attention_levels": (0,)}, "model.attention_levels: level 0 does not exist"),
    ({"channels": 200}, "cannot split 400 channels into 32 equal groups; make model.channels a"),
    ({"channels": 18, "channel_mult": (1, 1)}, "cannot split 18 channels into 4 equal groups"),
    ({"channels": 7}, "model.channels: 7 is not an even number of at least 4"),
    ({"channels": 2}, "model.channels: 2 is not an even number of at least 4"),
    ({"channel_mult": ()}, "model.channel_mult: the list is empty"),
    ({"num_blocks": 0}, "model.num_blocks: 0 blocks"),
    ({"time_embedding": "cosine"}, "'cosine' is unknown; use positional or fourier"),
    ({"encoder": "skip"}, "'skip' is unknown; use standard or residual"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_settings_that_do_not_fit_are_one_line_errors(settings, message):
    with pytest.raises(UserError, match=message) as error:
        unmaterialised(**settings)
    assert "\n" not in str(error.value)


def test_labels_must_be_passed_to_conditional_networks_and_to_no_others():
    conditional, unconditional = tiny(label_dim=2), tiny()
    with pytest.raises(UserError, match=r"labels are missing; pass one of 0\.\.1 per image"):
        conditional(*batch(conditional))
    with pytest.raises(UserError, match="passed to an unconditional network"):
        unconditional(*batch(unconditional), torch.zeros(3, dtype=torch.int64))


MODEL = {
    "arch": "ncsnpp",
    "channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attention_levels": [2],
    "time_embedding": "fourier",
    "fourier_scale": 16.0,
    "dropout": 0.13,
    "skip_mask": "all",
}


def test_build_takes_a_model_of_settings():
    model = SimpleNamespace(**MODEL)
    network = build(model, resolution=8, image_channels=1, label_dim=3)
    assert network(torch.zeros(2, 1, 8, 8), torch.zeros(2), torch.tensor([0, 2])).shape[1] == 1
    assert network.encoder["level2"].merge is not None
    assert network.skip_mask == "1111"
    assert {layer.dropout.rate for layer in network.modules() if isinstance(layer, Block)} == {0.13}
    network = build(model, resolution=8, image_channels=1, label_dim=0, dropout=0.0)
    assert {layer.dropout.rate for layer in network.modules() if isinstance(layer, Block)} == {0.0}


def test_build_passes_a_mask_of_bits_on():
    model = SimpleNamespace(**{**MODEL, "skip_mask": "0110"})
    assert build(model, resolution=8, image_channels=1, label_dim=0).skip_mask == "0110"


def test_build_names_the_known_architectures():
    model = SimpleNamespace(**{**MODEL, "arch": "vit"})
    with pytest.raises(UserError, match=r"model.arch: 'vit' is unknown; use ddpmpp or ncsnpp"):
        build(model, resolution=8, image_channels=1, label_dim=0)
