"""Ideal denoisers against published values, brute force, and what makes a posterior mean one."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import softmax

from emm.data import synthetic
from emm.diffusion.optimum import Optimum
from emm.diffusion.precondition import to_unit
from emm.measure.exact import Gaussian, GaussianMixture, Mondrian, random_ink, true_ideal
from emm.score.mondrian import Crosses
from emm.spec import DEFAULTS

KINDS = {"mondrian": 4, "gaussian_mixture": 2, "random_ink": 2}  # and a resolution for tests
ONE = torch.ones(1)


def drawn(kind: str, count: int, seed: int, resolution: int) -> torch.Tensor:
    geometry = {"margin": 1} if kind == "mondrian" else {}
    images = getattr(synthetic, kind)(count, seed, resolution=resolution, **geometry)
    return to_unit(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).double()


def ideal(kind: str):
    settings = {"data.dataset": kind, "data.resolution": KINDS[kind], "data.cross_margin": 1}
    return true_ideal(DEFAULTS | settings, KINDS[kind])


def pixels(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def test_values_of_the_continuous_formulas():
    """At x_t = 0.7 x_0 + 0.7 eps, so that x = x_t / 0.7 has noise of standard deviation 1."""
    assert random_ink(pixels(0.3 / 0.7), ONE).item() == pytest.approx(0.40412674, abs=1e-8)
    mixture = GaussianMixture(np.full((1, 1, 1, 1), 0.6))
    assert mixture(pixels(0.5 / 0.7), ONE).item() == pytest.approx(0.39584494, abs=1e-4)


def test_colour_of_a_quadrant():
    """Three pixels of one colour: the grid of grey levels moves its mean by half a per cent."""
    seen = np.array([0.1, 0.4, -0.2]) / 0.7
    levels = np.arange(256) / 127.5 - 1
    expected = softmax(-((seen[:, None] - levels) ** 2).sum(0) / 2) @ levels
    assert expected == pytest.approx(0.09431362, rel=6e-3)
    alone = Mondrian(Crosses(width=1, starts=np.array([1])))
    image = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    image[0, 0, 2, 2] = float(seen[0])
    single = softmax(-((seen[0] - levels) ** 2) / 2) @ levels
    assert alone(image, ONE)[0, 0, 2, 2].item() == pytest.approx(single, abs=1e-12)


def brute_force(x: np.ndarray, sigma: float, crosses: Crosses) -> np.ndarray:
    """Posterior mean of a Mondrian image (C, H, H) by its definition, place by place."""
    levels, size = np.arange(256) / 127.5 - 1, x.shape[-1]
    evidences, means = [], []
    for row, column in itertools.product(crosses.starts, crosses.starts):
        groups = {}
        for i, j in itertools.product(range(size), range(size)):
            on_cross = row <= i < row + crosses.width or column <= j < column + crosses.width
            groups.setdefault((i, j) if on_cross else (i > row, j > column, "quadrant"), []).append(
                (i, j)
            )
        evidence, mean = 0.0, np.zeros_like(x)
        for channel, places in itertools.product(range(len(x)), groups.values()):
            seen = np.array([x[channel, i, j] for i, j in places])
            logs = -((seen[:, None] - levels) ** 2).sum(0) / (2 * sigma**2)
            evidence += math.log(np.exp(logs - logs.max()).sum()) + logs.max() - math.log(256)
            for i, j in places:
                mean[channel, i, j] = softmax(logs) @ levels
        evidences.append(evidence)
        means.append(mean)
    return np.tensordot(softmax(evidences), np.array(means), 1)


@pytest.mark.parametrize(("width", "starts"), [(1, [1, 2, 3]), (2, [0, 2]), (1, [2])])
@pytest.mark.parametrize("sigma", [0.05, 0.6, 3.0])
def test_mondrian_by_its_definition(width, starts, sigma):
    crosses = Crosses(width, np.array(starts))
    clean = drawn("mondrian", 3, 5, 5)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)).double()
    x = clean + sigma * noise
    found = Mondrian(crosses)(x, torch.full((3,), sigma, dtype=torch.float64))
    for image, mean in zip(x.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(mean, brute_force(image, sigma, crosses), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_memorizing_everything_comes_to_the_same(kind, sigma):
    """The optimum of ever more images is the ideal of their distribution."""
    clean = drawn(kind, 32, 2, KINDS[kind])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).double()
    x, levels = clean + sigma * noise, torch.full((32,), sigma)
    everything = Optimum(drawn(kind, 100_000, 1, KINDS[kind]).float())
    difference = (ideal(kind)(x, levels) - everything(x, levels)).square().mean().sqrt()
    assert difference < 0.015
    assert (x - everything(x, levels)).square().mean().sqrt() > 1  # as noisy as that


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_errors_are_orthogonal_to_what_is_seen(kind, sigma):
    """What makes a function of x the posterior mean: its error has no part along any other."""
    clean = drawn(kind, 1500, 3, KINDS[kind])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(4)).double()
    x = clean + sigma * noise
    mean = ideal(kind)(x, torch.full((len(x),), sigma))
    for other in (x, mean, x**3, x.mean((2, 3), keepdim=True).expand(x.shape)):
        products = ((clean - mean) * other).flatten(1).mean(1)
        assert products.mean().abs() < 4 * products.std() / math.sqrt(len(x))
    shifted = (clean - 0.97 * mean).flatten(1).square().mean()
    assert (clean - mean).square().mean() < shifted


def test_noise_levels_are_those_of_each_image():
    x = drawn("gaussian_mixture", 4, 0, 2) + 0.3
    levels = torch.tensor([0.1, 0.5, 2.0, 8.0])
    together = ideal("gaussian_mixture")(x, levels)
    for index in range(4):
        alone = ideal("gaussian_mixture")(x[index : index + 1], levels[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone)


def test_gaussian_is_the_best_affine_denoiser():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    images = (torch.randn(400, 12, generator=generator, dtype=torch.float64) @ mixing).view(
        400, 3, 2, 2
    )
    x, sigma = images[:5] + 0.7, 0.9
    flat = images.flatten(1).numpy()
    covariance = np.cov(flat.T, bias=True)
    gain = covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(12))
    expected = flat.mean(0) + (x.flatten(1).numpy() - flat.mean(0)) @ gain.T
    found = Gaussian(images)(x, torch.full((5,), sigma, dtype=torch.float64))
    np.testing.assert_allclose(found.flatten(1), expected, rtol=1e-10)


def test_where_the_distribution_is_unknown():
    assert true_ideal(DEFAULTS, 32) is None
    assert true_ideal(DEFAULTS | {"data.dataset": "mondrian", "data.dummy_size": 3}, 32) is None
    assert isinstance(true_ideal(DEFAULTS | {"data.dataset": "mondrian"}, 32), Mondrian)
