"""Ids: what is part of them, what is not, and that they stay as they are."""

import re

import pytest
from hypothesis import given
from hypothesis import settings as run_with
from hypothesis import strategies as st

from emm import ids, spec
from emm.ids import (
    evaluation_settings,
    identity,
    run_id,
    source_id,
    source_settings,
    subset_id,
)
from emm.resolve import resolve
from emm.spec import DEFAULTS, digest

SIZED = DEFAULTS | {"data.size": 1000}
OTHER_VALUES = {
    "data.dataset": "digits",
    "data.path": "images",
    "data.size": 2000,
    "data.resolution": 16,
    "data.num_classes": 5,
    "data.only_class": "cat",
    "data.alpha": 0.2,
    "data.selection": "random",
    "data.part": 2,
    "data.seed": 1,
    "data.cross_width": 2,
    "data.cross_position": "centre",
    "data.cross_margin": 5,
    "data.dummy": "mondrian",
    "data.dummy_size": 50,
    "data.duplicated": 0.1,
    "data.copies": 10,
    "labels.kind": "unique",
    "labels.num_classes": 10,
    "labels.seed": 0,
    "labels.dim": 64,
    "model.arch": "ncsnpp",
    "model.channels": 64,
    "model.channel_mult": (1, 2, 2),
    "model.num_blocks": 4,
    "model.attention_levels": (),
    "model.time_embedding": "fourier",
    "model.fourier_scale": 1.0,
    "model.heads": 2,
    "model.groups": 8,
    "model.dropout": 0.0,
    "model.skip_mask": "111111110",
    "model.precond": "edm",
    "model.prediction": "velocity",
    "model.depth": 6,
    "model.patch": 4,
    "model.window": 5,
    "model.diffusion_steps": 1000,
    "model.base": "tiny",
    "model.caption": "class",
    "model.weights": "network.pkl",
    "model.denoiser": "kernel.py:Kernel",
    "train.lr": 1e-3,
    "train.batch_size": 256,
    "train.epochs": 4000.0,
    "train.iterations": 1000,
    "train.warmup_epochs": 0.0,
    "train.warmup_steps": 500,
    "train.lr_schedule": "cosine",
    "train.accumulation": 4,
    "train.order": "shuffled",
    "train.weighting": "min_snr",
    "train.augment": "flip",
    "train.shift": 1,
    "train.weight_decay": 1e-5,
    "train.ema": 0.999,
    "train.ema_ramp": "steps",
    "train.seed": 0,
    "train.precision": "bf16",
    "train.device": "cpu",
    "eval.num_samples": 50000,
    "eval.sampler": "ddim",
    "eval.steps": 40,
    "eval.sigma_max": 100.0,
    "eval.sigma_min": 0.01,
    "eval.rho": 5.0,
    "eval.seed": 1,
    "eval.label": "data",
    "eval.rounding": "round",
    "eval.guidance": 1.0,
    "eval.snapshots": 5,
}
RECORDED = {"train.epochs", "train.iterations", "train.ema", "train.device"}
IDENTITY = [key for key in DEFAULTS if not key.startswith("eval.") and key not in RECORDED]
RESULTS_ONLY = [key for key in DEFAULTS if key not in IDENTITY]


def changed(key: str) -> dict:
    return SIZED | {key: OTHER_VALUES[key]}


def test_every_setting_is_tried():
    assert set(OTHER_VALUES) == set(DEFAULTS)
    assert all(OTHER_VALUES[key] != SIZED[key] for key in DEFAULTS)


@pytest.mark.parametrize("key", IDENTITY)
def test_what_decides_a_training_changes_its_id(key):
    assert run_id(changed(key)) != run_id(SIZED)
    assert digest(identity(changed(key))) != digest(identity(SIZED))


@pytest.mark.parametrize("key", RESULTS_ONLY)
def test_what_is_only_recorded_does_not(key):
    assert run_id(changed(key)) == run_id(SIZED)


@pytest.mark.parametrize("key", RESULTS_ONLY)
def test_evaluations_differ_by_what_is_recorded(key):
    differs = evaluation_settings(changed(key)) != evaluation_settings(SIZED)
    assert differs == (key != "train.device")


@pytest.mark.parametrize("key", IDENTITY)
def test_evaluations_do_not_differ_by_their_run(key):
    assert evaluation_settings(changed(key)) == evaluation_settings(SIZED) == {}


@pytest.mark.parametrize("key", DEFAULTS)
def test_subsets_and_sources(key):
    assert (subset_id(changed(key)) != subset_id(SIZED)) == key.startswith(("data.", "labels."))
    of_source = key in ("data.dataset", "data.path") or "cross" in key
    assert (source_id(changed(key)) != source_id(SIZED)) == of_source


def test_only_generated_sources_have_a_seed():
    generated = SIZED | {"data.dataset": "mondrian"}
    assert source_id(generated) != source_id(generated | {"data.seed": 1})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "cifar10-32px-n1000-ddpmpp-c128b2-f07493d1"),
        ({"labels.kind": "true"}, "cifar10-32px-n1000-true-ddpmpp-c128b2-5dc9f977"),
        ({"labels.kind": "unique"}, "cifar10-32px-n1000-unique-ddpmpp-c128b2-90a23aa3"),
        (
            {"labels.kind": "random", "labels.num_classes": 10},
            "cifar10-32px-n1000-random10-ddpmpp-c128b2-1ecd9fb7",
        ),
        (
            {"data.size": 50000, "model.num_blocks": 4, "model.precond": "edm", "train.lr": 1e-3},
            "cifar10-32px-n50000-ddpmpp-c128b4-72807c8d",
        ),
        (
            {"data.size": 50000, "model.arch": "optimum"},
            "cifar10-32px-n50000-optimum-873961d7",
        ),
        ({"model.prediction": "noise"}, "cifar10-32px-n1000-ddpmpp-c128b2-f07493d1"),
    ],
)
def test_ids_stay(settings, expected):
    assert run_id(resolve(SIZED | settings, "test")) == expected


def test_other_ids_stay():
    settings = resolve(SIZED | {"labels.kind": "true"}, "test")
    assert subset_id(settings) == "cifar10-32px-n1000-true-547078c8"
    assert source_id(settings) == "cifar10-44136fa3"


@pytest.mark.parametrize(
    ("alpha", "slug"), [(0.2, "a0.2"), (0.0, "a0"), (0, "a0"), (1.0, "a1"), (0.125, "a0.125")]
)
def test_blends_say_their_share(alpha, slug):
    settings = SIZED | {"data.dataset": "digits_blend", "data.alpha": alpha}
    assert subset_id(settings).startswith(f"digits_blend-32px-n1000-{slug}-")
    assert run_id(settings | {"labels.kind": "unique"}).startswith(
        f"digits_blend-32px-n1000-{slug}-unique-ddpmpp-c128b2-"
    )
    assert source_id(settings) == source_id(settings | {"data.alpha": 0.7})


def test_a_source_that_is_reduced_while_read_has_a_resolution():
    ids_of = {
        resolution: source_id(SIZED | {"data.dataset": "ffhq", "data.resolution": resolution})
        for resolution in (64, 32, 16)
    }
    assert len(set(ids_of.values())) == 3
    assert all(name.startswith(f"ffhq-{size}px-") for size, name in ids_of.items())
    faces = SIZED | {"data.dataset": "ffhq", "data.resolution": 64}
    assert source_settings(faces) == {"data.dataset": "ffhq", "data.resolution": 64}
    assert source_id(faces | {"data.size": 2000}) == source_id(faces)
    assert source_id(faces | {"data.path": "x"}) != source_id(faces)


def test_a_folder_without_a_resolution():
    settings = {"data.dataset": "folder", "data.path": "x", "data.resolution": None}
    assert run_id(SIZED | settings).startswith("folder-n1000-ddpmpp-c128b2-")


@pytest.mark.parametrize("group", ["data", "labels", "model", "train"])
def test_a_new_setting_with_the_old_behaviour_keeps_ids(group, monkeypatch):
    before = {key: (run_id(changed(key)), subset_id(changed(key))) for key in DEFAULTS}
    new = f"{group}.new"
    monkeypatch.setitem(spec.DEFAULTS, new, 7)
    for key, expected in before.items():
        assert (run_id(changed(key) | {new: 7}), subset_id(changed(key) | {new: 7})) == expected
    assert run_id(SIZED | {new: 8}) != run_id(SIZED)


def test_defaults_need_not_be_written(monkeypatch):
    slug = {"data.resolution", "model.channels", "model.num_blocks", "labels.kind"}
    for key in DEFAULTS:
        if key not in slug | {"data.dataset", "data.size", "labels.num_classes", "model.arch"}:
            shorter = {k: v for k, v in SIZED.items() if k != key}
            assert run_id(shorter) == run_id(SIZED)


def test_a_raised_recipe_version_changes_all_run_ids(monkeypatch):
    before = run_id(SIZED)
    monkeypatch.setattr(ids, "RECIPE_VERSION", 10**6)
    assert run_id(SIZED) != before
    assert run_id(SIZED)[:-9] == before[:-9]


choices = st.fixed_dictionaries({}, optional={k: st.just(v) for k, v in OTHER_VALUES.items()})


@run_with(deadline=None)
@given(choices, choices, st.randoms())
def test_ids_say_whether_runs_are_the_same(one, other, random):
    first, second = SIZED | one, SIZED | other
    assert (run_id(first) == run_id(second)) == (identity(first) == identity(second))
    shuffled = list(first.items())
    random.shuffle(shuffled)
    assert run_id(dict(shuffled)) == run_id(first)
    assert subset_id(dict(shuffled)) == subset_id(first)


@run_with(deadline=None)
@given(choices)
def test_ids_are_file_names(settings):
    for name in (run_id(SIZED | settings), subset_id(SIZED | settings)):
        assert re.fullmatch(r"[a-z0-9_]+(-[a-z0-9.]+)+-[0-9a-f]{8}", name)
