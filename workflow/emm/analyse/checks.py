"""What is wrong with a figure or a claim, as far as it shows before anything runs."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from emm.analyse.metrics import CAPACITIES, METRICS, ONSETS, is_metric, measure_of, metric
from emm.analyse.names import SIZE, TIMES
from emm.analyse.places import (
    EPOCH,
    OF_NETWORK,
    OF_SERIES,
    SPREAD,
    groups_of,
    has_sides,
    side_filter,
)
from emm.data.catalogue import source_info
from emm.documents import Claim, Config, Experiment, Figure
from emm.errors import UserError
from emm.filters import EXPERIMENT, Row, shows
from emm.ids import run_id
from emm.masks import DERIVED
from emm.measure import GIVEN_FEATURES, MEASURES, is_measured, twin_settings, unmeasurable
from emm.runs import Run
from emm.spec import DEFAULTS, suggestion

RULES = (  # names of targets that no figure may have
    *("all", "data", "subset", "train", "sample", "score", "usage"),
    *(*MEASURES, "measure_table", "features"),
    *("tables", "experiment_tables", "figure", "pages", "report", "plan", "replication"),
    "advice",
)
DRAWN_FROM = {  # by plot: the measure whose table or columns it shows
    **{"levels": "ideals", "paths": "ideals"},
    **{"thresholds": "criteria", "windows": "quality", "twins": "twins"},
}
OF_METRICS = ("metrics", "metrics_table")  # plots of several columns
OWN_METRICS = (  # what claims may be made of besides table columns
    *(*OF_SERIES, SPREAD, *OF_NETWORK, *ONSETS),
)
NEEDED = {  # by kind: what it takes besides a metric and filters, and what else it may have
    "monotone-decreasing": (("along",), ("trend",)),
    "monotone-increasing": (("along",), ("trend",)),
    "non-monotone": (("along",), ("peak", "turn", "within")),
    "greater": (("left", "right"), ("factor",)),
    "approximately-equal": (("within",), ("along", "left", "right", "value", "factor")),
    "threshold": (("op", "value"), ("along",)),
}
PARTICULAR = (
    *("along", "left", "right", "op", "value", "within", "factor", "peak", "turn", "trend"),
)


def check_figure(name: str, figure: Figure, where: str) -> None:
    """UserErrors for the name of a rule, and for columns that the result tables will not have."""
    if name in RULES:
        raise UserError(f"{where}: is the name of a rule; choose another")
    for key in ("x", "hue", "style", "rows", "columns", "also"):
        value = getattr(figure, key)
        timed = key == "x" or (key == "hue" and figure.plot == "levels")
        known = [*DEFAULTS, *DERIVED, *(TIMES if timed else ())]
        if key == "x" and figure.plot == "plane" and is_metric(value):
            continue
        if value is not None and value not in known:
            raise UserError(f"{where}: {key}: unknown setting {value!r}{suggestion(value, known)}")
    if not (is_metric(figure.y) or figure.y in CAPACITIES):
        known = [*METRICS, *CAPACITIES]
        raise UserError(f"{where}: y: unknown column {figure.y!r}{suggestion(figure.y, known)}")
    if figure.plot == "plane" and not is_metric(figure.x):
        raise UserError(f"{where}: x: a plane needs a column of numbers, as memorization_ratio")
    if figure.plot == "capacity" or figure.y in CAPACITIES:
        _check_capacity(figure, where)
    if figure.plot == "variance" and (figure.y != "memorization_ratio" or figure.epoch == "all"):
        raise UserError(f"{where}: plot: variance is of y: memorization_ratio at one checkpoint")
    if figure.plot == "table" and not ((figure.rows or figure.halves) and figure.columns):
        raise UserError(f"{where}: a table needs `rows` (or `halves`) and `columns`")
    if figure.metrics or figure.plot in OF_METRICS:
        _check_metrics(figure, where)


def check_measured(figure: Figure, name: str, measures: Collection[str], where: str) -> None:
    """UserError for what a figure shows of a measure that its experiment, by name, has not."""
    shown = [("x", figure.x), ("y", figure.y), *(("metrics", each) for each in figure.metrics)]
    needed = [(key, column, measure_of(column)) for key, column in shown]
    for key, what, measure in [*needed, ("plot", figure.plot, DRAWN_FROM.get(figure.plot))]:
        if measure and measure not in measures:
            raise UserError(f"{where}: {key}: {_unasked(what, measure, name)}")


def _check_metrics(figure: Figure, where: str) -> None:
    """Metrics are columns, and lines of one axis need one unit."""
    if figure.plot not in OF_METRICS or not figure.metrics:
        raise UserError(f"{where}: metrics: go with the plots {' and '.join(OF_METRICS)}")
    for name in figure.metrics:
        if not is_metric(name):
            raise UserError(f"{where}: metrics: unknown column {name!r}{suggestion(name, METRICS)}")
    units = {metric(name).unit for name in figure.metrics}
    if figure.plot == "metrics" and (figure.hue or figure.style or len(units) > 1):
        raise UserError(f"{where}: metrics: each is a line, without hue or style, of one unit")
    if figure.plot == "metrics_table" and not figure.columns:
        raise UserError(f"{where}: columns: name the setting that separates the columns")


def check_features(config: Config, asking: Collection[str], rows: Iterable[Row]) -> None:
    """UserErrors for features that the sources of some experiments cannot have.

    asking: names of the experiments that compare images by their features.
    """
    if config.feature_weights and config.features not in GIVEN_FEATURES:
        raise UserError(f"config: feature_weights: features {config.features} take none")
    if config.features != "classifier":
        return
    for row in rows:
        name = row.settings["data.dataset"]
        if row.experiment in asking and source_info(name).classes in (0, 1):
            raise UserError(
                f"experiment {row.experiment}: features classifier: {name} has no two classes to "
                "tell apart; set features: pixels in the config, or give feature_weights"
            )


def check_measures(experiments: Mapping[str, Experiment], rows: Iterable[Row]) -> None:
    """UserErrors for measures that have no answer for some runs, before these are trained."""
    for row in rows:
        for measure in experiments[row.experiment].measures:
            if not is_measured(measure, row.settings):
                continue
            reason = unmeasurable(measure, row.settings)
            if reason:
                raise UserError(f"experiment {row.experiment}: measures: {measure}: {reason}")


def check_twins(
    experiments: Mapping[str, Experiment], rows: Iterable[Row], runs: Mapping[str, Run]
) -> None:
    """UserError for an experiment that measures twins and has none, or half of a pair."""
    for name, experiment in experiments.items():
        if "twins" not in experiment.measures:
            continue
        own = [r for r in rows if r.experiment == name and is_measured("twins", r.settings)]
        if not own:
            raise UserError(f"experiment {name}: measures: twins: no run has data.part 2")
        for row in own:
            try:
                twin_of(runs, row.run_id, row.evaluation_id)
            except UserError as error:
                raise UserError(f"experiment {name}: measures: twins: {error}") from error


def twin_of(runs: Mapping[str, Run], own: str, evaluation: str) -> tuple[str, str]:
    """The run and evaluation that differ from others in data.part alone, of which it is 1.

    UserError where these are not among the runs.
    """
    settings = runs[own].evaluations[evaluation].settings
    other = run_id(twin_settings(settings))
    if other not in runs or evaluation not in runs[other].evaluations:
        raise UserError(f"{own}: its twin {other} (data.part 1) is not among the runs; select both")
    return other, evaluation


def check_weights(config: Config, needed: bool) -> None:
    """UserError for weights of features that are needed and not there."""
    if not needed or config.features not in GIVEN_FEATURES:
        return
    if config.feature_weights is None:
        raise UserError(
            f"config: features {config.features}: needs feature_weights, a TorchScript file"
        )
    if not Path(config.feature_weights).is_file():
        raise UserError(f"config: feature_weights: {config.feature_weights}: no such file")


def _check_capacity(figure: Figure, where: str) -> None:
    """Capacities are of series, which have no size and no epoch; their axis is logarithmic."""
    if figure.plot in ("grid", "examples"):
        raise UserError(f"{where}: y: the plot {figure.plot} has no use for it")
    if figure.plot != "table" and (figure.x == SIZE or figure.x in TIMES):
        raise UserError(f"{where}: x: {figure.x} makes no series; use a setting, as model.channels")
    if figure.plot == "capacity" and isinstance(DEFAULTS.get(figure.x), str | tuple):
        raise UserError(f"{where}: x: {figure.x} is no number, which the plot capacity needs")


def check_claims(
    experiments: Mapping[str, Experiment],
    rows: Iterable[Row],
    figures: Collection[str],
    known: Collection[str],
) -> None:
    """UserErrors for claims that cannot be evaluated; they name the experiment and the claim.

    rows: of all these experiments. figures, known: names of all figures and experiments there are.
    """
    rows = list(rows)
    for name, experiment in experiments.items():
        for claim_name, claim in experiment.claims.items():
            where = f"experiment {name}: claim {claim_name}"
            if claim.figure not in figures:
                hint = suggestion(claim.figure, figures)
                raise UserError(f"{where}: figure: no figure {claim.figure!r}{hint}")
            _check_kind(claim, where)
            _check_names(claim, where)
            _check_rows(claim, name, rows, known, where)
            _check_measured(claim, name, experiments, rows, where)


def _check_kind(claim: Claim, where: str) -> None:
    """Refuse what the kind lacks, and what it would not heed."""
    needed, optional = NEEDED[claim.kind]
    given = {name for name in PARTICULAR if name in claim.model_fields_set}
    for name in needed:
        if name not in given:
            raise UserError(f"{where}: {name}: needed for the kind {claim.kind}")
    for name in PARTICULAR:
        if name in given and name not in (*needed, *optional):
            raise UserError(f"{where}: {name}: the kind {claim.kind} has no use for it")
    if claim.kind == "non-monotone" and (claim.peak is None) != (claim.within is None):
        raise UserError(f"{where}: peak: goes with `within`, how far from it the maximum may lie")
    if claim.peak is not None and claim.turn == "dip":
        raise UserError(f"{where}: turn: a dip has no maximum; leave out `peak`")
    if claim.right and not claim.left:
        raise UserError(f"{where}: left: needed beside `right`")
    if claim.left and not claim.right and claim.value is None:
        raise UserError(f"{where}: right: needed beside `left`, or a `value`")
    if claim.kind == "approximately-equal" and "factor" in given:
        _check_factor(claim, where)
    if claim.checkpoint == "last" and EPOCH in (*claim.by, claim.along):
        raise UserError(f"{where}: checkpoint: not along `epoch`, where each is a place")
    if has_sides(claim) and (claim.along or claim.value is not None):
        raise UserError(f"{where}: left: not with `along` or `value`; hold settings fixed in `by`")


def _check_factor(claim: Claim, where: str) -> None:
    """A ratio is one of two sides, or for each doubling of a setting."""
    if claim.value is not None:
        raise UserError(f"{where}: factor: not with `value`, which is no ratio")
    if not has_sides(claim) and (claim.along not in DEFAULTS):
        raise UserError(f"{where}: along: a factor is that of each doubling of a setting; name it")


def _check_names(claim: Claim, where: str) -> None:
    if not (is_metric(claim.metric) or claim.metric in OWN_METRICS):
        hint = suggestion(claim.metric, [*METRICS, *OWN_METRICS])
        raise UserError(f"{where}: metric: unknown metric {claim.metric!r}{hint}")
    for name in claim.by:
        known = [*DEFAULTS, *DERIVED, EPOCH, EXPERIMENT]
        if name not in known:
            raise UserError(f"{where}: by: unknown setting {name!r}{suggestion(name, known)}")
    if claim.along is not None:
        _check_axis(claim, where)


def _check_measured(
    claim: Claim,
    experiment: str,
    experiments: Mapping[str, Experiment],
    rows: Iterable[Row],
    where: str,
) -> None:
    """Refuse what is said of a measure that no selected experiment has of one of the runs."""
    for key in ("metric", "along"):
        measure = measure_of(getattr(claim, key) or "")
        if measure is None:
            continue
        known = {row.key for row in rows if measure in experiments[row.experiment].measures}
        sides = [side_filter(claim, about, experiment, where) for _, about in _sides(claim)]
        for row in rows:
            meant = any(all(shows(part, row) for part in filters) for filters in sides)
            if meant and row.key not in known:
                what = _unasked(getattr(claim, key), measure, row.experiment)
                raise UserError(f"{where}: {key}: {what}")


def _unasked(shown: str, measure: str, experiment: str) -> str:
    return f"{shown} needs measures: [{measure}] in experiment {experiment}"


def _check_axis(claim: Claim, where: str) -> None:
    along = claim.along
    known = [*DEFAULTS, *DERIVED, EPOCH, *METRICS]
    if along not in known and not is_metric(along):
        raise UserError(f"{where}: along: unknown setting {along!r}{suggestion(along, known)}")
    if isinstance(DEFAULTS.get(along), str | tuple):
        raise UserError(f"{where}: along: {along} is no number; compare with `left` and `right`")
    if is_metric(along) and not claim.trend:
        raise UserError(f"{where}: along: along a metric only a tendency can be claimed; add trend")


def _check_rows(
    claim: Claim, experiment: str, rows: list[Row], known: Collection[str], where: str
) -> None:
    """Refuse filters that no run of their experiments passes, and places of different runs."""
    for side, about in _sides(claim):
        filters = side_filter(claim, about, experiment, f"{where}: {side}")
        named = [name for part in filters for name in part.get(EXPERIMENT, ())]
        for name in named:
            if name not in known:
                hint = suggestion(str(name), known)
                raise UserError(f"{where}: {side}: no experiment {name!r}{hint}")
    if _experiments(claim, experiment) - {row.experiment for row in rows}:
        return  # not selected: nothing can be said of its runs
    if not groups_of(claim, experiment, rows, where):
        raise UserError(f"{where}: {_nothing(claim, experiment, rows, where)}")


def _sides(claim: Claim) -> Iterator[tuple[str, Mapping]]:
    yield ("left" if claim.left else "where"), claim.left
    if claim.right:
        yield "right", claim.right


def _experiments(claim: Claim, experiment: str) -> set[str]:
    """All experiments whose runs a claim looks at."""
    return {
        name
        for _, about in _sides(claim)
        for part in side_filter(claim, about, experiment, "")
        for name in part.get(EXPERIMENT, ())
    }


def _nothing(claim: Claim, experiment: str, rows: list[Row], where: str) -> str:
    """Why there is nothing to compare."""
    for side, about in _sides(claim):
        filters = side_filter(claim, about, experiment, where)
        if not any(all(shows(part, row) for part in filters) for row in rows):
            return f"{side}: no run of the experiment has these values"
    if has_sides(claim):
        return "by: at none of its values both sides have runs"
    return f"along: too few places along {claim.along}" if claim.along else "nothing to compare"
