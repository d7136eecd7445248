"""Devices, and what is put on them."""

import numpy as np
import pytest
import torch

from emm.data.stage import Subset
from emm.errors import UserError
from emm.spec import Recipe, nested
from emm.train import device
from emm.train.device import as_tensors, build_denoiser, choose_device

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@NO_GPU
@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_the_cpu_is_taken_where_there_is_no_gpu(wanted):
    assert choose_device(wanted) == torch.device("cpu")


@NO_GPU
def test_cuda_without_a_gpu_is_one_line():
    with pytest.raises(UserError) as caught:
        choose_device("cuda")
    assert str(caught.value) == "train.device cuda: no CUDA device is visible; use auto or cpu"


@pytest.mark.parametrize(("wanted", "kind"), [("auto", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")])
def test_the_gpu_is_taken_where_there_is_one(monkeypatch, wanted, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(wanted).type == kind


def test_tf32_is_off():
    choose_device("auto")
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("missing", [OSError, AttributeError])
def test_other_c_libraries_are_left_alone(monkeypatch, missing):
    def library(name):
        raise missing

    monkeypatch.setattr(device.ctypes, "CDLL", library)
    device.keep_freed_memory()


def test_images_and_labels_as_tensors(digits):
    subset = digits(6, label_kind="unique")
    images, labels = as_tensors(subset, torch.device("cpu"))
    assert (images.dtype, images.shape, labels.dtype) == (torch.uint8, (6, 1, 4, 4), torch.int64)
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), subset.images)
    assert labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert as_tensors(digits(6), torch.device("cpu"))[1] is None


def weights(settings, subset: Subset, **changed) -> torch.Tensor:
    named = {name.replace("__", "."): value for name, value in changed.items()}
    recipe = Recipe.model_validate(nested(settings | named))
    denoiser = build_denoiser(recipe, subset, torch.device("cpu"))
    return torch.cat([p.detach().reshape(-1) for p in denoiser.parameters()])


def test_weights_follow_the_seed_alone(settings, digits):
    torch.manual_seed(5)
    first = weights(settings, digits(6))
    torch.manual_seed(6)
    assert torch.equal(weights(settings, digits(9)), first)
    assert torch.equal(weights(settings, digits(6), train__lr=0.5, train__batch_size=2), first)
    assert not torch.equal(weights(settings, digits(6), train__seed=1025), first)


def test_the_denoiser_is_that_of_the_recipe(settings, digits):
    recipe = Recipe.model_validate(nested(settings | {"train.precision": "bf16"}))
    denoiser = build_denoiser(recipe, digits(6, label_kind="unique"), torch.device("cpu"))
    assert (denoiser.network.label_dim, denoiser.network.image_channels) == (6, 1)
    assert (denoiser.network.resolution, denoiser.dtype) == (4, torch.bfloat16)
    assert all(weight.dtype == torch.float32 for weight in denoiser.parameters())


def test_oblong_images(settings):
    none = np.full(2, -1)
    subset = Subset(np.zeros((2, 4, 6, 1), np.uint8), none, none, np.arange(2), 0)
    with pytest.raises(UserError, match="4x6 pixels: networks take square ones"):
        weights(settings, subset)


def test_a_gpu_that_emulates_bf16_is_told(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    for precision, kind in (("fp32", "cuda"), ("bf16", "cpu"), ("bf16", "cuda")):
        assert not capsys.readouterr().err
        device.check_precision(precision, torch.device(kind))
    assert "Tesla T4 has no bf16 and emulates it" in capsys.readouterr().err
