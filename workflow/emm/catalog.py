"""What exists: experiments x scale -> runs, evaluations and figures, with their ids and paths.

Pure and fast: reads YAML, imports neither torch nor pandas. The Snakefile, the command line and
the tests all get their lists here.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from emm.analyse.checks import (
    check_claims,
    check_features,
    check_figure,
    check_measured,
    check_measures,
    check_twins,
    check_weights,
    twin_of,
)
from emm.documents import Config, Experiment, Figure, Rule, Scale
from emm.errors import UserError
from emm.expansion import (
    WORKFLOW,
    expand,
    experiment_files,
    load_experiment,
    load_recipes,
    load_scale,
    scale_path,
    shipped_experiments,
    transform,
)
from emm.filters import parse_filter, shows, value_of
from emm.given import is_trained
from emm.ids import dummy_settings, evaluation_settings, identity, measure_name, run_id
from emm.measure import is_measured
from emm.planned import PlannedFigure
from emm.repetitions import repeated, repetitions, sweeps_seeds
from emm.resolve import resolve, with_epochs
from emm.runs import Evaluation, Row, Run, all_digits
from emm.spec import DEFAULTS, digest, flatten, parse, parse_recipe, suggestion
from emm.yamlfile import load_yaml

OF_QUALITY = ("features", "feature_weights")  # keys of a config


@dataclass(frozen=True)
class Catalog:
    """All runs, evaluations and figures that a config selects.

    other_figures: why the figures of other experiments, and those that `select` leaves without
    runs, cannot be drawn; by name. left_out: rows that `select` leaves out.
    """

    config: Config
    scale: Scale
    files: Mapping[str, Path]
    experiments: Mapping[str, Experiment]
    rows: tuple[Row, ...]
    runs: Mapping[str, Run]
    figures: Mapping[str, PlannedFigure]
    other_figures: Mapping[str, str]
    left_out: tuple[Row, ...] = ()

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
    def sources(self) -> dict[str, Mapping[str, Any]]:
        """Settings that have each source, or its dummies, by source id."""
        runs = self.runs.values()
        dummies = {run.dummy_id: dummy_settings(run.settings) for run in runs if run.dummy_id}
        return {run.source_id: run.settings for run in runs} | dummies

    @cached_property
    def features(self) -> dict[str, Run]:
        """A run for each classifier of features that is trained for measures, by its id."""
        if self.config.features != "classifier":
            return {}
        runs = (self.runs[run_id] for run_id, _ in self.measured("quality"))
        return {run.features_id: run for run in runs}

    def only(self, experiment: str) -> Config:
        """The config of one experiment alone: whatever else is selected does not change it."""
        scale, chosen = self.config.scale, self.config.select.get(self.config.scale, {})
        kept = {name: wanted for name, wanted in chosen.items() if name == experiment}
        path = self.files[experiment]
        word = experiment if path.is_relative_to(WORKFLOW) else str(path)
        select = {scale: kept} if kept else {}
        weights = {name: file for name, file in self.config.weights.items() if name == experiment}
        changed = {"experiments": (word,), "select": select, "weights": weights}
        if "quality" not in self.experiments[experiment].measures:
            changed |= {key: Config.model_fields[key].default for key in OF_QUALITY}
        return self.config.model_copy(update=changed)

    @property
    def notices(self) -> list[str]:
        """What the config asks for in vain, a line each."""
        scale = self.config.scale
        changed = {n for n, e in self.experiments.items() if _rules(n, e, self.scale)}
        weights = [
            f"config: weights: {name} trains its own network at scale {scale}, which changes "
            "its runs"
            for name in self.experiments
            if name in self.config.weights and name in changed
        ]
        own = [
            f"{self.files[name]}: scale {scale} changes its settings; scaled: false keeps them"
            for name in self.experiments
            if name in changed and not self.files[name].is_relative_to(WORKFLOW)
        ]
        swept = [name for name, e in self.experiments.items() if sweeps_seeds(e)]
        seeds = f"config: seeds: not of {', '.join(swept)}, which has seeds of its own"
        return weights + own + [seeds] * bool(swept and self.config.seeds > 1)

    def require_files(self) -> None:
        """UserError for a file of weights or code that a run names and that is not there."""
        for run in self.runs.values():
            for path in run.given:
                if not Path(path).is_file():
                    names = ", ".join(sorted(run.experiments))
                    raise UserError(f"experiment {names}: {path}: no such file")
        check_weights(self.config, bool(self.measured("quality")))

    def run_folder(self, run_id: str) -> Path:
        """Folder of a run's results."""
        return self.root / "runs" / run_id

    def evaluation_folder(self, run_id: str, evaluation_id: str) -> Path:
        """Folder of an evaluation's results, beside its run."""
        return self.run_folder(run_id) / evaluation_id

    def measured(self, measure: str, experiment: str | None = None) -> list[tuple[str, str]]:
        """Evaluations (run id, evaluation id) of which an experiment, or any, has a measure."""
        asking = {name for name, content in self.experiments.items() if measure in content.measures}
        asking &= {experiment} if experiment else asking
        rows = (row for row in self.rows if row.experiment in asking)
        keys = (
            (row.run_id, row.evaluation_id) for row in rows if is_measured(measure, row.settings)
        )
        return list(dict.fromkeys(keys))

    def measure_file(self, measure: str, run_id: str, evaluation_id: str) -> Path:
        """Table of a measure of an evaluation. That of `quality` is named by its features.

        So what is compared by other features lies beside it, and is never taken for it.
        """
        folder = self.evaluation_folder(run_id, evaluation_id)
        return folder / f"{measure_name(measure, self.config)}.parquet"

    def twin(self, run_id: str, evaluation_id: str) -> tuple[str, str]:
        """The evaluation of the run that differs in data.part alone, of which it is 1.

        UserError where there is none.
        """
        return twin_of(self.runs, run_id, evaluation_id)

    @property
    def score_files(self) -> list[Path]:
        """Scores of all samples of the evaluations that were run; UserError if none was."""
        paths = [self.evaluation_folder(*key) / "scores.parquet" for key in self.evaluations]
        found = [path for path in paths if path.exists()]
        if not found:
            raise UserError(f"no scores of {', '.join(self.experiments)} in {self.root}/runs yet")
        return found


def load(
    config: Mapping[str, Any] | Config, workflow: Path = WORKFLOW, claims: bool = True
) -> Catalog:
    """Expand and validate what a config selects. UserErrors name file, key and allowed values.

    claims: whether these are checked too: a job need not do again what its start has done.
    """
    if not isinstance(config, Config):
        config = parse(Config, config, "config")
    recipes = load_recipes(workflow)
    scale = load_scale(config.scale, workflow)
    files = experiment_files(config.experiments, workflow)
    _check_names(config, scale, files, workflow)
    experiments = {name: load_experiment(path, recipes) for name, path in files.items()}
    listed = [
        row
        for name, experiment in experiments.items()
        for row in _rows(name, files[name], experiment, recipes, scale, config)
    ]
    rows = _selected(listed, config)
    check_features(config, {n for n, e in experiments.items() if "quality" in e.measures}, rows)
    check_measures(experiments, rows)
    figures = _figures(experiments, listed, rows, config)
    others = _other_figures(experiments, figures, config, workflow)
    if claims:
        known = {**files, **shipped_experiments(workflow)}
        check_claims(experiments, listed, {**figures, **others}, known)
    runs = _runs(rows)
    check_twins(experiments, rows, runs)
    kept = set(map(id, rows))
    left_out = tuple(row for row in listed if id(row) not in kept)
    return Catalog(config, scale, files, experiments, tuple(rows), runs, figures, others, left_out)


def _check_names(config: Config, scale: Scale, files: Mapping[str, Path], workflow: Path) -> None:
    """Refuse selections and rules for experiments that do not exist, and such forced settings."""
    known = {**shipped_experiments(workflow), **files}
    named = {f"scale {config.scale}": scale.experiments, "config: weights": config.weights}
    for name, names in config.select.items():
        scale_path(name, "config: select", workflow)
        named[f"config: select: {name}"] = names
    for where, names in named.items():
        for name in names:
            if name not in known:
                raise UserError(f"{where}: no experiment {name!r}{suggestion(name, known)}")
    parse_recipe(config.set, "config: set")


def _rows(
    name: str,
    path: Path,
    experiment: Experiment,
    recipes: Mapping[str, Mapping[str, Any]],
    scale: Scale,
    config: Config,
) -> Iterator[Row]:
    rules, weights = _rules(name, experiment, scale), config.weights.get(name)
    given = {"model.weights": weights} if weights and not rules else {}
    for number, item in enumerate(experiment.runs, 1):
        where = f"{path}: runs item {number}"
        for combination in expand(item):
            published = DEFAULTS | recipes[experiment.recipe] | experiment.set | combination
            published |= given
            published = with_epochs(flatten(parse_recipe(published, where)))
            scaled = transform(published, rules, f"{where} at scale {config.scale}") | config.set
            for repetition in repetitions(experiment, config.seeds):
                again = repeated(scaled, repetition)
                settings = resolve(flatten(parse_recipe(again, where)), where)
                evaluation = _evaluation(settings)
                row = repeated(published, repetition), settings
                yield Row(name, *row, evaluation.run_id, evaluation.id)


def _rules(name: str, experiment: Experiment, scale: Scale) -> dict[str, Rule]:
    """How a scale transforms the runs of an experiment; empty where it leaves them as published."""
    return scale.rules | scale.experiments.get(name, {}) if experiment.scaled else {}


def _selected(rows: list[Row], config: Config) -> list[Row]:
    """Rows that the config keeps, each by its experiment's entry in `select`."""
    where = f"config: select: {config.scale}"
    selections = {
        name: [parse_filter(wanted, f"{where}: {name}") for wanted in alternatives]
        for name, alternatives in config.select.get(config.scale, {}).items()
        if alternatives
    }
    kept = []
    for row in rows:
        alternatives = selections.get(row.experiment)
        if alternatives is None or any(_selects(wanted, row) for wanted in alternatives):
            kept.append(row)
    for name in {row.experiment for row in rows} - {row.experiment for row in kept}:
        raise UserError(f"{where}: {name}: leaves no run of the experiment")
    return kept


def _selects(wanted: Mapping[str, list[Any]], row: Row) -> bool:
    """Whether a row has allowed values, as published or at the scale."""
    return all(
        value_of(row, key) in values or (key in DEFAULTS and row.settings[key] in values)
        for key, values in wanted.items()
    )


def _evaluation(settings: Mapping[str, Any]) -> Evaluation:
    """The evaluation of a row, with the id of its run."""
    content = evaluation_settings(settings)
    slug = f"{settings['eval.num_samples']}samples"
    if settings["train.iterations"] is not None:
        slug = f"{settings['train.iterations']}steps-{slug}"
    elif is_trained(settings):
        slug = f"{all_digits(settings['train.epochs'])}ep-{slug}"
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
    experiments: Mapping[str, Experiment],
    listed: Iterable[Row],
    rows: Iterable[Row],
    config: Config,
) -> dict[str, PlannedFigure]:
    """Figures that have at least one of the selected rows, by name."""
    listed, rows = list(listed), set(map(id, rows))
    figures: dict[str, PlannedFigure] = {}
    for name, experiment in experiments.items():
        own = [row for row in listed if row.experiment == name]
        for figure_name, figure in experiment.figures.items():
            if figure_name in figures:
                other = figures[figure_name].experiment
                raise UserError(f"experiment {name}: figure {figure_name} is also in {other}")
            where = f"experiment {name}: figure {figure_name}"
            check_figure(figure_name, figure, where)
            check_measured(figure, name, experiment.measures, where)
            passing = _passing(own, figure.where, f"{where}: where")
            parts = _parts(own, passing, figure, where)
            line = frozenset.union(*parts["reference"])
            drawn = rows & {*map(id, passing), *(id(row) for row in own if row.key in line)}
            shown = tuple(row for row in own if id(row) in drawn)
            if shown:
                figures[figure_name] = PlannedFigure(
                    figure_name, name, figure, shown, parts, config.features
                )
    return figures


def _passing(rows: Iterable[Row], where: Mapping[str, Any], name: str) -> list[Row]:
    """Rows that a filter of a figure keeps; none is a UserError."""
    wanted = parse_filter(where, name)
    passing = [row for row in rows if shows(wanted, row)]
    if not passing:
        raise UserError(f"{name}: no run of the experiment has these values")
    return passing


def _parts(
    own: Iterable[Row], passing: Iterable[Row], figure: Figure, where: str
) -> dict[str, tuple[frozenset[str], ...]]:
    """Evaluations that a figure draws apart from the rest."""
    reference = _passing(own, figure.reference, f"{where}: reference") if figure.reference else []
    halves = [_passing(passing, half.where, f"{where}: halves") for half in figure.halves]
    return {
        "reference": (frozenset(row.key for row in reference),),
        "halves": tuple(frozenset(row.key for row in half) for half in halves),
    }


def _other_figures(
    experiments: Mapping[str, Experiment],
    figures: Mapping[str, PlannedFigure],
    config: Config,
    workflow: Path,
) -> dict[str, str]:
    """What keeps each figure that is not planned from being drawn, by name."""
    unselected = {
        figure: f"{figure} needs the experiment {name}, which is not selected: "
        f"--config experiments={name}, or add it in config.yaml"
        for name, path in shipped_experiments(workflow).items()
        if name not in experiments
        for figure in load_yaml(path).get("figures", {})
    }
    without_runs = {
        figure: f"{figure} shows runs that config: select: {config.scale}: {name} leaves out"
        for name, experiment in experiments.items()
        for figure in experiment.figures
    }
    others = unselected | without_runs
    return {name: reason for name, reason in others.items() if name not in figures}
