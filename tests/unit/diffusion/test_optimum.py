"""The closed-form optimum against independent float64 formulations."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from emm.diffusion.optimum import Optimum
from emm.diffusion.precondition import karras_sigmas
from emm.diffusion.samplers import heun
from emm.errors import UserError

SIGMAS = [80.0, 5.3, 1.1, 0.3, 0.06, 0.002]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(30, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(30) % 4


def noisy(images: torch.Tensor, sigma: float, count: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    clean = images[torch.randperm(len(images), generator=generator)[:count]]
    return clean + sigma * torch.randn(clean.shape, generator=generator)


def weighted_mean(x: np.ndarray, images: np.ndarray, sigma: float) -> np.ndarray:
    """Mean of the images under the softmax of their squared distances to x, by differences."""
    differences = (x[:, None] - images[None]).reshape(len(x), len(images), -1)
    weights = softmax(-(differences**2).sum(2) / (2 * sigma**2), axis=1)
    return np.einsum("bn,nchw->bchw", weights, images)


def level(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.full((len(x),), sigma)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_equals_the_softmax_over_the_training_set(images, sigma):
    x = noisy(images, sigma)
    expected = weighted_mean(x.double().numpy(), images.double().numpy(), float(np.float32(sigma)))
    found = Optimum(images)(x, level(x, sigma))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_each_image_has_its_own_noise_level(images):
    x, sigma = noisy(images, 0.5), torch.logspace(-2, 1, 12)
    found = Optimum(images)(x, sigma)
    for index in range(12):
        alone = Optimum(images)(x[index : index + 1], sigma[index : index + 1])
        torch.testing.assert_close(found[index : index + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_labels_restrict_the_training_set(images, labels, sigma):
    x, wanted = noisy(images, sigma), torch.arange(12) % 3
    found = Optimum(images, labels)(x, level(x, sigma), wanted)
    for index, label in enumerate(wanted.tolist()):
        own = images[labels == label].double().numpy()
        expected = weighted_mean(
            x[index : index + 1].double().numpy(), own, float(np.float32(sigma))
        )
        np.testing.assert_allclose(found[index : index + 1], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_unique_labels_give_their_image_at_every_noise_level(images, sigma):
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    x = torch.randn(30, 3, 4, 4) * sigma
    found = Optimum(images, torch.arange(30))(x, level(x, sigma), order)
    torch.testing.assert_close(found, images[order], rtol=0, atol=1e-7)


@pytest.mark.parametrize("sigma", [2.0, 0.5, 0.2])
def test_score_is_the_gradient_of_the_log_density(images, sigma):
    """s* = (D* - x) / sigma^2 for the mixture of Gaussians around the training images."""
    x = noisy(images, sigma).double().requires_grad_()
    distances = (x.flatten(1)[:, None] - images.double().flatten(1)).square().sum(2)
    log_density = torch.logsumexp(-distances / (2 * sigma**2), dim=1).sum()
    (gradient,) = torch.autograd.grad(log_density, x)
    denoised = Optimum(images)(x.detach(), level(x, sigma).double())
    torch.testing.assert_close((denoised - x.detach()) / sigma**2, gradient, rtol=1e-6, atol=1e-8)


def test_minimises_the_training_loss(images):
    """No perturbation of D* has a lower denoising loss on many noisy copies of the set."""
    generator = torch.Generator().manual_seed(3)
    sigma, few = 1.5, images[:2].double()
    clean = few.repeat(4000, 1, 1, 1)
    x = clean + sigma * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    best = Optimum(few)(x, level(x, sigma))
    loss = (best - clean).square().mean()
    for direction in (few.mean(0) - best, torch.ones_like(best), best, x):
        for size in (-0.1, 0.1):
            assert (best + size * direction - clean).square().mean() > loss


def test_samples_are_training_images(images):
    noise = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    samples = heun(Optimum(images), noise, karras_sigmas(18, 0.002, 80, 7))
    nearest = torch.cdist(samples.flatten(1), images.double().flatten(1)).amin(1)
    assert (nearest < 1e-6).double().mean() >= 0.95
    assert nearest.max() < 0.1


def test_labels_without_images_are_user_errors(images):
    optimum = Optimum(images, torch.arange(30) % 4)
    x = noisy(images, 1.0, 2)
    with pytest.raises(UserError, match="label 4 has no training image"):
        optimum(x, level(x, 1.0), torch.tensor([0, 4]))


def test_an_unconditional_optimum_takes_no_labels(images):
    x = noisy(images, 1.0, 2)
    with pytest.raises(ValueError, match="unconditional"):
        Optimum(images)(x, level(x, 1.0), torch.tensor([0, 1]))
