"""Copies of the workflow that run at a scale of seconds, away from the repository's own results."""

import collections
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from checkouts import TINY, copy_workflow
from PIL import Image

LOCAL = ("--profile", "profiles/local")
OWN = {
    "title": "Images of my own",
    "recipe": "small",
    "scaled": False,
    "set": {"data.path": "images", "labels.kind": "true", "data.num_classes": 2, "eval.steps": 8},
    "runs": [{"data.size": 12, "train.epochs": 10, "eval.num_samples": 40}],
    "figures": {"own_curve": {"title": "Copies of my images", "plot": "curve", "emm": True}},
}
CONFIG = {
    "scale": "tiny",
    "experiments": ["conditioning", "data_size", "optimum", "experiments/own.yaml"],
    "select": {
        "tiny": {
            "conditioning": [
                {"labels.kind": "none", "data.size": [1000, 2000]},
                {"labels.kind": "unique", "data.size": 1000},
            ],
            "data_size": {"data.size": [1000, 2000]},
        },
    },
}


@dataclass(frozen=True)
class Plan:
    """Jobs of a dry run: how many of each rule, and the wildcards of each."""

    output: str
    wildcards: dict[str, list[dict[str, str]]]

    @property
    def counts(self) -> dict[str, int]:
        """Number of jobs by rule."""
        return {rule: len(jobs) for rule, jobs in self.wildcards.items()}

    @property
    def nothing(self) -> bool:
        """Whether Snakemake says that there is nothing to do."""
        return "Nothing to be done" in self.output and not self.wildcards

    def runs(self, rule: str) -> set[str]:
        """Runs that have a job of a rule."""
        return {job["run"] for job in self.wildcards.get(rule, [])}


@dataclass(frozen=True)
class Project:
    """A checkout of the workflow in a folder of its own."""

    folder: Path

    @property
    def results(self) -> Path:
        """Results at the tiny scale."""
        return self.folder / "results" / "tiny"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a shell in which this checkout is the installed one."""
        variables = {k: v for k, v in os.environ.items() if not k.startswith("SNAKEMAKE")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{variables.get('PATH', '')}"
        python_path = [str(self.folder / "workflow"), variables.get("PYTHONPATH", "")]
        return variables | {
            "PATH": path,
            "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
            "COLUMNS": "200",
        }

    def run(self, *command: str, timeout: float = 300) -> subprocess.CompletedProcess:
        """Run a command in the folder; output and errors come together."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )

    def snakemake(self, *options: str, profile: tuple[str, ...] = LOCAL) -> str:
        """Output of a Snakemake call that must succeed."""
        done = self.run("snakemake", *profile, *options)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def plan(self, *options: str, profile: tuple[str, ...] = LOCAL) -> Plan:
        """Jobs that a call would run."""
        output = self.snakemake("--dry-run", *options, profile=profile)
        jobs: dict[str, list[dict[str, str]]] = collections.defaultdict(list)
        for rule, text in re.findall(r"^ *(?:local)?rule (\w+):\n((?:    .*\n)*)", output, re.M):
            found = re.search(r"^ +wildcards: (.*)$", text, re.M)
            pairs = (pair.split("=", 1) for pair in found[1].split(", ")) if found else ()
            jobs[rule].append(dict(pairs))
        return Plan(output, dict(jobs))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text that stands once in a file."""
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name}: {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new))

    def write(self, name: str, content: dict) -> None:
        """Write a YAML file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    def configure(self, **changed: object) -> None:
        """Write config.yaml: the tiny selection with some keys replaced."""
        self.write("config.yaml", CONFIG | changed)

    def clone(self, folder: Path) -> "Project":
        """A copy with all results and their provenance, but without weights."""
        ignored = shutil.ignore_patterns("*.safetensors", "__pycache__", "log")
        shutil.copytree(self.folder, folder, symlinks=True, ignore=ignored)
        return Project(folder)


def check_out(folder: Path) -> Project:
    """A checkout of the workflow in a folder."""
    copy_workflow(folder)
    return Project(folder)


def make_tiny(project: Project) -> Project:
    """Give a checkout the tiny scale, an experiment of a user's own, and its images."""
    project.write("workflow/scales/tiny.yaml", TINY)
    project.write("experiments/own.yaml", OWN)
    project.configure()
    generator = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (project.folder / "images" / kind).mkdir(parents=True)
        for number in range(8):
            pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(project.folder / "images" / kind / f"{number}.png")
    return project


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The workflow as it is shipped; not to be changed."""
    return check_out(tmp_path_factory.mktemp("shipped"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout whose SLURM profile plans here: without the plugin, its options are left out."""
    project = check_out(tmp_path_factory.mktemp("cluster"))
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        name = "profiles/slurm/profile.yaml"
        profile = yaml.safe_load((project.folder / name).read_text())
        kept = {k: v for k, v in profile.items() if k != "executor" and not k.startswith("slurm-")}
        project.write(name, kept | {"cores": 1})
    return project


@pytest.fixture
def checkout(tmp_path: Path) -> Project:
    """The workflow as it is shipped, to be changed by one test."""
    return check_out(tmp_path / "checkout")


@pytest.fixture
def tiny(tmp_path: Path) -> Project:
    """The workflow at the tiny scale, nothing computed."""
    return make_tiny(check_out(tmp_path / "tiny"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny workflow after one complete run; not to be changed."""
    project = make_tiny(check_out(tmp_path_factory.mktemp("finished")))
    project.snakemake()
    return project


@pytest.fixture
def clone(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished tiny workflow, to be changed by one test."""
    return finished.clone(tmp_path / "clone")
