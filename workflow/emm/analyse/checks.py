"""What is wrong with a figure or a claim, as far as it shows before anything runs."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from emm.analyse.names import CAPACITIES, METRICS, ONSETS, SIZE, TIMES, is_metric
from emm.analyse.places import (
    EPOCH,
    OF_NETWORK,
    OF_SERIES,
    SPREAD,
    groups_of,
    has_sides,
    side_filter,
)
from emm.documents import Claim, Experiment, Figure
from emm.errors import UserError
from emm.filters import EXPERIMENT, Row, shows
from emm.masks import DERIVED
from emm.measure import MEASURES
from emm.spec import DEFAULTS, suggestion

RULES = (  # names of targets that no figure may have
    *("all", "data", "subset", "train", "sample", "score", "usage"),
    *(*MEASURES, "measure_table"),
    *("tables", "experiment_tables", "figure", "pages", "report", "plan", "replication"),
    "advice",
)
OWN_METRICS = (
    *OF_SERIES,
    SPREAD,
    *OF_NETWORK,
    *ONSETS,
)  # what claims may be made of besides table columns
NEEDED = {  # by kind: what it takes besides a metric and filters, and what else it may have
    "monotone-decreasing": (("along",), ("trend",)),
    "monotone-increasing": (("along",), ("trend",)),
    "non-monotone": (("along",), ("peak", "within")),
    "greater": (("left", "right"), ("factor",)),
    "approximately-equal": (("within",), ("along", "left", "right", "value", "factor")),
    "threshold": (("op", "value"), ("along",)),
}
PARTICULAR = ("along", "left", "right", "op", "value", "within", "factor", "peak", "trend")


def check_figure(name: str, figure: Figure, where: str) -> None:
    """UserErrors for the name of a rule, and for columns that the result tables will not have."""
    if name in RULES:
        raise UserError(f"{where}: is the name of a rule; choose another")
    for key in ("x", "hue", "style", "rows", "columns", "also"):
        value = getattr(figure, key)
        timed = key == "x" or (key == "hue" and figure.plot == "levels")
        known = [*DEFAULTS, *DERIVED, *(TIMES if timed else ())]
        if value is not None and value not in known:
            raise UserError(f"{where}: {key}: unknown setting {value!r}{suggestion(value, known)}")
    if not (is_metric(figure.y) or figure.y in CAPACITIES):
        known = [*METRICS, *CAPACITIES]
        raise UserError(f"{where}: y: unknown column {figure.y!r}{suggestion(figure.y, known)}")
    if figure.plot == "capacity" or figure.y in CAPACITIES:
        _check_capacity(figure, where)
    if figure.plot == "variance" and (figure.y != "memorization_ratio" or figure.epoch == "all"):
        raise UserError(f"{where}: plot: variance is of y: memorization_ratio at one checkpoint")
    if figure.plot == "table" and not ((figure.rows or figure.halves) and figure.columns):
        raise UserError(f"{where}: a table needs `rows` (or `halves`) and `columns`")


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
