"""Published weights: golden outputs of the published definitions, names, shapes, errors."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from emm.errors import UserError
from emm.nets import ARCHITECTURES, UNet
from emm.nets.published import edm_names, from_edm_state_dict

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = [
    "ddpmpp_vp",
    "ddpmpp_vp_fourier",
    "ddpmpp_vp_mask",
    "ddpmpp_edm_labels10",
    "ncsnpp_ve",
    "ncsnpp_ve_mask",
]


def golden(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Configuration and tensors of a golden file."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as archive:
        config = json.loads(archive.metadata()["config"])
        return config, {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118


def network_of(config: dict) -> UNet:
    arch = "ncsnpp" if config["encoder_type"] == "residual" else "ddpmpp"
    assert ARCHITECTURES[arch]["time_feature_mult"] == config["channel_mult_noise"]
    return UNet(
        resolution=config["img_resolution"],
        channels=config["channels"],
        channel_mult=config["channel_mult"],
        num_blocks=config["num_blocks"],
        attention_levels=(config["attention_level"],),
        time_embedding=config["embedding_type"],
        label_dim=config["label_dim"],
        skip_mask=config["skip_mask"],
        **ARCHITECTURES[arch],
    )


def published(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    kinds = ("param.", "buffer.")
    return {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(kinds)}


@pytest.mark.parametrize("name", FILES)
def test_output_equals_that_of_the_published_definition(name):
    config, tensors = golden(name)
    network = network_of(config).eval()
    network.load_state_dict(from_edm_state_dict(published(tensors), network))
    with torch.no_grad():
        labels = tensors.get("input.labels")
        output = network(tensors["network.input"], tensors["network.c_noise"], labels)
    expected = tensors["network.output"]
    assert (output - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["ddpmpp_edm_labels10", "ncsnpp_ve"])
def test_every_published_name_has_exactly_one_counterpart(name):
    config, tensors = golden(name)
    names = edm_names(network_of(config))
    assert sorted(names.values()) == sorted(published(tensors))


def test_names_follow_the_image_size():
    with torch.device("meta"):
        names = edm_names(UNet(resolution=64, channel_mult=(1, 2, 2, 2), attention_levels=(3,)))
    assert names["stem.weight"] == "enc.64x64_conv.weight"
    assert names["encoder.level3.blocks.1.attention.qkv.bias"] == "enc.16x16_block1.qkv.bias"
    assert names["encoder.level4.entry.0.shortcut.weight"] == "enc.8x8_down.skip.weight"
    assert names["decoder.level4.entry.1.norm_in.weight"] == "dec.8x8_in1.norm0.weight"
    assert names["decoder.level2.entry.0.shift.bias"] == "dec.32x32_up.affine.bias"


def test_a_wrapped_state_dict_with_filter_buffers_is_accepted():
    config, tensors = golden("ncsnpp_ve")
    network, state = network_of(config), published(tensors)
    expected = from_edm_state_dict(state, network)
    filters = {"enc.8x8_down.conv0.resample_filter": torch.ones(1, 1, 4, 4)}
    wrapped = {f"model.{name}": tensor for name, tensor in {**state, **filters}.items()}
    converted = from_edm_state_dict(wrapped, network)
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


def broken(change) -> tuple[dict[str, torch.Tensor], UNet]:
    config, tensors = golden("ddpmpp_edm_labels10")
    state = published(tensors)
    change(state)
    return state, network_of(config)


def test_a_missing_tensor_is_named():
    state, network = broken(lambda state: state.pop("dec.16x16_up.conv0.weight"))
    with pytest.raises(UserError, match=r"missing tensor dec.16x16_up.conv0.weight \(1 missing"):
        from_edm_state_dict(state, network)


def test_an_extra_tensor_is_named():
    state, network = broken(lambda state: state.update({"map_augment.weight": torch.ones(16, 9)}))
    with pytest.raises(UserError, match=r"unknown tensor map_augment\.weight"):
        from_edm_state_dict(state, network)


@pytest.mark.parametrize(
    ("name", "shape", "needed"),
    [
        ("enc.8x8_block0.qkv.weight", (47, 16, 1, 1), (48, 16, 1, 1)),
        ("map_label.weight", (10, 8), (8, 10)),
        ("dec.4x4_in0.norm0.bias", (), (16,)),
    ],
)
def test_a_misshaped_tensor_is_named_with_both_shapes(name, shape, needed):
    state, network = broken(lambda state: state.update({name: torch.ones(shape)}))
    message = f"tensor {name} has shape {shape}, the network needs {needed}"
    with pytest.raises(UserError, match=re.escape(message)):
        from_edm_state_dict(state, network)
