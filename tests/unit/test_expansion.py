"""Recipes, experiment files, crossed lists, and the rules of scales."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emm.documents import Rule
from emm.errors import UserError
from emm.expansion import (
    WORKFLOW,
    expand,
    experiment_files,
    load_experiment,
    load_recipes,
    load_scale,
    shipped_experiments,
    transform,
)
from emm.spec import DEFAULTS, Recipe
from emm.yamlfile import load_yaml

SMALL = {
    "data.dataset": "folder",
    "data.resolution": None,
    "model.channels": 16,
    "model.channel_mult": (1, 2),
    "model.num_blocks": 1,
    "model.precond": "edm",
    "train.lr": 4e-3,
    "train.batch_size": 32,
    "train.epochs": 1000,
    "train.warmup_epochs": 10,
    "train.ema": 0.99,
    "eval.num_samples": 1000,
    "eval.snapshots": 2,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ddpmpp", {}),
        (
            "ncsnpp",
            {
                "model.arch": "ncsnpp",
                "model.precond": "ve",
                "model.time_embedding": "fourier",
            },
        ),
        ("edm", {"model.num_blocks": 4, "model.precond": "edm", "train.lr": 1e-3}),
        ("optimum", {"model.arch": "optimum"}),
        ("small", SMALL),
    ],
)
def test_recipes_are_the_published_ones(name, expected):
    assert load_recipes()[name] == expected


def test_recipes_are_complete_at_a_glance():
    recipes = load_yaml(WORKFLOW / "recipes.yaml")
    assert all(set(groups) == set(Recipe.model_fields) for groups in recipes.values())
    basic = recipes["ddpmpp"]
    for name in ("ncsnpp", "edm", "optimum", "small"):
        for group in ("labels", "train", "eval", *(["model"] if name != "optimum" else [])):
            assert set(recipes[name][group]) == set(basic[group]), (name, group)
    optimiser = {"lr", "batch_size", "weight_decay", "ema", "ema_ramp", "seed", "precision"}
    for name in ("iddpm", "stable_diffusion"):  # which count in other terms
        assert set(recipes[name]["train"]) >= optimiser
        assert set(recipes[name]["eval"]) >= {"num_samples", "sampler", "steps", "snapshots"}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("{modle: {}}", "mine: unknown key 'modle'; did you mean 'model'?"),
        ("{model: {chanels: 5}}", "mine: unknown key 'model.chanels'; did you mean 'channels'?"),
        ("{train: {lr: 1e-4}}", "mine: train.lr: input should be a valid number, not '1e-4' (wri"),
        ("5", "mine: content: input should be a valid dictionary"),
    ],
)
def test_wrong_recipes(tmp_path, groups, message):
    path = tmp_path / "recipes.yaml"
    path.write_text(f"mine: {groups}\n")
    with pytest.raises(UserError) as caught:
        load_recipes(tmp_path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_lists_of_an_item_are_crossed():
    item = {"data.size": [1000, 2000], "model.precond": ["vp", "ve"], "train.lr": 0.1}
    assert list(expand(item)) == [
        {"data.size": 1000, "model.precond": "vp", "train.lr": 0.1},
        {"data.size": 1000, "model.precond": "ve", "train.lr": 0.1},
        {"data.size": 2000, "model.precond": "vp", "train.lr": 0.1},
        {"data.size": 2000, "model.precond": "ve", "train.lr": 0.1},
    ]
    assert list(expand({})) == [{}]


def test_settings_that_are_lists_stay_whole():
    assert list(expand({"model.channel_mult": [1, 2, 2]})) == [{"model.channel_mult": [1, 2, 2]}]
    assert list(expand({"model.attention_levels": []})) == [{"model.attention_levels": []}]
    crossed = {"model.channel_mult": [[2, 2], [1, 2]], "data.size": [5, 6]}
    assert len(list(expand(crossed))) == 4
    assert {tuple(one["model.channel_mult"]) for one in expand(crossed)} == {(2, 2), (1, 2)}


axes = st.dictionaries(
    st.sampled_from(["data.size", "train.lr", "train.seed", "eval.steps", "model.channels"]),
    st.integers() | st.lists(st.integers(), min_size=1, max_size=4, unique=True),
)


@settings(deadline=None)
@given(axes)
def test_an_item_has_as_many_runs_as_the_product_of_its_lists(item):
    runs = list(expand(item))
    assert len(runs) == math.prod(len(v) for v in item.values() if isinstance(v, list))
    assert len({tuple(run.items()) for run in runs}) == len(runs)
    for run in runs:
        assert list(run) == list(item)
        for key, value in run.items():
            assert value == item[key] or value in item[key]


def scaled(key: str, value: object, **rule: object) -> object:
    rules = {key: Rule.model_validate(rule)}
    return transform(DEFAULTS | {key: value}, rules, "mine.yaml at scale quick")[key]


@pytest.mark.parametrize(
    ("key", "value", "rule", "expected"),
    [
        ("data.dataset", "cifar10", {"to": "digits"}, "digits"),
        ("data.size", 1000, {"to": None}, None),
        ("data.size", 1000, {"to": 5, "map": {1000: 6}, "factor": 2.0}, 5),
        ("data.size", 1000, {"map": {1000: 6}, "factor": 0.5}, 6),
        ("data.size", 2000, {"map": {1000: 6}, "factor": 0.5}, 1000),
        ("data.size", 50, {"factor": 0.02, "minimum": 4}, 4),
        ("data.size", 500, {"factor": 0.02, "minimum": 4}, 10),
        ("data.size", None, {"factor": 0.02}, None),
        ("data.size", 1000, {}, 1000),
        ("train.epochs", 40000.0, {"factor": 0.03}, 1200.0),
        ("train.epochs", 10.0, {"factor": 0.03}, 0.3),
        ("train.lr", 2e-4, {"map": {2e-4: 2e-3}}, 2e-3),
        ("labels.kind", "true", {"map": {"true": "none"}}, "none"),
        ("labels.kind", "true", {"map": {"unique": "none"}, "factor": 2.0}, "true"),
        ("model.channel_mult", (2, 2, 2), {"to": [1, 2]}, [1, 2]),
    ],
)
def test_rules_of_a_scale(key, value, rule, expected):
    found = scaled(key, value, **rule)
    assert found == pytest.approx(expected) if isinstance(expected, float) else found == expected
    assert isinstance(found, type(expected))


def test_whole_numbers_stay_whole():
    assert scaled("model.channels", 128, factor=0.125) == 16
    assert type(scaled("model.channels", 100, factor=0.125)) is int


def test_other_settings_stay():
    changed = transform(DEFAULTS, {"data.size": Rule(to=5)}, "x")
    assert changed == DEFAULTS | {"data.size": 5}
    assert DEFAULTS["data.size"] is None


def test_a_scale_knows_the_values_of_its_map():
    with pytest.raises(UserError) as caught:
        scaled("data.resolution", 17, map={32: 8, 16: 4})
    expected = "no rule for data.resolution 17; the scale knows 32, 16"
    assert str(caught.value) == f"mine.yaml at scale quick: {expected}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: x\n", "comparable: field required"),
        ("title: x\ncomparable: yes please\n", "comparable: input should be a valid boolean"),
        ("title: x\ncomparable: true\nrules: {data.sise: {to: 5}}", "unknown setting 'data.sise'"),
        ("title: x\ncomparable: true\nrules: {data.size: {too: 5}}", "unknown key 'rules.data.siz"),
        ("title: x\ncomparable: true\nrules: {data.size: {factor: 0}}", "rules.data.size.factor"),
        ("title: x\ncomparable: true\nrules: {data.size: 5}", "rules.data.size: "),
        (
            "title: x\ncomparable: true\nexperiments: {e: {train.lrr: {to: 5}}}",
            "unknown setting 'train.lrr'; did you mean 'train.lr'?",
        ),
    ],
)
def test_wrong_scales(tmp_path, text, message):
    path = tmp_path / "scales" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_scale("mine", tmp_path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_unknown_scale():
    with pytest.raises(UserError, match=r"^config: scale: no scale 'big'; allowed: paper, quick$"):
        load_scale("big")


def test_the_published_scale_changes_nothing():
    scale = load_scale("paper")
    assert scale.comparable
    assert not scale.rules
    assert not scale.experiments


def test_selected_files():
    shipped = shipped_experiments()
    assert {"conditioning", "data_size", "optimum"} <= set(shipped)
    assert experiment_files(["all"]) == shipped
    gu2023 = experiment_files(["gu2023"])
    assert {path.parent.name for path in gu2023.values()} == {"gu2023"}
    assert experiment_files(["optimum", "gu2023", "optimum"]) == gu2023
    mine = experiment_files(["optimum", "somewhere/mine.yaml"])
    assert list(mine) == ["optimum", "mine"]
    assert mine["mine"].as_posix() == "somewhere/mine.yaml"
    path = shipped["optimum"]
    assert experiment_files(["optimum", str(path)]) == {"optimum": path}


def test_two_experiments_of_one_name():
    for words in (["all", "my/optimum.yaml"], ["my/optimum.yaml", "all"], ["a/x.yaml", "b/x.yml"]):
        with pytest.raises(UserError, match=r"^config: experiments: .* have the same name$"):
            experiment_files(words)


@pytest.mark.parametrize("word", ["optimun", "gu2032", "", "Optimum"])
def test_unknown_experiments(word):
    with pytest.raises(UserError, match=f"^config: experiments: no experiment '{word}'") as caught:
        experiment_files([word])
    assert str(caught.value).endswith("(or the path of a .yaml file)")
    assert "optimum" in str(caught.value) or "gu2023" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "title: field required"),
        ("title: x\nrecipe: edn\nruns: [{}]", "recipe: no recipe 'edn'; did you mean 'edm'?"),
        ("title: x\nruns: [{}, {data.size: []}]", "runs item 2: data.size: the list is empty"),
    ],
)
def test_wrong_experiments(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_experiment(path, load_recipes())
    assert str(caught.value) == f"{path}: {message}"
