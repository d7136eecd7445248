"""What exists: experiments x scale -> runs, evaluations and figures, with their ids and paths.

Pure and fast: reads YAML, imports neither torch nor pandas. The Snakefile, the command line and
the tests all get their lists here.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from emm.data.catalogue import check_subset, source_info
from emm.errors import UserError
from emm.spec import (
    DEFAULTS,
    RECIPE_VERSION,
    Config,
    Experiment,
    Figure,
    Recipe,
    Rule,
    Scale,
    Train,
    differing,
    digest,
    flatten,
    load_yaml,
    parse,
    parse_recipe,
    suggestion,
)
from emm.train.schedules import snapshot_steps

WORKFLOW = Path(__file__).resolve().parent.parent
GENERATED = ("data.seed", "data.cross_width", "data.cross_position", "data.cross_margin")
SOURCE_KEYS = ("data.dataset", "data.path", *GENERATED)
RECORDED = tuple(f"train.{name}" for name in sorted(Train.recorded))
EVALUATION_KEYS = ("eval", "train.epochs", "train.ema")


@dataclass(frozen=True)
class Evaluation:
    """How the checkpoints of one run are sampled. Content-addressed beside its run."""

    id: str
    run_id: str
    settings: Mapping[str, Any]

    @property
    def steps(self) -> tuple[int, ...]:
        """Training steps whose checkpoints are sampled, ascending."""
        s = self.settings
        if s["model.arch"] == "optimum":
            return (0,)
        keys = ("eval.snapshots", "train.epochs", "data.size", "train.batch_size")
        return tuple(snapshot_steps(*(s[key] for key in keys)))


@dataclass
class Run:
    """One training: what decides it (settings) and what is recorded for its evaluations."""

    id: str
    settings: Mapping[str, Any]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    experiments: set[str] = field(default_factory=set)

    @property
    def epochs(self) -> float:
        """Length of the longest evaluation that is asked for."""
        return max(e.settings["train.epochs"] for e in self.evaluations.values())

    @property
    def ema(self) -> list[float]:
        """EMA rates that are tracked."""
        return sorted({e.settings["train.ema"] for e in self.evaluations.values()})

    @property
    def recordings(self) -> list[str]:
        """Length and snapshots of each evaluation, as `emm train --record` takes them."""
        settings = (e.settings for e in self.evaluations.values())
        return sorted({f"{s['train.epochs']:g}:{s['eval.snapshots']}" for s in settings})

    @property
    def snapshots(self) -> list[int]:
        """Steps whose EMA weights are kept."""
        return sorted({step for e in self.evaluations.values() for step in e.steps})

    @cached_property
    def subset_id(self) -> str:
        """Id of the training set."""
        return subset_id(self.settings)

    @cached_property
    def source_id(self) -> str:
        """Id of the data source."""
        return source_id(self.settings)


@dataclass(frozen=True)
class Row:
    """One line of an experiment: the settings as published and at the scale, and their ids."""

    experiment: str
    published: Mapping[str, Any]
    settings: Mapping[str, Any]
    run_id: str
    evaluation_id: str


@dataclass(frozen=True)
class PlannedFigure:
    """A figure with its name and the rows that its experiment has."""

    name: str
    experiment: str
    figure: Figure
    rows: tuple[Row, ...]

    @property
    def is_grid(self) -> bool:
        """Whether the figure shows images."""
        return self.figure.plot == "grid"

    @property
    def category(self) -> str:
        """Paper and section, the report's category."""
        return self.figure.source.partition(",")[0] or "Own experiments"

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the figure in the report."""
        return {"figure": self.name, "shows": self.figure.title}

    @property
    def caption(self) -> str:
        """Caption in the report: what is shown, where it stands, what the paper finds."""
        lines = (self.figure.title, self.figure.source, self.figure.caption)
        return "\n\n".join(line for line in lines if line)

    def matches(self, settings: Mapping[str, Any]) -> bool:
        """Whether the figure shows a row with these settings."""
        return all(
            settings[key] in (wanted if isinstance(wanted, list) else [wanted])
            for key, wanted in self.figure.where.items()
        )


@dataclass(frozen=True)
class Catalog:
    """All runs, evaluations and figures that a config selects."""

    config: Config
    scale: Scale
    experiments: Mapping[str, Experiment]
    rows: tuple[Row, ...]
    runs: Mapping[str, Run]
    figures: Mapping[str, PlannedFigure]

    @property
    def root(self) -> Path:
        """Folder of the results at this scale."""
        return Path(self.config.results) / self.config.scale

    @cached_property
    def evaluations(self) -> dict[tuple[str, str], Evaluation]:
        """All evaluations by (run id, evaluation id)."""
        return {
            (run.id, evaluation.id): evaluation
            for run in self.runs.values()
            for evaluation in run.evaluations.values()
        }

    @cached_property
    def subsets(self) -> dict[str, Run]:
        """A run of each subset, by subset id."""
        return {run.subset_id: run for run in self.runs.values()}

    @cached_property
    def sources(self) -> dict[str, Run]:
        """A run of each source, by source id."""
        return {run.source_id: run for run in self.runs.values()}

    def run_folder(self, run_id: str) -> Path:
        """Folder of a run's results."""
        return self.root / "runs" / run_id

    def evaluation_folder(self, run_id: str, evaluation_id: str) -> Path:
        """Folder of an evaluation's results, beside its run."""
        return self.run_folder(run_id) / evaluation_id


def load(config: Mapping[str, Any] | Config, workflow: Path = WORKFLOW) -> Catalog:
    """Expand and validate what a config selects. UserErrors name file, key and allowed values."""
    if not isinstance(config, Config):
        config = parse(Config, dict(config), "config")
    recipes = load_recipes(workflow)
    scale = load_scale(config.scale, workflow)
    files = experiment_files(config.experiments, workflow)
    _check_names(config, files, workflow)
    experiments = {name: load_experiment(path, recipes) for name, path in files.items()}
    rows = [
        row
        for name, experiment in experiments.items()
        for row in _rows(name, files[name], experiment, recipes, scale, config)
    ]
    if not rows:
        raise UserError("config: `select` leaves no run of the selected experiments")
    return Catalog(
        config, scale, experiments, tuple(rows), _runs(rows), _figures(experiments, rows)
    )


def _check_names(config: Config, files: Mapping[str, Path], workflow: Path) -> None:
    """Refuse selections for experiments that do not exist and forced settings that do not."""
    known = {**shipped_experiments(workflow), **files}
    for name in config.select:
        if name not in known:
            raise UserError(f"config: select: no experiment {name!r}{suggestion(name, known)}")
    parse_recipe(config.set, "config: set")


def load_recipes(workflow: Path = WORKFLOW) -> dict[str, dict[str, Any]]:
    """Recipes by name as dotted settings, each validated."""
    path = workflow / "recipes.yaml"
    recipes = {}
    for name, groups in load_yaml(path).items():
        recipe = parse(Recipe, groups, f"{path}: {name}")
        recipes[name] = differing(flatten(recipe), Recipe.model_fields)
    return recipes


def load_scale(name: str, workflow: Path = WORKFLOW) -> Scale:
    """A scale by name; unknown names are a UserError with the known ones."""
    folder = workflow / "scales"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise UserError(f"config: scale: no scale {name!r}; allowed: {', '.join(names)}")
    path = folder / f"{name}.yaml"
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


def experiment_files(wanted: Iterable[str], workflow: Path = WORKFLOW) -> dict[str, Path]:
    """Files of the selected experiments: all, a folder's, by name, or the user's own path."""
    shipped = shipped_experiments(workflow)
    files: dict[str, Path] = {}
    for word in wanted:
        folder = {name: path for name, path in shipped.items() if path.parent.name == word}
        if word == "all":
            files |= shipped
        elif folder:
            files |= folder
        elif word in shipped:
            files[word] = shipped[word]
        elif word.endswith((".yaml", ".yml")):
            files[Path(word).stem] = Path(word)
        else:
            folders = sorted({path.parent.name for path in shipped.values()})
            allowed = ["all", *folders, *shipped]
            raise UserError(
                f"config: experiments: no experiment {word!r}{suggestion(word, allowed)} "
                "(or the path of a .yaml file)"
            )
    return files


def load_experiment(path: Path, recipes: Mapping[str, Any]) -> Experiment:
    """An experiment file, validated."""
    experiment = parse(Experiment, load_yaml(path), str(path))
    if experiment.recipe not in recipes:
        hint = suggestion(experiment.recipe, recipes)
        raise UserError(f"{path}: recipe: no recipe {experiment.recipe!r}{hint}")
    return experiment


def expand(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations of an item's lists; settings that are lists themselves stay whole."""
    axes = [[(key, value) for value in _values(key, content)] for key, content in item.items()]
    for combination in itertools.product(*axes):
        yield dict(combination)


def _values(key: str, content: Any) -> list[Any]:
    """Values of one axis: a list of them, or one value."""
    if not isinstance(content, list):
        return [content]
    whole = isinstance(DEFAULTS.get(key), tuple)
    return [content] if whole and not any(isinstance(part, list) for part in content) else content


def _rows(
    name: str,
    path: Path,
    experiment: Experiment,
    recipes: Mapping[str, Mapping[str, Any]],
    scale: Scale,
    config: Config,
) -> Iterator[Row]:
    rules = scale.rules | scale.experiments.get(name, {}) if experiment.scaled else {}
    for number, item in enumerate(experiment.runs, 1):
        where = f"{path}: runs item {number}"
        for combination in expand(item):
            published = DEFAULTS | recipes[experiment.recipe] | experiment.set | combination
            published = flatten(parse_recipe(published, where))
            scaled = transform(published, rules, f"{where} at scale {config.scale}") | config.set
            settings = _resolve(flatten(parse_recipe(scaled, where)), where)
            evaluation = _evaluation(settings)
            row = Row(name, published, settings, evaluation.run_id, evaluation.id)
            if _selected(row, config.select.get(name, ())):
                yield row


def _selected(row: Row, alternatives: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a row has, as published or at the scale, the values of any alternative."""
    alternatives = list(alternatives)
    return not alternatives or any(_has(row, wanted) for wanted in alternatives)


def _has(row: Row, wanted: Mapping[str, Any]) -> bool:
    for key, content in wanted.items():
        if key not in DEFAULTS:
            hint = suggestion(key, DEFAULTS)
            raise UserError(f"config: select: {row.experiment}: unknown setting {key!r}{hint}")
        values = content if isinstance(content, list) else [content]
        values = ["true" if value is True else value for value in values]
        if row.published[key] not in values and row.settings[key] not in values:
            return False
    return True


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


def _resolve(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """Fill in what follows from other settings, and refuse what cannot be trained."""
    try:
        info = source_info(settings["data.dataset"])
        if settings["data.size"] is None:
            settings["data.size"] = info.size
        if settings["data.size"] is None:
            raise UserError("data.size: needed for a source whose size is not known beforehand")
        if settings["data.num_classes"] is None and info.classes:
            settings["data.num_classes"] = info.classes
        check_subset(
            settings["data.dataset"],
            size=settings["data.size"],
            num_classes=settings["data.num_classes"],
            selection=settings["data.selection"],
            resolution=settings["data.resolution"],
            label_kind=settings["labels.kind"],
        )
        _check_path(settings)
        settings["labels.num_classes"] = label_classes(settings)
        return _canonical(settings)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_path(settings: Mapping[str, Any]) -> None:
    if (settings["data.dataset"] == "folder") != (settings["data.path"] is not None):
        raise UserError("data.path: goes with data.dataset folder, and only with it")


def label_classes(settings: Mapping[str, Any]) -> int:
    """labels.num_classes, which only random labels choose freely; UserError if it cannot be."""
    kind, given, size = (
        settings[key] for key in ("labels.kind", "labels.num_classes", "data.size")
    )
    if kind == "random":
        if not 1 <= given <= (size or given):
            raise UserError(
                f"labels.num_classes {given}: random labels have from 1 to data.size = {size}"
            )
        return given
    implied = {"none": 0, "unique": size, "true": settings["data.num_classes"] or given}[kind]
    if given not in (0, implied):
        raise UserError(f"labels.num_classes {given}: {kind} labels have {implied}")
    return implied or 0


def _canonical(settings: dict[str, Any]) -> dict[str, Any]:
    """Equal settings for equal runs: what has no effect goes back to its default."""
    if settings["model.arch"] == "optimum":
        training = (key for key in DEFAULTS if key.startswith(("model.", "train.")))
        settings |= {key: DEFAULTS[key] for key in training if key != "model.arch"}
        settings |= {"eval.snapshots": DEFAULTS["eval.snapshots"]}
    levels = len(settings["model.channel_mult"])
    if settings["model.skip_mask"] == "1" * (levels * (settings["model.num_blocks"] + 1)):
        settings["model.skip_mask"] = "all"
    return settings


def source_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a source and differ from their defaults."""
    return differing(settings, SOURCE_KEYS)


def subset_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a training set and differ from their defaults."""
    return differing(settings, ("data", "labels"))


def training_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a training's command that differ from their defaults."""
    return identity(settings) | differing(settings, ["train.device"])


def evaluation_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide an evaluation of a run and differ from their defaults."""
    return differing(settings, EVALUATION_KEYS)


def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a training's trajectory and differ from their defaults."""
    groups = ("data", "labels", "model", "train")
    return {k: v for k, v in differing(settings, groups).items() if k not in RECORDED}


def run_id(settings: Mapping[str, Any]) -> str:
    """Readable slug and hash of a run."""
    s = settings
    network = f"c{s['model.channels']}b{s['model.num_blocks']}"
    parts = [_subset_slug(s), s["model.arch"], "" if s["model.arch"] == "optimum" else network]
    return "-".join([*filter(None, parts), digest([RECIPE_VERSION, identity(s)])])


def _subset_slug(s: Mapping[str, Any]) -> str:
    resolution = f"{s['data.resolution']}px" if s["data.resolution"] else ""
    labels = {"none": "", "random": f"random{s['labels.num_classes']}"}
    kind = labels.get(s["labels.kind"], s["labels.kind"])
    return "-".join(filter(None, [s["data.dataset"], resolution, f"n{s['data.size']}", kind]))


def subset_id(settings: Mapping[str, Any]) -> str:
    """Readable slug and hash of a training set."""
    return f"{_subset_slug(settings)}-{digest(subset_settings(settings))}"


def source_id(settings: Mapping[str, Any]) -> str:
    """Readable slug and hash of a data source."""
    return f"{settings['data.dataset']}-{digest(source_settings(settings))}"


def _evaluation(settings: Mapping[str, Any]) -> Evaluation:
    """The evaluation of a row, with the id of its run."""
    content = evaluation_settings(settings)
    slug = f"{settings['eval.num_samples']}samples"
    if settings["model.arch"] != "optimum":
        slug = f"{settings['train.epochs']:g}ep-{slug}"
    return Evaluation(f"{slug}-{digest(content)}", run_id(settings), settings)


def _runs(rows: Iterable[Row]) -> dict[str, Run]:
    """Distinct runs with their evaluations; rows that agree share them."""
    runs: dict[str, Run] = {}
    for row in rows:
        run = runs.setdefault(row.run_id, Run(row.run_id, row.settings))
        if identity(run.settings) != identity(row.settings):
            raise UserError(f"runs: two different runs have the id {row.run_id}; report this")
        evaluation = Evaluation(row.evaluation_id, row.run_id, row.settings)
        run.evaluations.setdefault(row.evaluation_id, evaluation)
        run.experiments.add(row.experiment)
    return runs


def _figures(
    experiments: Mapping[str, Experiment], rows: Iterable[Row]
) -> dict[str, PlannedFigure]:
    """Figures that have at least one row, by name."""
    rows = list(rows)
    figures: dict[str, PlannedFigure] = {}
    for name, experiment in experiments.items():
        own = tuple(row for row in rows if row.experiment == name)
        for figure_name, figure in experiment.figures.items():
            if figure_name in figures:
                other = figures[figure_name].experiment
                raise UserError(f"experiment {name}: figure {figure_name} is also in {other}")
            _check_figure(figure, f"experiment {name}: figure {figure_name}")
            planned = PlannedFigure(figure_name, name, figure, own)
            shown = tuple(row for row in own if planned.matches(row.settings))
            if shown:
                figures[figure_name] = PlannedFigure(figure_name, name, figure, shown)
    return figures


def _check_figure(figure: Figure, where: str) -> None:
    keys = [*figure.where, figure.hue, figure.style, figure.rows, figure.columns]
    for key in filter(None, keys):
        if key not in DEFAULTS:
            raise UserError(f"{where}: unknown setting {key!r}{suggestion(key, DEFAULTS)}")
