"""What a call would run, for the shipped configs, profiles and wrong input."""

import collections
import re
import time

import pytest
import yaml

from emm import catalog
from emm.measure import MEASURES
from emm.plan.jobs import all_jobs

SECONDS = 30  # several times what it takes on an idle machine
PLUGIN_OPTIONS = {
    *("init-seconds-before-status-checks", "status-attempts", "status-command"),
    *("requeue", "no-requeue", "no-account", "qos", "reservation", "jobname-prefix"),
    *("logdir", "keep-successful-logs", "delete-logfiles-older-than", "partition-config"),
    *("efficiency-report", "efficiency-report-path", "efficiency-threshold"),
    *("exclude-failed-nodes", "pass-command-as-script", "array-jobs", "array-limit"),
}


def expected(selected: catalog.Catalog) -> dict[str, int]:
    """Jobs of an empty start, by rule."""
    counts = {
        "data": len(selected.sources),
        "subset": len(selected.subsets),
        "train": len(selected.runs),
        "sample": len(selected.evaluations),
        "score": len(selected.evaluations),
        "features": len(selected.features),
        **{measure: len(selected.measured(measure)) for measure in MEASURES},
        "measure_table": len(
            {(f.experiment, table) for f in selected.figures.values() for table in f.tables}
        ),
        "experiment_tables": len({f.experiment for f in selected.figures.values()}),
        "tables": 1,
        "replication": 1,
        "figure": len(selected.figures),
        "pages": 1,
        "report": 1,
        "usage": 1,
        "advice": 1,
        "all": 1,
    }
    return {rule: count for rule, count in counts.items() if count}


def config_of(project, name: str = "config.yaml") -> dict:
    return yaml.safe_load((project.folder / name).read_text())


def timed_plan(project, *options: str, **keywords):
    start = time.monotonic()
    plan = project.plan(*options, **keywords)
    assert time.monotonic() - start < SECONDS
    return plan


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"experiments": "all"},
        {"scale": "paper", "experiments": "all"},
    ],
)
def test_jobs_are_those_of_the_catalog(shipped, changed):
    options = [f"{key}={value}" for key, value in changed.items()]
    plan = timed_plan(shipped, *(["--config", *options] if options else []))
    assert plan.counts == expected(catalog.load(config_of(shipped) | changed))


def test_what_is_compared_by_other_features_is_measured_beside_the_rest(shipped):
    """Its table is another file: none is taken for it, and the samples of all runs are needed."""
    tables = {}
    for features in ("classifier", "pixels"):
        options = ("--config", "experiments=quality", f"features={features}")
        plan = shipped.plan(*options)
        tables[features] = set(re.findall(r"\S+/quality-\S+\.parquet", plan.output))
        assert len(tables[features]) == len(plan.wildcards["quality"]) == 5
        assert f'"features":"{features}"' in shipped.snakemake("--dry-run", "-p", *options)
    assert not tables["classifier"] & tables["pixels"]


def test_same_figures_at_every_scale():
    config = {"experiments": ["all"]}
    paper, quick = (catalog.load({**config, "scale": scale}) for scale in ("paper", "quick"))
    assert list(paper.figures) == list(quick.figures)
    for name, figure in paper.figures.items():
        assert len(figure.rows) == len(quick.figures[name].rows)


def test_every_figure_is_a_target_and_needs_its_experiment_only(shipped):
    config = {"scale": "paper", "experiments": ["all"]}
    selected = catalog.load(config)
    done = shipped.run("snakemake", "--list-rules", "--config", "experiments=all")
    assert set(selected.figures) <= set(done.stdout.split())
    own = catalog.load(config | {"experiments": ["optimum"]})
    options = ("--config", "scale=paper", "experiments=all", "--", "fig1a")
    counts = timed_plan(shipped, *options).counts
    assert counts.pop("fig1a") == 1
    assert counts == {
        rule: count
        for rule, count in expected(own).items()
        if rule not in ("tables", "replication", "pages", "report", "usage", "advice", "all")
    }


def test_pairs_of_samples_wait_for_their_galleries(shipped):
    plan = shipped.plan("--config", "experiments=halves", "--", "halves_images")
    (files,) = re.findall(r"^ *rule figure:\n +input: (.*)$", plan.output, re.M)
    assert files.count("gallery.npz") == 4  # two halves of two sizes


def test_slurm_means_all_of_the_papers(cluster):
    plan = timed_plan(cluster, profile=("--profile", "slurm"))
    everything = catalog.load({"scale": "paper", "experiments": ["all"]})
    assert plan.counts == expected(everything)
    assert plan.runs("train") == set(everything.runs)
    conditioning = collections.Counter(
        row.settings["labels.kind"] for row in everything.rows if row.experiment == "conditioning"
    )
    assert conditioning == {"none": 5, "true": 5, "unique": 5, "random": 5}


def test_command_line_overrides_single_keys_of_slurm(cluster):
    options = ("--config", "scale=quick", "experiments=optimum")
    plan = cluster.plan(*options, profile=("--profile", "slurm"))
    assert plan.counts == expected(catalog.load({"scale": "quick", "experiments": ["optimum"]}))


def test_jobs_of_a_cluster_do_not_do_without_a_gpu(cluster):
    """One that finds none fails at once, where it would take weeks on the CPU."""
    options = ("--dry-run", "--config", "experiments=sample_size")
    output = cluster.snakemake(*options, profile=("--profile", "slurm"))
    assert output.count("emm train ") == output.count("--set train.device=cuda") == 2
    assert output.count("emm score ") == output.count("--device cuda") > 0


@pytest.mark.parametrize("experiments", ["conditioning", "dummies"])
def test_the_plan_lists_the_jobs_that_would_run(cluster, experiments):
    chosen = {"scale": "paper", "experiments": experiments}
    options = ("--config", *(f"{key}={value}" for key, value in chosen.items()))
    counts = cluster.plan(*options, profile=("--profile", "slurm")).counts
    planned = collections.Counter(job.rule for job in all_jobs(catalog.load(chosen)))
    assert planned == {rule: number for rule, number in counts.items() if rule != "all"}


def test_slurm_is_found_by_its_long_name_from_anywhere(cluster, tmp_path):
    where = ("--snakefile", str(cluster.folder / "Snakefile"), "--directory", str(tmp_path))
    plan = cluster.plan(*where, profile=("--profile", "profiles/slurm"))
    assert plan.counts == expected(catalog.load({"scale": "paper", "experiments": ["all"]}))


def test_names_in_the_slurm_profile(shipped):
    profile = config_of(shipped, "profiles/slurm/profile.yaml")
    assert profile["executor"] == "slurm"
    assert profile["configfile"] == "paper.yaml"
    options = {key.removeprefix("slurm-") for key in profile if key.startswith("slurm-")}
    assert options <= PLUGIN_OPTIONS
    known = {*shipped.run("snakemake", "--list-rules").stdout.split()}
    for key in ("set-resources", "set-threads", "groups"):
        assert set(profile.get(key, {})) <= known


@pytest.mark.parametrize("name", ["local", "slurm"])
def test_habits_of_profiles(shipped, name):
    profile = config_of(shipped, f"profiles/{name}/profile.yaml")
    assert profile["rerun-triggers"] == ["mtime", "params", "input"]
    for key in ("keep-going", "rerun-incomplete", "printshellcmds", "show-failed-logs"):
        assert profile[key] is True
    assert profile["benchmark-extended"] is True
    assert profile["scheduler"] == "greedy"


def test_no_profile_loads_by_itself(shipped):
    assert not (shipped.folder / "profiles" / "default").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sclae": "paper"}, "unknown key 'sclae'; did you mean 'scale'?"),
        ({"experiments": ["conditionning"]}, "did you mean 'conditioning'?"),
        ({"experiments": ["mine.yaml"]}, "mine.yaml: no such file"),
        ({"scale": "papre"}, "allowed: paper, quick"),
        ({"threads": "2"}, "threads: input should be a valid integer, not '2'"),
        ({"set": {"train.lr": "fast"}}, "train.lr"),
        ({"set": {"train.learning_rate": 0.1}}, "unknown setting 'train.learning_rate'"),
        ({"select": {"quick": {"demo": {"data.size": 7}}}}, "select"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_config_is_one_line(checkout, config, message):
    checkout.write("other.yaml", config)
    done = checkout.run("snakemake", "-n", "--cores", "1", "--configfile", "other.yaml")
    _assert_one_error(done, message)


def test_wrong_experiment_is_one_line(checkout):
    figures = {"report": {"plot": "curve"}}
    content = {"title": "Mine", "runs": [{"data.size": 1000}], "figures": figures}
    checkout.write("mine.yaml", content)
    done = checkout.run("snakemake", "-n", "--cores", "1", "--config", "experiments=mine.yaml")
    _assert_one_error(done, "figure report: is the name of a rule")


def test_numbers_that_arrive_as_text(shipped):
    (shipped.folder / "other.yaml").write_text("set: {train.lr: 1e-4}\n")  # text in YAML 1.1
    assert "--set=train.lr=0.0001" in shipped.plan("--configfile", "other.yaml").output
    assert "--record=700" in shipped.plan("--config", "set={train.epochs: 700}").output


def test_a_figure_that_is_not_selected(shipped):
    done = shipped.run("snakemake", "-n", "--profile", "profiles/local", "fig1c")
    assert done.returncode == 1
    assert "fig1c needs the experiment data_size" in done.stdout


@pytest.mark.parametrize("name", ["none/run.yaml", "none/other/summary.parquet"])
def test_a_run_that_is_not_selected(shipped, name):
    done = shipped.run(
        "snakemake", "-n", "--profile", "profiles/local", f"results/quick/runs/{name}"
    )
    assert done.returncode == 1
    run = name.partition("/")[0]
    assert f"{run}: is not among what the config selects" in done.stdout


def test_a_folder_that_does_not_exist(checkout):
    settings = {"data.dataset": "folder", "data.path": "nowhere"}
    content = {"title": "Mine", "scaled": False, "set": settings, "runs": [{"data.size": 10}]}
    checkout.write("mine.yaml", content)
    done = checkout.run(
        "snakemake", "-n", "--profile", "profiles/local", "--config", "experiments=mine.yaml"
    )
    assert done.returncode == 1
    assert "Missing input files" in done.stdout
    assert "nowhere" in done.stdout


def _assert_one_error(done, message: str) -> None:
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stdout
    errors = [line for line in done.stdout.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stdout
    assert message in errors[0]
