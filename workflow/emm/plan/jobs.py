"""Every job of a plan with what it asks for, takes and writes, and what it waits for.

The rules of the workflow ask here for their resources, so that a plan shows what is submitted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from emm.catalog import Catalog
from emm.data.catalogue import source_info
from emm.documents import Config
from emm.measure import AFTER, MEASURES, is_measured
from emm.plan.cost import (
    components,
    criteria_seconds,
    features_seconds,
    ideals_seconds,
    network,
    quality_seconds,
    sampling_seconds,
    scoring_seconds,
    training_seconds,
    twins_seconds,
)
from emm.plan.gpus import find_gpu
from emm.runs import Evaluation, Run
from emm.sd import TINY
from emm.train.schedules import stored_size

SHARED = 0.9  # of what a GPU does alone, where several share a training: an estimate
SPARE = 1.5  # what is asked for, over what is expected: speeds are estimates
LEAST_MINUTES = 60
MEMORY = {  # MB
    **{"train": (8000, 64000), "sample": (8000, 24000), "score": (8000, 24000)},
    **{"ideals": (12000, 12000), "criteria": (8000, 24000), "twins": (8000, 24000)},
    **{"features": (8000, 8000), "quality": (16000, 16000)},
}
SECONDS = {
    "train": training_seconds,
    "sample": sampling_seconds,
    "score": scoring_seconds,
    "ideals": ideals_seconds,
    "features": features_seconds,
    "criteria": criteria_seconds,
    "twins": twins_seconds,
}
SCORE_BYTES = 20  # of a sample in the table of scores
MAX_SOURCE = 60_000  # images of a source whose number nobody knows


@dataclass(frozen=True)
class Job:
    """A job of the workflow. Times in seconds, sizes in bytes.

    seconds: expected, over all its allocations; minutes: what each allocation is asked for, with
    mem_mb, threads and gpus.
    final: bytes that stay; passing: bytes that lie there while it, or what waits for it, runs.
    """

    rule: str
    name: str
    seconds: float
    minutes: int
    mem_mb: int
    threads: int = 1
    gpus: int = 0
    allocations: int = 1
    final: float = 0.0
    passing: float = 0.0
    run: str = ""
    experiments: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = field(default=())

    @property
    def key(self) -> tuple[str, str]:
        """Rule and name."""
        return self.rule, self.name

    @property
    def gpu_hours(self) -> float:
        """GPU-hours that it is expected to take."""
        return self.gpus * self.seconds / 3600


class Small(NamedTuple):
    """What a job without a GPU takes and asks for, whatever it is about."""

    seconds: float
    minutes: int
    mem_mb: int


SMALL = {
    "data": Small(60, 60, 4000),
    "subset": Small(10, 30, 4000),
    "experiment_tables": Small(10, 30, 4000),
    "measure_table": Small(10, 30, 4000),
    "tables": Small(20, 30, 4000),
    "replication": Small(60, 30, 4000),
    "usage": Small(10, 10, 2000),
    "advice": Small(10, 10, 2000),
    "figure": Small(10, 10, 2000),
    "pages": Small(20, 60, 4000),
    "report": Small(60, 60, 4000),
}


class Requests:
    """What the jobs of runs ask for, on the GPU of a config's plan."""

    def __init__(self, config: Config) -> None:
        self.plan, self.threads = config.plan, config.threads
        self.gpu = find_gpu(config.plan.gpu)
        self.seconds = SECONDS | {"quality": partial(quality_seconds, features=config.features)}
        self._known: dict[tuple[str, str], Job] = {}

    def job(self, rule: str, run: Run, evaluation: Evaluation | None = None) -> Job:
        """The training of a run, or the sampling or scoring of one of its evaluations."""
        name = f"{run.id}/{evaluation.id}" if evaluation else run.id
        if (rule, name) not in self._known:  # Snakemake asks for each resource by itself
            self._known[rule, name] = self._job(rule, name, run, evaluation)
        return self._known[rule, name]

    def _job(self, rule: str, name: str, run: Run, evaluation: Evaluation | None) -> Job:
        """A job that may take several allocations, each as long as the cluster grants at most.

        Sampling leaves time for the scoring that follows in the same one.
        """
        work = self.seconds[rule](evaluation or run, self.gpu)
        needs_gpu = run.takes_gpu and (rule != "train" or run.is_trained) and self.gpu.gpu
        gpus = self._gpus(work) if needs_gpu and rule == "train" and not is_large(run) else 1
        work /= SHARED * gpus if gpus > 1 else 1
        start, longest = self.gpu.start_seconds, int(60 * self.plan.hours)
        least = min(LEAST_MINUTES, longest // 2)
        most = {"train": longest, "score": least}.get(rule, longest - least)
        wanted = math.ceil((SPARE * work + start) / 60)
        minutes = min(max(wanted, least), most)
        allocations = max(1, math.ceil(work / (60 * minutes - start))) if work else 1
        return Job(
            rule,
            name,
            work + allocations * start,
            minutes,
            MEMORY[rule][is_large(run)] * gpus,
            self.threads * gpus,
            gpus=gpus if needs_gpu else 0,
            allocations=allocations,
            run=run.id,
            experiments=tuple(sorted(run.experiments)),
        )

    def _gpus(self, seconds: float) -> int:
        """GPUs that a training takes which would take so long on one of them."""
        count, longest = 1, 3600 * self.plan.run_hours
        while 2 * count <= self.plan.gpus_per_run and seconds / count > longest:
            count *= 2
        return count


def is_large(run: Run) -> bool:
    """Whether a run has the 860 million parameters of Stable Diffusion."""
    return run.settings["model.base"] not in (None, TINY)


def all_jobs(catalog: Catalog) -> list[Job]:
    """All jobs of a catalog, each after those that it waits for."""
    requests = Requests(catalog.config)
    jobs = [*_data_jobs(catalog), *_subset_jobs(catalog)]
    for run in catalog.runs.values():
        jobs += _run_jobs(run, requests)
    jobs += _measure_jobs(catalog, requests)
    return [*jobs, *_result_jobs(catalog)]


def _data_jobs(catalog: Catalog) -> Iterator[Job]:
    threads = catalog.config.threads
    for name, settings in catalog.sources.items():
        size = source_info(settings["data.dataset"]).size or MAX_SOURCE
        final = float(size * components(settings))
        yield Job("data", name, *SMALL["data"], threads, final=final)


def _subset_jobs(catalog: Catalog) -> Iterator[Job]:
    for name, run in catalog.subsets.items():
        sources = [run.source_id, *filter(None, [run.dummy_id])]
        final = float(stored_size(run.settings) * components(run.settings))
        needs = tuple(("data", source) for source in sources)
        yield Job("subset", name, *SMALL["subset"], final=final, needs=needs)


def _run_jobs(run: Run, requests: Requests) -> Iterator[Job]:
    weights = 4 * network(run.settings).parameters
    train = requests.job("train", run)
    yield replace(
        train,
        final=weights * len(run.ema) * len(run.snapshots) if run.is_trained else 0,
        passing=2 * weights * (3 + len(run.ema)) if run.is_trained else 0,
        needs=(("subset", run.subset_id),),
    )
    for evaluation in run.evaluations.values():
        images = evaluation.settings["eval.num_samples"] * len(evaluation.steps)
        sample = requests.job("sample", run, evaluation)
        yield replace(sample, passing=float(images * components(run.settings)), needs=(train.key,))
        score = requests.job("score", run, evaluation)
        yield replace(score, final=float(images * SCORE_BYTES), needs=(sample.key,))


def _measure_jobs(catalog: Catalog, requests: Requests) -> Iterator[Job]:
    """What else is measured of evaluations, and the features that it takes."""
    for name, run in catalog.features.items():
        job = requests.job("features", run)
        about = {"name": name, "run": "", "experiments": ()}
        yield replace(job, **about, needs=(("data", run.source_id),))
    for measure in MEASURES:
        for key in catalog.measured(measure):
            run, evaluation = catalog.runs[key[0]], catalog.evaluations[key]
            stage = AFTER[measure]
            taken = requests.job(stage, run, evaluation if stage != "train" else None)
            needs = [taken.key, ("data", run.source_id)]
            if measure == "twins":
                needs[1] = ("sample", "/".join(catalog.twin(*key)))
            if measure == "quality" and run.features_id in catalog.features:
                needs.append(("features", run.features_id))
            yield replace(requests.job(measure, run, evaluation), needs=tuple(needs))


def _result_jobs(catalog: Catalog) -> Iterator[Job]:
    """Tables, figures and the report."""
    scores = {name: [] for name in catalog.experiments}
    for row in catalog.rows:
        scores[row.experiment].append(("score", row.key))
        measures = catalog.experiments[row.experiment].measures
        asked = (measure for measure in measures if is_measured(measure, row.settings))
        scores[row.experiment] += [(measure, row.key) for measure in asked]
    for name, keys in scores.items():
        needs = tuple(dict.fromkeys(keys))
        yield Job(
            "experiment_tables", name, *SMALL["experiment_tables"], experiments=(name,), needs=needs
        )
    everything = tuple(dict.fromkeys(key for keys in scores.values() for key in keys))
    yield Job("tables", "all", *SMALL["tables"], needs=everything)
    for name in ("replication", "usage", "advice"):
        yield Job(name, "all", *SMALL[name], needs=(("tables", "all"),))
    made: set[tuple[str, str]] = set()
    for name, planned in catalog.figures.items():
        about = (planned.experiment,)
        needs = [("experiment_tables", planned.experiment)]
        for measure in planned.tables:
            table = ("measure_table", f"{planned.experiment}/{measure}")
            needs.append(table)
            if table not in made:
                made.add(table)
                found = catalog.measured(measure, planned.experiment)
                sources = tuple((measure, f"{run}/{name}") for run, name in found)
                yield Job(*table, *SMALL["measure_table"], experiments=about, needs=sources)
        yield Job("figure", name, *SMALL["figure"], experiments=about, needs=tuple(needs))
    figures = tuple(("figure", name) for name in catalog.figures)
    yield Job("pages", "all", *SMALL["pages"], needs=(("replication", "all"), *figures))
    needs = ("pages", "all"), ("advice", "all")
    yield Job("report", "all", *SMALL["report"], needs=needs)
