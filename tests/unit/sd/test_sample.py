"""Samples of a fine-tuned model, from the run to its summary."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from emm.analyse.parquet import read_table
from emm.data.stage import write_subset
from emm.diffusion import shards
from emm.diffusion.sampling import load_average, sample_run
from emm.errors import Interrupted, UserError
from emm.files import read_arrays
from emm.ids import EVALUATION_KEYS
from emm.score.reconstructed import COLUMNS
from emm.score.runs import score_run
from emm.score.stage import score_arrays
from emm.sd.base import decode_latents, encode_prompts, load_base
from emm.sd.finetune import autocast
from emm.sd.origin import fingerprint
from emm.sd.sample import Painter, make_pipeline, reconstructions
from emm.spec import among
from emm.train.stage import train_run

CPU = torch.device("cpu")


@pytest.fixture
def painter(base, digits, recipe_of):
    """Painters of the tiny model: painter(batch_size, eval__num_samples=...)."""

    def make(batch_size: int = 4, **changed) -> Painter:
        return Painter(base, recipe_of(**changed), digits(10), batch_size)

    return make


def draw(painter: Painter, folder: Path, token: str = "now") -> np.ndarray:
    path, count = folder / "step-1.npz", painter.recipe.eval.num_samples
    shards.write_samples(path, count, painter.draw, token=token, batch_size=painter.batch_size)
    return read_arrays(path)["images"]


def test_the_sampler_does_not_clip_latents(base):
    """Whatever the base's file says or leaves out: diffusers would clip them to [-1, 1]."""
    for entries in ({"clip_sample": True}, {}):
        plain = {key: value for key, value in base.schedule.items() if key != "clip_sample"}
        other = dataclasses.replace(base, schedule=plain | entries)
        config = make_pipeline(other).scheduler.config
        assert (config.clip_sample, config.set_alpha_to_one, config.steps_offset) == (
            False,
            False,
            1,
        )
        assert config.beta_schedule == "scaled_linear"


def test_no_safety_checker_and_no_complaint(base, capfd):
    pipeline = make_pipeline(base)
    assert pipeline.safety_checker is None
    assert pipeline.config.requires_safety_checker is False
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_images_are_those_of_ddim(tmp_path, base, painter, guidance):
    """Song et al. 2021, Eq. 12, at steps 667, 334 and 1 of 1000."""
    found = draw(painter(eval__guidance=guidance, model__caption="class"), tmp_path)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha = (1 - betas).cumprod(0)
    empty = encode_prompts(base, [""])
    for index in (0, 4):
        words = ("a zero painting", "a four painting")[index // 4]
        prompt = encode_prompts(base, [words])
        x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(index))
        for step, before in ((667, 334), (334, 1), (1, 0)):
            with torch.no_grad():
                noise = base.unet(x, step, prompt).sample
                if guidance > 1:
                    plain = base.unet(x, step, empty).sample
                    noise = plain + guidance * (noise - plain)
            last = alpha[0] if before == 0 else alpha[before]
            clean = (x - math.sqrt(1 - alpha[step]) * noise) / math.sqrt(alpha[step])
            x = math.sqrt(last) * clean + math.sqrt(1 - last) * noise
        expected = decode_latents(base, x)[0].astype(int)
        assert np.abs(found[index].astype(int) - expected).max() <= 1
        assert expected.std() > 1


def by_hand(base, painter: Painter, latents: torch.Tensor, step: int) -> torch.Tensor:
    """What the U-Net finds without a prompt and with it, in the precision that it returns."""
    words = torch.cat([painter.unconditional.expand(4, -1, -1), painter.prompts.expand(4, -1, -1)])
    with torch.no_grad(), autocast(CPU, "bf16"):
        found = base.unet(torch.cat([latents] * 2), step, words).sample
    assert found.dtype == torch.bfloat16
    return found


def guided(found: torch.Tensor) -> torch.Tensor:
    plain, prompted = found.chunk(2)
    return plain + 7.5 * (prompted - plain)


def test_a_unet_in_bf16_is_guided_in_fp32(base, painter, monkeypatch):
    maker = painter(train__precision="bf16", eval__num_samples=4)
    steps, step = [], maker.pipeline.scheduler.step

    def spied(found, time, latents, **options):
        after = step(found, time, latents, **options)
        steps.append((found, int(time), latents, after[0]))
        return after

    monkeypatch.setattr(maker.pipeline.scheduler, "step", spied)
    maker.draw(0, 4)
    assert [time for _, time, _, _ in steps] == [667, 334, 1]
    for found, time, latents, after in steps:
        assert {found.dtype, latents.dtype, after.dtype} == {torch.float32}
        raw = by_hand(base, maker, latents, time)
        torch.testing.assert_close(found, guided(raw.float()), rtol=1e-6, atol=1e-6)
        assert (found - guided(raw)).abs().max() > 1e-3
    assert not base.unet._forward_hooks  # of a training that follows


def test_a_sample_depends_on_neither_count_nor_shards(tmp_path, painter, monkeypatch):
    few = draw(painter(eval__num_samples=6), tmp_path / "few")
    monkeypatch.setattr(shards, "SHARD", 4)
    many = draw(painter(eval__num_samples=9), tmp_path / "many")
    np.testing.assert_array_equal(few, many[:6])
    assert len(np.unique(many.reshape(9, -1), axis=0)) == 9
    other = draw(painter(eval__num_samples=6, eval__seed=1), tmp_path / "other")
    np.testing.assert_array_equal(other[:5], many[1:6])


def test_shards_of_a_stopped_call_are_kept(tmp_path, painter, monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 4)
    whole = draw(painter(eval__num_samples=10), tmp_path / "whole")
    drawn, calls = Painter._batch, []

    def stopped(self, first: int) -> np.ndarray:
        calls.append(first)
        if len(calls) == 2:
            raise Interrupted("stopped by SIGTERM")
        return drawn(self, first)

    monkeypatch.setattr(Painter, "_batch", stopped)
    with pytest.raises(Interrupted):
        draw(painter(eval__num_samples=10), tmp_path / "stopped")
    (tmp_path / "stopped" / "step-1.shard-00000004.npz").write_bytes(b"half")
    resumed = draw(painter(eval__num_samples=10), tmp_path / "stopped")
    assert calls == [0, 4, 4, 8]
    np.testing.assert_array_equal(resumed, whole)
    draw(painter(eval__num_samples=10), tmp_path / "stopped", token="another call")
    assert calls[4:] == [0, 4, 8]


def test_a_copy_counts_against_reconstructions(base, digits):
    """Planted copies of what the autoencoder makes of the training set are found, noise is not."""
    subset = digits(10)
    known = reconstructions(base, subset.images)
    assert (known.shape, known.dtype) == (subset.images.shape, np.uint8)
    assert score_arrays(known, known, xp=np).memorized.all()
    noise = np.random.default_rng(0).integers(0, 256, known.shape, np.uint8)
    assert not score_arrays(noise, known, xp=np).memorized.any()


@pytest.fixture(scope="module")
def run(tmp_path_factory, settings, digits):
    """Record of a small run with class captions, and its subset."""
    from emm.sd import tiny

    folder = tmp_path_factory.mktemp("run")
    write_subset(folder / "subset.npz", digits(10))
    changed = settings | {"model.caption": "class"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "FIT_STEPS", 3)
        train_run(changed, folder / "subset.npz", [(2.0, 2)], [0.9999], folder / "run.yaml")
    return folder / "run.yaml", folder / "subset.npz"


def evaluation(settings, **changed) -> dict:
    named = {name.replace("__", "."): value for name, value in changed.items()}
    chosen = settings | {"eval.snapshots": 2, "eval.num_samples": 12} | named
    return among(chosen, EVALUATION_KEYS)


def test_the_record_of_a_run(run):
    content = yaml.safe_load(run[0].read_text())
    assert [entry["step"] for entry in content["checkpoints"]] == [3, 6]  # three batches an epoch
    assert [entry["epoch"] for entry in content["checkpoints"]] == [1.0, 2.0]
    assert content["parameters"] == 253_364
    assert content["settings"]["model"]["base"] == "tiny"
    folder = run[0].parent / "base"
    assert content["base"] == {"folder": str(folder), "fingerprint": fingerprint(folder)}


def test_from_the_run_to_its_summary(tmp_path, run, settings, digits):
    sample_run(*run, evaluation(settings), tmp_path / "samples", name="mine")
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == [
        *("reconstructions.npz", "samples.json", "step-00000003.npz", "step-00000006.npz"),
    ]
    arrays = read_arrays(tmp_path / "samples" / "step-00000006.npz")
    assert arrays["labels"].tolist() == [*range(10), 0, 1]
    base = load_base(run[0].parent / "base", CPU)
    known = read_arrays(tmp_path / "samples" / "reconstructions.npz")["images"]
    np.testing.assert_array_equal(known, reconstructions(base, digits(10).images))
    places = {"summary": tmp_path / "summary.parquet", "pictures": tmp_path / "gallery.npz"}
    frame = score_run(tmp_path / "samples", run[1], tmp_path / "scores.parquet", **places)
    assert len(frame) == 2
    assert set(COLUMNS) <= set(read_table(tmp_path / "summary.parquet"))
    expected = score_arrays(arrays["images"], known, xp=np).memorized.mean()
    assert frame["memorization_ratio_reconstructed"].iloc[1] == expected
    assert frame["model.caption"].tolist() == ["class", "class"]


def test_samples_are_those_of_the_average(tmp_path, run, settings, digits, recipe_of):
    sample_run(*run, evaluation(settings), tmp_path / "samples")
    found = read_arrays(tmp_path / "samples" / "step-00000003.npz")["images"]
    base = load_base(run[0].parent / "base", CPU)
    load_average(base.unet, run[0].parent / "checkpoints" / "step-00000003.safetensors", 0.9999)
    recipe = recipe_of(model__caption="class", eval__num_samples=12)
    expected = draw(Painter(base, recipe, digits(10), 256), tmp_path)
    np.testing.assert_array_equal(found, expected)


def test_the_index_names_the_reconstructions(tmp_path, run, settings):
    sample_run(*run, evaluation(settings, eval__num_samples=1), tmp_path / "samples")
    index = json.loads((tmp_path / "samples" / "samples.json").read_text())
    assert index["reconstructions"] == "reconstructions.npz"
    assert index["settings"]["eval.guidance"] == 7.5


def test_a_run_without_its_model(tmp_path, run, settings):
    record = tmp_path / "run.yaml"
    record.write_bytes(run[0].read_bytes())
    (tmp_path / "checkpoints").symlink_to(run[0].parent / "checkpoints")
    with pytest.raises(UserError, match=r"base: has no folder tokenizer"):
        sample_run(record, run[1], evaluation(settings), tmp_path / "samples")


def test_a_run_with_another_model(tmp_path, run, settings):
    folder = Path(shutil.copytree(run[0].parent, tmp_path / "run"))
    content = json.loads((folder / "base" / "vae" / "config.json").read_text())
    changed = json.dumps(content | {"scaling_factor": 1.0})
    (folder / "base" / "vae" / "config.json").write_text(changed)
    with pytest.raises(
        UserError, match=r"model\.base tiny: .* is not what the run was trained from"
    ):
        sample_run(folder / "run.yaml", run[1], evaluation(settings), tmp_path / "samples")
    assert not (tmp_path / "samples").exists()
