"""Predictions and weightings: one denoiser whatever is predicted, and published conversions."""

import numpy as np
import pytest
import torch
from torch import nn

from emm.diffusion.objectives import PREDICTIONS, WEIGHTINGS
from emm.diffusion.precondition import EDM, PRECONDITIONINGS, Denoiser

KINDS = ("preconditioned", *PREDICTIONS)
SIGMA = torch.logspace(-2.7, 2, 24, dtype=torch.float64)
LEVELS = np.array([0.01, 0.4, 1.0, 3.0])
GOLDEN = {  # factors of the squared error of the image at LEVELS, to six digits
    "truncated_snr": [10000, 6.25, 1, 1],
    "min_snr": [5, 5, 1, 0.111111],
    "edm": [10004, 10.25, 5, 4.11111],
    "sigmoid": [7.38360, 3.38598, 0.880797, 0.109465],
}


def column(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1, 1, 1, 1)


def pixels(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


class Posterior(nn.Module):
    """The ideal F, in float64, for pixels that are independent N(0, 0.3^2): from E[y | x]."""

    def __init__(self, denoiser: Denoiser, sigma: torch.Tensor) -> None:
        super().__init__()
        self.coefficients, self.level = denoiser.coefficients(sigma), column(sigma)

    def forward(self, scaled, c_noise, labels):
        c_skip, c_out, c_in, _ = map(column, self.coefficients)
        noisy = scaled / c_in
        return (posterior_mean(noisy, self.level) - c_skip * noisy) / c_out


def posterior_mean(noisy: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    return noisy * 0.09 / (0.09 + level**2)


@pytest.mark.parametrize("precond", PRECONDITIONINGS)
@pytest.mark.parametrize("prediction", KINDS)
def test_the_ideal_network_gives_one_denoiser_whatever_it_predicts(precond, prediction):
    denoiser = Denoiser(nn.Identity(), precond, prediction=prediction)
    denoiser.network = Posterior(denoiser, SIGMA)
    noisy = pixels(1, 24, 1, 3, 3) * column(1 + SIGMA)
    expected = posterior_mean(noisy, column(SIGMA))
    torch.testing.assert_close(denoiser(noisy, SIGMA), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_mean_of_the_target_is_the_ideal_output(prediction):
    """Targets are linear in image and noise: those of E[y | x] and E[n | x] give back E[y | x]."""
    kind, level, noisy = PREDICTIONS[prediction], column(SIGMA), pixels(2, 24, 1, 2, 2)
    image = posterior_mean(noisy, level)
    c_skip, c_out = map(column, kind.output(SIGMA))
    target = kind.target(image, (noisy - image) / level, level)
    torch.testing.assert_close(c_skip * noisy + c_out * target, image, rtol=1e-10, atol=1e-10)


def test_targets_by_hand():
    """At sigma = 0.75, where alpha = 0.8 and the noise of the variance-preserving image is 0.6."""
    image, noise, sigma = (torch.tensor([x], dtype=torch.float64) for x in (0.5, -2.0, 0.75))
    found = {name: kind.target(image, noise, sigma).item() for name, kind in PREDICTIONS.items()}
    assert found == pytest.approx({"noise": -2.0, "image": 0.5, "velocity": -1.9})


def test_velocity_is_the_slope_along_the_circle_of_image_and_noise():
    """d/dphi of cos(phi) y + sin(phi) n, with tan(phi) = sigma (Salimans and Ho 2022)."""
    phi = torch.atan(SIGMA).requires_grad_()
    image, noise = pixels(3, 2, 24)
    (slope,) = torch.autograd.grad((phi.cos() * image + phi.sin() * noise).sum(), phi)
    velocity = PREDICTIONS["velocity"].target(image, noise, SIGMA)
    torch.testing.assert_close(velocity, slope, rtol=1e-9, atol=1e-9)


def test_velocity_is_what_edm_predicts_of_data_of_unit_variance():
    unit = EDM(sigma_data=1.0)
    image, noise = pixels(4, 2, 24)
    velocity, theirs = (k.target(image, noise, SIGMA) for k in (PREDICTIONS["velocity"], unit))
    torch.testing.assert_close(velocity, -theirs, rtol=1e-10, atol=1e-12)
    c_skip, c_out = PREDICTIONS["velocity"].output(SIGMA)
    torch.testing.assert_close(c_skip, unit.coefficients(SIGMA).c_skip, rtol=1e-10, atol=0)
    torch.testing.assert_close(c_out, -unit.coefficients(SIGMA).c_out, rtol=1e-10, atol=0)


def test_weights_at_four_noise_levels():
    assert set(GOLDEN) == set(WEIGHTINGS)
    for name, expected in GOLDEN.items():
        found = WEIGHTINGS[name](torch.from_numpy(LEVELS)).numpy()
        np.testing.assert_allclose(found, expected, rtol=2e-6, err_msg=name)


def output_factor(prediction: str, weighting: str) -> np.ndarray:
    """Factor of the squared error of F that a denoiser trains with, found from its loss."""
    denoiser = Denoiser(Zero(), "vp", prediction=prediction, weighting=weighting)
    image, noise = pixels(5, 2, 1, 1, 2, 2)
    target = PREDICTIONS[prediction].target
    found = []
    for sigma in SIGMA.view(-1, 1):
        squared = target(image, noise, column(sigma)).square().sum()
        found.append((denoiser.loss(image, None, noise, sigma) / squared).item())
    return np.array(found)


class Zero(nn.Module):
    """A network that returns zeros."""

    def forward(self, x, c_noise, labels):
        return torch.zeros_like(x)


SNR = SIGMA.numpy() ** -2
MIN = np.minimum(SNR, 5)
LOGISTIC = 1 / (1 + np.exp(np.log(SNR) - 2))
CONVERSIONS = {  # as their papers give them, of the loss in each prediction
    ("image", "published"): SNR,
    ("image", "uniform"): 1,
    ("velocity", "uniform"): 1,
    ("noise", "uniform"): 1,
    ("noise", "published"): 1,
    ("velocity", "published"): SNR / (SNR + 1),
    ("image", "min_snr"): MIN,
    ("noise", "min_snr"): MIN / SNR,
    ("velocity", "min_snr"): MIN / (SNR + 1),
    ("image", "truncated_snr"): np.maximum(SNR, 1),
    ("noise", "truncated_snr"): np.maximum(1, 1 / SNR),
    ("noise", "edm"): 1 + 4 / SNR,
    ("velocity", "edm"): (SNR + 4) / (SNR + 1),
    ("noise", "sigmoid"): LOGISTIC,
    ("velocity", "sigmoid"): LOGISTIC * SNR / (SNR + 1),
}


@pytest.mark.parametrize(("prediction", "weighting"), CONVERSIONS)
def test_weights_of_the_output_are_the_published_conversions(prediction, weighting):
    expected = np.broadcast_to(CONVERSIONS[prediction, weighting], SNR.shape)
    np.testing.assert_allclose(output_factor(prediction, weighting), expected, rtol=1e-9)


class Wavy(nn.Module):
    """A network that depends on its inputs, in float64."""

    def forward(self, x, c_noise, labels):
        return torch.sin(3 * x + torch.cos(column(c_noise))) + 0.2 * x.roll(1, dims=-1)


@pytest.mark.parametrize("weighting", ["published", *WEIGHTINGS])
@pytest.mark.parametrize("prediction", KINDS)
@pytest.mark.parametrize("precond", PRECONDITIONINGS)
def test_the_loss_is_the_weighted_squared_error_of_the_denoiser(precond, prediction, weighting):
    denoiser = Denoiser(Wavy(), precond, prediction=prediction, weighting=weighting)
    images, noise = pixels(6, 2, 24, 1, 3, 3)
    error = denoiser(images + column(SIGMA) * noise, SIGMA) - images
    weight = WEIGHTINGS.get(weighting, PRECONDITIONINGS[precond].weight)(SIGMA)
    expected = (weight * error.square().sum((1, 2, 3))).mean()
    found = denoiser.loss(images, None, noise, SIGMA)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)


def test_the_published_objective_is_computed_as_ever():
    """Bit for bit the plain squared error of F; VP's prediction is the noise."""
    images, noise = pixels(7, 2, 24, 1, 3, 3).float()
    plain = {}
    for kind in ("preconditioned", "noise"):
        denoiser = Denoiser(Wavy(), "vp", prediction=kind, weighting="uniform")
        output = denoiser.raw(images + column(SIGMA.float()) * noise, SIGMA.float(), None)
        expected = nn.functional.mse_loss(output, noise, reduction="sum") / 24
        plain[kind] = denoiser.loss(images, None, noise, SIGMA.float())
        assert torch.equal(plain[kind], expected)
    published = Denoiser(Wavy(), "vp").loss(images, None, noise, SIGMA.float())
    assert torch.equal(plain["noise"], published)


def test_input_scaling_and_noise_levels_stay_those_of_the_preconditioning():
    own = Denoiser(nn.Identity(), "vp")
    other = Denoiser(nn.Identity(), "vp", prediction="image", weighting="min_snr")
    for one, two in zip(own.coefficients(SIGMA)[2:], other.coefficients(SIGMA)[2:], strict=True):
        assert torch.equal(one, two)
    draws = [d.draw_level(5, torch.Generator().manual_seed(1)) for d in (own, other)]
    assert torch.equal(*draws)
