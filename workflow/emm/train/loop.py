"""The training loop, as published: fixed data order, epoch-wise ramps, EMA per step."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from emm.diffusion.precondition import to_unit
from emm.errors import Interrupted, UserError
from emm.nets.dropout import share_dropout
from emm.seeds import derive
from emm.spec import Train
from emm.train import METRICS, checkpoint
from emm.train.flat import Adam, FlatParameters
from emm.train.order import DataOrder
from emm.train.schedules import annealed, ema_rate, epoch_of, warmup_factor
from emm.train.team import ALONE, Team

FP16_LOSS_SCALE = 100.0  # static, as in EDM's fp16 training
METRIC_ROWS = 200


class Trainable(Protocol):
    """A network and what it is trained for: levels of noise, and the loss at them."""

    network: nn.Module

    def draw_level(self, count: int, generator: torch.Generator) -> Tensor:
        """Levels of noise (count,) of a batch."""

    def loss(self, images: Tensor, labels: Tensor | None, noise: Tensor, level: Tensor) -> Tensor:
        """Loss of clean images (B, C, H, W), a scalar."""

    def train(self) -> nn.Module:
        """Switch dropout on."""


@dataclass(frozen=True)
class Plan:
    """What a training computes and what it records.

    identity: digest of all that decides the trajectory; size: training images; ema: rates tracked
    side by side; snapshots: ascending steps whose EMA weights are kept, the last is the end; until:
    Unix time at which a training that is not done saves its state and stops.
    """

    identity: str
    settings: Train
    size: int
    ema: tuple[float, ...]
    snapshots: tuple[int, ...]
    save_seconds: float = 300.0
    until: float = math.inf

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.snapshots[-1]

    def epoch(self, step: int) -> float:
        """Passes over the training set after a step."""
        return epoch_of(step, self.size, self.settings.batch_size)

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        settings = self.settings
        if settings.warmup_steps:
            ramp = min(step / settings.warmup_steps, 1.0)
        else:
            ramp = warmup_factor(step * settings.batch_size, self.size, settings.warmup_epochs)
        annealing = annealed(settings.lr_schedule, step, self.steps, settings.warmup_steps)
        return settings.lr * ramp * annealing

    def ema_decay(self, rate: float, step: int) -> float:
        """Share of an average that a step, counted from 0, leaves as it was."""
        settings = self.settings
        if settings.ema_ramp == "none":
            return rate
        if settings.ema_ramp == "steps":
            return min(rate, (1 + step) / (10 + step)) if step else 0.0
        seen = step * settings.batch_size
        return ema_rate(rate, seen, self.size, settings.batch_size, settings.warmup_epochs)


@dataclass
class State:
    """Everything that a step changes; what is saved and resumed."""

    flat: FlatParameters
    optimizer: Adam
    averages: dict[float, Tensor]
    loss_sum: Tensor
    step: int = 0
    logged_step: int = 0
    seconds: float = 0.0
    metrics: list[list[float]] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """The last row of metrics in words."""
        if not self.metrics:
            return ""
        _, epoch, loss, _, _, rate = self.metrics[-1]
        return f"epoch {epoch:.0f}, loss {loss:.4g}, {rate:,.0f} images/s"


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
    settings, device = plan.settings, images.device
    shuffled = settings.order == "shuffled"
    order = DataOrder(plan.size, settings.batch_size, settings.seed, device, shuffled=shuffled)
    generator = torch.Generator(images.device)
    share_dropout(denoiser.network, settings.batch_size, team)

    def advance(state: State) -> None:
        chosen = order.batch(state.step)[team.part(settings.batch_size)]
        batch_labels = None if labels is None else labels[chosen]
        _step(denoiser, to_unit(images[chosen]), batch_labels, state, plan, generator, team)

    denoiser.train()
    return repeat(advance, initial_state(denoiser.network, plan), plan, folder, report, team)


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


def _step(
    denoiser: Trainable,
    clean: Tensor,
    labels: Tensor | None,
    state: State,
    plan: Plan,
    generator: torch.Generator,
    team: Team,
) -> None:
    """One optimiser step and EMA update; every draw is seeded by (run seed, purpose, step).

    clean, labels: this process' part of the batch.
    """
    settings, count = plan.settings, plan.settings.batch_size
    generator.manual_seed(derive(settings.seed, "noise", state.step))
    torch.manual_seed(derive(settings.seed, "dropout", state.step))
    part = team.part(count)
    level = denoiser.draw_level(count, generator)[part]
    noise = torch.randn((count, *clean.shape[1:]), generator=generator, device=clean.device)[part]
    loss = denoiser.loss(clean, labels, noise, level)
    if team.size > 1:
        loss = loss * (len(clean) / count)
    scale = FP16_LOSS_SCALE if settings.precision == "fp16" else 1.0
    gradient, loss = state.flat.differentiate(loss * scale), loss.detach()
    team.add(gradient, loss)
    torch.nan_to_num_(gradient.div_(scale), nan=0.0, posinf=1e5, neginf=-1e5)
    state.optimizer.step(gradient, plan.learning_rate(state.step))
    for rate, average in state.averages.items():
        average.lerp_(state.flat.values, 1 - plan.ema_decay(rate, state.step))
    state.loss_sum += loss
    state.step += 1


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


def initial_state(network: nn.Module, plan: Plan, decoupled: bool = False) -> State:
    """The state before the first step. decoupled: whether the weight decay is that of AdamW."""
    flat = FlatParameters(network)
    optimizer = Adam(flat.values, plan.settings.weight_decay, decoupled)
    averages = {rate: flat.values.clone() for rate in plan.ema}
    loss_sum = torch.zeros((), dtype=torch.float64, device=flat.values.device)
    return State(flat, optimizer, averages, loss_sum)


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
