"""What an account comes to: in all, by rule, experiment and figure, and what stands out."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from emm.attempts import FINISHED
from emm.plan.jobs import LEAST_MINUTES, Job
from emm.planned import PlannedFigure
from emm.usage.account import Account, Attempt
from emm.usage.records import KILLED, RUNNING, Key

MUCH = 4.0  # times as much asked for as used
MUCH_HOURS, MUCH_MB = 2.0, 16_000.0  # and so much of it in vain
USES: dict[str, Callable[[Attempt], float | None]] = {
    "minutes": lambda a: a.seconds / 60,
    "requested_minutes": lambda a: a.requested_minutes,
    "mem_mb": lambda a: a.peak_memory_mb,
    "requested_mem_mb": lambda a: a.requested_mem_mb,
    "gpu_percent": lambda a: a.gpu_percent,
    "gpu_memory_mb": lambda a: a.peak_gpu_memory_mb,
    "cpu_percent": lambda a: a.cpu_percent,
}


def total(account: Account) -> dict[str, Any]:
    """All of an account; planned are the same jobs by the plan, finished or not."""
    attempts, planned = account.attempts, account.planned
    outcomes = Counter(attempt.outcome for attempt in attempts)
    return {
        "attempts": len(attempts),
        "jobs": len(planned),
        "finished_jobs": len({a.key for a in attempts if a.outcome == FINISHED}),
        "all_jobs": len(account.jobs),
        "runs": len({attempt.run for attempt in attempts}),
        "outcomes": dict(outcomes.most_common()),
        **_used(attempts),
        **_planned(planned),
        "unlogged_attempts": sum(not attempt.logged for attempt in attempts),
        "undated_attempts": sum(attempt.start is None for attempt in attempts),
        "unknown_jobs": len(account.unknown),
        "attempts_elsewhere": account.elsewhere,
        "gpus_seen": dict(Counter(a.gpu for a in attempts if a.gpu).most_common()),
    }


def _used(attempts: Iterable[Attempt]) -> dict[str, float]:
    attempts = list(attempts)
    return {
        "gpu_hours": sum(attempt.gpu_hours for attempt in attempts),
        "hours": sum(attempt.hours for attempt in attempts),
    }


def _planned(jobs: Iterable[Job]) -> dict[str, float]:
    jobs = list(jobs)
    return {
        "planned_gpu_hours": sum(job.gpu_hours for job in jobs),
        "planned_hours": sum(job.seconds for job in jobs) / 3600,
    }


def by_rule(account: Account) -> list[dict[str, Any]]:
    """A row per rule, in the order of the workflow: hours, and what an attempt asks for and takes.

    The latter as median and maximum over attempts that are over; None where it is not known.
    """
    groups = _grouped(account.attempts, lambda attempt: [attempt.rule])
    order = dict.fromkeys(job.rule for job in account.planned)
    return [
        {
            "rule": rule,
            "jobs": len({attempt.key for attempt in groups[rule]}),
            "attempts": len(groups[rule]),
            "ended_early": sum(_ended_early(attempt) for attempt in groups[rule]),
            **_used(groups[rule]),
            **_planned(job for job in account.planned if job.rule == rule),
            **{name: _spread(groups[rule], use) for name, use in USES.items()},
        }
        for rule in order
    ]


def _ended_early(attempt: Attempt) -> bool:
    return attempt.outcome not in (FINISHED, RUNNING)


def _spread(
    attempts: Iterable[Attempt], use: Callable[[Attempt], float | None]
) -> dict[str, float] | None:
    over = [attempt for attempt in attempts if attempt.outcome != RUNNING]
    values = [value for attempt in over if (value := use(attempt)) is not None]
    return {"median": median(values), "max": max(values)} if values else None


def by_experiment(account: Account) -> list[dict[str, Any]]:
    """A row per experiment, with what no other one needs: a shared run counts in each of them.

    The dearest first, as of figures.
    """
    groups = _grouped(account.attempts, lambda attempt: attempt.experiments)
    rows = [
        {
            "experiment": name,
            "jobs": len({attempt.key for attempt in members}),
            "attempts": len(members),
            **_used(members),
            **_own(a for a in members if len(a.experiments) == 1),
            **_planned(job for job in account.planned if name in job.experiments),
        }
        for name, members in groups.items()
    ]
    return sorted(rows, key=_cost)


def _cost(row: Mapping[str, Any]) -> tuple[float, float]:
    return -row["gpu_hours"], -row["hours"]


def _own(attempts: Iterable[Attempt]) -> dict[str, float]:
    return {f"own_{name}": value for name, value in _used(attempts).items()}


def by_figure(account: Account, figures: Mapping[str, PlannedFigure]) -> list[dict[str, Any]]:
    """A row per figure: all jobs of the evaluations that it shows, and those of no other figure.

    finished_jobs of jobs says how much of it is there.
    """
    needs = {name: figure_jobs(planned) for name, planned in figures.items()}
    shown = Counter(key for keys in needs.values() for key in keys)
    attempts = _grouped(account.attempts, lambda attempt: [attempt.key])
    finished = {a.key for a in account.attempts if a.outcome == FINISHED}
    rows = []
    for name, keys in needs.items():
        own = [key for key in keys if shown[key] == 1]
        rows.append(
            {
                "figure": name,
                "experiment": figures[name].experiment,
                "jobs": len(keys),
                "finished_jobs": len(keys & finished),
                **_used(a for key in keys for a in attempts.get(key, ())),
                **_own(a for key in own for a in attempts.get(key, ())),
            }
        )
    return sorted(rows, key=_cost)


def figure_jobs(planned: PlannedFigure) -> set[Key]:
    """Jobs behind a figure: the trainings of its rows, and the samples and scores."""
    evaluations = {row.key for row in planned.rows}
    return {
        *(("train", row.run_id) for row in planned.rows),
        *((rule, key) for rule in ("sample", "score", *planned.tables) for key in evaluations),
    }


def standing_out(account: Account) -> list[dict[str, Any]]:
    """Jobs that were killed or tried often, or that asked for far more than they took.

    Those with most attempts first, then those that asked for most hours in vain.
    """
    rows = []
    for key, members in _grouped(account.attempts, lambda attempt: [attempt.key]).items():
        often, waste = _often(members, account.jobs[key]), _wasted(members)
        if often or waste:
            vain = sum(_vain_hours(attempt) for attempt in members)
            about = {"rule": key[0], "name": key[1], "attempts": len(members), "vain_hours": vain}
            rows.append(about | {"often": often, "wasted": waste})
    return sorted(rows, key=lambda row: (-row["attempts"], -row["vain_hours"]))


def _often(attempts: Sequence[Attempt], job: Job) -> list[str]:
    killed = sum(attempt.outcome == KILLED for attempt in attempts)
    reasons = [f"killed {_times(killed)}"] if killed else []
    if len(attempts) > job.allocations + 1:
        reasons.append(f"{len(attempts)} attempts, {job.allocations} planned")
    return reasons


def _wasted(attempts: Sequence[Attempt]) -> list[str]:
    """Memory and time that no attempt came near to; the least that is asked for does not count."""
    over = [attempt for attempt in attempts if attempt.outcome == FINISHED]
    reasons = []
    shares = [attempt.memory_share for attempt in over]
    if over and None not in shares and max(shares) < 1 / MUCH:
        asked, used = over[-1].requested_mem_mb, max(a.peak_memory_mb for a in over)
        if asked - used > MUCH_MB:
            reasons.append(f"asked for {asked / 1000:,.0f} GB, took {used / 1000:,.1f}")
    shares = [attempt.time_share for attempt in attempts]
    if over and None not in shares and max(shares) < 1 / MUCH:
        asked, used = over[-1].requested_minutes / 60, max(a.hours for a in attempts)
        if asked > LEAST_MINUTES / 60 and asked - used > MUCH_HOURS:
            reasons.append(f"asked for {asked:,.0f} h, took {duration(3600 * used)}")
    return reasons


def _vain_hours(attempt: Attempt) -> float:
    """Hours that were asked for and not taken."""
    return max((attempt.requested_minutes or 0) / 60 - attempt.hours, 0.0)


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for size, word in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.3g} {word}"
    return f"{seconds:.2g} s"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _grouped(
    attempts: Iterable[Attempt], keys: Callable[[Attempt], Iterable[Any]]
) -> dict[Any, list[Attempt]]:
    groups: dict[Any, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        for key in keys(attempt):
            groups[key].append(attempt)
    return dict(groups)
