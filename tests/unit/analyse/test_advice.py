"""Advice: factors and estimates of known EMMs, what counts as an effect, page and command."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from emm import catalog
from emm.analyse.advice import distinct_effects, effects, estimates, families
from emm.analyse.parquet import write_table
from emm.analyse.simulate import Measurements
from emm.cli import app
from emm.errors import UserError
from emm.figures.advice import draw_effects
from emm.report.advice import advice_page

EXPERIMENT = """
title: Advice
set: {data.dataset: cifar10}
runs:
  - {model.channels: [64, 128, 256, 512], data.size: [500, 1000, 2000, 4000, 8000]}
  - {labels.kind: ["true", unique], data.size: [500, 1000, 2000, 4000, 8000]}
  - {data.num_classes: [1, 10], train.weight_decay: 0.1, data.size: [500, 1000, 2000]}
figures:
  widths:
    plot: curve
    hue: model.channels
    emm: true
    where: {labels.kind: none, train.weight_decay: 0.0}
  labels:
    plot: curve
    hue: labels.kind
    emm: true
    where: {model.channels: 128, train.weight_decay: 0.0}
  classes: {plot: curve, hue: data.num_classes, emm: true, where: {train.weight_decay: 0.1}}
  unmarked: {plot: curve, hue: labels.kind, where: {model.channels: 128, train.weight_decay: 0.0}}
"""


def emm_of(s) -> float:
    """The EMM doubles with the width; true labels change nothing, unique ones a lot."""
    by_kind = {"none": 1, "true": 1, "unique": 100}[s["labels.kind"]]
    return 1000 * s["model.channels"] / 128 * by_kind * (0.1 if s["train.weight_decay"] else 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("advice")


@pytest.fixture(scope="module")
def found(folder) -> catalog.Catalog:
    path = folder / "own.yaml"
    path.write_text(EXPERIMENT)
    config = {"scale": "paper", "experiments": str(path), "results": str(folder)}
    return catalog.load(config)


@pytest.fixture(scope="module")
def table(found) -> pd.DataFrame:
    made = []
    for row in {row.key: row for row in found.rows}.values():
        ratio = 1 / (1 + (row.settings["data.size"] / emm_of(row.settings)) ** 1.6 / 9)
        hits = round(10_000 * ratio)
        about = {"run": row.run_id, "evaluation": row.key, "step": 100, "epoch": 40000.0}
        about |= {"n_samples": 10_000, "n_memorized": hits, "memorization_ratio": hits / 10_000}
        made.append(about | {"experiments": "own"})
    return pd.DataFrame(made)


@pytest.fixture(scope="module")
def known(found, table):
    return {one.figure.name: one for one in families(found, Measurements(table, 0.3))}


def test_figures_that_mark_emms_take_part(known):
    assert list(known) == ["widths", "labels", "classes"]
    assert known["widths"].base.value == 128
    assert known["labels"].base.value == "none"
    assert known["classes"].base.value == 10  # null is all classes


def test_factors_are_those_of_the_emms(known):
    by_width = {effect.changed.value: effect for effect in effects(known["widths"])}
    for width, factor in ((64, 0.5), (256, 2), (512, 4)):
        effect = by_width[width]
        assert effect.factor == pytest.approx(factor, rel=0.08)
        assert effect.low < effect.factor < effect.high
        assert effect.verdict == ("lowers" if factor < 1 else "raises")


def test_only_an_interval_without_1_is_an_effect(known):
    by_kind = {effect.changed.value: effect for effect in effects(known["labels"])}
    assert by_kind["true"].verdict == "no effect seen"
    assert by_kind["true"].low < 1 < by_kind["true"].high
    unique = by_kind["unique"]  # never below 90 %
    assert np.isnan(unique.factor)
    assert unique.high == np.inf
    assert unique.low == pytest.approx(8, rel=0.15)
    assert unique.verdict == "raises"
    (classes,) = effects(known["classes"])  # both below the smallest size
    assert classes.verdict == "beyond the sizes"


def test_a_network_between_those_that_were_run_has_the_power_law(known):
    (measured,) = estimates([known["widths"]], {"model.channels": 256})
    assert (measured.source, measured.value) == ("measured", pytest.approx(2000, rel=0.05))
    (between,) = estimates([known["widths"]], {"model.channels": 192})
    assert between.source == "power law"
    assert between.value == pytest.approx(1500, rel=0.1)
    assert between.low < 1500 < between.high
    assert known["widths"].law.slope == pytest.approx(1, abs=0.1)
    assert [between.compared(n) for n in (500, 1500, 9000)] == [
        *("below the EMM", "within its interval"),
        "above the EMM",
    ]


def test_settings_that_no_figure_is_about(known):
    with pytest.raises(UserError, match=r"--set train.lr=0.5: no series .* such a network"):
        estimates(known.values(), {"train.lr": 0.5})


def page_of(found, table, size=None) -> str:
    return advice_page(found, families(found, Measurements(table, found.scale.run_sd)), size, {})


def test_the_page(found, table):
    page = page_of(found, table, 1200)
    moved, rest = page.split("## No effect seen")
    assert "| width: 128 → 512 |" in moved
    assert "| labels: unconditional → unique labels |" in moved
    assert "| labels: unconditional → true labels |" in rest.split("## Beyond")[0]
    assert "| image classes: 10 → 1 |" in rest.split("## Beyond")[1]
    assert "1,200 images are" in page
    assert "in 4 of 5 comparisons" in page


def test_missing_results_leave_their_figures_out(found, table):
    widths = [row.key for row in found.figures["widths"].rows]
    page = page_of(found, table[table["evaluation"].isin(widths)])
    assert "unique" not in page
    assert "width: 128 → 512" in page


def test_the_command_prints_or_writes(found, table, folder):
    write_table(folder / "memorization.parquet", table)
    config = json.dumps(found.config.model_dump(mode="json"))
    words = ["advice", "--config", config, "--memorization", str(folder / "memorization.parquet")]
    printed = CliRunner().invoke(app, [*words, "--size", "900", "--set", "model.channels=192"])
    assert "# Advice for 900 images" in printed.output
    assert "power law, exponent 1.0" in printed.output
    CliRunner().invoke(app, [*words, "--output", str(folder / "advice.md")])
    assert "## What moves it" in (folder / "advice.md").read_text()


def test_the_picture_shows_every_comparison_with_its_bounds(known, tmp_path):
    found = distinct_effects(known.values())
    draw_effects(found, tmp_path / "advice")
    drawn = pd.read_csv(tmp_path / "advice.csv").set_index("change")
    assert len(drawn) == 5
    assert "image classes: 10 → 1" not in drawn.index  # both EMMs lie beyond the sizes
    assert drawn.loc["width: 128 → 512", "factor"] == pytest.approx(4, rel=0.08)
    assert drawn.loc["labels: unconditional → unique labels", "high"] == np.inf
    assert drawn["setting"].nunique() == (drawn["setting"] != drawn["setting"].shift()).sum()
    for suffix in ("svg", "pdf", "png"):
        assert (tmp_path / f"advice.{suffix}").stat().st_size > 1000


def test_without_comparisons_the_picture_says_so(tmp_path):
    draw_effects([], tmp_path / "advice")
    assert pd.read_csv(tmp_path / "advice.csv").empty


@pytest.mark.parametrize("command", ["advice", "onset"])
def test_a_table_of_something_else_is_refused(found, folder, command):
    write_table(folder / "scores.parquet", pd.DataFrame({"evaluation": ["a"], "step": [1]}))
    config = json.dumps(found.config.model_dump(mode="json"))
    words = [command, "--config", config, "--memorization", str(folder / "scores.parquet")]
    with pytest.raises(UserError, match="no column 'n_memorized'; give tables/memorization"):
        CliRunner().invoke(app, words, catch_exceptions=False)
