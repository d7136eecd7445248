"""Power: what it says is how often the verdict on simulated results is "supported"."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from emm import catalog
from emm.analyse.claims import judge
from emm.analyse.places import groups_of
from emm.analyse.power import (
    Effort,
    checked_ratios,
    needed,
    power_of_emm,
    power_of_ratios,
    smallest,
    spread,
)
from emm.analyse.simulate import Measurements
from emm.cli import app
from emm.documents import Claim
from emm.errors import UserError
from emm.spec import parse

EXPERIMENT = """
title: Power
runs:
  - {labels.kind: [none, "true"], train.seed: [1, 2, 3], data.size: [1000, 2000, 4000]}
figures: {fig: {plot: curve}}
"""
REPEATS = 150


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("power") / "own.yaml"
    path.write_text(EXPERIMENT)
    return catalog.load({"scale": "paper", "experiments": str(path)}).rows


def measured(rows, ratio, samples, run_sd, rng) -> pd.DataFrame:
    """A table in which every run is off its true ratio, and its samples are counted."""
    made = []
    for row in rows:
        angle = np.arcsin(np.sqrt(ratio(row.published))) + run_sd / 100 * rng.standard_normal()
        hits = rng.binomial(samples, np.sin(np.clip(angle, 0, np.pi / 2)) ** 2)
        about = {"run": row.run_id, "evaluation": row.key, "step": 100, "epoch": 40000.0}
        counts = {"n_samples": samples, "n_memorized": hits, "memorization_ratio": hits / samples}
        made.append(about | counts)
    return pd.DataFrame(made)


def supported(rows, claim, ratio, effort, run_sd) -> float:
    rng = np.random.default_rng(0)
    groups = groups_of(claim, "own", rows, "claim")
    verdicts = [
        judge(
            claim, groups, Measurements(measured(rows, ratio, effort.samples, run_sd, rng), run_sd)
        )
        for _ in range(REPEATS)
    ]
    return float(np.mean([found.verdict == "supported" for found in verdicts]))


def greater(**keys) -> Claim:
    sides = {"left": {"labels.kind": "true"}, "right": {"labels.kind": "none"}}
    return parse(
        Claim, {"statement": "x", "figure": "fig", "kind": "greater", **sides, **keys}, "x"
    )


@pytest.mark.parametrize(
    ("ratios", "samples", "seeds", "run_sd"),
    [((0.5, 0.55), 1000, 1, 0.0), ((0.5, 0.6), 2000, 3, 4.0), ((0.9, 0.93), 2000, 1, 0.3)],
)
def test_of_ratios_as_the_verdicts_come_out(rows, ratios, samples, seeds, run_sd):
    own = [
        r for r in rows if r.published["data.size"] == 1000 and r.published["train.seed"] <= seeds
    ]
    true = dict(zip(("none", "true"), ratios, strict=True))
    effort = Effort(samples, seeds)
    found = supported(own, greater(), lambda s: true[s["labels.kind"]], effort, run_sd)
    expected = power_of_ratios(*ratios, effort, run_sd)
    assert 0.2 < expected < 0.97
    assert found == pytest.approx(expected, abs=0.1)


def test_of_emms_as_the_verdicts_come_out(rows):
    """Curves that cross 90 % between 1,000 and 2,000 images, near the one and near the other."""
    emm, steepness, effort, run_sd = {"none": 1210, "true": 1790}, 6.0, Effort(1000, 1), 0.5

    def ratio(s):
        fallen = steepness / 100 * np.log2(s["data.size"] / emm[s["labels.kind"]])
        return np.clip(0.9 - fallen, 0, 1)

    own = [row for row in rows if row.published["train.seed"] == 1]
    found = supported(own, greater(metric="emm"), ratio, effort, run_sd)
    expected = power_of_emm(1790 / 1210, steepness, effort, run_sd)
    assert 0.3 < expected < 0.97
    assert found == pytest.approx(expected, abs=0.15)


def test_nothing_to_find_is_hardly_ever_found():
    assert power_of_ratios(0.5, 0.51, Effort(), 0.3) == pytest.approx(0.05)
    assert power_of_ratios(0.5, 0.5, Effort(), 0.3) < 0.05
    assert power_of_emm(1.05, 20, Effort(), 0.3) == pytest.approx(0.05)
    assert power_of_emm(2, 20, Effort(), 0.3) == power_of_emm(0.5, 20, Effort(), 0.3)


def test_what_the_spread_is_made_of():
    assert spread(0.5, Effort(10_000, 1), 0.0) == pytest.approx(0.5)
    assert spread(0.5, Effort(10**9, 4), 3.0) == pytest.approx(1.5)
    assert spread(1.0, Effort(), 3.0) == 0
    assert power_of_ratios(0.0, 1.0, Effort(), 3.0) == 1


def test_the_smallest_effort_just_suffices():
    def power(effort):
        return power_of_ratios(0.5, 0.53, effort, 0.3)

    found = needed(power, Effort(2000, 1), 0.8)
    for name, number in found.items():
        efforts = [Effort(**{"samples": 2000, "seeds": 1, name: n}) for n in (number - 1, number)]
        assert power(efforts[0]) < 0.8 <= power(efforts[1])


def test_samples_do_not_help_against_the_spread_of_runs():
    found = needed(lambda e: power_of_ratios(0.5, 0.53, e, 3.0), Effort(), 0.8)
    assert found["samples"] is None
    assert 1 < found["seeds"] < 1000
    assert smallest(lambda n: n / 10, 0.75, 10) == 8


@pytest.mark.parametrize("ratios", [(50, 50), (-1, 50), (50, 101)])
def test_ratios_that_are_none(ratios):
    with pytest.raises(UserError, match="give two that differ, from 0 to 100"):
        checked_ratios(ratios)


def test_the_command():
    run = CliRunner().invoke
    words = run(app, ["power", "--ratios", "90", "92", "--samples", "2000", "--run-sd", "3"]).output
    assert "90 % against 92 %: 2,000 samples, 1 seed per side, 3 points between runs" in words
    assert "no number of samples with 1 seed, or " in words
    facts = json.loads(run(app, ["power", "--emm-factor", "2", "--json"]).output)
    assert facts["run_sd"] == 0.3
    assert facts["power"] > 0.99
    assert isinstance(run(app, ["power"]).exception, UserError)
    assert isinstance(run(app, ["power", "--emm-factor", "1"]).exception, UserError)
