"""Heun's method against Algorithm 1 written down again, and against exact solutions."""

import numpy as np
import pytest
import torch

from emm.diffusion.precondition import karras_sigmas
from emm.diffusion.samplers import heun

MEAN, DEVIATION = 0.3, 0.5


def gaussian(x, sigma, labels=None):
    """Exact denoiser of N(MEAN, DEVIATION^2) images."""
    sigma = sigma.double().view(-1, 1, 1, 1)
    return (DEVIATION**2 * x.double() + sigma**2 * MEAN) / (DEVIATION**2 + sigma**2)


def gaussian_flow(x: torch.Tensor, start: float, end: float) -> torch.Tensor:
    """Exact solution of the probability-flow ODE for that distribution."""
    return MEAN + (x - MEAN) * np.sqrt((DEVIATION**2 + end**2) / (DEVIATION**2 + start**2))


class Recorder:
    """A nonlinear denoiser that remembers its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, sigma, labels):
        self.calls.append((x.dtype, sigma.dtype, tuple(sigma.shape), sigma[0].item(), labels))
        return torch.tanh(x / (1 + sigma.view(-1, 1, 1, 1))) + 0.1 * x.roll(1, 0)


def reference(denoiser, noise: np.ndarray, sigmas: list[float]) -> np.ndarray:
    """Karras et al. 2022, Algorithm 1, in NumPy."""
    levels = [*sigmas, 0.0]
    x = levels[0] * noise
    for i in range(len(sigmas)):
        d = (x - denoiser(x, levels[i])) / levels[i]
        following = x + (levels[i + 1] - levels[i]) * d
        if levels[i + 1] != 0:
            second = (following - denoiser(following, levels[i + 1])) / levels[i + 1]
            following = x + (levels[i + 1] - levels[i]) * (0.5 * d + 0.5 * second)
        x = following
    return x


def test_equals_the_published_algorithm():
    noise = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))

    def in_numpy(x, sigma):
        levels = torch.full((4,), sigma)
        return Recorder()(torch.from_numpy(x).float(), levels, None).double().numpy()

    sigmas = karras_sigmas(18, 0.002, 80, 7)
    expected = reference(in_numpy, noise.double().numpy(), sigmas)
    np.testing.assert_allclose(heun(Recorder(), noise, sigmas), expected, rtol=0, atol=1e-6)


def test_calls_of_the_network():
    denoiser, labels = Recorder(), torch.tensor([3, 1])
    sigmas = karras_sigmas(18, 0.002, 80, 7)
    result = heun(denoiser, torch.randn(2, 1, 2, 2), sigmas, labels)
    assert result.dtype == torch.float64
    assert len(denoiser.calls) == 35
    inputs, levels, shapes, values, passed = zip(*denoiser.calls, strict=True)
    assert set(inputs) == set(levels) == {torch.float32}
    assert set(shapes) == {(2,)}
    assert all(given is labels for given in passed)
    expected = [sigmas[0], *(level for level in sigmas[1:] for _ in range(2))]
    np.testing.assert_array_equal(values, np.float32(expected))


def test_state_is_float64():
    """Steps too small for fp32 add up: the denoiser returns x + 1, a slope of -1 / sigma."""
    noise = torch.full((1, 1, 1, 1), 1e6)
    sigmas = np.linspace(2, 1, 2001).tolist()
    moved = heun(lambda x, sigma, labels: x.double() + 1, noise, sigmas).item()
    assert moved == pytest.approx(2e6 + np.log(2) + 1, abs=0.2)  # inputs are rounded to 1/8


def test_last_step_is_the_denoiser_at_the_last_level():
    outputs = []

    def denoiser(x, sigma, labels):
        outputs.append(torch.tanh(x))
        return outputs[-1]

    result = heun(denoiser, torch.randn(3, 1, 4, 4), karras_sigmas(18, 0.002, 80, 7))
    torch.testing.assert_close(result, outputs[-1].double(), rtol=0, atol=1e-12)


def test_converges_with_order_two_to_the_exact_solution():
    noise = torch.randn(50, 1, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    expected = gaussian(gaussian_flow(80 * noise, 80, 0.002), torch.tensor([0.002]))
    errors = []
    for steps in (32, 64, 128, 256):
        result = heun(gaussian, noise, karras_sigmas(steps, 0.002, 80, 7))
        errors.append((result - expected).abs().max().item())
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert np.all((orders > 1.9) & (orders < 2.2)), (errors, orders)
    assert errors[-1] < 1e-3
