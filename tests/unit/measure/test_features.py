"""Features: what a classifier learns, which files are taken, and what is one clear line."""

import numpy as np
import pytest
import torch

from emm.data.sources import Source, load_source
from emm.errors import UserError
from emm.measure.features import DIMENSIONS, Classifier, load_features, write_classifier
from emm.train import checkpoint

CPU = torch.device("cpu")


class Inception(torch.nn.Module):
    """Bytes in, means of colours out; probabilities unless features are asked for."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert images.dtype == torch.uint8
        means = images.float().mean((2, 3))
        return means if return_features else means.softmax(1)


class Dino(torch.nn.Module):
    """Normalised images of 224 pixels in, means of colours out."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == (3, 224, 224)
        return images.mean((2, 3))


class Pictures(torch.nn.Module):
    """Gives images where features are asked for."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float()


def saved(module: torch.nn.Module, path):
    torch.jit.save(torch.jit.script(module), path)
    return path


@pytest.fixture(scope="module")
def digits():
    return load_source("digits")


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "f.safetensors"
    return path, write_classifier(path, digits, None, CPU)


def images(count: int, channels: int, side: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


def test_the_classifier_knows_digits_that_it_has_not_seen(trained, digits):
    path, accuracy = trained
    _, about = checkpoint.load(path)
    assert accuracy > 0.95
    assert about["accuracy"] == accuracy
    assert about["n_images"] + about["n_held_out"] == len(digits)
    assert (about["resolution"], about["channels"], about["classes"]) == (8, 1, 10)


def test_features_tell_classes_apart(trained, digits):
    """Nearer to another image of the class than to one of another, far oftener than by pixels."""
    features = load_features("classifier", trained[0], CPU)(digits.images[:400])
    assert (features.shape, features.dtype) == ((400, DIMENSIONS), torch.float64)
    away = torch.cdist(features, features).fill_diagonal_(torch.inf)
    nearest = digits.labels[:400][away.argmin(1).numpy()]
    assert (nearest == digits.labels[:400]).mean() > 0.97


def test_the_seed_decides(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("emm.measure.features.EPOCHS", 1)
    few = Source(digits.images[:300], digits.labels[:300], digits.class_names)
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        write_classifier(path, few, None, CPU, seed)
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again != other


@pytest.mark.parametrize(("side", "resolution"), [(9, None), (8, 4), (1, None)])
def test_any_resolution(side, resolution, tmp_path, monkeypatch):
    monkeypatch.setattr("emm.measure.features.EPOCHS", 1)
    source = Source(images(50, 3, side), np.arange(50) % 2, ("a", "b"))
    path = tmp_path / "f"
    write_classifier(path, source, resolution, CPU)
    _, about = checkpoint.load(path)
    assert about["resolution"] == (resolution or side)
    found = load_features("classifier", path, CPU)(images(7, 3, about["resolution"]))
    assert found.shape == (7, DIMENSIONS)


def test_a_batch_and_its_images_have_the_same_features(trained, digits):
    features = load_features("classifier", trained[0], CPU)
    whole = features(digits.images[:150])
    alone = torch.cat([features(digits.images[i : i + 1]) for i in (0, 140)])
    torch.testing.assert_close(whole[[0, 140]], alone, rtol=1e-4, atol=1e-5)


def test_sources_without_classes(tmp_path):
    for labels, names in ((np.full(9, -1), ()), (np.zeros(9, np.int64), ("one",))):
        with pytest.raises(UserError, match="no two classes to tell apart; set features: pixels"):
            write_classifier(tmp_path / "f", Source(images(9, 1), labels, names), None, CPU)


def test_pixels():
    found = load_features("pixels", None, CPU)(images(3, 2))
    expected = images(3, 2).transpose(0, 3, 1, 2).reshape(3, -1) / 127.5 - 1
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_inception_takes_bytes_and_is_asked_for_features(channels, tmp_path):
    path, given = saved(Inception(), tmp_path / "i.pt"), images(200, channels)
    found = load_features("inception", path, CPU)(given)
    expected = np.broadcast_to(given.mean((1, 2)), (200, 3))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_dino_takes_normalised_images(tmp_path):
    path = saved(Dino(), tmp_path / "d.pt")
    found = load_features("dinov2", path, CPU)(np.full((2, 6, 6, 3), 51, np.uint8))
    expected = (0.2 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found.numpy(), [expected, expected], rtol=1e-5)


def test_what_is_no_file_of_features(tmp_path, trained):
    other = tmp_path / "other"
    other.write_text("nothing")
    checkpoint.save(tmp_path / "run", Classifier(1, 2).state_dict(), {"step": 3})
    cases = [
        ("inception", None, "features inception: name a file of weights"),
        ("classifier", None, "`emm features` trains them"),
        ("inception", tmp_path / "none.pt", "none.pt: no such file"),
        ("dinov2", other, "not a TorchScript module"),
        ("inception", trained[0], "not a TorchScript module"),
        ("classifier", tmp_path / "none", "none: no such file"),
        ("classifier", tmp_path / "run", "not features; `emm features` writes them"),
    ]
    for kind, path, message in cases:
        with pytest.raises(UserError, match=message) as error:
            load_features(kind, path, CPU)
        assert "\n" not in str(error.value)


def test_what_gives_no_features(tmp_path, trained):
    path = saved(Pictures(), tmp_path / "p.pt")
    with pytest.raises(UserError, match=r"gives \(4, 3, 6, 6\) for 4 images"):
        load_features("inception", path, CPU)(images(4, 3))
    with pytest.raises(UserError, match="takes no such images") as error:
        load_features("inception", saved(Dino(), path), CPU)(images(4, 3))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="features of 1 channels, images of 3"):
        load_features("classifier", trained[0], CPU)(images(4, 3, 8))
