"""JSON schemas of the YAML files, generated from the settings models, for editors."""

import json
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from emm.documents import Config, Experiment, Scale
from emm.files import write_text
from emm.spec import Recipe

FILES: dict[str, type] = {
    "config": Config,
    "experiment": Experiment,
    "recipes": dict[str, Recipe],
    "scale": Scale,
}


def schema(model: type[BaseModel] | type) -> str:
    """JSON schema of a model as text."""
    content = TypeAdapter(model).json_schema()
    return json.dumps(
        {"$schema": "https://json-schema.org/draft/2020-12/schema"} | content, indent=1
    )


def write_schemas(folder: Path) -> list[Path]:
    """Write a schema per kind of file; returns the paths."""
    paths = [folder / f"{name}.schema.json" for name in FILES]
    for path, model in zip(paths, FILES.values(), strict=True):
        write_text(path, schema(model) + "\n")
    return paths
