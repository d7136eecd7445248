"""Claims that cannot be evaluated are refused when a run is planned, in one line."""

import pytest

from emm import catalog
from emm.errors import UserError

EXPERIMENT = """
title: Claims
runs:
  - {labels.kind: [none, "true"], data.size: [500, 1000, 2000]}
figures: {fig: {plot: curve}}
claims:
  odd: {statement: x, figure: fig, CLAIM}
"""
FALLS = "kind: monotone-decreasing, by: labels.kind"
GREATER = 'kind: greater, by: data.size, left: {labels.kind: "true"}'
EQUAL = "kind: approximately-equal, by: labels.kind, within: 1"


def load(tmp_path, claim: str) -> catalog.Catalog:
    path = tmp_path / "own.yaml"
    path.write_text(EXPERIMENT.replace("CLAIM", claim))
    return catalog.load({"scale": "paper", "experiments": [str(path), "optimum"]})


WRONG = [
    ("kind: threshold, op: '>'", "value: needed for the kind threshold"),
    (FALLS, "along: needed for the kind monotone-decreasing"),
    (GREATER, "right: needed for the kind greater"),
    ("kind: greater, right: {labels.kind: none}", "left: needed for the kind greater"),
    ("kind: approximately-equal", "within: needed for the kind approximately-equal"),
    ("kind: non-monotone, along: data.size, peak: 3", "peak: goes with `within`, how far from it"),
    (
        "kind: non-monotone, along: data.size, peak: 3, within: 1, turn: dip",
        "turn: a dip has no maximum",
    ),
    (f"{FALLS}, along: data.size, turn: dip", "turn: the kind monotone-decreasing has no use"),
    (f"{GREATER}, right: {{data.size: 500}}, peak: 3", "peak: the kind greater has no use for it"),
    (f"{FALLS}, along: data.size, factor: 2", "factor: the kind monotone-decreasing has no use"),
    (f"{EQUAL}, left: {{data.size: 500}}", "right: needed beside `left`, or a `value`"),
    (f"{EQUAL}, right: {{data.size: 500}}", "left: needed beside `right`"),
    (
        f"{EQUAL}, left: {{data.size: 500}}, right: {{data.size: 1000}}, value: 3",
        "left: not with `along` or `value`",
    ),
    (f"{FALLS}, along: data.sise", "along: unknown setting 'data.sise'; did you mean 'data.size'?"),
    (f"{FALLS}, along: labels.kind", "along: labels.kind is no number"),
    (f"{FALLS}, along: knn_distance", "along: along a metric only a tendency can be claimed"),
    ("kind: threshold, op: '>', value: 1, by: model.skips", "by: unknown setting 'model.skips'"),
    (f"{FALLS}, along: data.size, metric: knn", "metric: unknown metric 'knn'"),
    (
        f"{FALLS}, along: data.size, metric: fid",
        "metric: fid needs measures: [quality] in experiment own",
    ),
    (
        f"{FALLS}, along: data.size, metric: kappa, where: {{experiment: [own, optimum]}}",
        "metric: kappa needs measures: [ideals] in experiment own",
    ),
    (
        "kind: monotone-decreasing, trend: true, by: data.size, along: fid",
        "along: fid needs measures: [quality] in experiment own",
    ),
    (f"{FALLS}, along: data.size, where: {{data.size: x}}", "data.size: input should be a valid"),
    (f"{FALLS}, along: epoch, checkpoint: last", "checkpoint: not along `epoch`"),
    (f"{FALLS}, along: data.size, where: {{sizes: 1}}", "where: unknown setting 'sizes'"),
    (
        f"{FALLS}, along: data.size, where: {{model.skip_count: one}}",
        "model.skip_count: should be an integer, not 'one'",
    ),
    (
        f"{FALLS}, along: data.size, where: {{experiment: optinum}}",
        "where: no experiment 'optinum'; did you mean 'optimum'?",
    ),
    (
        f"{FALLS}, along: data.size, where: {{data.size: 7}}",
        "where: no run of the experiment has these values",
    ),
    (
        f"{FALLS}, along: data.size, where: {{data.size: 500}}",
        "along: too few places along data.size",
    ),
    (f"{GREATER}, right: {{data.size: 9}}", "right: no run of the experiment has these values"),
    (
        "kind: greater, by: data.size, left: {data.size: 500}, right: {data.size: 1000}",
        "runs at |D| = 500 differ in labels.kind (unconditional, true labels); hold it fixed in",
    ),
    (
        "kind: greater, by: data.size, left: {labels.kind: none, data.size: 500}, "
        "right: {labels.kind: none, data.size: 1000}",
        "by: at none of its values both sides have runs",
    ),
    ("kind: threshold, op: '>', value: 1, by: labels.kind", "differ in data.size (500, 1k, 2k)"),
]


@pytest.mark.parametrize(("claim", "message"), WRONG)
def test_wrong_claims_are_one_line(tmp_path, claim, message):
    with pytest.raises(UserError) as error:
        load(tmp_path, claim)
    assert str(error.value).startswith("experiment own: claim odd: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_measure_that_another_experiment_has_of_the_same_runs(tmp_path):
    path = tmp_path / "also.yaml"
    text = (
        EXPERIMENT.replace("{fig:", "{other:")
        .replace("figure: fig", "figure: other")
        .replace("CLAIM", f"{FALLS}, along: data.size")
    )
    path.write_text(f"{text}measures: [criteria]\n")
    own = tmp_path / "own.yaml"
    own.write_text(EXPERIMENT.replace("CLAIM", f"{FALLS}, along: data.size, metric: near_share"))
    load = {"scale": "paper", "experiments": [str(own), str(path)]}
    assert set(catalog.load(load).experiments) == {"own", "also"}
    with pytest.raises(UserError, match=r"near_share needs measures: \[criteria\] in ex"):
        catalog.load(load | {"experiments": str(own)})


def test_claims_name_a_figure(tmp_path):
    claim = f"{FALLS}, along: data.size"
    assert load(tmp_path, claim).experiments["own"].claims["odd"].figure == "fig"
    with pytest.raises(UserError, match=r"claim also: figure: no figure 'fog'; did you mean 'fig'"):
        load(tmp_path, claim + "}\n  also: {statement: x, figure: fog, " + claim)


@pytest.mark.parametrize(
    "right",
    [
        "experiment: width",  # not selected: nothing can be said of its runs
        "experiment: width, data.size: 7",
        "experiment: optimum, data.size: 50000",
        "labels.kind: none",
    ],
)
def test_claims_may_look_at_other_experiments(tmp_path, right):
    left = 'kind: greater, left: {labels.kind: "true", data.size: 500}'
    fixed = right if right.startswith("experiment") else f"{right}, data.size: 500"
    assert load(tmp_path, f"{left}, right: {{{fixed}}}").experiments["own"].claims
