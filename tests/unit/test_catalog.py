"""What exists: runs, evaluations and figures of a config."""

import subprocess
import sys
from pathlib import Path

import pytest

from emm import catalog
from emm.arguments import record_from
from emm.catalog import Catalog
from emm.documents import Config
from emm.errors import UserError
from emm.spec import DEFAULTS, RECIPE_VERSION

PAPER = {"scale": "paper", "experiments": "all"}
QUICK = {"scale": "quick", "experiments": "all"}


@pytest.fixture(scope="module")
def paper() -> Catalog:
    return catalog.load(PAPER)


@pytest.fixture(scope="module")
def quick() -> Catalog:
    return catalog.load(QUICK)


def mine(tmp_path: Path, text: str, **config: object) -> Catalog:
    """Catalog of an experiment file of one's own."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return catalog.load({"scale": "paper", "experiments": str(path), **config})


RUNS = "title: x\nruns: [{data.size: [10, 20]}]\n"


def sizes(found: Catalog) -> list[int]:
    return sorted(row.settings["data.size"] for row in found.rows)


@pytest.mark.parametrize("config", [PAPER, QUICK])
def test_every_row_has_its_run_and_evaluation(config):
    found = catalog.load(config)
    for row in found.rows:
        run = found.runs[row.run_id]
        assert row.experiment in run.experiments
        assert run.evaluations[row.evaluation_id].settings == row.settings
        assert (run.id, row.evaluation_id) in found.evaluations
        assert run.subset_id in found.subsets
        assert run.source_id in found.sources
    assert {row.experiment for row in found.rows} == set(found.experiments)


def test_shipped_figures_exist_at_every_scale(paper, quick):
    names = {name for experiment in paper.experiments.values() for name in experiment.figures}
    assert set(paper.figures) == set(quick.figures) == names
    for name, figure in paper.figures.items():
        assert len(figure.rows) == len(quick.figures[name].rows) > 0


def test_published_grid_of_conditioning(paper):
    own = [row for row in paper.rows if row.experiment == "conditioning"]
    series = {(row.settings["labels.kind"], row.settings["data.size"]) for row in own}
    kinds = ("none", "true", "unique", "random")
    assert series == {(kind, 1000 * n) for kind in kinds for n in (1, 2, 3, 4, 5)}
    assert len(own) == len({row.run_id for row in own}) == 20
    widths = {s["labels.kind"]: s["labels.num_classes"] for s in (row.settings for row in own)}
    assert widths == {"none": 0, "true": 10, "unique": 5000, "random": 10}


def test_published_settings_are_untouched(paper):
    for row in paper.rows:
        filled = {"data.size", "data.num_classes", "labels.num_classes"}
        if row.published["model.prediction"] != "preconditioned":  # what VP does is not said twice
            filled |= {"model.prediction", "train.weighting"}
        kept = {k: v for k, v in row.published.items() if k not in filled}
        assert kept == {k: v for k, v in row.settings.items() if k not in filled}


def test_runs_of_several_lengths_are_shared():
    found = catalog.load({"scale": "paper", "experiments": ["data_size"]})
    assert len(found.rows) == 8
    assert len(found.runs) == 6
    horizons = {
        run.settings["data.size"]: sorted(e.settings["train.epochs"] for e in evaluations)
        for run in found.runs.values()
        for evaluations in [run.evaluations.values()]
    }
    assert horizons == {
        1000: [40000],
        2000: [4000, 40000],
        5000: [4000, 40000],
        10000: [4000],
        20000: [4000],
        50000: [4000],
    }
    run = next(run for run in found.runs.values() if run.settings["data.size"] == 2000)
    assert run.epochs == 40000
    assert run.recordings == ["40000:published", "4000:published"]
    assert run.ema == [0.99929]
    short, long = sorted(run.evaluations.values(), key=lambda e: len(e.steps))
    assert set(short.steps[:-1]) < set(long.steps)  # a shorter training is a prefix
    assert run.snapshots == sorted({*short.steps, *long.steps})


def test_ids_stay(paper):
    expected = {
        "cifar10-32px-n1000-ddpmpp-c128b2-f07493d1": {"40000ep-10000samples-44136fa3"},
        "cifar10-32px-n5000-unique-ddpmpp-c128b2-a4ab57aa": {"40000ep-10000samples-44136fa3"},
        "cifar10-32px-n2000-ddpmpp-c128b4-bb44d038": {
            "4000ep-10000samples-a8853803",
            "40000ep-10000samples-44136fa3",
        },
        "cifar10-32px-n50000-optimum-873961d7": {"50000samples-109b8cfc"},
    }
    assert RECIPE_VERSION == 3, "a raised version changes the ids below: write the new ones"
    for run_id, evaluations in expected.items():
        assert set(paper.runs[run_id].evaluations) >= evaluations


@pytest.mark.parametrize(
    ("size", "epochs", "count"),
    [
        (500, 40000, 8),
        (1000, 40000, 16),
        (2000, 40000, 32),
        (3000, 40000, 48),
        (4000, 40000, 64),
        (5000, 40000, 80),
        (8000, 40000, 128),
        (16000, 40000, 256),
        (50000, 12000, 240),
    ],
)
def test_published_snapshots(tmp_path, size, epochs, count):
    text = f"title: x\nruns: [{{data.size: {size}, train.epochs: {epochs}}}]"
    (evaluation,) = mine(tmp_path, text).evaluations.values()
    assert len(evaluation.steps) == count
    assert evaluation.steps[0] == 4900
    assert evaluation.steps[-1] == -(-size * epochs // 512)
    assert set(evaluation.steps[:-1]) == {4900 * n for n in range(1, count)}


def test_the_optimum_is_sampled_once(tmp_path):
    text = "title: x\nrecipe: optimum\nruns: [{data.size: 10, train.lr: [0.1, 0.2]}]"
    found = mine(tmp_path, text)
    assert [e.steps for e in found.evaluations.values()] == [(0,)]


def test_a_number_of_snapshots_is_spread_evenly(tmp_path):
    text = "title: x\nruns: [{data.size: 512, train.epochs: 100, eval.snapshots: 4}]"
    assert [e.steps for e in mine(tmp_path, text).evaluations.values()] == [(25, 50, 75, 100)]


def test_rates_of_one_trajectory_are_tracked_side_by_side(tmp_path):
    text = "title: x\nruns: [{data.size: 10, train.ema: [0.9, 0, 0.99929]}]"
    (run,) = mine(tmp_path, text).runs.values()
    assert run.ema == [0, 0.9, 0.99929]
    assert len(run.evaluations) == 3
    assert run.recordings == ["40000:published"]


def test_devices_do_not_make_runs(tmp_path):
    text = "title: x\nruns: [{data.size: 10, train.device: [cpu, cuda]}]"
    found = mine(tmp_path, text)
    assert len(found.rows) == 2
    assert len(found.evaluations) == 1


@pytest.mark.parametrize("epochs", [1e-5, 0.1, 1 / 3, 1e6, 1234567.0, 33333.333333333336])
def test_lengths_reach_the_training_with_all_digits(tmp_path, epochs):
    found = mine(tmp_path, "title: x\nruns: [{data.size: 10}]", set={"train.epochs": epochs})
    (run,) = found.runs.values()
    assert [record_from(one) for one in run.recordings] == [(epochs, "published")]
    assert all("+" not in name for name in run.evaluations)


def test_runs_of_several_experiments_are_shared(tmp_path):
    (tmp_path / "a.yaml").write_text(RUNS)
    (tmp_path / "b.yaml").write_text("title: y\nruns: [{data.size: [20, 30]}, {data.size: 30}]")
    files = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    found = catalog.load({"scale": "paper", "experiments": files})
    assert len(found.rows) == 5
    users = {run.settings["data.size"]: run.experiments for run in found.runs.values()}
    assert users == {10: {"a"}, 20: {"a", "b"}, 30: {"b"}}


def test_ids_do_not_depend_on_the_order_of_keys(tmp_path):
    one = mine(tmp_path, "title: x\nruns: [{data.size: 10, train.lr: 0.1, train.seed: 3}]")
    other = mine(tmp_path, "title: x\nruns: [{train.seed: 3, train.lr: 1.0e-1, data.size: 10}]")
    assert list(one.evaluations) == list(other.evaluations)


def test_settings_of_all_runs_and_forced_ones(tmp_path):
    text = """
title: x
set: {train.lr: 0.1, train.seed: 1}
runs: [{data.size: 10}, {data.size: 20, train.lr: 0.2}]
"""
    found = mine(tmp_path, text, set={"train.seed": 5, "train.device": "cpu"})
    assert [row.settings["train.lr"] for row in found.rows] == [0.1, 0.2]
    assert {row.settings["train.seed"] for row in found.rows} == {5}
    assert {row.published["train.seed"] for row in found.rows} == {1}
    assert {row.settings["train.device"] for row in found.rows} == {"cpu"}


def test_own_data_at_any_scale(tmp_path):
    text = """
title: My images
recipe: small
scaled: false
set: {data.path: /path/to/images, data.resolution: 16}
runs: [{data.size: [20, 40]}]
figures:
  mine: {plot: curve, emm: true}
  mine_images: {plot: grid, hue: data.size}
"""
    at_paper, at_quick = (mine(tmp_path, text, scale=scale) for scale in ("paper", "quick"))
    assert list(at_paper.evaluations) == list(at_quick.evaluations)
    assert sizes(at_quick) == [20, 40]
    assert set(at_quick.figures) == {"mine", "mine_images"}
    assert at_quick.root == Path("results/quick")
    assert len(at_quick.sources) == 1
    scaled = mine(tmp_path, RUNS, scale="quick")
    assert {row.settings["data.dataset"] for row in scaled.rows} == {"digits"}


def test_rules_of_one_experiment_replace_the_general_ones(tmp_path):
    for folder in ("scales", "experiments/me"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "recipes.yaml").write_text("ddpmpp: {}")
    for name in ("one", "two"):
        (tmp_path / f"experiments/me/{name}.yaml").write_text(RUNS)
    rules = """
title: x
comparable: false
rules: {data.size: {factor: 2}, train.lr: {to: 0.5}}
experiments: {two: {data.size: {to: 7}}}
"""
    (tmp_path / "scales/half.yaml").write_text(rules)
    found = catalog.load({"scale": "half", "experiments": ["me"]}, tmp_path)
    sizes_by_name = [(row.experiment, row.settings["data.size"]) for row in found.rows]
    assert sizes_by_name == [("one", 20), ("one", 40), ("two", 7), ("two", 7)]
    assert {row.settings["train.lr"] for row in found.rows} == {0.5}
    (tmp_path / "scales/half.yaml").write_text(rules.replace("two:", "tow:"))
    with pytest.raises(UserError, match=r"^scale half: no experiment 'tow'; did you mean 'two'\?$"):
        catalog.load({"scale": "half", "experiments": ["me"]}, tmp_path)


def selected(tmp_path: Path, selection: object, text: str = RUNS, scale: str = "paper") -> list:
    return sizes(mine(tmp_path, text, select={scale: {"mine": selection}}, scale=scale))


def test_selection_of_runs(tmp_path):
    text = "title: x\nruns: [{data.size: [10, 20, 30], labels.kind: [none, 'true', unique]}]"
    assert len(selected(tmp_path, {}, text)) == 9
    assert len(selected(tmp_path, None, text)) == 9
    assert selected(tmp_path, {"data.size": 10}, text) == [10] * 3
    assert selected(tmp_path, {"data.size": [10, 30], "labels.kind": "none"}, text) == [10, 30]
    either = [{"data.size": 10, "labels.kind": "unique"}, {"data.size": 20, "labels.kind": True}]
    assert selected(tmp_path, either, text) == [10, 20]
    assert len(selected(tmp_path, {"model.channel_mult": [2, 2, 2]}, text)) == 9


def test_selection_by_published_or_scaled_values(tmp_path):
    text = "title: x\nruns: [{data.size: [1000, 2000]}]"
    assert selected(tmp_path, {"data.size": 1000}, text, "quick") == [10]
    assert selected(tmp_path, {"data.size": 20}, text, "quick") == [20]


def test_selections_of_other_experiments_have_no_effect(tmp_path):
    assert sizes(mine(tmp_path, RUNS, select={"paper": {"conditioning": {"data.size": 1000}}})) == [
        10,
        20,
    ]


FIGURES = f"""{RUNS}figures:
  both: {{plot: curve}}
  ten: {{plot: curve, where: {{data.size: 10}}}}
  list: {{plot: grid, where: {{data.size: [20, 30]}}}}
"""


def test_figures_show_the_rows_that_pass_their_filter(tmp_path):
    found = mine(tmp_path, FIGURES)
    shown = {
        name: [row.settings["data.size"] for row in figure.rows]
        for name, figure in found.figures.items()
    }
    assert shown == {"both": [10, 20], "ten": [10], "list": [20]}
    assert [figure.figure.plot for figure in found.figures.values()] == ["curve", "curve", "grid"]


def test_figures_without_a_selected_run_are_left_out(tmp_path):
    found = mine(tmp_path, FIGURES, select={"paper": {"mine": {"data.size": 20}}})
    assert set(found.figures) == {"both", "list"}


def test_filters_of_figures_name_published_values(tmp_path):
    text = """
title: x
runs: [{data.size: [1000, 2000], labels.kind: [none, "true"]}]
figures: {fig: {plot: curve, where: {data.size: 1000, labels.kind: true}}}
"""
    for scale in ("paper", "quick"):
        (row,) = mine(tmp_path, text, scale=scale).figures["fig"].rows
        assert (row.published["data.size"], row.settings["labels.kind"]) == (1000, "true")


def test_what_the_report_says_of_a_figure(paper):
    figure = paper.figures["table3"]
    assert figure.labels == {"figure": "table3", "shows": figure.figure.title}
    title, source, caption, runs, key = figure.caption.split("\n\n")
    assert source == "Gu et al. 2023, Table 3"
    assert runs == "As run: CIFAR-10, 32×32 pixels."  # noqa: RUF001
    assert key.startswith("Bold:")
    assert title
    assert caption


def test_folders(paper):
    assert paper.run_folder("a") == Path("results/paper/runs/a")
    assert paper.evaluation_folder("a", "b") == Path("results/paper/runs/a/b")


def test_a_parsed_config_is_taken_as_it_is():
    config = Config(scale="paper", experiments=("optimum",))
    assert catalog.load(config).config is config


def select(experiments: dict) -> dict:
    """A config that selects runs of experiments at the quick scale."""
    return {"scale": "quick", "select": {"quick": experiments}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"scale": "huge"}, "config: scale: no scale 'huge'; allowed: paper, quick"),
        ({"scale": 5}, "config: scale: input should be a valid string, not 5"),
        ({"scales": "paper"}, "config: unknown key 'scales'; did you mean 'scale'?"),
        ({"experiments": "conditionin"}, "config: experiments: no experiment 'conditionin'; did"),
        ({"experiments": []}, "config: experiments: list should have at least 1 item, not []"),
        ({"experiments": 5}, "config: experiments: input should be a valid list, not 5"),
        ({"experiments": "none.yaml"}, "none.yaml: no such file"),
        ({"set": {"train.divice": "cpu"}}, "config: set: unknown setting 'train.divice'; did you"),
        ({"set": {"train.lr": "fast"}}, "config: set: train.lr: input should be a valid number"),
        ({"set": 5}, "config: set: input should be a valid dictionary, not 5"),
        ({"set": {"data.size": 60000}}, "runs item 1: data.size 60000: the source has only 50000"),
        (
            select({"conditionin": {}}),
            "config: select: quick: no experiment 'conditionin'; did you",
        ),
        ({"select": {"quik": {}}}, "config: select: no scale 'quik'; allowed: paper, quick"),
        (select({"optimum": {"data.sise": 5}}), "config: select: quick: optimum: unknown setting"),
        (
            select({"optimum": {"data.size": "few"}}),
            "config: select: quick: optimum: data.size: input",
        ),
        (select({"optimum": {"data.size": 5}}), "config: select: quick: optimum: leaves no run"),
        ({"select": 5}, "config: select: input should be a valid dictionary, not 5"),
        ({"threads": 0}, "config: threads: input should be greater than or equal to 1, not 0"),
    ],
)
def test_wrong_configs(config, message):
    with pytest.raises(UserError) as caught:
        catalog.load({"scale": "paper", "experiments": "optimum", **config})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


QUALITY = "title: x\nmeasures: [quality]\nruns: [{data.size: [10, 20]}]\n"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"features": "vgg"}, "config: features: input should be 'classifier', 'pixels', 'inc"),
        ({"feature_weights": "a.pt"}, "config: feature_weights: features classifier take none"),
        ({"features": "inception"}, "config: features inception: needs feature_weights, a Torch"),
        (
            {"features": "dinov2", "feature_weights": "none/d.pt"},
            "config: feature_weights: none/d.pt: no such file",
        ),
        (
            {"set": {"data.dataset": "mondrian"}},
            "experiment mine: features classifier: mondrian has no two classes to tell apart; set",
        ),
    ],
)
def test_features_that_cannot_be(tmp_path, config, message):
    with pytest.raises(UserError) as caught:
        mine(tmp_path, QUALITY, **config).require_files()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_features_of_sources(tmp_path):
    """One for each resolution; none that nobody trains, or that nothing asks for."""
    sides = QUALITY.replace("data.size: [10, 20]", "data.resolution: [32, 16], data.size: 10")
    assert len(mine(tmp_path, QUALITY).features) == 1
    found = mine(tmp_path, sides).features
    assert sorted(name.split("-")[-1] for name in found) == ["16px", "32px"]
    for name, run in found.items():
        assert name == run.features_id
        assert name.startswith(run.source_id)
    assert not mine(tmp_path, QUALITY, features="pixels").features
    assert not mine(tmp_path, RUNS).features
    mondrian = {"features": "pixels", "set": {"data.dataset": "mondrian"}}
    mine(tmp_path, QUALITY, **mondrian).require_files()


@pytest.mark.parametrize(
    ("measure", "settings", "message"),
    [
        ("criteria", {"train.augment": "flip"}, "criteria: train.augment flip: images that were"),
        (
            "twins",
            {"train.augment": "shift", "data.part": 2},
            "twins: train.augment shift: images that were",
        ),
        ("quality", {"eval.num_samples": 13}, "quality: eval.num_samples 13: it takes 14"),
        ("quality", {"data.dummy_size": 5}, "quality: samples of a training with dummies are of"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_it_is_trained(
    tmp_path, measure, settings, message
):
    text = QUALITY.replace("quality", measure).replace("10, 20", "500")
    dummies = {"data.dummy": "gaussian_mixture"} if "data.dummy_size" in settings else {}
    with pytest.raises(UserError) as caught:
        mine(tmp_path, text, set=settings | dummies)
    assert f"experiment mine: measures: {message}" in str(caught.value)
    if dummies:
        told = {"eval.label": "data", "labels.kind": "true"}
        mine(tmp_path, text, set=settings | dummies | told)


def test_tables_of_quality_are_named_by_their_features(tmp_path):
    weights = [tmp_path / name for name in ("a.pt", "b.pt")]
    configs = [{}, {"features": "pixels"}]
    configs += [{"features": "inception", "feature_weights": str(path)} for path in weights]
    found = [mine(tmp_path, QUALITY, **config) for config in configs]
    (key, *_) = found[0].measured("quality")
    names = [one.measure_file("quality", *key).name for one in found]
    assert names[:2] == ["quality-classifier.parquet", "quality-pixels.parquet"]
    assert len(set(names)) == 4
    assert {one.measure_file("ideals", *key).name for one in found} == {"ideals.parquet"}
    assert [one.only("mine").features for one in found] == [one.config.features for one in found]
    other = mine(tmp_path, RUNS, **configs[2]).only("mine")
    assert (other.features, other.feature_weights) == ("classifier", None)


@pytest.mark.parametrize("content", [None, [], "paper", 5])
def test_a_config_is_keys_and_values(content):
    with pytest.raises(UserError, match=r"^config: content: input should be a valid dictionary"):
        catalog.load(content)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("{data.sise: 5}", "runs item 1: unknown setting 'data.sise'; did you mean 'data.size'?"),
        ("{data.size: '5'}", "runs item 1: data.size: input should be a valid integer, not '5' (w"),
        ("{data.size: 5, train.lr: [0.1, 1e-4]}", "runs item 1: train.lr: input should be a valid"),
        ("{data.size: 10}, {data.size: 60000}", "runs item 2: data.size 60000: the source has onl"),
        ("{data.size: 10, labels.num_classes: 3}", "runs item 1: labels.num_classes 3: none label"),
        ("{data.size: 10, labels.kind: random}", "runs item 1: labels.num_classes 0: random label"),
        ("{data.size: 10, data.dataset: folder}", "runs item 1: data.path: goes with data.dataset"),
        ("{data.size: 10, data.size: 20}", "the key 'data.size' stands twice"),
        ("{data.size: []}", "runs item 1: data.size: the list is empty"),
        ("5", "runs.0: input should be a valid dictionary, not 5"),
    ],
)
def test_wrong_runs(tmp_path, runs, message):
    with pytest.raises(UserError) as caught:
        mine(tmp_path, f"title: x\nruns: [{runs}]\n")
    assert str(caught.value).startswith(str(tmp_path / "mine.yaml"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ("{plot: curve, hue: labels.kinds}", "hue: unknown setting 'labels.kinds'; did you mean"),
        ("{plot: curve, style: size}", "style: unknown setting 'size'; did you mean 'data.size'?"),
        ("{plot: curve, x: data.sise}", "x: unknown setting 'data.sise'; did you mean 'data.size'"),
        ("{plot: curve, hue: epoch}", "hue: unknown setting 'epoch'"),
        (
            "{plot: curve, y: hits}",
            "y: unknown column 'hits'; allowed: ",
        ),
        ("{plot: curve, y: d1_q07}", "y: unknown column 'd1_q07'"),
        ("{plot: curve, where: {size: 5}}", "where: unknown setting 'size'"),
        ("{plot: curve, where: {data.size: '10'}}", "where: data.size: input should be a valid in"),
        ("{plot: curve, where: {data.size: 30}}", "where: no run of the experiment has these val"),
        ("{plot: table, rows: data.size}", "a table needs `rows` (or `halves`) and `columns`"),
        ("{plot: pie}", "'levels', 'paths' or 'variance', not 'pie'"),
        ("{plot: plane}", "x: a plane needs a column of numbers, as memorization_ratio"),
        ("{plot: plane, x: fidd, y: fid}", "x: unknown setting 'fidd'"),
        ("{plot: metrics, metrics: [hits]}", "metrics: unknown column 'hits'"),
        ("{plot: curve, y: fid}", "fig: y: fid needs measures: [quality] in experiment mine"),
        ("{plot: plane, x: kappa}", "x: kappa needs measures: [ideals] in experiment mine"),
        ("{plot: metrics, metrics: [chao1_share]}", "metrics: chao1_share needs measures: [crite"),
        ("{plot: windows}", "plot: windows needs measures: [quality] in experiment mine"),
        ("{plot: metrics}", "metrics: go with the plots metrics and metrics_table"),
        ("{plot: curve, metrics: [coverage]}", "metrics: go with the plots metrics and metrics_ta"),
        ("{plot: metrics, metrics: [coverage], hue: data.size}", "each is a line, without hue or"),
        ("{plot: metrics, metrics: [coverage, knn_distance]}", "or style, of one unit"),
        ("{plot: metrics_table, metrics: [coverage]}", "columns: name the setting that separates"),
        ("{plot: capacity}", "x: data.size makes no series; use a setting, as model.channels"),
        ("{plot: capacity, x: model.arch}", "x: model.arch is no number, which the plot capacity"),
        ("{plot: curve, y: emm, x: epoch}", "x: epoch makes no series"),
        ("{plot: grid, y: memorization_capacity}", "y: the plot grid has no use for it"),
        ("{plot: curve, colour: 5}", "unknown key 'figures.fig.colour'; did you mean 'columns'?"),
        ("{x: data.size}", "figures.fig.plot: field required"),
    ],
)
def test_wrong_figures(tmp_path, figure, message):
    with pytest.raises(UserError) as caught:
        mine(tmp_path, f"{RUNS}figures: {{fig: {figure}}}\n")
    assert message in str(caught.value)
    assert "fig" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("x", ["epoch", "step", "train.lr"])
@pytest.mark.parametrize("y", ["knn_distance", "n_memorized", "d1_q05", "ratio_q95"])
def test_axes_of_figures(tmp_path, x, y):
    text = f"{RUNS}figures: {{fig: {{plot: curve, epoch: all, x: {x}, y: {y}}}}}"
    assert set(mine(tmp_path, text).figures) == {"fig"}


def test_figures_have_one_name_each(tmp_path):
    text = f"{RUNS}figures: {{fig1a: {{plot: curve}}}}\n"
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"^experiment mine: figure fig1a is also in optimum$"):
        catalog.load({"scale": "paper", "experiments": ["optimum", str(path)]})
    with pytest.raises(UserError, match="the key 'fig' stands twice"):
        mine(tmp_path, f"{RUNS}figures:\n  fig: {{plot: curve}}\n  fig: {{plot: grid}}\n")
    with pytest.raises(UserError, match="should match pattern"):
        mine(tmp_path, f"{RUNS}figures: {{'a/b': {{plot: curve}}}}\n")


def test_a_value_that_the_scale_does_not_know(tmp_path):
    text = "title: x\nruns: [{data.size: 10, data.resolution: 17}]"
    with pytest.raises(UserError) as caught:
        mine(tmp_path, text, scale="quick")
    path = tmp_path / "mine.yaml"
    expected = (
        f"{path}: runs item 1 at scale quick: no rule for data.resolution 17; the scale knows"
    )
    assert str(caught.value).startswith(expected)


def test_a_size_that_no_file_tells(tmp_path):
    text = "title: x\nrecipe: small\nruns: [{data.path: images}]"
    with pytest.raises(UserError, match=r"runs item 1: data.size: needed for a source whose size"):
        mine(tmp_path, text)


def test_everything_has_a_default():
    found = catalog.load({})
    assert found.config == Config()
    assert set(found.runs) == set(catalog.load(QUICK).runs)
    assert set(DEFAULTS) == set(next(iter(found.runs.values())).settings)


def test_planning_is_fast_and_light():
    code = f"""
import sys, time
from emm import catalog
catalog.load({PAPER!r})
print(time.process_time())
print([name for name in ("torch", "pandas", "numpy", "pyarrow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.splitlines()
    assert float(seconds) < 1
    assert modules == "[]"


def test_figures_left_out_say_what_they_need():
    found = catalog.load({"scale": "quick", "experiments": "conditioning"})
    assert "--config experiments=data_size" in found.other_figures["fig1c"]
    assert not set(found.other_figures) & set(found.figures)
    only = {"quick": {"conditioning": {"labels.kind": "unique"}}}
    found = catalog.load({"scale": "quick", "experiments": "conditioning", "select": only})
    assert "config: select: quick: conditioning" in found.other_figures["fig5a"]
    assert not catalog.load(QUICK).other_figures


def test_numbers_written_as_text_are_numbers():
    """Snakemake's --config passes nested numbers as text."""
    config = {
        "scale": "quick",
        "experiments": "conditioning",
        "set": {"train.epochs": "700", "model.skip_mask": "1101"},
        "select": {
            "quick": {"conditioning": {"data.size": ["1000", "2000"], "labels.kind": "none"}}
        },
    }
    rows = catalog.load(config).rows
    assert {row.settings["train.epochs"] for row in rows} == {700}
    assert [row.published["data.size"] for row in rows] == [1000, 2000]
    assert {row.settings["model.skip_mask"] for row in rows} == {"1101"}
