"""Filters over the rows of experiments: they name published values, which hold at every scale."""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from emm.errors import UserError
from emm.expansion import values_of
from emm.masks import DERIVED, derived
from emm.spec import DEFAULTS, flatten, parse_recipe, suggestion

EXPERIMENT = "experiment"  # what claims may name besides settings
Filter = dict[str, list[Any]]  # allowed values by name


class Row(Protocol):
    """A line of an experiment, as published and at the scale (`runs.Row`)."""

    @property
    def key(self) -> str: ...

    @property
    def experiment(self) -> str: ...

    @property
    def published(self) -> Mapping[str, Any]: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    @property
    def run_id(self) -> str: ...

    @property
    def evaluation_id(self) -> str: ...


def parse_filter(wanted: Mapping[str, Any], where: str, others: Collection[str] = ()) -> Filter:
    """Allowed values by setting, as strict as those of an experiment; UserErrors name `where`.

    others: further names that the filter may hold, whose values are taken as they are.
    """
    return {
        key: [_parsed(key, value, where, others) for value in values_of(key, content)]
        for key, content in wanted.items()
    }


def _parsed(key: str, value: Any, where: str, others: Collection[str]) -> Any:
    if key in others:
        return value
    if key in DERIVED:
        if value is not None and type(value) is not int:
            raise UserError(f"{where}: {key}: should be an integer, not {value!r}")
        return value
    if key not in DEFAULTS:
        known = [*DEFAULTS, *DERIVED, *others]
        raise UserError(f"{where}: unknown setting {key!r}{suggestion(key, known)}")
    return flatten(parse_recipe({key: value}, where))[key]


def shows(wanted: Filter, row: Row) -> bool:
    """Whether a row has allowed values."""
    return all(value_of(row, key) in values for key, values in wanted.items())


def value_of(row: Row, key: str) -> Any:
    """A published value of a row: of a setting, of one that follows from the skip mask, or its
    experiment. Where the experiment leaves a value open, the row's own at the scale.
    """
    if key == EXPERIMENT:
        return row.experiment
    if key in DERIVED:
        return derived(row.published)[key]
    return row.settings[key] if row.published[key] is None else row.published[key]
