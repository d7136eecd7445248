"""The training loop, as published: fixed data order, epoch-wise ramps, EMA per step."""

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from emm.errors import Interrupted, UserError
from emm.train import METRICS, checkpoint
from emm.train.gradients import Trainable
from emm.train.state import Plan, State
from emm.train.step import begin
from emm.train.team import ALONE, Team

METRIC_ROWS = 200


def train(
    denoiser: Trainable,
    images: Tensor,
    labels: Tensor | None,
    plan: Plan,
    folder: Path,
    report: Callable[[int, str], None] = lambda step, text: None,
    team: Team = ALONE,
) -> State:
    """Train to the end of the plan, resuming from the state in `folder`.

    denoiser: on its device, freshly initialised; images (N, C, H, W) uint8 and labels (N,) int64
    on the same device. Checkpoints and state are written to `folder`; `report` gets the step and a
    text after every step. team: the processes that call this together. On the CPU a training that
    is killed at any moment and resumed ends with bit-identical weights. Raises Interrupted after
    SIGTERM or SIGINT with the state saved, and UserError when the loss is not finite, with the
    last good state kept.
    """
    state, step = begin(denoiser, images, labels, plan, team)
    return repeat(step, state, plan, folder, report, team)


def repeat(
    advance: Callable[[State], None],
    state: State,
    plan: Plan,
    folder: Path,
    report: Callable[[int, str], None] = lambda step, text: None,
    team: Team = ALONE,
) -> State:
    """Repeat a step to the end of the plan, from `state` or the one in `folder`; as `train`.

    advance: one optimiser step, EMA update and `step + 1`, which depend on the state alone.
    """
    if team.leads:
        _remove_leftovers(folder)
        _resume(state, plan, folder)
    _follow(state, team)
    interval = max(1, plan.steps // METRIC_ROWS)
    snapshots = set(plan.snapshots)
    clock = saved = time.monotonic()
    with _stop_signals() as stop:
        while state.step < plan.steps:
            advance(state)
            last = state.step == plan.steps
            stopped = team.agree(bool(stop) or time.time() > plan.until)
            if state.step % interval == 0 or state.step in snapshots:
                state.seconds, clock = state.seconds + time.monotonic() - clock, time.monotonic()
                _log(state, plan)
            report(state.step, state.summary)
            if state.step in snapshots and team.leads:
                _save_checkpoint(state, plan, folder)
            due = stopped or last or time.monotonic() - saved > plan.save_seconds
            if due and team.leads:
                state.seconds, clock = state.seconds + time.monotonic() - clock, time.monotonic()
                _require_finite(state, plan)
                _save_state(state, plan, folder)
                saved = time.monotonic()
            if stopped and not last:
                raise Interrupted(
                    f"{folder}: stopped at step {state.step} of {plan.steps}, state saved; "
                    "run the same command again to go on"
                )
    return state


def _follow(state: State, team: Team) -> None:
    """Go on from the leader's state."""
    if team.size == 1:
        return
    optimizer = state.optimizer
    tensors = (state.flat.values, optimizer.exp_avg, optimizer.exp_avg_sq, optimizer.steps)
    team.follow(iter((*tensors, *state.averages.values(), state.loss_sum)))
    counters = torch.tensor([state.step, state.logged_step, len(state.metrics)])
    team.follow(iter([counters]))
    state.step, state.logged_step, rows = counters.tolist()
    metrics = torch.zeros((rows, len(METRICS)), dtype=torch.float64)
    if team.leads:
        metrics.copy_(torch.tensor(state.metrics, dtype=torch.float64).view(rows, len(METRICS)))
    team.follow(iter([metrics]))
    state.metrics = metrics.tolist()


def _log(state: State, plan: Plan) -> None:
    """Append a row of metrics over the steps since the last one."""
    steps = state.step - state.logged_step
    since = state.seconds - (state.metrics[-1][4] if state.metrics else 0.0)
    state.metrics.append(
        [
            state.step,
            plan.epoch(state.step),
            float(state.loss_sum) / steps,
            plan.learning_rate(state.step - 1),
            state.seconds,
            steps * plan.settings.batch_size / max(since, 1e-9),
        ]
    )
    _require_finite(state, plan)
    state.loss_sum.zero_()
    state.logged_step = state.step


def _require_finite(state: State, plan: Plan) -> None:
    if not bool(torch.isfinite(state.loss_sum)):
        changed = plan.settings.model_dump(exclude_defaults=True)
        settings = ", ".join(f"train.{key}={value}" for key, value in changed.items())
        raise UserError(
            f"loss is not finite in steps {state.logged_step + 1} to {state.step} "
            f"({settings or 'default settings'}); a state saved before them is kept: "
            "lower train.lr or raise train.precision"
        )


def checkpoint_path(folder: Path, step: int) -> Path:
    """File of the EMA weights after a step."""
    return folder / "checkpoints" / f"step-{step:08d}.safetensors"


def _save_checkpoint(state: State, plan: Plan, folder: Path) -> None:
    parameters = dict(state.flat.network.named_parameters())
    tensors = {
        f"buffer.{name}": tensor
        for name, tensor in state.flat.network.state_dict().items()
        if name not in parameters
    }
    for rate, average in state.averages.items():
        named = state.flat.named(average)
        tensors |= {f"ema-{rate}.{name}": tensor for name, tensor in named.items()}
    metadata = {"identity": plan.identity, "step": state.step, "ema": list(plan.ema)}
    checkpoint.save(checkpoint_path(folder, state.step), tensors, metadata)


def _save_state(state: State, plan: Plan, folder: Path) -> None:
    """Write the state; the one before it stays until the new one is whole."""
    tensors = {
        "values": state.flat.values,
        "exp_avg": state.optimizer.exp_avg,
        "exp_avg_sq": state.optimizer.exp_avg_sq,
        "loss_sum": state.loss_sum,
        "metrics": torch.tensor(state.metrics, dtype=torch.float64).view(-1, len(METRICS)),
    } | {f"ema-{rate}": average for rate, average in state.averages.items()}
    metadata = {
        "identity": plan.identity,
        "step": state.step,
        "logged_step": state.logged_step,
        "channels_last": state.flat.channels_last,
        "seconds": state.seconds,
    }
    current, previous = _state_paths(folder)
    if current.exists():
        current.replace(previous)
    checkpoint.save(current, tensors, metadata)
    previous.unlink(missing_ok=True)
    for kept in _kept_states(folder):
        if kept <= _kept_path(folder, state.step):
            kept.unlink()


def _state_paths(folder: Path) -> tuple[Path, Path]:
    return folder / "state.safetensors", folder / "state.previous.safetensors"


def _kept_path(folder: Path, step: int) -> Path:
    return folder / f"state.step-{step:08d}.safetensors"


def _kept_states(folder: Path) -> list[Path]:
    """States of longer trainings that a plan with other records could not go on from."""
    return sorted(folder.glob("state.step-*.safetensors"), reverse=True)


def _resume(state: State, plan: Plan, folder: Path) -> None:
    """Load the furthest whole state that belongs to this plan; say why if there is none.

    A state that cannot serve this plan stays under the name of its step: a plan that it fits may
    be asked for again.
    """
    for path in (*_kept_states(folder), *_state_paths(folder)):
        if not path.exists():
            continue
        try:
            tensors, metadata = checkpoint.load(path)
        except UserError as error:
            _say(f"{error.args[0].split('; ')[0]}: not resumed from it")
            continue
        problem = _mismatch(tensors, metadata, plan, folder)
        if not problem and metadata.get("channels_last", False) != state.flat.channels_last:
            problem = "has its weights in another order"
        if not problem:
            _restore(state, tensors, metadata)
            if state.step in plan.snapshots:
                _record_snapshot(state, plan, folder)
            _say(f"resumed at step {state.step} of {plan.steps}")
            return
        _say(f"{path}: {problem}: not resumed from it")
        if metadata["identity"] == plan.identity:
            path.replace(_kept_path(folder, metadata["step"]))


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while writing have left."""
    for pattern in (".*.tmp", "checkpoints/.*.tmp"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _record_snapshot(state: State, plan: Plan, folder: Path) -> None:
    """Record what an earlier plan had no reason to: it did not ask for this snapshot."""
    if state.logged_step < state.step:
        _log(state, plan)
    _save_checkpoint(state, plan, folder)


def _mismatch(tensors: dict[str, Tensor], metadata: dict, plan: Plan, folder: Path) -> str:
    """Why a saved state cannot be continued to this plan, or an empty text."""
    if metadata["identity"] != plan.identity:
        return "belongs to other settings or images"
    if any(f"ema-{rate}" not in tensors for rate in plan.ema):
        return "lacks an EMA rate that is asked for"
    for step in (s for s in plan.snapshots if s < metadata["step"]):
        if not has_checkpoint(checkpoint_path(folder, step), plan.identity, plan.ema):
            return f"is past step {step}, whose checkpoint is missing"
    return ""


def has_checkpoint(path: Path, identity: str, ema: Iterable[float]) -> bool:
    """Whether a file is a whole checkpoint of a run that holds these EMA rates."""
    try:
        _, metadata = checkpoint.load(path)
    except UserError:
        return False
    return metadata["identity"] == identity and set(ema) <= set(metadata["ema"])


def _restore(state: State, tensors: dict[str, Tensor], metadata: dict) -> None:
    state.flat.values.copy_(tensors["values"])
    state.optimizer.exp_avg.copy_(tensors["exp_avg"])
    state.optimizer.exp_avg_sq.copy_(tensors["exp_avg_sq"])
    state.optimizer.steps.fill_(metadata["step"])
    for rate, average in state.averages.items():
        average.copy_(tensors[f"ema-{rate}"])
    state.loss_sum.copy_(tensors["loss_sum"])
    state.metrics = tensors["metrics"].tolist()
    state.step, state.logged_step = metadata["step"], metadata["logged_step"]
    state.seconds = metadata["seconds"]


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that is non-empty once SIGTERM or SIGINT has arrived."""
    received: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda n, _: received.append(n)) for number in signals}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
