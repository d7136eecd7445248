"""The tiny model: its parts, its files, its autoencoder."""

import numpy as np
import torch

from emm.nets.cost import parameters
from emm.sd import tiny
from emm.sd.base import decode_latents, encode_images, load_base
from emm.sd.tiny import write_tiny

CPU = torch.device("cpu")


def test_tokens_are_letters(base):
    tokens = base.tokenizer("a painting", padding="max_length", max_length=77).input_ids
    assert tokens[:12] == [512, 320, 79, 64, 72, 77, 83, 72, 77, 326, 513, 513]
    assert len(tokens) == 77


def test_sizes(base):
    assert sum(weight.numel() for weight in base.text_encoder.parameters()) == 36_064
    assert sum(weight.numel() for weight in base.vae.parameters()) == 67_231
    assert parameters(base.unet) == 253_364


def test_a_model_comes_back_from_its_files(folder):
    first, second = load_base(folder, CPU), load_base(folder, CPU)
    for part in ("unet", "vae", "text_encoder"):
        states = [getattr(model, part).state_dict() for model in (first, second)]
        assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    words = "an eight painting"
    assert first.tokenizer(words).input_ids == second.tokenizer(words).input_ids


def test_it_is_built_once_and_the_same_for_a_seed(tmp_path, digits, quickly):
    images = digits(10).images
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_tiny(tmp_path / name, images, "mine", seed)
    weights = [
        (tmp_path / name / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
        for name in "abc"
    ]
    assert weights[0] == weights[1] != weights[2]
    (tmp_path / "a" / "unet" / "config.json").unlink()
    write_tiny(tmp_path / "a", images, "mine", 0)
    assert not (tmp_path / "a" / "unet" / "config.json").exists()
    write_tiny(tmp_path / "a", images, "another training", 0)
    assert (tmp_path / "a" / "unet" / "config.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_the_autoencoder_learns_its_images(tmp_path, digits):
    """Pixels of latents of unit spread come close to those of the images."""
    images = digits(10, resolution=16).images
    errors = []
    for steps in (1, 60):
        torch.manual_seed(0)
        vae = tiny._autoencoder()
        tiny.fit(vae, images, 0, steps)
        base = load_like(vae)
        mean, _ = encode_images(base, images)
        errors.append(np.abs(decode_latents(base, mean).astype(float) - images).mean())
        assert abs(mean.std().item() - 1) < 0.01
    assert errors[1] < 0.6 * errors[0]


def load_like(vae) -> object:
    """What encoding and decoding ask of a model."""

    class Parts:
        device = CPU

    Parts.vae = vae.eval()
    return Parts
