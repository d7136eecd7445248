"""Runs of Stable Diffusion as they are planned: what is refused, and what makes no difference."""

import math
import subprocess
import sys

import pytest

from emm import catalog
from emm.analyse.published import load_published
from emm.errors import UserError
from emm.expansion import published_files
from emm.ids import identity, run_id
from emm.resolve import resolve
from emm.spec import DEFAULTS
from emm.train.schedules import epoch_at, epoch_size, evaluated_steps

STABLE = {
    "data.dataset": "artbench10",
    "data.resolution": 256,
    "data.size": 100,
    "model.arch": "stable_diffusion",
    "model.base": "someone/model",
    "eval.sampler": "ddim",
}


def resolved(settings: dict) -> dict:
    return resolve(DEFAULTS | STABLE | settings, "here")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"model.base": None},
            "model.base: needed with model.arch stable_diffusion; name a folder",
        ),
        ({"model.arch": "ddpmpp"}, "model.base: goes with model.arch stable_diffusion, not ddpmpp"),
        ({"eval.sampler": "heun"}, "eval.sampler heun: stable_diffusion is sampled by ddim"),
        ({"eval.guidance": 0.5}, "eval.guidance 0.5: use 1, which is none, or more"),
        ({"labels.kind": "true"}, "labels.kind true: Stable Diffusion is told prompts"),
        (
            {"train.batch_size": 64, "train.accumulation": 3},
            "train.accumulation 3: does not divide train.batch_size 64",
        ),
        ({"data.resolution": 100}, "data.resolution 100: Stable Diffusion takes multiples of 8"),
        ({"data.resolution": 512}, "data.resolution 512: the images have 256 pixels"),
        ({"data.size": 1001}, "data.size 1001: the source has only 1000 such images"),
        (
            {"data.dataset": "digits", "data.resolution": 8},
            "data.dataset digits: Stable Diffusion takes colour images alone",
        ),
        (
            {"data.dataset": "ffhq", "data.resolution": 64, "model.caption": "class"},
            "model.caption class: ffhq has no classes; use plain",
        ),
        ({"data.resolution": None}, "data.resolution: needed for artbench10"),
    ],
)
def test_runs_that_cannot_be(settings, message):
    with pytest.raises(UserError) as caught:
        resolved(settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_heeded_makes_no_other_run():
    plain = resolved({"train.warmup_steps": 500, "train.ema_ramp": "steps"})
    same = {
        **{"train.warmup_steps": 500, "train.ema_ramp": "steps", "train.warmup_epochs": 7.0},
        **{"model.channels": 64, "model.skip_mask": "1", "model.dropout": 0.0},
        **{"train.order": "shuffled", "train.batch_size": 512, "eval.rho": 5.0},
    }
    assert resolved({**same, "data.size": 600}) == plain | {"data.size": 600}
    for changed in ({"model.caption": "class"}, {"model.base": "b"}, {"train.accumulation": 4}):
        assert identity(resolved(changed)) != identity(resolved({}))
    guided, plain = resolved({"eval.guidance": 3.0}), resolved({})
    assert run_id(guided) == run_id(plain)
    assert run_id(resolved({"model.caption": "class"})).startswith(
        "artbench10-256px-n100-stable-diffusion-class-"
    )


def test_other_networks_do_not_heed_these_settings():
    other = {"data.size": 1000, "model.caption": "class", "eval.guidance": 2.0}
    plain = resolve(DEFAULTS | {"data.size": 1000}, "here")
    assert resolve(DEFAULTS | other | {"train.accumulation": 2}, "here") == plain


@pytest.mark.parametrize(("size", "updates"), [(100, 2), (200, 4), (500, 8), (64, 1), (65, 2)])
def test_updates_of_an_epoch(size, updates):
    """As accelerate counts them: the incomplete last group of batches of 16 is a step too."""
    assert math.ceil(math.ceil(size / 16) / 4) == updates
    settings = resolved({"data.size": size, "train.batch_size": 64, "train.accumulation": 4})
    settings |= {"train.epochs": 10_000.0, "eval.snapshots": 4}
    steps = evaluated_steps(settings)
    assert steps == [2500 * updates, 5000 * updates, 7500 * updates, 10_000 * updates]
    assert [epoch_at(step, settings) for step in steps] == [2500, 5000, 7500, 10_000]
    assert epoch_size(settings) == 64 * updates
    others = settings | {"model.arch": "ddpmpp"}
    assert epoch_size(others) == size


def test_table_6_as_published():
    """Six trainings, each sampled with guidance and without."""
    paper = catalog.load({"scale": "paper", "experiments": "stable_diffusion"})
    assert len(paper.runs) == 6
    assert {len(run.evaluations) for run in paper.runs.values()} == {2}
    last = sorted({max(run.snapshots) for run in paper.runs.values()})
    assert last == [20_000, 40_000, 80_000]
    shown = {name: paper.figures[name].figure.epoch for name in paper.figures if "table6" in name}
    assert shown == {
        **dict.fromkeys(("table6", "table6_reconstructed", "table6_unguided"), "last"),
        **dict.fromkeys(("table6_best", "table6_images"), "best"),
    }
    quick = catalog.load({"scale": "quick", "experiments": "stable_diffusion"})
    assert len(quick.runs) == 6
    assert {run.settings["model.base"] for run in quick.runs.values()} == {"tiny"}


def test_published_values_are_compared_with_the_last_checkpoint():
    found = {path.stem: load_published(path) for path in published_files()}
    values = [value for value in found["gu2023"].values if value.figure == "table6"]
    assert [value.run["eval.epoch"] for value in values] == ["last"] * 6
    paper = catalog.load({"scale": "paper", "experiments": "stable_diffusion"})
    claims = paper.experiments["stable_diffusion"].claims.values()
    assert {claim.checkpoint for claim in claims} == {"last"}


def test_planning_imports_no_heavy_library():
    code = (
        "import sys; from emm import catalog; "
        "catalog.load({'experiments': 'stable_diffusion'}); "
        "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
