"""Onsets of known curves: closed forms, coverage, laws, collapse, windows, and claims of them."""

import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from emm import catalog
from emm.analyse.claims import judge
from emm.analyse.onset import (
    EXPONENTS,
    central,
    collapse,
    drawn_shapes,
    first_passing,
    onset_law,
    onset_table,
    runs_of,
)
from emm.analyse.places import Entry, groups_of
from emm.analyse.simulate import Measurements
from emm.documents import Claim
from emm.errors import UserError
from emm.listing import without_infinities
from emm.report.onset import onset_facts, print_onsets
from emm.spec import parse

SIZES = (50, 100, 200, 400)
STEPS = np.unique(np.ceil(4000 * 2.0 ** (-np.arange(24) / 4))).astype(int)
LONG = np.unique(np.ceil(8000 * 2.0 ** (-np.arange(20) / 2))).astype(int)
SHARP = 3.0  # exponent of the odds in the steps


def ratio(step, size, exponent=1.0):
    """Odds that grow as a power of steps over 2 n^exponent: half at that step."""
    odds = (np.asarray(step, float) / (2 * size**exponent)) ** SHARP
    return odds / (1 + odds)


def onset(size, level, exponent=1.0):
    return 2 * size**exponent * (level / (1 - level)) ** (1 / SHARP)


def table(exponent=1.0, sizes=SIZES, samples=10**7, steps=STEPS, seed=None):
    rng, rows = np.random.default_rng(seed), []
    for size in sizes:
        for step in steps:
            expected = ratio(step, size, exponent)
            hits = round(samples * expected) if seed is None else rng.binomial(samples, expected)
            row = {"run": f"n{size}", "evaluation": f"n{size}/e", "data.size": size, "step": step}
            row |= {"epoch": step * 10 / size, "horizon": steps[-1] * 10 / size}
            row |= {"n_samples": samples, "n_memorized": hits, "memorization_ratio": hits / samples}
            row |= {"train.seed": 0, "model.channels": 8, "experiments": "x"}
            rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_onset_by_its_closed_form(level):
    found = onset_table(runs_of(table()), [level])
    known = found[found["status"] == "bracketed"]
    assert len(known) >= 3
    for _, row in known.iterrows():
        assert row["onset_step"] == pytest.approx(onset(row["data.size"], level), rel=0.02)
        assert row["onset_epoch"] == pytest.approx(row["onset_step"] * 10 / row["data.size"])
        assert row["onset_step_low"] <= row["onset_step"] <= row["onset_step_high"]


def test_beyond_the_checkpoints():
    steps, many = np.array([10.0, 20.0, 40.0]), np.full(3, 100.0)
    curves = np.array([[0.0, 0.0, 0.05], [0.5, 0.6, 0.7], [0.1, 0.1, 0.9], [0.0, 0.3, 0.6]])
    found = first_passing(steps, curves, many, 0.1)
    assert found[:2].tolist() == [np.inf, -np.inf]
    assert found[2] == pytest.approx(20)  # above 10 % only after the second checkpoint
    assert 10 < found[3] < 20


def test_a_stray_checkpoint_is_no_onset():
    steps, many = np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.full(5, 100.0)
    (stray,) = first_passing(steps, np.array([[0.0, 0.12, 0.0, 0.0, 0.9]]), many, 0.1)
    assert 8 < stray < 16


CURVES = {  # shares by log step, and where they are what
    "logistic": (expit, logit),
    "Gumbel": (lambda z: -np.expm1(-np.exp(z)), lambda q: np.log(-np.log1p(-q))),
}


@pytest.mark.parametrize("samples", [200, 10_000])
@pytest.mark.parametrize("curve", CURVES)
def test_intervals_cover_the_truth(curve, samples):
    """As often as they say, though checkpoints lie a factor of sqrt(2) apart, wherever they lie."""
    rng, (share, inverse) = np.random.default_rng(0), CURVES[curve]
    inside = {0.1: [], 0.5: []}
    for _ in range(80):
        steepness, shift = rng.uniform(2, 6), rng.uniform(0, 0.5)
        steps = 2.0 ** (6 + shift + np.arange(-10, 11) / 2)
        hits = rng.binomial(samples, share(steepness * np.log(steps / 64)))
        ratios = np.concatenate([
            [hits / samples], rng.beta(hits + 0.5, samples - hits + 0.5, (300, len(hits)))
        ])  # fmt: skip
        shape = drawn_shapes(f"{steepness}", 300)
        for level, found in inside.items():
            many = np.full(len(steps), float(samples))
            low, high = central(first_passing(steps, ratios, many, level, shape)[1:])
            found.append(low <= 64 * np.exp(inverse(level) / steepness) <= high)
    assert min(np.mean(found) for found in inside.values()) > 0.9


def test_odds_are_interpolated():
    """A curve of power-law odds is found exactly, from two checkpoints far apart."""
    steps, many = np.array([60.0, 240.0]), np.full(2, 1e6)
    found = first_passing(steps, ratio(steps, 50)[None], many, 0.5)
    assert found[0] == pytest.approx(100)


def test_plateau():
    row = onset_table(runs_of(table(sizes=[400], samples=1000)), [0.5]).iloc[0]
    assert row["ratio"] == pytest.approx(ratio(4000, 400), abs=1e-3)
    assert row["growth"] == pytest.approx(ratio(4000, 400) - ratio(2000, 400), abs=2e-3)
    assert row["growth_low"] < row["growth"] < row["growth_high"]


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.3])
def test_law_and_collapse_find_the_exponent(exponent):
    runs = runs_of(table(exponent, samples=1000, seed=1, steps=LONG))
    law = onset_law(onset_table(runs, [0.1]))
    assert law.low <= exponent <= law.high
    assert law.slope == pytest.approx(exponent, abs=0.05)
    found = collapse(runs)
    assert found.exponent == pytest.approx(exponent, abs=0.05)
    assert found.low - 0.02 <= exponent <= found.high + 0.02
    assert found.high - found.low < 0.3
    assert found.spread < 3 * found.noise < found.of_steps


def test_censored_onsets_count():
    """Leaving out the sizes that never pass would make the law flatter."""
    made = table(sizes=[50, 100, 200, 12000], samples=1000, seed=1, steps=LONG)
    runs = runs_of(made)
    found = onset_table(runs, [0.1])
    assert list(found["status"]) == ["bracketed"] * 3 + ["above"]
    assert found["bound"].iloc[-1] == 8000
    assert onset_law(found).points.side.tolist() == [0, 0, 0, 1]
    assert onset_law(found).slope == pytest.approx(1, abs=0.08)


def test_spread_is_that_of_isotonic_regressions():
    """Against scikit-learn, where epochs of several sizes coincide."""
    runs = runs_of(table(1.2, samples=500, seed=3, steps=2.0 ** np.arange(4, 12)))
    found = collapse(runs)
    rows = pd.concat([run.rows for run in runs])
    sizes = rows["data.size"].astype(float)
    for exponent, spread in ((0.0, found.of_steps), (1.0, found.of_epochs)):
        x, y = np.log(rows["step"] / sizes**exponent).round(6), rows["memorization_ratio"]
        squares = []
        for size in SIZES:
            fit = IsotonicRegression(out_of_bounds="clip").fit(x[sizes != size], y[sizes != size])
            squares += [(y[sizes == size] - fit.predict(x[sizes == size])) ** 2]
        assert spread == pytest.approx(100 * np.sqrt(np.mean(squares)), rel=1e-6)
    assert found.spread <= min(found.of_steps, found.of_epochs)
    assert collapse(runs[:1]) is None
    assert np.isinf(collapse(runs[:2]).high)


def test_noise_is_what_a_perfect_collapse_shows():
    """Of sampling, and of curves that are drawn through as many checkpoints."""
    steps = 2.0 ** np.arange(4, 12)
    drawn = [collapse(runs_of(table(samples=400, seed=s, steps=steps), 20)) for s in range(10)]
    shown, noise = (np.array([getattr(one, name) for one in drawn]) for name in ("spread", "noise"))
    assert noise.mean() == pytest.approx(np.sqrt((shown**2).mean()), rel=0.1)


def test_curves_without_copies_do_not_fall():
    none = table(steps=LONG, sizes=[10**6, 2 * 10**6], samples=400)
    assert not none["n_memorized"].any()
    assert collapse(runs_of(none)) is None
    few = none.assign(n_memorized=np.arange(len(none)) % 9 == 0).astype({"n_memorized": int})
    assert collapse(runs_of(few)) is None
    assert onset_facts(none)[0]["collapse"] is None


def test_an_exponent_beyond_those_that_are_tried():
    facts = onset_facts(
        table(2.5, samples=1000, seed=1, steps=2.0 ** np.arange(4, 24), sizes=(20, 40, 80))
    )
    assert facts[0]["collapse"]["exponent"] == EXPONENTS[-1]
    assert facts[0]["collapse"]["at_end"]
    assert not collapse(runs_of(table(samples=1000, seed=1, steps=LONG))).at_end


def test_what_is_missing_is_said():
    with pytest.raises(UserError, match="two checkpoints"):
        runs_of(table(steps=[100]))
    with pytest.raises(UserError, match="two checkpoints"):
        onset_facts(table(steps=[100]))


def test_printed_and_as_json(capsys):
    facts = onset_facts(table(samples=1000, seed=2, sizes=[50, 100, 200, 4000], steps=LONG))
    print_onsets(facts, Console(width=140))
    printed = capsys.readouterr().out
    assert "> 8,000" in printed
    assert "onset of 10 % over the size: slope 1." in printed
    assert "a = 1.0" in printed or "a = 0.9" in printed
    parsed = json.loads(json.dumps(without_infinities(facts), allow_nan=False))
    assert [row["data.size"] for row in parsed[0]["onsets"][::4]] == [50, 100, 200, 4000]
    assert parsed[0]["onsets"][-1]["onset_step"] is None


def test_series_stand_apart():
    wide = table(steps=LONG).assign(**{"model.channels": 16})
    wide["evaluation"] += "w"
    facts = onset_facts(pd.concat([table(0.8, steps=LONG), wide]))
    assert [one["label"] for one in facts] == ["width 8", "width 16"]
    slopes = [one["laws"][2]["slope"] for one in facts]
    assert slopes == pytest.approx([0.8, 1.0], abs=0.05)


EXPERIMENT = """
title: Onsets
set: {train.iterations: 4096, train.batch_size: 50, eval.snapshots: log}
runs: [{data.size: [50, 100, 200, 400]}]
figures: {fig: {plot: curve}}
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("onset") / "own.yaml"
    path.write_text(EXPERIMENT)
    return catalog.load({"scale": "paper", "experiments": str(path)})


def steep(step, size):
    return ratio(step, size, 1.6)


def judged(own, curve, **keys):
    rows = []
    for row in own.rows:
        size = row.settings["data.size"]
        for step in own.evaluations[row.run_id, row.evaluation_id].steps:
            hits = round(10000 * curve(step, size))
            about = {"run": row.run_id, "evaluation": Entry(row).evaluation, "step": step}
            counts = {"n_samples": 10000, "n_memorized": hits, "memorization_ratio": hits / 10000}
            rows.append({**about, **counts, "epoch": step * 50 / size})
    given = {"statement": "x", "figure": "fig", **keys}
    about = parse(Claim, given, "claim")
    groups = groups_of(about, "own", own.rows, "own")
    return judge(about, groups, Measurements(pd.DataFrame(rows), 0.3)).verdict


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        (ratio, "supported"),
        (steep, "contradicted"),
        (lambda step, _: ratio(step, 200), "contradicted"),
    ],
)
def test_claim_of_proportion(own, curve, verdict):
    keys = {"kind": "approximately-equal", "along": "data.size", "factor": 2, "within": 0.5}
    assert judged(own, curve, metric="onset_step_50", **keys) == verdict


def test_claims_of_order(own):
    keys = {"along": "data.size", "metric": "onset_step_10"}
    assert judged(own, ratio, kind="monotone-increasing", **keys) == "supported"
    assert judged(own, ratio, kind="monotone-decreasing", **keys) == "contradicted"
    within = {"kind": "threshold", "metric": "onset_epoch_50", "by": "data.size", "op": "<"}
    assert judged(own, ratio, **within, value=110) == "supported"  # 2 n steps are 100 epochs
    assert judged(own, ratio, **within, value=90) == "contradicted"


def test_onset_that_no_checkpoint_brackets_decides_nothing(own):
    keys = {"kind": "threshold", "metric": "onset_step_90", "by": "data.size", "op": "<"}
    assert judged(own, steep, **keys, value=2000) == "contradicted"  # above 4096 is above 2000
    assert judged(own, steep, **keys, value=500_000) == "undecided"
