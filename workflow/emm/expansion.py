"""From YAML files to rows of settings: recipes, experiments, and what a scale makes of them."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from emm.documents import Experiment, Rule, Scale
from emm.errors import UserError
from emm.spec import DEFAULTS, Recipe, differing, flatten, parse, suggestion
from emm.yamlfile import load_yaml

WORKFLOW = Path(__file__).resolve().parent.parent


def load_recipes(workflow: Path = WORKFLOW) -> dict[str, dict[str, Any]]:
    """Recipes by name as dotted settings, each validated."""
    path = workflow / "recipes.yaml"
    recipes = {}
    for name, groups in load_yaml(path).items():
        recipe = parse(Recipe, groups, f"{path}: {name}")
        recipes[name] = differing(flatten(recipe), Recipe.model_fields)
    return recipes


def scale_path(name: str, where: str, workflow: Path = WORKFLOW) -> Path:
    """File of a scale; unknown names are a UserError with the known ones."""
    folder = workflow / "scales"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise UserError(f"{where}: no scale {name!r}; allowed: {', '.join(names)}")
    return folder / f"{name}.yaml"


def load_scale(name: str, workflow: Path = WORKFLOW) -> Scale:
    """A scale by name, validated."""
    path = scale_path(name, "config: scale", workflow)
    scale = parse(Scale, load_yaml(path), str(path))
    for rules in (scale.rules, *scale.experiments.values()):
        for key in rules:
            if key not in DEFAULTS:
                raise UserError(f"{path}: unknown setting {key!r}{suggestion(key, DEFAULTS)}")
    return scale


def shipped_experiments(workflow: Path = WORKFLOW) -> dict[str, Path]:
    """Experiment files of the repository by name."""
    paths = sorted((workflow / "experiments").glob("*/*.yaml"))
    return {path.stem: path for path in paths}


def published_files(workflow: Path = WORKFLOW) -> list[Path]:
    """The files of published values."""
    return sorted((workflow / "published").glob("*.yaml"))


def experiment_files(wanted: Iterable[str], workflow: Path = WORKFLOW) -> dict[str, Path]:
    """Files of the selected experiments: all, a folder's, by name, or the user's own path."""
    shipped = shipped_experiments(workflow)
    files: dict[str, Path] = {}
    for path in (path for word in wanted for path in _files_of(word, shipped)):
        other = files.setdefault(path.stem, path)
        if other.resolve() != path.resolve():
            raise UserError(f"config: experiments: {other} and {path} have the same name")
    return files


def _files_of(word: str, shipped: Mapping[str, Path]) -> list[Path]:
    """Files that one word of config.yaml's `experiments` selects."""
    folder = [path for path in shipped.values() if path.parent.name == word]
    if word == "all" or folder:
        return folder or list(shipped.values())
    if word in shipped:
        return [shipped[word]]
    if word.endswith((".yaml", ".yml")):
        return [Path(word)]
    folders = sorted({path.parent.name for path in shipped.values()})
    raise UserError(
        f"config: experiments: no experiment {word!r}"
        f"{suggestion(word, ['all', *folders, *shipped])} (or the path of a .yaml file)"
    )


def load_experiment(path: Path, recipes: Mapping[str, Any]) -> Experiment:
    """An experiment file, validated."""
    experiment = parse(Experiment, load_yaml(path), str(path))
    if experiment.recipe not in recipes:
        hint = suggestion(experiment.recipe, recipes)
        raise UserError(f"{path}: recipe: no recipe {experiment.recipe!r}{hint}")
    for number, item in enumerate(experiment.runs, 1):
        for key, content in item.items():
            if not values_of(key, content):
                raise UserError(f"{path}: runs item {number}: {key}: the list is empty")
    return experiment


def expand(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations of an item's lists; settings that are lists themselves stay whole."""
    axes = [[(key, value) for value in values_of(key, content)] for key, content in item.items()]
    for combination in itertools.product(*axes):
        yield dict(combination)


def values_of(key: str, content: Any) -> list[Any]:
    """Values of one axis: a list of them, or one value."""
    if not isinstance(content, list):
        return [content]
    whole = isinstance(DEFAULTS.get(key), tuple)
    return [content] if whole and not any(isinstance(part, list) for part in content) else content


def transform(
    published: Mapping[str, Any], rules: Mapping[str, Rule], where: str
) -> dict[str, Any]:
    """Settings at a scale: each rule replaces the published value of its setting."""
    return dict(published) | {
        key: _transformed(key, published[key], rule, where) for key, rule in rules.items()
    }


def _transformed(key: str, value: Any, rule: Rule, where: str) -> Any:
    if "to" in rule.model_fields_set:
        return rule.to
    if value in rule.map:
        return rule.map[value]
    if rule.factor is None or not isinstance(value, int | float):
        if rule.map and rule.factor is None:
            known = ", ".join(str(known) for known in rule.map)
            raise UserError(f"{where}: no rule for {key} {value!r}; the scale knows {known}")
        return value
    scaled = max(value * rule.factor, rule.minimum)
    return round(scaled) if isinstance(value, int) else scaled
