"""Every job of a plan with what it asks for, takes and writes, and what it waits for.

The rules of the workflow ask here for their resources, so that a plan shows what is submitted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from emm.catalog import Catalog
from emm.data.catalogue import source_info
from emm.documents import Plan
from emm.plan.cost import (
    components,
    network,
    sampling_seconds,
    scoring_seconds,
    training_seconds,
)
from emm.plan.gpus import find_gpu
from emm.runs import Evaluation, Run
from emm.sd import TINY
from emm.train.schedules import training_size

SPARE = 1.5  # what is asked for, over what is expected: speeds are estimates
LEAST_MINUTES = {"train": 60, "sample": 60, "score": 60}
SCORE_BYTES = 20  # of a sample in the table of scores
MAX_SOURCE = 60_000  # images of a source whose number nobody knows


@dataclass(frozen=True)
class Job:
    """A job of the workflow. Times in seconds, sizes in bytes.

    seconds: expected, over all its allocations; minutes: what each allocation is asked for.
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


class Requests:
    """What the jobs of runs ask for, on the GPU of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.gpu = plan, find_gpu(plan.gpu)

    def train(self, run: Run) -> Job:
        """The training of a run."""
        work = training_seconds(run, self.gpu)
        return self._job("train", run, run.id, work, mem_mb=64000 if _is_large(run) else 8000)

    def sample(self, run: Run, evaluation: Evaluation) -> Job:
        """The sampling of an evaluation."""
        work, name = sampling_seconds(evaluation, self.gpu), f"{run.id}/{evaluation.id}"
        return self._job("sample", run, name, work, mem_mb=24000 if _is_large(run) else 8000)

    def score(self, run: Run, evaluation: Evaluation) -> Job:
        """The scoring of an evaluation."""
        work, name = scoring_seconds(evaluation, self.gpu), f"{run.id}/{evaluation.id}"
        return self._job("score", run, name, work, mem_mb=24000 if _is_large(run) else 8000)

    def _job(self, rule: str, run: Run, name: str, work: float, mem_mb: int) -> Job:
        """A job that may take several allocations, each as long as the cluster grants at most."""
        needs_gpu = run.takes_gpu and (rule != "train" or run.is_trained)
        start, longest = self.gpu.start_seconds, 60 * self.plan.hours
        wanted = math.ceil((SPARE * work + start) / 60)
        minutes = min(max(wanted, LEAST_MINUTES[rule]), int(longest))
        allocations = max(1, math.ceil(work / (60 * minutes - start))) if work else 1
        return Job(
            rule,
            name,
            work + allocations * start,
            minutes,
            mem_mb,
            gpus=int(needs_gpu and self.gpu.gpu),
            allocations=allocations,
            run=run.id,
            experiments=tuple(sorted(run.experiments)),
        )


def _is_large(run: Run) -> bool:
    """Whether a run has the 860 million parameters of Stable Diffusion."""
    return run.settings["model.base"] not in (None, TINY)


def all_jobs(catalog: Catalog) -> list[Job]:
    """All jobs of a catalog, each after those that it waits for."""
    requests = Requests(catalog.config.plan)
    jobs = [*_data_jobs(catalog), *_subset_jobs(catalog)]
    for run in catalog.runs.values():
        jobs += _run_jobs(run, requests)
    return [*jobs, *_result_jobs(catalog)]


def _data_jobs(catalog: Catalog) -> Iterator[Job]:
    for name, settings in catalog.sources.items():
        size = source_info(settings["data.dataset"]).size or MAX_SOURCE
        final = float(size * components(settings))
        yield Job("data", name, 60, 60, 4000, final=final)


def _subset_jobs(catalog: Catalog) -> Iterator[Job]:
    for name, run in catalog.subsets.items():
        sources = [run.source_id, *filter(None, [run.dummy_id])]
        final = float(training_size(run.settings) * components(run.settings))
        needs = tuple(("data", source) for source in sources)
        yield Job("subset", name, 10, 30, 4000, final=final, needs=needs)


def _run_jobs(run: Run, requests: Requests) -> Iterator[Job]:
    weights = 4 * network(run.settings).parameters
    train = requests.train(run)
    yield replace(
        train,
        final=weights * len(run.ema) * len(run.snapshots) if run.is_trained else 0,
        passing=2 * weights * (3 + len(run.ema)) if run.is_trained else 0,
        needs=(("subset", run.subset_id),),
    )
    for evaluation in run.evaluations.values():
        images = evaluation.settings["eval.num_samples"] * len(evaluation.steps)
        sample = requests.sample(run, evaluation)
        yield replace(sample, passing=float(images * components(run.settings)), needs=(train.key,))
        score = requests.score(run, evaluation)
        yield replace(score, final=float(images * SCORE_BYTES), needs=(sample.key,))


def _result_jobs(catalog: Catalog) -> Iterator[Job]:
    """Tables, figures and the report."""
    scores = {name: [] for name in catalog.experiments}
    for row in catalog.rows:
        scores[row.experiment].append(("score", row.key))
    for name, keys in scores.items():
        needs = tuple(dict.fromkeys(keys))
        yield Job("experiment_tables", name, 10, 30, 4000, experiments=(name,), needs=needs)
    everything = tuple(dict.fromkeys(key for keys in scores.values() for key in keys))
    yield Job("tables", "all", 20, 30, 4000, needs=everything)
    yield Job("replication", "all", 60, 30, 4000, needs=(("tables", "all"),))
    for name, planned in catalog.figures.items():
        about = (planned.experiment,)
        needs = (("experiment_tables", planned.experiment),)
        yield Job("figure", name, 10, 10, 2000, experiments=about, needs=needs)
    figures = tuple(("figure", name) for name in catalog.figures)
    yield Job("pages", "all", 20, 60, 4000, needs=(("replication", "all"), *figures))
    yield Job("report", "all", 60, 60, 4000, needs=(("pages", "all"),))
