"""The U-Net of improved DDPM: parameters, outputs of the published definition, symmetries."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from emm.errors import UserError
from emm.nets.iddpm import IDDPMUNet, time_features
from emm.nets.published_iddpm import from_iddpm_state_dict, iddpm_names

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = ["iddpm_uncond", "iddpm_labels10"]


def golden(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as archive:
        config = json.loads(archive.metadata()["config"])
        return config, {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118


def network_of(config: dict) -> IDDPMUNet:
    size = config["image_size"]
    levels = [size // pixels for pixels in config["attention_resolutions"]]
    return IDDPMUNet(
        resolution=size,
        channels=config["channels"],
        channel_mult=config["channel_mult"],
        num_blocks=config["num_res_blocks"],
        attention_levels=[level.bit_length() for level in levels],
        heads=config["num_heads"],
        label_dim=config["num_classes"] or 0,
        learned_variance=config["learn_sigma"],
    )


def published(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix("param."): v for k, v in tensors.items() if k.startswith("param.")}


def small(**changed) -> IDDPMUNet:
    torch.manual_seed(0)
    settings = {"resolution": 8, "channels": 8, "channel_mult": (1, 2), "num_blocks": 1}
    return IDDPMUNet(**settings | {"attention_levels": (2,), "groups": 4} | changed)


def moved(network: IDDPMUNet) -> IDDPMUNet:
    """Random weights: a fresh network returns zeros."""
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return network.eval()


@pytest.mark.parametrize("name", FILES)
def test_output_equals_that_of_the_published_definition(name):
    config, tensors = golden(name)
    network = network_of(config).eval()
    network.load_state_dict(from_iddpm_state_dict(published(tensors), network))
    with torch.no_grad():
        found = network(tensors["input.x"], tensors["input.time"], tensors.get("input.labels"))
    expected = tensors["network.output"]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", FILES)
def test_every_published_name_has_exactly_one_counterpart(name):
    config, tensors = golden(name)
    assert sorted(iddpm_names(network_of(config)).values()) == sorted(published(tensors))


@pytest.mark.parametrize(
    ("channels", "label_dim", "learned", "expected"),
    [
        (32, 0, True, 3_303_142),
        (32, 1000, True, 3_431_142),
        (32, 2, True, 3_303_398),
        (32, 10, True, 3_304_422),
        (32, 0, False, 3_302_275),
        (64, 0, True, 13_161_926),
        (64, 1000, True, 13_417_926),
        (128, 0, True, 52_546_438),
        (128, 1000, True, 53_058_438),
        (128, 2, True, 52_547_462),
        (128, 0, False, 52_542_979),
        (256, 0, True, 209_983_238),
        (256, 10, True, 209_993_478),
    ],
)
def test_published_parameter_counts(channels, label_dim, learned, expected):
    with torch.device("meta"):
        network = IDDPMUNet(
            resolution=32, channels=channels, label_dim=label_dim, learned_variance=learned
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_parameters_by_part():
    with torch.device("meta"):
        network = IDDPMUNet(resolution=32)
    count = lambda *parts: sum(p.numel() for part in parts for p in part.parameters())  # noqa: E731
    assert count(network.time_hidden, network.time_output) == 328_704
    assert count(network.stem, network.encoder) == 16_926_848
    assert count(network.middle) == 3_151_360
    assert count(network.decoder) == 32_132_352
    assert count(network.head_norm, network.head_conv) == 7_174


def test_time_features():
    expected = [0.968912, 0.999688, 0.999997, 1.0, 0.247404, 0.024997, 0.0025, 0.00025]
    found = time_features(torch.tensor([0.25]), 8)[0]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


def test_a_fresh_network_returns_zeros():
    found = small(label_dim=3)(
        torch.randn(2, 3, 8, 8), torch.tensor([0.0, 999.75]), torch.arange(2)
    )
    assert found.shape == (2, 6, 8, 8)
    assert not found.any()


def test_time_and_label_matter_and_samples_do_not_mix():
    network = moved(small(label_dim=3))
    x, time, labels = torch.randn(4, 3, 8, 8), torch.linspace(1, 900, 4), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        together = network(x, time, labels)
        alone = network(x[1:2], time[1:2], labels[1:2])
        later = network(x, time + 50, labels)
        other = network(x, time, labels.flip(0))
    torch.testing.assert_close(together[1:2], alone)
    assert (together - later).abs().amax(dim=(1, 2, 3)).min() > 1e-4
    assert (together - other).abs().max() > 1e-4


def test_dropout_is_for_training_only():
    network = moved(small(dropout=0.5))
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 4.0])
    assert torch.equal(network(x, time), network(x, time))
    network.train()
    assert not torch.equal(network(x, time), network(x, time))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"resolution": 9}, "9 px cannot be halved 1 times"),
        ({"channels": 6}, "make model.channels a multiple of 4"),
    ],
)
def test_settings_that_do_not_fit(changed, message):
    with pytest.raises(UserError, match=message):
        small(**changed)


def test_labels_are_checked():
    x, time = torch.randn(1, 3, 8, 8), torch.tensor([1.0])
    with pytest.raises(UserError, match="needs labels"):
        small(label_dim=2)(x, time)
    with pytest.raises(UserError, match="takes no labels"):
        small()(x, time, torch.tensor([0]))


def test_foreign_weights_of_another_network():
    config, tensors = golden("iddpm_labels10")
    network, state = network_of(config), published(tensors)
    with pytest.raises(UserError, match=r"missing tensor label_emb.weight \(1 missing"):
        from_iddpm_state_dict({k: v for k, v in state.items() if "label" not in k}, network)
    with pytest.raises(UserError, match="unknown tensor extra"):
        from_iddpm_state_dict(state | {"extra": torch.zeros(1)}, network)
    wrong = state | {"out.2.bias": torch.zeros(3)}
    with pytest.raises(UserError, match=r"out.2.bias has shape \(3,\), the network needs \(6,\)"):
        from_iddpm_state_dict(wrong, network)


def test_groups_of_the_norms_are_as_many_as_asked_for():
    def groups(**options) -> set[int]:
        network = IDDPMUNet(
            resolution=8, channel_mult=(1, 2), attention_levels=(2,), heads=2, **options
        )
        return {m.num_groups for m in network.modules() if isinstance(m, torch.nn.GroupNorm)}

    assert groups(channels=128) == {32}
    assert groups(channels=16, groups=4) == {4}
    with pytest.raises(UserError, match=r"model.groups 4: does not divide 6 channels.* such as 2"):
        groups(channels=6, groups=4)
