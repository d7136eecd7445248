"""What a training computes, and all that a step of it changes."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from emm.spec import Train
from emm.train.flat import Adam, FlatParameters
from emm.train.schedules import annealed, ema_rate, epoch_of, warmup_factor


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

    def update(self, plan: Plan, gradient: Tensor, loss: Tensor) -> None:
        """Adam's step by a flat gradient and the EMA's, as a plan has them at this step."""
        self.optimizer.step(gradient, plan.learning_rate(self.step))
        for rate, average in self.averages.items():
            average.lerp_(self.flat.values, 1 - plan.ema_decay(rate, self.step))
        self.loss_sum += loss
        self.step += 1


def initial_state(
    network: nn.Module, plan: Plan, *, decoupled: bool = False, channels_last: bool = False
) -> State:
    """The state before the first step.

    decoupled: whether the weight decay is that of AdamW; channels_last: order of the weights.
    """
    flat = FlatParameters(network, channels_last=channels_last)
    optimizer = Adam(flat.values, plan.settings.weight_decay, decoupled)
    averages = {rate: flat.values.clone() for rate in plan.ema}
    loss_sum = torch.zeros((), dtype=torch.float64, device=flat.values.device)
    return State(flat, optimizer, averages, loss_sum)
