"""Claims of known truth: every kind both ways, and saturated, censored and missing results."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from emm import catalog
from emm.analyse.claims import judge
from emm.analyse.compare import Case, everywhere, somewhere
from emm.analyse.draws import DRAWS, quantiles
from emm.analyse.places import Entry, groups_of
from emm.analyse.simulate import Measurements
from emm.documents import Claim
from emm.errors import UserError
from emm.spec import parse
from emm.train.schedules import epoch_of

SIZES = (500, 1000, 2000, 4000)
EXPERIMENT = """
title: Claims
runs:
  - {labels.kind: [none, "true", unique], data.size: [500, 1000, 2000, 4000]}
  - {labels.kind: random, labels.num_classes: [1, 10, 100], data.size: 1000}
  - {model.num_blocks: [2, 4, 6, 8, 10], train.lr: 1.0e-3, data.size: 1000}
  - {train.seed: [1, 2, 3], data.num_classes: 2, data.size: 1000}
  - {model.skip_mask: ["100000000", "010000000", "000000001", "111111110"], data.size: 1000}
  - {eval.num_samples: 50000, data.size: 1000}
figures: {fig: {plot: curve}}
"""
BASIC = {"labels.kind": "none", "model.skip_mask": "all", "train.seed": 1024, "train.lr": 2e-4}
BASIC |= {"data.num_classes": 10, "eval.num_samples": 10000}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> catalog.Catalog:
    path = tmp_path_factory.mktemp("claims") / "own.yaml"
    path.write_text(EXPERIMENT)
    return catalog.load({"scale": "paper", "experiments": str(path)})


def claim(text: str = "", **keys) -> Claim:
    given = {"statement": "x", "figure": "fig", "by": "data.size", **keys}
    return parse(Claim, {k.replace("__", "."): v for k, v in given.items()}, "claim")


def table(found: catalog.Catalog, ratio, samples=None, distance=None, last=True) -> pd.DataFrame:
    """The memorization table if the ratio of each run were ratio(published settings, epoch)."""
    rows = []
    for row in {Entry(row).evaluation: row for row in found.rows}.values():
        s = row.published
        steps = found.evaluations[row.run_id, row.evaluation_id].steps
        for step in steps[-1:] if last else steps:
            epoch = epoch_of(step, row.settings["data.size"], s["train.batch_size"])
            count = samples or s["eval.num_samples"]
            hits = round(ratio(s, epoch) * count)
            rows.append(
                {
                    "run": row.run_id,
                    "evaluation": Entry(row).evaluation,
                    "step": step,
                    "epoch": epoch,
                    "n_samples": count,
                    "n_memorized": hits,
                    "memorization_ratio": hits / count,
                    "knn_distance": distance(s) if distance else 30 - 25 * hits / count,
                }
            )
    return pd.DataFrame(rows)


def verdict(found, about: Claim, ratio, run_sd=0.3, **keywords):
    groups = groups_of(about, "own", found.rows, "own")
    return judge(about, groups, Measurements(table(found, ratio, **keywords), run_sd))


def curves(**values):
    """ratio() of basic runs by label kind and size, in %; the same size order as SIZES."""

    def ratio(s, epoch=None):
        kind = values.get(s["labels.kind"], [50.0] * 4)
        return kind[SIZES.index(s["data.size"])] / 100

    return ratio


def depth(*values):
    """ratio() of the runs that differ in depth, in %."""
    return lambda s, epoch=None: values[s["model.num_blocks"] // 2 - 1] / 100


DEPTH = {
    "kind": "non-monotone",
    "along": "model.num_blocks",
    "by": [],
    "where": {"train.lr": 1e-3},
}
PEAKED = DEPTH | {"peak": 6, "within": 2}


LABELS = {"labels.kind": ["none", "true", "unique"]}
GREATER = {"kind": "greater", "left": {"labels.kind": "true"}, "right": BASIC}
FALLS = {
    "kind": "monotone-decreasing",
    "along": "data.size",
    "by": "labels.kind",
    "where": BASIC | LABELS,
}


@pytest.mark.parametrize(
    ("true", "none", "expected", "number"),
    [
        ([99, 97, 80, 40], [98, 92, 60, 17], "supported", 1),
        ([99, 97, 80, 40], [98, 92, 60, 60], "contradicted", -20),
        ([98, 92, 60, 17], [99, 97, 80, 40], "contradicted", -23),
        ([100, 100, 100, 40], [99.9, 100, 99.95, 17], "supported", 23),  # ties at 100 % say nothing
        ([100, 100, 0, 0], [100, 99.9, 0, 0.1], "undecided", -0.1),
        ([99.5, 99.3, 99, 98], [99.4, 99.4, 98.9, 98.2], "undecided", None),  # no room
        ([99, 97, 80, 40], [98, 92, 60, 39.5], "undecided", 0.5),  # P about 0.75
        ([99, 97, 80, 40], [98, 92, 60, 40.6], "undecided", -0.6),  # less than a point
    ],
)
def test_greater(found, true, none, expected, number):
    result = verdict(found, claim(**GREATER), curves(true=true, none=none))
    assert result.verdict == expected
    assert result.n_runs == 8
    if number is not None:
        assert result.ours == pytest.approx(number, abs=1e-6)
        assert result.low <= result.ours <= result.high
    if expected != "undecided":
        assert result.support >= 0.95


@pytest.mark.parametrize(
    ("about", "ratio"),
    [
        (claim(**GREATER), curves(true=[60] * 4, none=[60] * 4)),
        (claim(**FALLS | {"where": BASIC}), curves(none=[60] * 4)),
        (claim(**DEPTH), depth(50, 50.2, 50.1, 50.3, 50)),
    ],
)
def test_no_difference_where_one_would_show_contradicts(found, about, ratio):
    assert verdict(found, about, ratio, run_sd=0.1, samples=1_000_000).verdict == "contradicted"
    assert verdict(found, about, ratio, run_sd=0.1, samples=200).verdict == "undecided"


def test_greater_says_where_it_was_decided(found):
    ratio = curves(true=[99, 97, 80, 40], none=[98, 92, 60, 17])
    assert (
        verdict(found, claim(**GREATER), ratio).note == "smallest difference 1 points, at |D| = 500"
    )


@pytest.mark.parametrize(("factor", "expected"), [(1.5, "supported"), (2.5, "contradicted")])
def test_greater_by_a_factor(found, factor, expected):
    ratio = curves(true=[80, 60, 40, 20], none=[40, 30, 20, 10])
    assert verdict(found, claim(**GREATER, factor=factor), ratio).verdict == expected


@pytest.mark.parametrize(
    ("none", "expected", "step"),
    [
        ([99, 92, 60, 17], "supported", 7),
        ([99, 92, 92.3, 17], "supported", -0.3),  # against it by less than the margin
        ([99, 60, 92, 17], "contradicted", -32),
        ([17, 60, 92, 99], "contradicted", -82),
        ([99.9, 99.8, 99.85, 99.6], "undecided", -0.05),
    ],
)
def test_monotone(found, none, expected, step):
    ratio = curves(none=none)
    about = FALLS | {"where": BASIC}
    result = verdict(found, claim(**about), ratio, run_sd=0.2)
    assert result.verdict == expected
    assert result.ours == pytest.approx(step, abs=1e-6)
    assert result.low <= result.ours <= result.high
    rising = about | {"kind": "monotone-increasing"}
    mirrored = verdict(found, claim(**rising), curves(none=none[::-1]), run_sd=0.2)
    assert (mirrored.verdict, mirrored.n_runs) == (expected, 4)


def test_saturated_groups_of_a_monotone_claim_say_nothing(found):
    falls = {"none": [99, 92, 60, 17], "true": [99, 97, 80, 40]}
    ratio = curves(**falls, unique=[100, 99.88, 99.9, 99.6])
    result = verdict(found, claim(**FALLS), ratio)
    assert result.verdict == "supported"
    assert result.note.startswith("smallest step 2 points, for true labels, from |D| = 500 to")
    ratio = curves(**falls, unique=[100, 99.88, 90, 99.6])
    assert verdict(found, claim(**FALLS), ratio).verdict == "contradicted"


@pytest.mark.parametrize(
    ("none", "expected"),
    [
        ([99, 60, 92, 17], "supported"),
        ([17, 92, 60, 99], "contradicted"),
        ([60.2, 60, 60.1, 60], "undecided"),
        ([100, 99.9, 100, 99.9], "undecided"),
    ],
)
def test_tendency(found, none, expected):
    about = FALLS | {"where": BASIC, "trend": True}
    result = verdict(found, claim(**about), curves(none=none), run_sd=0.2)
    assert result.verdict == expected
    assert result.metric == "kendall_tau"
    assert -1 <= result.low <= result.ours <= result.high <= 1


def test_tendency_along_a_metric(found):
    about = claim(
        kind="monotone-decreasing",
        metric="knn_distance",
        along="memorization_ratio",
        by="labels.kind",
        where=BASIC | LABELS,
        trend=True,
    )
    ratio = curves(none=[99, 92, 60, 17], true=[99, 97, 80, 40], unique=[80, 60, 40, 20])
    agreeing = verdict(found, about, ratio)
    assert (agreeing.verdict, agreeing.ours, agreeing.n_runs) == ("supported", -1, 12)
    against = verdict(found, about, ratio, distance=lambda s: 40 - s["data.size"] / 200)
    assert (against.verdict, against.ours) == ("contradicted", 1)


@pytest.mark.parametrize(
    ("about", "values", "expected", "number"),
    [
        (DEPTH, (50, 60, 65, 60, 50), "supported", 15),
        (DEPTH, (50, 60, 55, 60, 65), "supported", 5),
        (DEPTH, (50, 55, 60, 65, 70), "contradicted", -5),
        (DEPTH, (50, 51.2, 52.5, 51.3, 53), "undecided", 1.2),
        (DEPTH | {"turn": "peak"}, (50, 60, 65, 60, 50), "supported", 15),
        (DEPTH | {"turn": "dip"}, (50, 60, 65, 60, 50), "contradicted", -5),
        (DEPTH | {"turn": "dip"}, (65, 60, 50, 55, 60), "supported", 10),
        (DEPTH, (0, 0, 0, 0, 0), "undecided", 0),  # no room
        (DEPTH, (98, 99, 99, 100, 100), "undecided", 0),
        (PEAKED, (50, 60, 65, 60, 50), "supported", 6),
        (PEAKED, (65, 60, 50, 55, 60), "contradicted", 2),
        (PEAKED, (50, 60, 65, 62, 65.6), "undecided", 10),
        (PEAKED | {"peak": 100}, (50, 60, 65, 60, 50), "undecided", 6),  # nothing was run there
    ],
)
def test_non_monotone(found, about, values, expected, number):
    result = verdict(found, claim(**about), depth(*values))
    assert result.verdict == expected
    assert result.ours == pytest.approx(number, abs=1e-6)
    assert result.published == about["peak"] if "peak" in about else math.isnan(result.published)


EQUAL = {"kind": "approximately-equal", "left": {"labels.kind": "true"}, "right": BASIC}
NEAR = {"kind": "approximately-equal", "value": 100.0, "where": {"labels.kind": "unique"}}
RANGE = {"kind": "approximately-equal", "where": {"train.lr": 1e-3}}


@pytest.mark.parametrize(
    ("about", "ratio", "expected", "number"),
    [
        (EQUAL, curves(true=[99, 92, 60, 17], none=[99, 92.2, 60.3, 16.9]), "supported", 0.3),
        (EQUAL, curves(true=[99, 92, 60, 17], none=[99, 92, 60, 24]), "contradicted", 7),
        (EQUAL, curves(true=[99, 92, 60, 17], none=[99, 92, 60, 19.1]), "undecided", 2.1),
        (NEAR, curves(unique=[100, 99.8, 99.7, 99.6]), "supported", 99.6),
        (NEAR, curves(unique=[100, 99.8, 99.7, 90]), "contradicted", 90),
        (RANGE, depth(50, 51, 50.5, 51, 50), "supported", 1),
        (RANGE | {"along": "model.num_blocks"}, depth(50, 51, 50.5, 51, 50), "supported", 1),
        (RANGE, depth(50, 51, 50.5, 51, 56), "contradicted", 6),
    ],
)
def test_approximately_equal(found, about, ratio, expected, number):
    result = verdict(found, claim(**about, within=3), ratio)
    assert (result.verdict, result.ours) == (expected, pytest.approx(number, abs=1e-6))


def test_the_largest_difference_names_its_sides(found):
    result = verdict(found, claim(**RANGE, within=3), depth(50, 51, 50.5, 51, 56))
    assert result.note == (
        "largest difference 6 points, at |D| = 1k, between blocks 2 and blocks 10"
    )


@pytest.mark.parametrize(
    ("op", "value", "none", "expected"),
    [
        (">", 90, [99, 98, 97, 95], "supported"),
        (">", 90, [99, 98, 97, 70], "contradicted"),
        (">", 90, [99, 98, 97, 90.3], "undecided"),
        ("<", 90, [80, 70, 60, 50], "supported"),
        ("<=", 0, [0, 0, 0, 0], "supported"),  # zero is what rounds to it
        ("<=", 0, [0, 0, 0, 2], "contradicted"),
        (">", 0, [0, 0, 0, 0], "contradicted"),
        (">=", 0, [0, 0, 0, 0], "supported"),
        (">=", 100, [100, 100, 100, 99.9], "supported"),
        (">=", 99, [100, 100, 100, 97], "contradicted"),
    ],
)
def test_threshold(found, op, value, none, expected):
    about = claim(kind="threshold", op=op, value=value, where=BASIC)
    result = verdict(found, about, curves(none=none))
    assert (result.verdict, result.published) == (expected, value)
    assert result.ours == pytest.approx(min(none) if op[0] == ">" else max(none))


EMM = {"kind": "greater", "metric": "emm", "by": [], "right": BASIC}
EMM |= {"left": BASIC | {"labels.kind": "true"}}


@pytest.mark.parametrize(
    ("true", "none", "expected", "number"),
    [
        ([99, 97, 80, 40], [99, 92, 60, 17], "supported", None),
        ([99, 92, 60, 17], [99, 97, 80, 40], "contradicted", None),
        ([99, 99, 98, 97], [99, 92, 60, 17], "supported", 4000 - 1062.5),  # over 4k is enough
        ([99, 92, 60, 17], [99, 99, 98, 97], "contradicted", None),
        ([99, 99, 98, 97], [99, 99, 98, 96], "undecided", None),  # both over 4k
        ([99, 99, 98, 97], [80, 50, 20, 10], "supported", 3500),  # over 4k, under 500
        ([80, 50, 20, 10], [80, 50, 30, 10], "undecided", None),
    ],
)
def test_emm_is_compared_as_far_as_the_sizes_tell(found, true, none, expected, number):
    result = verdict(found, claim(**EMM), curves(true=true, none=none))
    assert result.verdict == expected
    if number is not None:
        assert math.isnan(result.ours)
        assert (result.low, result.high) == (pytest.approx(number), math.inf)
        assert f"smallest difference at least {number:,.0f} images" in result.note
    censored = [ratios[0] < 90 or ratios[-1] >= 90 for ratios in (true, none)]
    assert (f"{sum(censored)} of 2 EMMs lie beyond the sizes" in result.note) == any(censored)


def test_emm_of_a_threshold_counts_bounds(found):
    about = claim(
        kind="threshold",
        metric="emm",
        by=[],
        where=BASIC | {"labels.kind": "true"},
        op=">",
        value=3000,
    )
    assert verdict(found, about, curves(true=[99, 99, 98, 97])).verdict == "supported"
    assert verdict(found, about, curves(true=[80, 60, 40, 20])).verdict == "contradicted"
    beyond = about.model_copy(update={"value": 5000.0})
    assert verdict(found, beyond, curves(true=[99, 99, 98, 97])).verdict == "undecided"


MASKS = {"where": {"model.skip_count": 1}, "by": []}


@pytest.mark.parametrize(
    ("over", "op", "value", "expected"),
    [
        ("max", ">", 90, "supported"),
        ("max", "<", 90, "contradicted"),
        ("min", "<", 5, "supported"),
        ("mean", ">", 60, "supported"),
        ("mean", ">", 65, "contradicted"),
        ("range", ">", 85, "supported"),
        ("range", ">", 95, "contradicted"),
        ("sd", ">", 40, "supported"),
    ],
)
def test_several_runs_at_a_place(found, over, op, value, expected):
    values = {"100000000": 0.93, "010000000": 0.92, "000000001": 0.01}
    about = claim(kind="threshold", over=over, op=op, value=value, **MASKS)
    result = verdict(found, about, lambda s, epoch: values.get(s["model.skip_mask"], 0.5))
    assert (result.verdict, result.n_runs) == (expected, 3)


def test_spread_over_seeds_is_that_of_the_measured_ones(found):
    values = {1: 0.9459, 2: 0.9440, 3: 0.9478}
    about = {"kind": "threshold", "over": "sd", "op": "<", "by": "data.num_classes"}
    about |= {"where": {"data.num_classes": 2}}
    wide = verdict(found, claim(**about, value=5), lambda s, e: values.get(s["train.seed"], 0.5))
    assert (wide.verdict, wide.ours) == ("supported", pytest.approx(0.19))
    tight = verdict(found, claim(**about, value=0.2), lambda s, e: values.get(s["train.seed"], 0.5))
    assert tight.verdict == "undecided"  # three seeds tell little
    far = {1: 0.95, 2: 0.85, 3: 0.75}
    assert verdict(
        found, claim(**about, value=0.2), lambda s, e: far.get(s["train.seed"], 0.5)
    ).verdict == ("contradicted")


def test_seeds_pool(found):
    about = claim(kind="threshold", op=">", value=90, where={"data.num_classes": 2})
    values = {1: 0.95, 2: 0.85, 3: 0.93}
    result = verdict(found, about, lambda s, e: values.get(s["train.seed"], 0.5))
    assert (result.ours, result.n_runs) == (pytest.approx(91), 3)


def test_different_runs_at_one_place_are_refused(found):
    about = claim(kind="threshold", op=">", value=90, where={"model.skip_count": 1})
    with pytest.raises(UserError, match=r"at \|D\| = 1k differ in model.skip_mask \(100000000, 0"):
        groups_of(about, "own", found.rows, "own")


@pytest.mark.parametrize(
    ("about", "runs"),
    [
        ({"model.skip_resolution": 32}, {"100000000", "010000000"}),
        ({"model.skip_resolution": 8}, {"000000001", "111111110"}),
        ({"model.skip_deleted": 1}, {"111111110"}),
        ({"model.skip_index": 9}, {"000000001"}),
        ({"model.skip_count": [1, 8]}, {"100000000", "010000000", "000000001", "111111110"}),
    ],
)
def test_filters_know_what_masks_do(found, about, runs):
    text = claim(kind="threshold", op=">", value=1, by="model.skip_mask", where=about)
    groups = groups_of(text, "own", found.rows, "own")
    assert {group.about["model.skip_mask"] for group in groups} == runs


def test_epochs(found):
    about = claim(
        kind="monotone-increasing",
        along="epoch",
        by="labels.kind",
        where=BASIC | {"data.size": 1000},
    )
    rising = verdict(found, about, lambda s, epoch: 0.9 * (1 - math.exp(-epoch / 9000)), last=False)
    assert rising.verdict == "supported"
    assert rising.note.startswith("smallest step ")
    falling = verdict(found, about, lambda s, epoch: 0.9 * math.exp(-epoch / 9000), last=False)
    assert falling.verdict == "contradicted"
    assert verdict(found, about, lambda s, e: 0.5).note.endswith("15 of 16 measurements missing")


def test_of_a_curve_that_is_not_known_nothing_is_said(found):
    about = claim(**DEPTH | {"turn": "peak", "metric": "spurious_share"})
    result = verdict(found, about, depth(50, 60, 65, 60, 50))
    assert (result.verdict, result.note) == ("undecided", "smaller of rise and fall unknown")
    assert math.isnan(result.ours)
    assert math.isnan(result.low)


def test_only_checkpoints_before_an_epoch(found):
    about = claim(
        kind="threshold", op=">", value=50, before_epoch=8000, where=BASIC | {"data.size": 1000}
    )
    late = verdict(found, about, lambda s, epoch: float(epoch > 9000), last=False)
    assert (late.verdict, late.ours) == ("contradicted", 0)
    early = verdict(found, about, lambda s, epoch: float(epoch > 7000), last=False)
    assert (early.verdict, early.ours) == ("supported", 100)


def test_the_best_checkpoint_counts(found):
    about = claim(kind="threshold", op=">", value=80, where=BASIC | {"data.size": 1000})
    peaked = verdict(found, about, lambda s, epoch: 0.9 - abs(epoch - 20000) / 40000, last=False)
    assert peaked.verdict == "supported"


def test_the_last_checkpoint_counts_along_a_metric_too(found):
    """The ratio of each run is highest early, in another order than at the end."""
    about = {"kind": "monotone-increasing", "metric": "knn_distance", "trend": True, "by": []}
    about |= {"along": "memorization_ratio", "where": {"train.lr": 1e-3}}

    def ratio(s, epoch):
        blocks = s["model.num_blocks"]
        return blocks / 20 if epoch > 30000 else 1 - blocks / 20

    def distance(s):
        return 2.0 * s["model.num_blocks"]

    for which, expected in (("last", "supported"), ("best", "contradicted")):
        one = claim(**about, checkpoint=which)
        assert verdict(found, one, ratio, distance=distance, last=False).verdict == expected


def test_the_last_checkpoint_counts_where_a_claim_says_so(found):
    about = {"kind": "threshold", "op": ">", "value": 80, "where": BASIC | {"data.size": 1000}}
    peaked = verdict(
        found,
        claim(**about, checkpoint="last"),
        lambda s, epoch: 0.9 - abs(epoch - 20000) / 40000,
        last=False,
    )
    assert (peaked.verdict, peaked.ours) == ("contradicted", pytest.approx(40, abs=1))


def test_sampling_error_comes_from_the_run_with_the_most_samples(found):
    about = {"kind": "threshold", "metric": "memorization_ratio_sd", "op": "<", "value": 0.5}
    where = {"eval.num_samples": 10000, "labels.kind": "none", "train.lr": 2e-4}
    where |= {"data.size": 1000, "data.num_classes": 10, "model.skip_mask": "all"}
    result = verdict(found, claim(**about, where=where), lambda s, e: 0.92)
    assert result.ours == pytest.approx(100 * math.sqrt(0.92 * 0.08 / 10000), abs=1e-6)
    assert (result.verdict, result.n_runs) == ("supported", 1)
    where["eval.num_samples"] = 500
    assert verdict(found, claim(**about, where=where), lambda s, e: 0.92).verdict == "contradicted"
    falls = {"kind": "monotone-decreasing", "along": "eval.num_samples"}
    falls |= {"metric": "memorization_ratio_sd"}
    where.pop("eval.num_samples")
    result = verdict(found, claim(**falls, where=where), lambda s, e: 0.92)
    assert result.verdict == "supported"


def test_parameters_need_no_results(found):
    about = claim(
        kind="monotone-increasing",
        metric="parameters_million",
        along="model.num_blocks",
        where={"train.lr": 1e-3},
    )
    groups = groups_of(about, "own", found.rows, "own")
    nothing = table(found, lambda s, e: 0.5).iloc[:0]
    result = judge(about, groups, Measurements(nothing, 0.0))
    assert (result.verdict, result.n_runs) == ("supported", 5)
    assert result.ours == pytest.approx(20.607488, abs=1e-6)


def test_missing_runs(found):
    about = claim(**GREATER)
    groups = groups_of(about, "own", found.rows, "own")
    rows = table(found, curves(true=[99, 97, 80, 40], none=[98, 92, 60, 17]))
    size = {Entry(row).evaluation: row.published["data.size"] for row in found.rows}
    part = rows[rows["evaluation"].map(size) != 4000]
    result = judge(about, groups, Measurements(part, 0.3))
    assert (result.verdict, result.n_runs) == ("undecided", 6)
    assert result.note.endswith("2 of 8 measurements missing")
    wrong = table(found, curves(true=[99, 97, 80, 40], none=[98, 92, 90, 17]))
    wrong = wrong[wrong["evaluation"].map(size) != 4000]
    assert judge(about, groups, Measurements(wrong, 0.3)).verdict == "contradicted"
    nothing = judge(about, groups, Measurements(rows.iloc[:0], 0.3))
    assert (nothing.verdict, nothing.n_runs) == ("not measured", 0)
    assert math.isnan(nothing.support)


def test_groups_need_both_sides(found):
    about = GREATER | {"right": BASIC | {"data.size": [500, 1000]}}
    assert len(groups_of(claim(**about), "own", found.rows, "own")) == 2


def test_a_scale_may_make_one_run_of_both_sides(found):
    rows = [r for r in found.rows if r.published["data.size"] == 500]
    one = rows[0]
    same = [
        dataclasses.replace(r, run_id=one.run_id, evaluation_id=one.evaluation_id) for r in rows
    ]
    groups = groups_of(claim(**GREATER), "own", same, "own")
    measured = Measurements(table(found, lambda s, e: 0.5), 0.3)
    result = judge(claim(**GREATER), groups, measured)
    assert (result.verdict, result.note) == (
        "not measured",
        "this scale makes one run of what is compared",
    )


def test_other_experiments(found):
    other = [dataclasses.replace(row, experiment="other") for row in found.rows]
    sides = {"left": {"experiment": "other", "labels.kind": "true"}, "right": BASIC}
    groups = groups_of(claim(kind="greater", **sides), "own", [*found.rows, *other], "own")
    assert {e.row.experiment for g in groups for p in g.left for e in p.entries} == {"other"}
    assert {e.row.experiment for g in groups for p in g.right for e in p.entries} == {"own"}
    assert groups_of(claim(kind="greater", **sides), "own", found.rows, "own") == []


def test_many_comparisons_are_corrected_for():
    rng = np.random.default_rng(0)
    cases = [rng.random(1 + DRAWS) < 0.96 for _ in range(20)]
    false, true = ([Case(np.where(case, of, 0)) for case in cases] for of in (-1, 1))
    assert everywhere(false[:1])[1] > 0.94
    assert everywhere(false)[1] < 0.5
    assert somewhere(true[:1])[0] > 0.94
    assert somewhere(true)[0] < 0.5
    sure = Case(np.full(1 + DRAWS, -1), rng.normal(-5, 1, 1 + DRAWS))
    assert 0.999 < everywhere([sure] * 1000)[1] < 1  # beyond the resolution of the draws


def test_noise_shrinks_towards_0_and_100_percent(found):
    row = next(row for row in found.rows)
    spread = {}
    for ratio in (0.0, 0.5, 1.0):
        measured = Measurements(table(found, lambda s, e, r=ratio: r), 4.0)
        entry = Entry(row)
        drawn = 100 * measured.ratio(entry, measured.checkpoint(entry))
        assert ((drawn >= 0) & (drawn <= 100)).all()
        low, high = quantiles(drawn)
        spread[ratio] = high - low
    assert spread[0.5] == pytest.approx(2 * 1.96 * 4.0, rel=0.05)
    assert max(spread[0.0], spread[1.0]) < 1


TRUE_CLAIMS = {
    "greater": (claim(**GREATER), curves(true=[95, 60, 22, 4], none=[90, 55, 20, 4])),
    "monotone": (claim(**FALLS | {"where": BASIC}), curves(none=[60, 58, 58, 55])),
    "trend": (claim(**FALLS | {"where": BASIC, "trend": True}), curves(none=[60, 59, 58, 57])),
    "equal": (claim(**EQUAL, within=3), curves(true=[60, 50, 40, 30], none=[62.9, 50, 40, 30])),
    "threshold": (
        claim(kind="threshold", op=">", value=90, where=BASIC),
        curves(none=[90.3, 90.6, 91, 92]),
    ),
    "lowest": (
        claim(kind="threshold", op=">", value=90, over="min", where={"train.lr": 1e-3}),
        depth(91, 91, 91, 91, 91),
    ),
    "range": (
        claim(kind="threshold", op="<", value=10, over="range", where={"train.lr": 1e-3}),
        depth(60, 60, 65, 66, 67),
    ),
    "emm": (claim(**EMM), curves(true=[99, 91, 60, 20], none=[99, 89, 58, 20])),
    "peak": (claim(**PEAKED), depth(60, 62, 63, 61, 60)),
}


@pytest.mark.parametrize("kind", TRUE_CLAIMS)
def test_true_statements_are_rarely_contradicted(found, kind):
    about, ratio = TRUE_CLAIMS[kind]
    groups = groups_of(about, "own", found.rows, "own")
    rows = table(found, ratio, samples=500)
    used = {e.evaluation for group in groups for place in group.places for e in place.entries}
    rows = rows[rows["evaluation"].isin(used)]
    rng, run_sd, repeats = np.random.default_rng(1), 3.0, 40
    verdicts = []
    for _ in range(repeats):
        angle = np.arcsin(np.sqrt(rows["memorization_ratio"]))
        angle = angle + rng.normal(0, run_sd / 100, len(rows))
        hits = rng.binomial(500, np.sin(np.clip(angle, 0, np.pi / 2)) ** 2)
        drawn = rows.assign(n_memorized=hits, memorization_ratio=hits / 500)
        verdicts.append(judge(about, groups, Measurements(drawn, run_sd)).verdict)
    assert verdicts.count("contradicted") <= 0.05 * repeats
    assert "supported" in verdicts or "undecided" in verdicts
