"""Settings: defaults, strictness, messages, and the way to a command line and back."""

import types
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from emm.arguments import settings_from
from emm.documents import Config, Experiment
from emm.errors import UserError
from emm.spec import (
    DEFAULTS,
    TEXTS,
    Recipe,
    Settings,
    differing,
    digest,
    flatten,
    nested,
    parse,
    parse_recipe,
    suggestion,
)
from emm.texts import option

BASIC_RUN = {
    "data.dataset": "cifar10",
    "data.size": None,
    "data.resolution": 32,
    "data.num_classes": None,  # all ten
    "data.selection": "balanced_prefix",
    "labels.kind": "none",
    "labels.num_classes": 0,
    "model.arch": "ddpmpp",
    "model.channels": 128,
    "model.channel_mult": (2, 2, 2),
    "model.num_blocks": 2,
    "model.attention_levels": (2,),
    "model.time_embedding": "positional",
    "model.dropout": 0.13,
    "model.skip_mask": "all",
    "model.precond": "vp",
    "train.lr": 2e-4,
    "train.batch_size": 512,
    "train.epochs": 40000,
    "train.warmup_epochs": 200,
    "train.weight_decay": 0,
    "train.ema": 0.99929,
    "train.seed": 1024,
    "train.precision": "fp32",
    "eval.num_samples": 10000,
    "eval.steps": 18,
    "eval.sigma_max": 80,
    "eval.sigma_min": None,
    "eval.rho": 7,
    "eval.seed": 0,
    "eval.snapshots": "published",
}


@pytest.mark.parametrize("key", BASIC_RUN)
def test_defaults_are_the_basic_run(key):
    assert DEFAULTS[key] == BASIC_RUN[key]


def groups() -> list[type[BaseModel]]:
    return [field.annotation for field in Recipe.model_fields.values()]


def annotations() -> dict[str, object]:
    """Types of all settings."""
    return {
        f"{group}.{key}": field.annotation
        for group, model in zip(Recipe.model_fields, groups(), strict=True)
        for key, field in model.model_fields.items()
    }


@pytest.mark.parametrize("model", [*groups(), Config], ids=lambda model: model.__name__)
def test_every_setting_says_what_it_means(model):
    for field in model.model_fields.values():
        assert field.description


def every_model() -> list[type[Settings]]:
    return Settings.__subclasses__()


@pytest.mark.parametrize("model", every_model(), ids=lambda model: model.__name__)
def test_every_model_is_strict_and_frozen(model):
    assert model.model_config["extra"] == "forbid"
    assert model.model_config["strict"]
    assert model.model_config["frozen"]


def problem(key: str, value: object) -> str:
    """The message for a wrong value; it has to be one line that names the file and the key."""
    with pytest.raises(UserError) as caught:
        parse_recipe({key: value}, "mine.yaml")
    message = str(caught.value)
    assert message.startswith(f"mine.yaml: {key}")
    assert "\n" not in message
    return message


def test_text_for_a_number_has_a_hint():
    expected = "train.lr: input should be a valid number, not '1e-4' (write 0.0001, without quotes)"
    assert problem("train.lr", "1e-4") == f"mine.yaml: {expected}"
    assert problem("data.size", "1000").endswith("not '1000' (write 1000, without quotes)")
    assert problem("train.lr", "fast").endswith("valid number, not 'fast'")
    assert problem("data.path", 7).endswith("not 7 (write it in quotes)")
    assert problem("model.skip_mask", "2").endswith("not '2'")


@pytest.mark.parametrize("key", [key for key, kind in annotations().items() if kind is int])
@pytest.mark.parametrize("value", ["5", 5.5, 5.0, True, None, [5], {}])
def test_whole_numbers_are_whole_numbers(key, value):
    problem(key, value)


@pytest.mark.parametrize("key", [key for key, kind in annotations().items() if kind is float])
@pytest.mark.parametrize("value", ["5", True, None, [5.0], {}])
def test_numbers_are_numbers(key, value):
    problem(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.dataset", 5),
        ("data.size", 1),
        ("data.size", -5),
        ("data.resolution", 1),
        ("data.num_classes", 0),
        ("data.selection", "first"),
        ("data.seed", -1),
        ("data.cross_width", 0),
        ("labels.kind", "uniq"),
        ("labels.kind", False),
        ("labels.kind", None),
        ("labels.num_classes", -1),
        ("model.arch", "vit"),
        ("model.channels", 3),
        ("model.channel_mult", []),
        ("model.channel_mult", [2, "2"]),
        ("model.channel_mult", [0, 2]),
        ("model.channel_mult", [True]),
        ("model.channel_mult", 2),
        ("model.channel_mult", "2,2"),
        ("model.attention_levels", [0]),
        ("model.attention_levels", None),
        ("model.num_blocks", 0),
        ("model.time_embedding", "sine"),
        ("model.fourier_scale", 0),
        ("model.dropout", 1),
        ("model.dropout", -0.1),
        ("model.skip_mask", ""),
        ("model.skip_mask", "1 0"),
        ("model.skip_mask", "11\n"),
        ("model.skip_mask", 101),
        ("model.precond", "VP"),
        ("train.lr", 0),
        ("train.lr", True),
        ("train.lr", float("inf")),
        ("train.lr", float("nan")),
        ("train.batch_size", 0),
        ("train.epochs", 0),
        ("train.warmup_epochs", -1),
        ("train.weight_decay", -1e-9),
        ("train.ema", 1),
        ("train.ema", -0.5),
        ("train.seed", 2**32),
        ("train.precision", "tf32"),
        ("train.device", "gpu"),
        ("eval.num_samples", 0),
        ("eval.steps", 1),
        ("eval.sigma_max", float("inf")),
        ("eval.sigma_min", 0),
        ("eval.rho", 0),
        ("eval.snapshots", 0),
        ("eval.snapshots", -1),
        ("eval.snapshots", 2.0),
        ("eval.snapshots", True),
        ("eval.snapshots", "best"),
        ("eval.snapshots", "log0"),
        ("eval.snapshots", None),
    ],
)
def test_values_out_of_range(key, value):
    problem(key, value)


def test_messages_name_what_is_allowed():
    kinds = "'none', 'constant', 'true', 'random', 'unique' or 'vectors'"
    assert f"should be {kinds}, not 'uniq'" in problem("labels.kind", "uniq")
    assert "greater than or equal to 2, not 1" in problem("data.size", 1)
    assert "'published', 'log' ('log18' for so many) or an integer from 1, not 0" in problem(
        "eval.snapshots", 0
    )
    assert "should be a valid list" in problem("model.channel_mult", 2)


def test_bare_true_of_yaml_is_the_label_kind():
    assert parse_recipe({"labels.kind": True}, "mine.yaml").labels.kind == "true"


def test_integers_serve_as_numbers():
    recipe = parse_recipe({"train.epochs": 5, "train.weight_decay": 0}, "mine.yaml")
    assert isinstance(recipe.train.epochs, float)
    assert recipe.train.epochs == 5


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("data.sise", "; did you mean 'data.size'?"),
        ("size", "; did you mean 'data.size'?"),
        ("data.size.x", "; did you mean 'data.size'?"),
        ("foo", "; allowed: data.alpha, data.copies, data.cross_margin, "),
        ("", "; allowed: data.alpha, "),
    ],
)
def test_unknown_settings(key, hint):
    with pytest.raises(UserError) as caught:
        parse_recipe({key: 1}, "mine.yaml")
    assert str(caught.value).startswith(f"mine.yaml: unknown setting {key!r}{hint}")


def test_unknown_keys_of_nested_models_name_their_siblings():
    content = {
        "title": "x",
        "runs": [{}],
        "figures": {"fig": {"plot": "curve", "hues": "data.size"}},
    }
    with pytest.raises(UserError) as caught:
        parse(Experiment, content, "mine.yaml")
    assert str(caught.value) == "mine.yaml: unknown key 'figures.fig.hues'; did you mean 'hue'?"
    with pytest.raises(UserError, match=r"unknown key 'colour'; allowed: claims, figures, "):
        parse(Experiment, {"title": "x", "runs": [{}], "colour": 1}, "mine.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"runs": [{}]}, "title: field required"),
        ({"title": "x"}, "runs: field required"),
        ({"title": "x", "runs": []}, r"runs: list should have at least 1 item, not \[\]"),
        ({"title": 5, "runs": [{}]}, r"title: .* not 5 \(write it in quotes\)"),
        ({"title": "x", "runs": [5]}, "runs.0: .*dictionary, not 5"),
        ({"title": "x", "runs": [{5: 1}]}, r"runs.0.5: input should be a valid string"),
        ({"title": "x", "runs": [{}], "figures": {"../a": {"plot": "curve"}}}, "figures.../a: "),
        (None, "content: input should be a valid dictionary"),
        ([], "content: input should be a valid dictionary"),
    ],
)
def test_messages_of_experiments(content, message):
    with pytest.raises(UserError, match=f"^mine.yaml: {message}") as caught:
        parse(Experiment, content, "mine.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("all", ("all",)),
        ("fig5a, mine.yaml ,gu2023", ("fig5a", "mine.yaml", "gu2023")),
        (["a", "b"], ("a", "b")),
    ],
)
def test_experiments_of_a_config_may_be_one_text(text, words):
    assert parse(Config, {"experiments": text}, "config").experiments == words


@pytest.mark.parametrize(
    ("content", "items"),
    [
        ({"data.size": 5}, ({"data.size": 5},)),
        ([{"data.size": 5}, {"data.size": 6}], ({"data.size": 5}, {"data.size": 6})),
        ([], ()),
        ({}, ()),
        (None, ()),
    ],
)
def test_a_selection_is_one_mapping_or_several(content, items):
    selected = parse(Config, {"select": {"quick": {"mine": content}}}, "config").select
    assert selected == {"quick": {"mine": items}}


def values_of(annotation: object) -> st.SearchStrategy:
    """Valid and invalid values of a setting's type, for `parse_recipe` to sort out."""
    numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2**32 - 1)
    if typing.get_origin(annotation) is typing.Annotated:
        return values_of(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.Literal:
        return st.sampled_from(typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return st.one_of([values_of(part) for part in typing.get_args(annotation)])
    if typing.get_origin(annotation) is tuple:
        return st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple)
    return {
        str: st.text()
        | st.sampled_from(["null", "true", "1", "1e5", "a=b", "--x", " ", '"', "[]"]),
        int: st.integers(2, 2**31),
        float: numbers.map(abs),
        type(None): st.none(),
    }[annotation]


def some_settings() -> st.SearchStrategy:
    masks = {"model.skip_mask": st.from_regex(r"\A(all|[01]{1,20})\Z")}
    strategies = {key: values_of(kind) for key, kind in annotations().items()} | masks
    assert set(strategies) == set(DEFAULTS)
    return st.fixed_dictionaries({}, optional=strategies)


@settings(max_examples=300, deadline=None)
@given(some_settings())
def test_settings_come_back_from_a_command_line(changed):
    kept = {}
    for key, value in changed.items():
        try:
            parse_recipe({key: value}, "drawn")
        except UserError:
            continue
        kept[key] = value
    wanted = flatten(parse_recipe(kept, "drawn"))
    options = [option(key, value) for key, value in differing(wanted, Recipe.model_fields).items()]
    assert all(text.startswith("--set=") for text in options)
    assert settings_from([text.removeprefix("--set=") for text in options]) == wanted


@pytest.mark.parametrize("key", DEFAULTS)
def test_every_default_comes_back_from_a_command_line(key):
    text = option(key, DEFAULTS[key]).removeprefix("--set=")
    assert settings_from([text]) == DEFAULTS


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("model.skip_mask=101010101", "101010101"),
        ("model.skip_mask=011010101", "011010101"),
        ('model.skip_mask="101"', "101"),
        ("data.path=2024", "2024"),
        ("data.path=a=b c", "a=b c"),
        ("labels.kind=true", "true"),
        ("train.lr=1e-4", 1e-4),
        ("model.channel_mult=[1,2]", (1, 2)),
        ("data.resolution=null", None),
    ],
)
def test_what_a_person_types(pair, value):
    assert settings_from([pair])[pair.partition("=")[0]] == value


def test_texts_are_all_settings_that_are_plain_texts():
    plain = {key for key, kind in annotations().items() if str in (kind, *typing.get_args(kind))}
    assert set(TEXTS) == plain


def test_nested_is_the_inverse_of_flatten():
    assert nested(DEFAULTS) == Recipe().model_dump()
    assert flatten(Recipe.model_validate(nested(DEFAULTS))) == DEFAULTS
    assert nested({"data.size": 5, "train.lr": 0.1, "data.seed": 1}) == {
        "data": {"size": 5, "seed": 1},
        "train": {"lr": 0.1},
    }
    assert nested({}) == {}


def test_differing_settings_are_sorted_and_chosen_by_prefix():
    changed = {"train.lr": 0.1, "data.size": 5, "data.path": "x", "model.channels": 128}
    found = differing(DEFAULTS | changed, ["data", "train.lr", "model"])
    assert list(found.items()) == [("data.path", "x"), ("data.size", 5), ("train.lr", 0.1)]
    assert differing(DEFAULTS | changed, ["dat", "train.l"]) == {}


def test_digest_is_stable():
    assert digest({}) == "44136fa3"
    assert digest([1, {"b": 1.5, "a": (1, 2)}]) == digest([1, {"a": [1, 2], "b": 1.5}])
    assert digest({"a": 1}) != digest({"a": "1"})


def test_suggestion():
    assert (
        suggestion("conditionin", ["conditioning", "optimum"]) == "; did you mean 'conditioning'?"
    )
    assert suggestion("xyz", ["b", "a"]) == "; allowed: a, b"
