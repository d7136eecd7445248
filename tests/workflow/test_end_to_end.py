"""One complete run of the workflow at the tiny scale, and what it leaves."""

import json
import zipfile

import pandas as pd
import pytest

from emm.spec import DEFAULTS

FIGURES = {
    *("fig5a", "fig5a_unique", "fig14a", "table3", "conditioning_images"),
    *("fig1a", "fig1c", "fig1d", "own_curve"),
}
QUANTILES = [f"{name}_q{q:02d}" for name in ("d1", "ratio") for q in (5, 25, 50, 75, 95)]
COLUMNS = [
    *("run", "evaluation", "experiments", "epoch", "step", "horizon"),
    *("n_samples", "n_training", "n_memorized", "n_memorized_published", "n_duplicates"),
    *("memorization_ratio", "memorization_ratio_low", "memorization_ratio_high"),
    *("knn_distance", "distinct_copied"),
]

pytestmark = pytest.mark.slow


def table(project, name: str) -> pd.DataFrame:
    return pd.read_parquet(project.results / "tables" / f"{name}.parquet")


def test_columns_of_the_memorization_table(finished):
    rows = table(finished, "memorization")
    assert {*COLUMNS, *QUANTILES, *DEFAULTS} <= set(rows.columns)
    measured = rows[[*COLUMNS, *QUANTILES]]
    assert measured.notna().all().all()
    assert rows["memorization_ratio"].between(0, 1).all()
    assert (rows["memorization_ratio"] == rows["n_memorized"] / rows["n_samples"]).all()
    assert (rows["memorization_ratio_low"] <= rows["memorization_ratio"]).all()
    assert (rows["memorization_ratio"] <= rows["memorization_ratio_high"]).all()
    assert (rows["n_samples"] == rows["eval.num_samples"]).all()
    assert (rows["n_training"] == rows["data.size"]).all()


def test_a_row_per_checkpoint(finished):
    rows = table(finished, "memorization")
    listed = json.loads(finished.run("emm", "runs", "--json").stdout)
    assert len(rows) == sum(len(run["results"]) for run in listed)
    assert not rows.duplicated(["run", "evaluation", "step"]).any()
    per_evaluation = rows.groupby("evaluation").size()
    optimum = per_evaluation.index.str.contains("optimum")
    assert (per_evaluation[optimum] == 1).all()
    assert (per_evaluation[~optimum] == 2).all()
    assert len(per_evaluation) == 6


def test_the_optimum_copies_and_a_short_training_does_not(finished):
    ratio = table(finished, "memorization").groupby("model.arch")["memorization_ratio"].max()
    assert ratio["optimum"] == 1
    assert ratio["ddpmpp"] < 0.9


def test_a_row_per_series_and_threshold_of_the_emm_table(finished):
    rows = table(finished, "emm")
    assert set(rows["status"]) <= {"bracketed", "below", "above"}
    series = rows.groupby("epsilon").size()
    assert series.nunique() == 1
    assert 0.1 in series.index
    assert not rows.astype(str).duplicated().any()
    optimum = rows[(rows["model.arch"] == "optimum")]
    assert (optimum["status"] == "above").all()


def test_tables_of_an_experiment_are_its_rows_of_the_whole(finished):
    whole = table(finished, "memorization")
    for name in ("conditioning", "data_size", "optimum", "own"):
        own = table(finished, f"{name}/memorization")
        theirs = whole[whole["experiments"].str.split(",").map(lambda names, n=name: n in names)]
        assert set(own["evaluation"]) == set(theirs["evaluation"])
        assert len(own) == len(theirs)


def test_figures_exist_in_every_format(finished):
    for name in FIGURES:
        for suffix in ("svg", "pdf", "png", "csv"):
            assert (finished.results / "figures" / f"{name}.{suffix}").stat().st_size > 50
    assert (finished.results / "figures" / "table3.md").exists()
    assert (finished.results / "figures" / "table3.tex").exists()


def test_figures_filter_by_published_values(finished):
    short = pd.read_csv(finished.results / "figures" / "fig1c.csv")
    long = pd.read_csv(finished.results / "figures" / "fig1d.csv")
    assert set(short["data.size"]) == {20}
    assert set(long["data.size"]) == {10, 20}
    assert short["epoch"].max() < long["epoch"].max()


def test_report_holds_every_figure(finished):
    with zipfile.ZipFile(finished.results / "report.zip") as archive:
        assert archive.testzip() is None
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    figures = {f"{name}.svg" for name in (*FIGURES, "advice")}
    assert names == {"report.html", "replication.html"} | figures
    assert not (finished.results / "report.zip.json").exists()


def test_samples_are_gone_and_the_rest_stays(finished):
    assert not list(finished.results.glob("runs/*/*/samples*"))
    for pattern, count in {
        "sources/*.npz": 2,
        "subsets/*.npz": 5,
        "runs/*/run.yaml": 5,
        "runs/*/metrics.parquet": 5,
        "runs/*/*/scores.parquet": 6,
        "runs/*/*/gallery.npz": 6,
        "benchmarks/train/*.jsonl": 5,
        "benchmarks/*/*/*.jsonl": 12,
        "logs/train/*.log": 5,
        "usage/train/*.jsonl": 5,
        "usage/*/*/*.jsonl": 12,
    }.items():
        assert len(list(finished.results.glob(pattern))) == count, pattern
    assert not list(finished.results.rglob("*.tmp"))


def test_classes_of_the_users_images(finished):
    rows = table(finished, "own/memorization")
    assert set(rows["data.size"]) == {12}
    assert set(rows["labels.num_classes"]) == {2}
    assert set(rows["data.path"]) == {"images"}


def test_second_call_has_nothing_to_do(finished):
    assert "Nothing to be done" in finished.snakemake()


def test_summary(finished):
    done = finished.run("emm", "summary")
    assert done.returncode == 0, done.stdout
    assert "EMM (90 %)" in done.stdout
    for name in FIGURES:
        assert f"results/tiny/figures/{name}.png" in done.stdout
    assert "results/tiny/report.zip" in done.stdout


def test_the_account_of_what_ran(finished):
    rows = pd.read_parquet(finished.results / "plan" / "usage.parquet")
    assert rows["rule"].value_counts().to_dict() == {"train": 5, "sample": 6, "score": 6}
    assert set(rows["outcome"]) == {"finished"}
    assert rows["logged"].all()
    assert (rows["seconds"] > 0).all()
    assert (rows["peak_memory_mb"] > 50).all()
    for name in ("usage.html", "timeline.png"):
        assert (finished.results / "plan" / name).stat().st_size > 5000


def test_list_of_runs(finished):
    listed = json.loads(finished.run("emm", "runs", "--json").stdout)
    assert len(listed) == 5
    assert {run["state"] for run in listed} == {"done"}
    assert all(run["results"] for run in listed)
    assert "5 runs: 5 done" in finished.run("emm", "runs").stdout


def test_an_experiment_without_figures_shares_runs_and_gives_tables(clone):
    shared = {"data.size": 50000, "eval.num_samples": 50000}
    clone.write("bare.yaml", {"title": "Optimum", "recipe": "optimum", "runs": [shared]})
    clone.configure(experiments=["bare.yaml"], select={})
    aggregates = {"tables", "replication", "pages", "report", "usage", "advice", "all"}
    assert set(clone.plan().counts) == aggregates
    clone.snakemake()
    assert len(table(clone, "memorization")) == 1
    assert table(clone, "memorization")["experiments"].tolist() == ["bare"]
