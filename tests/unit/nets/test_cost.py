"""Cost of the networks of Gu et al. 2023: operations per image and the table of layers."""

import pytest
import torch

from emm.nets import ARCHITECTURES, UNet
from emm.nets.cost import forward_flops, layers, parameters

NCSNPP = {"time_embedding": "fourier", **ARCHITECTURES["ncsnpp"]}
FFHQ = {"channel_mult": (1, 2, 2, 2), "attention_levels": (3,)}


def unmaterialised(**settings) -> UNet:
    with torch.device("meta"):
        return UNet(**{"resolution": 32, **settings})


FORWARD_GFLOP = [  # with the number of digits to which they are known
    ({}, 25.42, 2),
    ({"resolution": 16}, 6.32, 2),
    ({"resolution": 8}, 1.58, 2),
    ({"num_blocks": 4}, 42.4, 1),
    ({"num_blocks": 6}, 59.3, 1),
    ({"num_blocks": 8}, 76.3, 1),
    ({"num_blocks": 10}, 93.3, 1),
    ({"num_blocks": 12}, 110.2, 1),
    ({"channels": 64}, 6.4, 1),
    ({"channels": 96}, 14.3, 1),
    ({"channels": 160}, 39.6, 1),
    ({"channels": 192}, 57.0, 1),
    ({"channels": 224}, 77.5, 1),
    ({"channels": 256}, 101.2, 1),
    ({"channels": 320}, 158.0, 1),
    ({"channels": 256, "num_blocks": 4}, 168.8, 1),
    ({"channels": 256, "num_blocks": 6}, 236.4, 1),
    ({"channels": 256, "num_blocks": 8}, 304.0, 1),
    ({"channels": 256, "num_blocks": 10}, 371.6, 1),
    (NCSNPP, 25.7, 1),
    ({**FFHQ, "resolution": 64}, 54.1, 1),
    ({**FFHQ, "resolution": 32}, 13.5, 1),
    ({**FFHQ, "resolution": 16}, 3.4, 1),
]


@pytest.mark.parametrize(("settings", "gflop", "digits"), FORWARD_GFLOP)
def test_forward_operations_per_image(settings, gflop, digits):
    rounding = 0.5 * 10**-digits
    measured = forward_flops(unmaterialised(**settings)) / 1e9
    assert measured == pytest.approx(gflop, rel=0.005, abs=rounding)


TRAINING_GFLOP = [
    ({}, 76.25, 2),
    ({"resolution": 16}, 18.96, 2),
    ({"resolution": 8}, 4.75, 2),
    ({"num_blocks": 4}, 127.1, 1),
    ({**NCSNPP}, 77.2, 1),
    ({**NCSNPP, "num_blocks": 4}, 128, 0),
    ({"channels": 320}, 474, 0),
    ({"channels": 256, "num_blocks": 10}, 1115, 0),
    ({**FFHQ, "resolution": 64}, 162, 0),
]


@pytest.mark.parametrize(("settings", "gflop", "digits"), TRAINING_GFLOP)
def test_training_operations_are_three_forward_passes(settings, gflop, digits):
    rounding = 0.5 * 10**-digits
    measured = 3 * forward_flops(unmaterialised(**settings)) / 1e9
    assert measured == pytest.approx(gflop, rel=0.005, abs=rounding)


def test_skips_and_labels_cost_nothing():
    basic = forward_flops(unmaterialised())
    assert forward_flops(unmaterialised(skip_mask="000000000")) == basic
    assert forward_flops(unmaterialised(label_dim=50_000)) == basic


def test_a_real_network_is_measured_and_left_alone():
    settings = {"resolution": 8, "channels": 8, "channel_mult": (1, 2), "num_blocks": 1}
    network = UNet(**settings, label_dim=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert forward_flops(network) == forward_flops(unmaterialised(**settings))
    assert layers(network)
    assert not any(layer._forward_hooks for layer in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training


PIECES = {
    "mapping": 328_704,
    "stem": 3_584,
    "encoder.level1.blocks.0": 1_050_368,
    "encoder.level1.blocks.1": 1_312_512,
    "encoder.level2.blocks.0": 1_576_192,
    "encoder.level2.entry.0": 1_378_304,
    "decoder.level1.entry.0": 1_378_304,
    "decoder.level3.entry.0": 1_576_192,
    "decoder.level3.entry.1": 1_312_512,
    "decoder.level2.blocks.0": 2_034_176,
    "decoder.level2.blocks.2": 2_297_856,
    "decoder.level1.blocks.2": 1_706_240,
    "head_norm": 512,
    "head_conv": 6_915,
}


def test_parameters_of_the_pieces_of_the_basic_network():
    rows = {row["name"]: row["parameters"] for row in layers(unmaterialised())}
    assert {name: rows[name] for name in PIECES} == PIECES


@pytest.mark.parametrize("settings", [{}, NCSNPP, {"label_dim": 10}])
def test_layers_add_up(settings):
    network = unmaterialised(**settings)
    assert sum(row["parameters"] for row in layers(network)) == parameters(network)


def test_layers_name_the_skips_that_they_make_and_take():
    rows = layers(unmaterialised(**NCSNPP))
    encoder = [row["skip"] for row in rows if row["name"].startswith(("stem", "encoder"))]
    assert encoder == [1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9]
    assert [row["name"] for row in rows if row["kind"] == "merge"] == [
        "encoder.level2.merge",
        "encoder.level3.merge",
    ]
    decoder = [row["skip"] for row in rows if row["name"].startswith("decoder")]
    assert [skip for skip in decoder if skip] == [9, 8, 7, 6, 5, 4, 3, 2, 1]


def test_layers_are_in_the_order_of_computation_with_their_output_shapes():
    rows = layers(unmaterialised(resolution=16, image_channels=1))
    assert [row["name"] for row in rows[:3]] == ["mapping", "stem", "encoder.level1.blocks.0"]
    assert rows[0]["shape"] == [512]
    assert rows[-1]["shape"] == [1, 16, 16]
    kinds = [(row["kind"], row["shape"]) for row in rows if row["kind"] in ("down", "up")]
    assert kinds == [
        ("down", [256, 8, 8]),
        ("down", [256, 4, 4]),
        ("up", [256, 8, 8]),
        ("up", [256, 16, 16]),
    ]
    assert sum(row["attention"] for row in rows) == 4
