"""What networks make of labels: rows, fixed vectors, means of several, labels never trained."""

import math

import pytest
import torch
from torch import nn

from emm.nets.iddpm import IDDPMUNet
from emm.nets.labels import (
    LabelEmbedding,
    LabelLookup,
    LabelVectors,
    label_input,
    label_vectors,
)
from emm.nets.unet import UNet

KINDS = {
    "lookup": lambda: LabelLookup(6, 4),
    "embedding": lambda: LabelEmbedding(6, 4),
    "vectors": lambda: LabelVectors(label_vectors(6, 3, 0), 4),
}


@pytest.fixture(params=KINDS)
def told(request):
    torch.manual_seed(0)
    return KINDS[request.param]()


def test_several_labels_are_the_mean_of_their_features(told):
    pairs = torch.tensor([[0, 5], [2, 2]])
    expected = (told(pairs[:, 0]) + told(pairs[:, 1])) / 2
    torch.testing.assert_close(told(pairs), expected)
    assert torch.equal(told(pairs[1:]), told(torch.tensor([2])))


def test_invented_labels_are_new_and_leave_the_others_alone(told):
    labels, state = torch.arange(6), dict(told.state_dict())
    before = told(labels)
    told.invent([7, 8, 7])
    assert torch.equal(told(labels), before)
    assert told.state_dict().keys() == state.keys()
    first, second, again = told(torch.tensor([6, 7, 8]))
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)
    assert not any(torch.allclose(first, row) for row in before)


def test_invented_rows_are_drawn_as_those_of_training_were():
    torch.manual_seed(0)
    for build, columns in ((LabelLookup, 300), (LabelEmbedding, 300)):
        told = build(500, columns)
        told.invent(range(500))
        assert told.added.std() == pytest.approx(told.weight.std().item(), rel=0.01)
        assert told.added.abs().max() == pytest.approx(told.weight.abs().max().item(), rel=0.2)
    vectors = LabelVectors(label_vectors(5, 16, 0), 4)
    vectors.invent(range(3))
    torch.testing.assert_close(vectors.added.norm(dim=1), torch.full((3,), 4.0))


def test_the_average_is_that_of_the_features(told):
    labels = torch.tensor([0, 2, 2, 5])
    told.average(labels)
    torch.testing.assert_close(told(torch.tensor([6]))[0], told(labels).mean(0))
    place = told.added.data_ptr()
    told.average(labels[:1])  # of other weights, say
    torch.testing.assert_close(told(torch.tensor([6])), told(labels[:1]))
    assert told.added.data_ptr() == place


def test_a_later_checkpoint_loads_behind_invented_labels(told):
    told.invent([1])
    other = {name: tensor + 1 for name, tensor in told.state_dict().items()}
    told.load_state_dict(other)
    assert torch.equal(next(told.parameters()), other["weight"])


def test_vectors_are_directions_that_depend_on_their_index_alone():
    vectors = label_vectors(40, 16, 3)
    torch.testing.assert_close(vectors.norm(dim=1), torch.full((40,), 4.0))
    assert torch.equal(vectors[:7], label_vectors(7, 16, 3))
    assert not torch.allclose(vectors, label_vectors(40, 16, 4))
    cosines = (vectors @ vectors.T / 16)[torch.triu_indices(40, 40, 1).unbind()]
    assert cosines.mean().abs() < 0.05
    assert cosines.std() == pytest.approx(1 / math.sqrt(16), rel=0.1)


def test_vectors_go_through_one_linear_layer_and_are_not_trained():
    told = LabelVectors(label_vectors(9, 3, 0), 4)
    nn.init.normal_(told.bias)
    expected = told.vectors[[8, 0]] @ told.weight + told.bias
    torch.testing.assert_close(told(torch.tensor([8, 0])), expected)
    assert [name for name, _ in told.named_parameters()] == ["weight", "bias"]
    assert "vectors" in told.state_dict()


def test_an_embedding_begins_as_torch_has_it():
    weights = []
    for build in (LabelEmbedding, nn.Embedding):
        torch.manual_seed(4)
        weights.append(build(5, 7).weight)
    assert torch.equal(*weights)


@pytest.mark.parametrize("build", [UNet, IDDPMUNet])
def test_networks_take_vectors_and_pairs(build):
    about = {"resolution": 4, "image_channels": 1, "channels": 32, "channel_mult": (1,)}
    about |= {"num_blocks": 1, "attention_levels": (), "label_dim": 5}
    torch.manual_seed(0)
    network = build(**about, label_vectors=label_vectors(5, 3, 0))
    told = label_input(network)
    assert isinstance(told, LabelVectors)
    for weight in network.eval().parameters():
        nn.init.normal_(weight, std=0.1)  # a fresh network may return zeros
    images, level = torch.randn(2, 1, 4, 4), torch.full((2,), 0.5)
    single = network(images, level, torch.tensor([1, 4]))
    torch.testing.assert_close(single, network(images, level, torch.tensor([[1, 1], [4, 4]])))
    assert not torch.allclose(single, network(images, level, torch.tensor([[1, 2], [4, 2]])))
