"""Training as the papers' code does it, to compare with: fp32 without TF32, eager, channels first,
torch's own Adam on each parameter, and Python loops over the parameters for the EMA and for
gradients that are not finite.
"""

import copy

import torch
from torch import Tensor

from emm.diffusion.precondition import Denoiser
from emm.train.gradients import Batch
from emm.train.state import Plan


class Reference:
    """One network and its EMA; `step` advances both by a batch."""

    def __init__(self, denoiser: Denoiser, plan: Plan) -> None:
        self.network, self.precond = denoiser.network, denoiser.precond
        self.average = copy.deepcopy(self.network).eval()
        self.plan, self.steps = plan, 0
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=plan.settings.lr, eps=1e-8)

    def loss(self, batch: Batch) -> Tensor:
        """lambda(sigma) (D - y)^2, summed over components, mean over the batch."""
        sigma = batch.level.view(-1, 1, 1, 1)
        c_skip, c_out, c_in, c_noise = self.precond.coefficients(sigma)
        noisy = batch.images + sigma * batch.noise
        found = self.network(c_in * noisy, c_noise.flatten(), batch.labels)
        denoised = c_skip * noisy + c_out * found
        weight = self.precond.weight(sigma)
        return (weight * (denoised - batch.images) ** 2).sum() / len(batch)

    def step(self, batch: Batch) -> Tensor:
        """Loss before the step, on its device."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        for parameter in self.network.parameters():
            torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.learning_rate(self.steps)
        self.optimizer.step()
        decay = self.plan.ema_decay(self.plan.ema[0], self.steps)
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for average, parameter in pairs:
                average.copy_(parameter.detach().lerp(average, decay))
        self.steps += 1
        return loss.detach()


@torch.inference_mode()
def sample(denoiser: Denoiser, noise: Tensor, sigmas: list[float]) -> Tensor:
    """Images (B, C, H, W) by Heun's method in float64, the network called eagerly."""
    x = noise.double() * sigmas[0]
    for index, sigma in enumerate(sigmas):
        following = sigmas[index + 1] if index + 1 < len(sigmas) else 0.0
        slope = (x - _denoised(denoiser, x, sigma)) / sigma
        euler = x + (following - sigma) * slope
        if following:
            correction = (euler - _denoised(denoiser, euler, following)) / following
            euler = x + (following - sigma) * (slope + correction) / 2
        x = euler
    return x


def _denoised(denoiser: Denoiser, x: Tensor, sigma: float) -> Tensor:
    level = torch.full((len(x), 1, 1, 1), sigma, device=x.device)
    c_skip, c_out, c_in, c_noise = denoiser.precond.coefficients(level)
    found = denoiser.network(c_in * x.float(), c_noise.flatten(), None)
    return (c_skip * x.float() + c_out * found).double()
