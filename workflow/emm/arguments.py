"""What the command line is given, as settings and catalogs.

The models of settings take longer to make than the rest of a start: only who reads some makes them.
"""

import json
from pathlib import Path
from typing import Any

from emm.errors import UserError
from emm.yamlfile import load_yaml


def settings_from(pairs: list[str]) -> dict[str, Any]:
    """All settings, with KEY=VALUE pairs over their defaults; values are JSON or plain words."""
    from emm.spec import flatten, parse_recipe
    from emm.texts import from_text

    changed = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: write it as key=value")
        changed[key] = from_text(key, text)
    return flatten(parse_recipe(changed, "--set"))


def config_from(text: str, scale: str | None = None, experiments: str | None = None) -> Any:
    """The catalog of a config file or of JSON content, with scale and experiments replaced."""
    from emm.catalog import load

    content = _json(text) if text.startswith("{") else load_yaml(Path(text))
    replaced = {"scale": scale, "experiments": experiments}
    return load(content | {key: value for key, value in replaced.items() if value})


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--config: not valid JSON ({error})") from error


def record_from(text: str) -> tuple[float, str | int]:
    """Epochs and snapshots of `--record 40000:published`; UserError for any other form."""
    from emm.spec import parse_recipe
    from emm.texts import from_text

    epochs, colon, snapshots = text.partition(":")
    if not colon:
        raise UserError(f"--record {text}: write it as 40000:published or 1000:5")
    changed = {
        "train.epochs": from_text("train.epochs", epochs),
        "eval.snapshots": from_text("eval.snapshots", snapshots),
    }
    recipe = parse_recipe(changed, f"--record {text}")
    return recipe.train.epochs, recipe.eval.snapshots


def rate_from(ema: float) -> float:
    """An EMA rate that is asked for, if it can be one."""
    from emm.spec import parse_recipe

    return parse_recipe({"train.ema": ema}, "--ema").train.ema
