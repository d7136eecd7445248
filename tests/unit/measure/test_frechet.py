"""Fréchet distances against closed forms and scipy, and intervals that cover."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from emm.measure import GROUPS
from emm.measure.frechet import Leaving, fid, frechet_distance, moments


def drawn(count: int, size: int, seed: int, shift: float = 0.0, scale: float = 1.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(size, size))
    return torch.from_numpy(shift + scale * rng.normal(size=(count, size)) @ mixing)


def by_scipy(one: np.ndarray, other: np.ndarray, whole: bool = False) -> float:
    """The formula as it is written, with the general root of a product."""
    freedoms = ((one, 1), (other, 1 - whole))
    covariances = [np.atleast_2d(np.cov(part.T, ddof=ddof)) for part, ddof in freedoms]
    root = sqrtm(covariances[0] @ covariances[1])
    spread = sum(map(np.trace, covariances)) - 2 * np.trace(root).real
    return float(((one.mean(0) - other.mean(0)) ** 2).sum() + spread)


@pytest.mark.parametrize(("size", "count"), [(1, 50), (5, 40), (12, 200)])
def test_the_formula_with_the_root_of_scipy(size, count):
    one, other = drawn(count, size, 1), drawn(count + 9, size, 2, 0.3, 1.4)
    found = fid(one, other)
    assert found.value == pytest.approx(by_scipy(one.numpy(), other.numpy()), rel=1e-8)
    assert fid(other, one).value == pytest.approx(found.value, rel=1e-8)


def test_commuting_gaussians():
    """With diagonal covariances the distance is that of the means and of the deviations."""
    deviations, others = np.array([1.0, 2.0, 0.5]), np.array([3.0, 1.0, 0.0])
    parts = []
    for spread, mean in ((deviations, 0.0), (others, 2.0)):
        axes = np.concatenate([np.diag(spread), -np.diag(spread)])  # each axis varies by itself
        parts.append(torch.from_numpy(mean + axes * np.sqrt(5 / 2)))  # unbiased: 6 points
    expected = 3 * 2.0**2 + ((deviations - others) ** 2).sum()
    assert frechet_distance(*map(moments, parts)) == pytest.approx(expected, rel=1e-10)


def test_the_same_images_are_at_no_distance():
    images = drawn(30, 50, 0)  # fewer than dimensions: the covariance is singular
    scale = float(moments(images).covariance.trace())
    assert fid(images, images.flip(0)).value == pytest.approx(0, abs=1e-7 * scale)
    assert fid(images, images + 1).value == pytest.approx(50, rel=1e-6)


def test_without_each_group():
    one, other = drawn(45, 4, 1), drawn(50, 4, 2, 0.5)
    found = fid(one, other)
    assert len(found.samples) == len(found.reference) == GROUPS
    for group in (0, 7, 19):
        kept = np.arange(45) % GROUPS != group
        assert found.samples[group] == pytest.approx(by_scipy(one[kept].numpy(), other.numpy()))
        kept = np.arange(50) % GROUPS != group
        assert found.reference[group] == pytest.approx(by_scipy(one.numpy(), other[kept].numpy()))
    assert fid(one, other, vary_reference=False).reference is None


def test_intervals_are_as_wide_as_the_distances_scatter():
    """The mean width over draws, against the spread of the estimate over draws."""
    estimates = [
        fid(drawn(100, 3, 2 * n), drawn(100, 3, 2 * n + 1, 0.7)).estimate() for n in range(150)
    ]
    spread = np.std([one.value for one in estimates])
    width = np.mean([(one.high - one.low) / 2 / 1.96 for one in estimates])
    assert width == pytest.approx(spread, rel=0.15)
    mean = np.mean([one.value for one in estimates])
    covered = [one.low <= mean <= one.high for one in estimates]
    assert np.mean(covered) > 0.9


def test_the_reference_counts_only_where_it_varies():
    one, other = drawn(60, 3, 1), drawn(60, 3, 2, 0.7)
    both, alone = fid(one, other).estimate(), fid(one, other, vary_reference=False).estimate()
    assert both.value == pytest.approx(alone.value, rel=0.02)
    assert both.high - both.low > 1.1 * (alone.high - alone.low)


def test_differences_share_the_samples():
    """A distance less itself, of a fixed reference, is nothing, without doubt."""
    one, other, third = drawn(60, 3, 1), drawn(60, 3, 2, 0.7), drawn(60, 3, 3, 0.1)
    fixed = fid(one, other, vary_reference=False)
    nothing = (fixed - fixed).estimate()
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    gap = (fid(one, other) - fid(one, third, vary_reference=False)).estimate()
    expected = by_scipy(one.numpy(), other.numpy()) - by_scipy(one.numpy(), third.numpy(), True)
    assert gap.value == pytest.approx(expected)
    with pytest.raises(ValueError, match="two references vary"):
        fid(one, other) - fid(one, third)


def test_cut_off():
    near = Leaving(-1e-12, torch.zeros(GROUPS)).estimate(least=0.0)
    assert (near.value, near.low, near.high) == (0, 0, 0)


def test_draws_from_a_training_set_are_no_farther_from_it_than_chance_makes():
    """Of a population the covariance is divided by its size: that is what draws from it have."""
    training = drawn(5, 2, 4)
    population = np.cov(training.numpy().T, ddof=0)
    found = moments(training, population=True).covariance
    np.testing.assert_allclose(found, population, rtol=1e-12)
    rng = np.random.default_rng(0)
    draws = training[rng.integers(5, size=20_000)]
    scale = population.trace()
    assert fid(draws, training, vary_reference=False).value < 0.001 * scale
    assert fid(draws, training).value > 0.008 * scale  # (sqrt(5/4) - 1)^2
