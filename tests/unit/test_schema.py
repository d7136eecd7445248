"""JSON schemas: committed ones are current, and accept what is shipped."""

import json
from pathlib import Path

import pytest
from jsonschema import ValidationError
from jsonschema.validators import validator_for

from emm.expansion import WORKFLOW
from emm.schema import FILES, schema, write_schemas
from emm.spec import Recipe
from emm.yamlfile import load_yaml

ROOT = WORKFLOW.parent
SHIPPED = {
    "config": [ROOT / "config.yaml", ROOT / "profiles/slurm/paper.yaml"],
    "experiment": sorted((WORKFLOW / "experiments").glob("*/*.yaml")),
    "recipes": [WORKFLOW / "recipes.yaml"],
    "scale": sorted((WORKFLOW / "scales").glob("*.yaml")),
}


def validate(content: object, kind: str) -> None:
    loaded = json.loads((ROOT / "schemas" / f"{kind}.schema.json").read_text())
    validator = validator_for(loaded)
    validator.check_schema(loaded)
    validator(loaded).validate(json.loads(json.dumps(content)))


@pytest.mark.parametrize("kind", FILES)
def test_committed_schemas_are_current(kind, tmp_path):
    write_schemas(tmp_path)
    name = f"{kind}.schema.json"
    current, committed = ((folder / name).read_text() for folder in (tmp_path, ROOT / "schemas"))
    assert committed == current, f"schemas/{name} is stale: run `make schemas` and commit it"


def test_there_are_no_other_schemas(tmp_path):
    written = {path.name for path in write_schemas(tmp_path)}
    assert {path.name for path in (ROOT / "schemas").iterdir()} == written


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        pytest.param(kind, path, id=str(path.relative_to(ROOT)))
        for kind, paths in SHIPPED.items()
        for path in paths
    ],
)
def test_shipped_files_are_valid(kind, path):
    validate(load_yaml(path), kind)


RUNS = {"title": "x", "runs": [{"data.size": [1, 2]}]}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("config", {}),
        ("config", {"experiments": "all"}),
        ("config", {"select": {"quick": {"mine": {"data.size": 5}}}}),
        (
            "config",
            {"select": {"quick": {"mine": [{"data.size": 5}, {"data.size": [6]}], "other": None}}},
        ),
        ("experiment", RUNS),
        ("experiment", {**RUNS, "figures": {"a": {"plot": "curve", "where": {"data.size": 5}}}}),
        ("recipes", {"mine": {"data": {"path": None}, "eval": {"snapshots": 5}}}),
        ("scale", {"title": "x", "comparable": True, "rules": {"data.size": {"to": [1, 2]}}}),
    ],
)
def test_what_may_be_written(kind, content):
    validate(content, kind)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("config", {"scales": "paper"}),
        ("config", {"threads": 0}),
        ("config", {"threads": "4"}),
        ("experiment", {"title": "x"}),
        ("experiment", {**RUNS, "runs": []}),
        ("experiment", {**RUNS, "figures": {"a": {"plot": "pie"}}}),
        ("experiment", {**RUNS, "figures": {"a": {"plot": "curve", "colour": 1}}}),
        ("recipes", {"mine": {"train": {"lr": "1e-4"}}}),
        ("recipes", {"mine": {"train": {"ema": 1}}}),
        ("recipes", {"mine": {"eval": {"snapshots": 0}}}),
        ("recipes", {"mine": {"modle": {}}}),
        ("scale", {"title": "x"}),
        ("scale", {"title": "x", "comparable": True, "rules": {"data.size": {"factor": 0}}}),
    ],
)
def test_what_an_editor_marks(kind, content):
    with pytest.raises(ValidationError):
        validate(content, kind)


def test_editors_explain_every_setting():
    groups = json.loads(schema(Recipe))["$defs"]
    for group in ("Data", "Labels", "Model", "Train", "Eval"):
        for content in groups[group]["properties"].values():
            assert content["description"]


def test_config_names_its_schema():
    first = (ROOT / "config.yaml").read_text().splitlines()[0]
    assert (ROOT / Path(first.partition("$schema=")[2])).is_file()
