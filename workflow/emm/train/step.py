"""One update of a network on its training set: Adam's step and the EMA's."""

import torch
from torch import Tensor

from emm.diffusion.precondition import to_unit
from emm.seeds import derive
from emm.train.augment import augmented
from emm.train.gradients import Batch, Gradients, Trainable
from emm.train.order import DataOrder
from emm.train.state import Plan, State, initial_state
from emm.train.team import ALONE, Team

FP16_LOSS_SCALE = 100.0  # static, as in EDM's fp16 training


def begin(
    denoiser: Trainable,
    images: Tensor,
    labels: Tensor | None,
    plan: Plan,
    team: Team = ALONE,
) -> tuple[State, "Step"]:
    """The state before the first step of a training and what advances it; dropout is on."""
    tensor_cores = plan.settings.precision != "fp32"
    state = initial_state(denoiser.network, plan, channels_last=tensor_cores)
    denoiser.train()
    return state, Step(denoiser, images, labels, plan, state, team)


class Step:
    """Advances a state by one update; every draw is seeded by (run seed, purpose, step).

    denoiser: on its device; images (N, C, H, W) uint8 and labels (N,) int64 or None beside it;
    state: of the denoiser's network. Several processes compute the rows of a batch that the team
    gives them. Nothing here waits for a GPU.
    """

    def __init__(
        self,
        denoiser: Trainable,
        images: Tensor,
        labels: Tensor | None,
        plan: Plan,
        state: State,
        team: Team = ALONE,
    ) -> None:
        settings, device = plan.settings, images.device
        shuffled = settings.order == "shuffled"
        self.denoiser, self.images, self.labels = denoiser, images, labels
        self.plan, self.team = plan, team
        self.order = DataOrder(
            len(images), settings.batch_size, settings.seed, device, shuffled=shuffled
        )
        self.generator = torch.Generator(device)
        self.rows = team.part(settings.batch_size)
        self.scale = FP16_LOSS_SCALE if settings.precision == "fp16" else 1.0
        self.gradients = Gradients(
            denoiser, state.flat, settings.batch_size, self.rows, scale=self.scale
        )

    def __call__(self, state: State) -> None:
        """Advance the state by one update."""
        seed = derive(self.plan.settings.seed, "dropout", state.step)
        loss, gradient = self.gradients(self.batch(state.step), seed)
        self.team.add(gradient, loss)
        torch.nan_to_num_(gradient.div_(self.scale), nan=0.0, posinf=1e5, neginf=-1e5)
        state.update(self.plan, gradient, loss)

    def batch(self, step: int) -> Batch:
        """This process' rows of a step's batch, with their noise."""
        settings = self.plan.settings
        self.generator.manual_seed(derive(settings.seed, "noise", step))
        level = self.denoiser.draw_level(settings.batch_size, self.generator)[self.rows]
        shape = (settings.batch_size, *self.images.shape[1:])
        noise = torch.randn(shape, generator=self.generator, device=self.images.device)[self.rows]
        chosen = self.order.batch(step)[self.rows]
        labels = None if self.labels is None else self.labels[chosen]
        images = augmented(self.images[chosen], settings, step, self.rows)
        return Batch(to_unit(images), labels, noise, level)
