"""What Yoon et al. 2023 claim and print: capacities, ratios of them, counts, coverage, networks."""

import math

import numpy as np
import pandas as pd
import pytest

from emm import catalog
from emm.analyse.agreement import Agreement
from emm.analyse.claims import judge
from emm.analyse.draws import DRAWS, quantiles
from emm.analyse.emm import bootstrap_emm
from emm.analyse.places import Entry, groups_of
from emm.analyse.published import load_published
from emm.analyse.simulate import Measurements, distinct_images
from emm.analyse.tables import capacity_table
from emm.documents import Claim
from emm.errors import UserError
from emm.expansion import published_files
from emm.score.criteria import wilson_interval
from emm.spec import DEFAULTS, parse

SIZES = (250, 500, 1000, 2000, 4000, 8000)
EXPERIMENT = """
title: Widths
recipe: iddpm
set: {eval.snapshots: 2}
runs:
  - {model.channels: [64, 128, 256], data.size: [250, 500, 1000, 2000, 4000, 8000]}
figures: {fig: {plot: capacity, x: model.channels}}
"""
DOUBLES = {"kind": "approximately-equal", "factor": 2.0, "along": "model.channels"}
CAPACITY = {"metric": "memorization_capacity"}


def load(folder, text, scale="paper") -> catalog.Catalog:
    path = folder / "own.yaml"
    path.write_text(text)
    return catalog.load({"scale": scale, "experiments": str(path)})


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> catalog.Catalog:
    return load(tmp_path_factory.mktemp("widths"), EXPERIMENT)


def claim(**keys) -> Claim:
    return parse(Claim, {"statement": "x", "figure": "fig", "within": 0.5, **keys}, "claim")


def table(found: catalog.Catalog, ratio, samples=10_000, **columns) -> pd.DataFrame:
    """The memorization table if ratios were ratio(settings, whether it is the last checkpoint)."""
    rows = []
    for row in {row.key: row for row in found.rows}.values():
        steps = found.evaluations[row.run_id, row.evaluation_id].steps
        for step in steps:
            hits = round(ratio(row.settings, step == steps[-1]) * samples)
            about = {"run": row.run_id, "evaluation": row.key, "step": step, "epoch": float(step)}
            counts = {"n_samples": samples, "n_memorized": hits}
            about |= {"horizon": row.settings["train.epochs"], **row.settings, **counts}
            made = {name: value(row.settings) for name, value in columns.items()}
            rows.append({**about, "memorization_ratio": hits / samples, **made})
    return pd.DataFrame(rows)


def decay(capacities, early=1.0):
    """ratio() that falls below 90 % at a capacity by width; lower by a factor before the end."""

    def ratio(settings, last=True):
        known = capacities[settings["model.channels"]]
        share = 1 / (1 + (settings["data.size"] / known) ** 2 / 9)
        return min(1, share * (1 if last else early))

    return ratio


def verdict(found, about, ratio, run_sd=0.3, **keywords):
    groups = groups_of(about, "own", found.rows, "own")
    return judge(about, groups, Measurements(table(found, ratio, **keywords), run_sd))


@pytest.mark.parametrize(
    ("capacities", "expected", "factor"),
    [
        ((600, 1200, 2400), "supported", 2),
        ((600, 1300, 2500), "supported", None),
        ((600, 720, 2400), "contradicted", None),
        ((600, 1510, 2900), "undecided", None),  # 2.5 is at the limit
        ((1600, 3600, 60_000), "undecided", None),  # the last lies beyond the sizes
        ((10, 1200, 2400), "contradicted", None),  # the first below them: a factor above 4
    ],
)
def test_capacity_per_doubling_of_width(found, capacities, expected, factor):
    ratio = decay(dict(zip((64, 128, 256), capacities, strict=True)))
    result = verdict(found, claim(**DOUBLES, **CAPACITY), ratio)
    assert result.verdict == expected
    assert (result.metric, result.published) == ("factor", 2)
    if factor:
        assert result.ours == pytest.approx(factor, abs=0.1)
        assert result.note.startswith("farthest from 2: ")
        assert result.note.endswith("from width 64 to width 128") or "to width 256" in result.note


def test_a_factor_is_that_of_a_doubling_whatever_the_steps(tmp_path):
    ends = load(tmp_path, EXPERIMENT.replace("[64, 128, 256]", "[64, 256]"))
    fourfold = decay({64: 600, 256: 2400})
    assert verdict(ends, claim(**DOUBLES, **CAPACITY), fourfold).ours == pytest.approx(2, abs=0.1)
    twofold = verdict(ends, claim(**DOUBLES, **CAPACITY), decay({64: 600, 256: 1200}))
    assert twofold.verdict == "contradicted"
    assert twofold.ours == pytest.approx(math.sqrt(2), abs=0.1)


def test_parameters_grow_fourfold(found):
    about = claim(
        **DOUBLES | {"factor": 4.0}, metric="parameters_million", where={"data.size": 500}
    )
    result = judge(about, groups_of(about, "own", found.rows, "own"), Measurements(NOTHING, 0))
    assert result.verdict == "supported"
    assert result.ours == pytest.approx(3.99, abs=0.01)


NOTHING = pd.DataFrame({"evaluation": [], "n_samples": [], "step": []})


def test_factor_of_two_sides(found):
    sides = {"left": {"model.channels": 256}, "right": {"model.channels": 64}}
    about = claim(kind="approximately-equal", factor=4.0, **sides, **CAPACITY)
    ratio = decay({64: 600, 128: 1200, 256: 2400})
    result = verdict(found, about, ratio)
    assert (result.verdict, result.published) == ("supported", 4)
    assert result.ours == pytest.approx(4, abs=0.2)
    far = about.model_copy(update={"factor": 8.0})
    assert verdict(found, far, ratio).verdict == "contradicted"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("factor: 2, within: 1, value: 3", "factor: not with `value`, which is no ratio"),
        ("factor: 2, within: 1", "along: a factor is that of each doubling of a setting; name it"),
        ("factor: 2, along: model.channels", "within: needed for the kind approximately-equal"),
    ],
)
def test_wrong_factors_are_one_line(tmp_path, text, message):
    claims = f"claims: {{odd: {{statement: x, figure: fig, kind: approximately-equal, {text}}}}}"
    with pytest.raises(UserError, match="claim odd") as error:
        load(tmp_path, EXPERIMENT + claims)
    assert message in str(error.value)


def test_true_factors_are_rarely_contradicted(found):
    about = claim(**DOUBLES | {"within": 0.6}, **CAPACITY)
    groups = groups_of(about, "own", found.rows, "own")
    rows = table(found, decay({64: 600, 128: 1200, 256: 2400}), samples=500)
    rng, verdicts = np.random.default_rng(0), []
    for _ in range(40):
        angle = np.arcsin(np.sqrt(rows["memorization_ratio"])) + rng.normal(0, 0.03, len(rows))
        hits = rng.binomial(500, np.sin(np.clip(angle, 0, np.pi / 2)) ** 2)
        drawn = rows.assign(n_memorized=hits, memorization_ratio=hits / 500)
        verdicts.append(judge(about, groups, Measurements(drawn, 3.0)).verdict)
    assert verdicts.count("contradicted") <= 2
    assert "undecided" in verdicts or "supported" in verdicts


def test_capacity_is_of_the_last_checkpoint_and_the_emm_of_the_best(found):
    """Of a training whose ratio falls at its end."""
    rows = table(found, decay({64: 600, 128: 1200, 256: 2400}, early=1.04))
    measured = Measurements(rows, 0.0)
    item = tuple(Entry(row) for row in found.rows if row.settings["model.channels"] == 128)
    emm, capacity = (measured.item(name, item) for name in ("emm", "memorization_capacity"))
    assert capacity.low[0] < emm.low[0]
    own = rows[rows["model.channels"] == 128]
    last = own.sort_values("step").groupby("data.size").tail(1).sort_values("data.size")
    expected = bootstrap_emm(SIZES, last["n_memorized"], last["n_samples"], 0.1)
    assert capacity.low[0] == pytest.approx(expected.value)
    low, high = quantiles(capacity.low)
    assert low == pytest.approx(expected.lower, rel=0.02)
    assert high == pytest.approx(expected.upper, rel=0.02)


def test_figures_and_claims_tell_the_same_capacity(found):
    rows = table(found, decay({64: 600, 128: 1200, 256: 2400}))
    drawn = capacity_table(rows).set_index("model.channels")
    assert list(drawn.index) == [64, 128, 256]  # epochs that follow from steps separate no series
    item = tuple(Entry(row) for row in found.rows if row.settings["model.channels"] == 64)
    measured = Measurements(rows, 0.0).item("memorization_capacity", item)
    assert drawn.loc[64, "memorization_capacity"] == pytest.approx(measured.low[0])


def test_a_curve_that_rises_is_evened_out(found):
    """Pooled adjacent violators, as in the table, not the last crossing of the raw curve."""
    ratios = dict(zip(SIZES, (1, 0.95, 0.85, 0.94, 0.5, 0.1), strict=True))
    rows = table(found, lambda s, last: ratios[s["data.size"]])
    item = tuple(Entry(row) for row in found.rows if row.settings["model.channels"] == 64)
    capacity = Measurements(rows, 0.0).item("memorization_capacity", item).low[0]
    hits = [10_000 * ratio for ratio in ratios.values()]
    assert capacity == pytest.approx(bootstrap_emm(SIZES, hits, [10_000] * 6, 0.1).value)
    assert capacity < Measurements(rows, 0.0).item("emm", item).low[0]


def test_a_measure_with_an_interval_is_drawn_from_it(found):
    """Each side as wide as its own end says, also where the ends are unlike."""
    made = {"kappa": 0.5, "kappa_low": 0.4, "kappa_high": 0.8}
    rows = table(found, decay({64: 600, 128: 1200, 256: 2400})).assign(**made)
    drawn = Measurements(rows, 0.0).item("kappa", (Entry(found.rows[0]),)).low
    assert drawn[0] == 0.5
    assert np.percentile(drawn[1:], [2.5, 97.5]) == pytest.approx([0.4, 0.8], abs=0.03)
    sure = rows.drop(columns=["kappa_low", "kappa_high"])
    assert np.ptp(Measurements(sure, 0.0).item("kappa", (Entry(found.rows[0]),)).low) == 0


COUNTS = {  # columns of a table by metric, and its number in claims
    "n_mondrian": ({"n_mondrian": 2626}, 2626),
    "mondrian_ratio": ({"n_mondrian": 2626, "mondrian_ratio": 0.2626}, 26.26),
    "n_memorized_mondrian": ({"n_memorized_mondrian": 263, "n_mondrian": 2626}, 263),
    "layout_copy_ratio": ({"layout_copy_ratio": 0.25, "n_mondrian": 2000}, 25),
    "label_hit_ratio": ({"label_hit_ratio": 0.8, "n_label_hits": 4000, "n_memorized": 5000}, 80),
}


@pytest.mark.parametrize("metric", COUNTS)
def test_counts_have_the_noise_of_a_binomial(found, metric):
    columns, number = COUNTS[metric]
    made = {name: lambda s, value=value: value for name, value in columns.items()}
    rows = table(found, lambda s, last: 0.5, **made)
    drawn = Measurements(rows, 0.0).item(metric, (Entry(found.rows[0]),)).low
    trials = columns.get("n_memorized") or columns["n_mondrian"]
    trials = 10_000 if metric in ("n_mondrian", "mondrian_ratio") else trials
    unit = trials if metric.startswith("n_") else 100
    share = number / unit
    assert drawn[0] == pytest.approx(number)
    assert drawn[1:].std() == pytest.approx(
        unit * math.sqrt(share * (1 - share) / trials), rel=0.06
    )


def test_what_a_table_has_not_is_not_measured(found):
    about = claim(kind="threshold", metric="n_mondrian", op=">", value=1, over="mean")
    about = about.model_copy(update={"within": None})
    rows = table(found, lambda s, last: 0.5)
    for made in (rows, rows.assign(n_mondrian=np.nan)):
        groups = groups_of(about, "own", found.rows, "own")
        result = judge(about, groups, Measurements(made, 0.0))
        assert result.verdict == "undecided"
        assert math.isnan(result.ours)


@pytest.mark.parametrize(("images", "samples"), [(100, 400), (2000, 400), (2000, 9000)])
def test_distinct_images_spread_as_if_sampled_again(images, samples):
    """Against many uniform draws with a ratio of 90 %."""
    rng = np.random.default_rng(0)
    drawn = [
        len(np.unique(rng.integers(0, images, rng.binomial(samples, 0.9)))) for _ in range(400)
    ]
    row = pd.Series({"n_memorized": 0.9 * samples, "n_samples": samples})
    row["distinct_copied"] = round(np.mean(drawn))
    ratio = np.concatenate([[0.9], rng.beta(0.9 * samples, 0.1 * samples, DRAWS)])
    found = distinct_images(row, ratio, "name")
    assert found[0] == row["distinct_copied"]
    assert found[1:].mean() == pytest.approx(np.mean(drawn), rel=0.02, abs=1)
    assert found[1:].std() == pytest.approx(np.std(drawn), rel=0.2, abs=0.2)


@pytest.mark.parametrize(("copies", "seen"), [(0, 0), (1, 1), (30, 30), (30, 1), (9000, 2000)])
def test_distinct_images_at_their_limits(copies, seen):
    row = pd.Series({"n_memorized": copies, "n_samples": 10_000, "distinct_copied": seen})
    ratio = np.concatenate(
        [[copies / 1e4], np.random.default_rng(0).beta(copies + 0.5, 1e4, DRAWS)]
    )
    found = distinct_images(row, ratio, "name")
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= np.maximum(1e4 * ratio, seen)).all()


def test_coverage_is_the_share_of_distinct_images(found):
    columns = {"distinct_copied": lambda s: 200, "coverage": lambda s: 0.1}
    rows = table(found, lambda s, last: 0.5, n_training=lambda s: 2000, **columns)
    entry = (Entry(found.rows[0]),)
    distinct, coverage = (
        Measurements(rows, 0.0).item(name, entry).low for name in ("distinct_copied", "coverage")
    )
    assert (distinct[0], coverage[0]) == (200, 10)
    np.testing.assert_allclose(coverage, distinct / 20)


def test_coverage_counts_repeated_images_once(found):
    columns = {"distinct_copied": 200, "coverage": 0.5, "n_training": 1000, "n_duplicates": 600}
    made = {name: lambda s, value=value: value for name, value in columns.items()}
    rows = table(found, lambda s, last: 0.5, n_repeated=lambda s: 10, **made)
    coverage = Measurements(rows, 0.0).item("coverage", (Entry(found.rows[0]),)).low
    assert coverage[0] == 50


def test_a_relative_rate_has_the_noise_of_its_copies(found):
    columns = {"n_repeated": 40, "n_single": 360, "relative_rate": 9.0}
    columns |= {"n_memorized_repeated": 200, "n_memorized_single": 200}
    made = {name: lambda s, value=value: value for name, value in columns.items()}
    rows = table(found, lambda s, last: 0.5, **made)
    drawn = Measurements(rows, 0.0).item("relative_rate", (Entry(found.rows[0]),)).low
    assert drawn[0] == pytest.approx(9)
    low, high = wilson_interval(200, 400)
    ends = [9 * share / (1 - share) for share in (low, high)]
    assert np.quantile(drawn[1:], [0.025, 0.975]) == pytest.approx(ends, rel=0.05)


@pytest.fixture(scope="module")
def dummies() -> catalog.Catalog:
    return catalog.load({"scale": "paper", "experiments": "dummies"})


@pytest.fixture(scope="module")
def source():
    return next(load_published(path) for path in published_files() if path.stem.startswith("yoon"))


def agreement(dummies, source, mondrian, memorized, samples=10_000):
    columns = {"n_mondrian": mondrian, "n_memorized_mondrian": memorized}
    made = {name: lambda s, value=value: value for name, value in columns.items()}
    rows = table(dummies, lambda s, last: 0.002, samples, **made)
    return Agreement(dummies, Measurements(rows, dummies.scale.run_sd), source)


def compared(found: Agreement, source, name: str) -> dict:
    return found.compare(next(value for value in source.values if value.id == name))


@pytest.mark.parametrize(
    ("mondrian", "memorized", "verdicts"),
    [
        (2650, 0, ("within", "within")),
        (2500, 1, ("within", "within")),
        (4000, 30, ("outside", "outside")),
    ],
)
def test_printed_counts(dummies, source, mondrian, memorized, verdicts):
    found = agreement(dummies, source, mondrian, memorized)
    count, copies = (
        compared(found, source, f"yoon.appC1.{name}") for name in ("mondrian_count", "replicates")
    )
    assert (count["verdict"], copies["verdict"]) == verdicts
    assert count["ours"] == mondrian
    assert count["ours_low"] < mondrian < count["ours_high"]
    assert (copies["published"], copies["published_low"]) == (0, 0)
    assert 3 < copies["published_high"] < 4.5  # of 10,000, at 95 %


def test_labels_add_less_than_one_percent(dummies):
    rows = [row for row in dummies.rows if row.settings["labels.kind"] == "true"]
    drawn = Measurements(NOTHING, 0.0).item("parameters_difference_percent", (Entry(rows[0]),))
    assert drawn.low[0] == pytest.approx(100 * (53_058_438 / 52_546_438 - 1))


def test_the_last_checkpoint_is_compared(dummies, source):
    assert source.defaults["eval.epoch"] == "last"
    rows = table(dummies, lambda s, last: 0.2 if last else 0.9)
    found = Agreement(dummies, Measurements(rows, 0.3), source)
    assert compared(found, source, "yoon.fig4.mondrian2k_dummy6k")["ours"] == pytest.approx(20)


def test_settings_of_a_table_are_the_default_ones(found):
    assert {*DEFAULTS} <= {*table(found, lambda s, last: 0.5)}
