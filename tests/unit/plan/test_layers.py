"""The layers of a plan against the networks that are built."""

import pytest
import torch

from emm import nets
from emm.nets.cost import forward_flops, parameters
from emm.plan.layers import layers
from emm.spec import DEFAULTS, Recipe, nested

IDDPM = {
    "model.arch": "iddpm",
    "model.precond": "cosine",
    "model.channel_mult": (1, 2, 2, 2),
    "model.num_blocks": 3,
    "model.attention_levels": (2, 3),
}
DIT = {"model.arch": "dit", "model.channels": 384, "model.heads": 6}
NETWORKS = [
    ({}, 3, 32),
    ({}, 1, 16),
    ({"model.channels": 64, "model.num_blocks": 4}, 3, 32),
    ({"model.channel_mult": (1, 2, 2, 2), "model.attention_levels": (3,)}, 3, 64),
    ({"model.channel_mult": (1, 2), "model.attention_levels": (), "model.num_blocks": 1}, 3, 8),
    ({"model.attention_levels": (1, 3)}, 3, 8),
    ({"labels.kind": "true", "labels.num_classes": 10}, 3, 32),
    ({"model.arch": "ncsnpp", "model.time_embedding": "fourier"}, 3, 32),
    ({"model.arch": "ncsnpp", "model.num_blocks": 4, "labels.num_classes": 5}, 3, 16),
    ({"model.arch": "ncsnpp", "model.channel_mult": (1, 2, 3, 4)}, 1, 32),
    ({"labels.kind": "vectors", "labels.num_classes": 50, "labels.dim": 7}, 3, 32),
    (IDDPM | {"labels.kind": "vectors", "labels.num_classes": 50, "labels.dim": 7}, 3, 32),
    (IDDPM, 3, 32),
    (IDDPM | {"model.channels": 64, "labels.num_classes": 1000}, 3, 32),
    (IDDPM | {"model.channel_mult": (1, 2), "model.attention_levels": (2,)}, 1, 8),
    (DIT, 3, 32),
    (DIT | {"model.patch": 4, "model.depth": 3, "model.window": 3, "labels.num_classes": 9}, 1, 16),
]


@pytest.mark.parametrize(("changed", "image_channels", "resolution"), NETWORKS)
def test_layers_are_those_of_the_built_network(changed, image_channels, resolution):
    settings = DEFAULTS | changed
    with torch.device("meta"):
        network = nets.build(
            Recipe.model_validate(nested(settings)).model,
            resolution=resolution,
            image_channels=image_channels,
            label_dim=settings["labels.num_classes"],
            label_vectors=torch.empty(settings["labels.num_classes"], settings["labels.dim"])
            if settings["labels.kind"] == "vectors"
            else None,
        )
    found = layers(settings, image_channels, resolution)
    assert sum(layer.operations for layer in found) == forward_flops(network)
    assert sum(layer.parameters for layer in found) == parameters(network)


def test_published_counts():
    """Parameters that the papers and their networks have."""
    published = [({}, 35.1), ({"model.num_blocks": 4}, 55.7), ({"model.channels": 320}, 219.3)]
    for changed, millions in published:
        found = layers(DEFAULTS | changed, 3, 32)
        assert sum(layer.parameters for layer in found) / 1e6 == pytest.approx(millions, abs=0.1)
    assert sum(layer.parameters for layer in layers(DEFAULTS | IDDPM, 3, 32)) == 52_546_438
    wide = layers(DEFAULTS | IDDPM | {"labels.num_classes": 1000}, 3, 32)
    assert sum(layer.parameters for layer in wide) == 53_058_438
