"""Models from folders: what is read, and what is refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from emm.errors import UserError
from emm.sd.base import (
    check_resolution,
    decode_latents,
    encode_images,
    encode_prompts,
    load_base,
    require_extra,
)

CPU = torch.device("cpu")


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change(path: Path, **entries) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_parts_are_frozen_but_the_unet(base):
    assert all(weight.requires_grad for weight in base.unet.parameters())
    frozen = [*base.vae.parameters(), *base.text_encoder.parameters()]
    assert not any(weight.requires_grad for weight in frozen)
    assert {weight.dtype for weight in [*frozen, *base.unet.parameters()]} == {torch.float32}
    assert not any(part.training for part in (base.unet, base.vae, base.text_encoder))


def test_weights_of_half_precision_are_read_as_fp32(copy):
    from transformers import CLIPTextModel

    encoder = CLIPTextModel.from_pretrained(copy / "text_encoder").half()
    encoder.save_pretrained(copy / "text_encoder")
    loaded = load_base(copy, CPU)
    assert next(loaded.text_encoder.parameters()).dtype == torch.float32


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"install the extra: pip install 'emm\[sd\]'"):
        require_extra()


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "vae", "unet", "scheduler"])
def test_a_missing_part_is_named(copy, part):
    shutil.rmtree(copy / part)
    with pytest.raises(UserError, match=rf"has no folder {part}; not a Stable Diffusion model"):
        load_base(copy, CPU)


def test_a_damaged_part(copy):
    (copy / "vae" / "config.json").write_text("{")
    with pytest.raises(UserError, match="copy: cannot be loaded"):
        load_base(copy, CPU)


def test_a_tokenizer_without_its_vocabulary(copy):
    """transformers makes one of two words without complaint."""
    for path in (copy / "tokenizer").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"the tokenizer has 2 tokens, the encoder 514"):
        load_base(copy, CPU)


def test_other_kinds_of_models(copy):
    change(copy / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    with pytest.raises(UserError, match="predicts v_prediction; only models that predict noise"):
        load_base(copy, CPU)


def test_prompts_are_told_apart(base):
    states = encode_prompts(base, ["a painting", "a zero painting", ""])
    assert states.shape == (3, 77, 32)
    assert (states[0] - states[1]).abs().max() > 0.01
    assert torch.equal(encode_prompts(base, ["a zero painting"])[0], states[1])
    assert len(encode_prompts(base, ["a painting", "a painting"])) == 2
    with pytest.raises(UserError, match="cannot tell the prompts apart"):
        encode_prompts(base, ["a " * 80 + "x", "a " * 80 + "y"])


def test_latents_are_those_of_the_autoencoder(base, digits):
    images = digits(10).images
    mean, std = encode_images(base, images)
    assert mean.shape == std.shape == (10, 4, 4, 4)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        posterior = base.vae.encode(pixels).latent_dist
    scale = base.vae.config.scaling_factor
    torch.testing.assert_close(mean, posterior.mean * scale, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(std, posterior.std * scale, rtol=1e-4, atol=1e-4)
    images = decode_latents(base, mean)
    assert (images.shape, images.dtype) == ((10, 32, 32, 3), np.uint8)


def test_resolutions_that_cannot_be_halved(base):
    check_resolution(base, 48)
    with pytest.raises(UserError, match=r"data\.resolution 40: .* needs a multiple of 16"):
        check_resolution(base, 40)
