"""A small scale of results with logs and benchmarks that are written by hand."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emm import catalog
from emm.catalog import Catalog

DAY = 1.7e9  # a day in 2023, as Unix time
GPU = {"gpu": "NVIDIA A100", "gpu_percent": 80.0, "peak_gpu_memory_mb": 20_000.0}


@dataclass(frozen=True)
class Results:
    """A folder of results at the paper scale, into which attempts are written."""

    catalog: Catalog

    @property
    def config(self) -> str:
        """Its config, as a command takes it."""
        return self.catalog.config.model_dump_json()

    @property
    def root(self) -> Path:
        """Folder of its scale."""
        return self.catalog.root

    def log(self, rule: str, name: str, start: float, hours: float, **facts: Any) -> Path:
        """Append an attempt of one line: start in hours of the day. On a GPU of node1, by default.

        The line is that of a process that has ended; outcome None says that it was killed.
        """
        path = self.root / "usage" / rule / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = DAY + 3600 * start
        line = {"attempt": f"{rule}-{start}", "host": "node1", "pid": 1, "started": start}
        line |= {"slurm_job": "7", "start": start, "time": start + 3600 * hours}
        line |= {"cpu_seconds": 1800 * hours, "peak_memory_mb": 4000.0, "gpu_id": "GPU-a", **GPU}
        line |= {"outcome": "finished"} | facts
        with path.open("a") as stream:
            stream.write(f"{json.dumps(line)}\n")
        return path

    def benchmark(
        self, rule: str, name: str, written: float, seconds: float, given: Any = (), **facts: Any
    ) -> Path:
        """Write what Snakemake leaves of a job; written: hours of the day at which it does so."""
        path = self.root / "benchmarks" / rule / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        resources = {"gpu": 1, "runtime": 120, "mem_mb": 16000} | dict(given)
        line = {"s": seconds, "max_rss": 5000.0, "cpu_time": seconds, "resources": resources}
        path.write_text(json.dumps(line | facts) + "\n")
        os.utime(path, (DAY + 3600 * written,) * 2)
        return path

    def done(self, run: str, evaluation: str) -> None:
        """Leave the results of a run and its evaluation, as far as a plan looks for them."""
        folder = self.catalog.evaluation_folder(run, evaluation)
        folder.mkdir(parents=True)
        (folder.parent / "run.yaml").touch()
        (folder / "summary.parquet").touch()


@pytest.fixture
def make(tmp_path) -> Callable[[str], Results]:
    """Results of experiments: make("optimum")."""

    def results(experiments: str) -> Results:
        config = {"scale": "paper", "experiments": experiments, "results": str(tmp_path)}
        return Results(catalog.load(config))

    return results


@pytest.fixture
def results(make) -> Results:
    """Results of the training seeds, with no attempt yet."""
    return make("seeds")


@pytest.fixture
def keys(results) -> list[tuple[str, str]]:
    """Ids of the runs and their only evaluations."""
    return list(results.catalog.evaluations)
