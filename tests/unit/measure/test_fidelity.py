"""KID and balls against brute force, scikit-learn and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from emm.measure import fidelity
from emm.measure.fidelity import NEIGHBOURS, balls, kid, radii
from emm.score.criteria import wilson_interval


def drawn(count: int, seed: int, shift: float = 0.0, size: int = 4) -> torch.Tensor:
    return torch.from_numpy(shift + np.random.default_rng(seed).normal(size=(count, size)))


def by_scikit(samples: np.ndarray, real: np.ndarray) -> float:
    """Unbiased MMD^2 by its definition, with the kernel of scikit-learn."""
    kernels = [polynomial_kernel(*pair, degree=3, coef0=1) for pair in
               ((samples, samples), (real, real), (samples, real))]  # fmt: skip
    within = [k[~np.eye(len(k), dtype=bool)].mean() for k in kernels[:2]]
    return float(sum(within) - 2 * kernels[2].mean())


def test_kid_by_its_definition():
    samples, real = drawn(23, 0, 0.4), drawn(31, 1)
    assert kid(samples, real).value == pytest.approx(by_scikit(samples.numpy(), real.numpy()))


def test_kid_in_blocks(monkeypatch):
    samples, real = drawn(23, 0, 0.4), drawn(31, 1)
    whole = kid(samples, real)
    monkeypatch.setattr(fidelity, "BLOCK", 5)
    parts = kid(samples, real)
    assert parts.value == pytest.approx(whole.value, rel=1e-12)
    assert parts.high == pytest.approx(whole.high, rel=1e-12)


def test_interval_of_kid_leaves_out_each_image():
    samples, real = drawn(12, 0, 0.4).numpy(), drawn(15, 1).numpy()
    without = [by_scikit(np.delete(samples, i, 0), real) for i in range(12)]
    without_real = [by_scikit(samples, np.delete(real, i, 0)) for i in range(15)]
    error = np.sqrt(11 * np.var(without) + 14 * np.var(without_real))
    found = kid(torch.from_numpy(samples), torch.from_numpy(real))
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * error, rel=1e-5)


def test_kid_is_unbiased_and_its_interval_covers():
    found = [kid(drawn(40, 2 * n), drawn(40, 2 * n + 1)) for n in range(300)]
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(300)
    assert np.mean([one.low <= 0 <= one.high for one in found]) > 0.9


def by_hand(samples: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """The definitions, pair by pair."""

    def ball(images: np.ndarray, at: int) -> float:
        away = sorted(np.linalg.norm(images - images[at], axis=1)[np.arange(len(images)) != at])
        return away[NEIGHBOURS - 1]

    own, others = ([ball(s, i) for i in range(len(s))] for s in (real, samples))
    inside = np.zeros((len(samples), len(real)), bool)
    recalled = np.zeros(len(real), bool)
    for (i, sample), (j, image) in itertools.product(enumerate(samples), enumerate(real)):
        away = np.linalg.norm(sample - image)
        inside[i, j] = away <= own[j]
        recalled[j] |= away <= others[i]
    return {
        "precision": inside.any(1).mean(),
        "recall": recalled.mean(),
        "density": inside.sum() / (NEIGHBOURS * len(samples)),
        "coverage_held_out": inside.any(0).mean(),
    }


@pytest.mark.parametrize("shift", [0.0, 0.8, 2.0])
@pytest.mark.parametrize("block", [7, 1024])
def test_balls_by_their_definition(shift, block, monkeypatch):
    monkeypatch.setattr(fidelity, "BLOCK", block)
    samples, real = drawn(30, 0, shift), drawn(41, 1)
    found = balls(samples, real)
    for name, value in by_hand(samples.numpy(), real.numpy()).items():
        assert found[name].value == pytest.approx(value, abs=1e-12), name


def test_radii_are_those_of_scikit_in_each_half():
    images = drawn(60, 5, size=9)
    halves = torch.stack([torch.zeros(60, dtype=torch.int64), torch.arange(60) % 2])
    found = radii(images, halves)
    for rows, at in ((slice(None), 0), (slice(0, None, 2), 1), (slice(1, None, 2), 1)):
        part = images[rows].numpy()
        neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(part)
        np.testing.assert_allclose(found[at, rows], neighbours.kneighbors()[0][:, -1], rtol=1e-12)


def test_far_away_and_the_same():
    real = drawn(50, 1)
    away = balls(real + 1000, real)
    assert [away[name].value for name in away] == [0, 0, 0, 0]
    same = balls(real, real)
    assert same["precision"].value == same["recall"].value == same["coverage_held_out"].value == 1
    assert same["density"].value == pytest.approx((NEIGHBOURS + 1) / NEIGHBOURS)


def test_copies_are_precise_and_recall_nothing():
    """Samples that repeat few real images lie on these, in balls without extent."""
    real = drawn(100, 3)
    copies = real[:5].repeat(20, 1)
    found = balls(copies, real)
    assert found["precision"].value == 1
    assert found["recall"].value == 0.05
    assert found["coverage_held_out"].value < 0.6


def test_density_of_one_distribution_is_one():
    found = balls(drawn(2000, 0), drawn(2000, 1))
    assert found["density"].low < 1.03
    assert found["density"].high > 0.97


def test_intervals_are_at_least_those_of_counting():
    found = balls(drawn(50, 0, 0.5), drawn(60, 1))
    for name, trials in (("precision", 50), ("recall", 60), ("coverage_held_out", 60)):
        one = found[name]
        low, high = wilson_interval(round(one.value * trials), trials)
        assert 0 <= one.low <= low
        assert high <= one.high <= 1
    assert found["density"].low < found["density"].value < found["density"].high
    assert balls(drawn(50, 0, 0.5), drawn(60, 1)) == found


@pytest.mark.parametrize(
    ("copied", "least", "most"),
    [(None, 0.85, 1.8), (40, 0.5, 1.6)],
    ids=["of one distribution", "copies"],
)
def test_intervals_hold_what_both_sets_would_be_if_drawn_again(copied, least, most):
    """The mean width over draws of both sides, against the spread of the values over draws."""
    fixed, rng, found = drawn(40, 0), np.random.default_rng(1), []
    for n in range(60):
        samples = drawn(200, 2 * n) if copied is None else fixed[rng.integers(copied, size=200)]
        found.append(balls(samples, drawn(200, 2 * n + 1)))
    for name in found[0]:
        spread = np.std([one[name].value for one in found])
        width = np.mean([(one[name].high - one[name].low) / 2 / 1.96 for one in found])
        assert least * spread < width < most * spread, name
        mean = np.mean([one[name].value for one in found])
        covered = np.mean([one[name].low <= mean <= one[name].high for one in found])
        assert covered > (0.7 if copied else 0.88), name
