"""EMM estimators against published values, an independent fit, and their own invariances."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import isotonic_regression

from emm.analyse.emm import (
    EPSILONS,
    bootstrap_emm,
    decreasing_fit,
    isotonic_emm,
    published_emm,
)

SIZES = [1000, 2000, 3000, 4000, 5000]
SAMPLES = [10000] * 5
UNCONDITIONAL = [9209, 6093, 3460, 1712, 900]  # Gu et al. 2023, Table 3
TRUE_LABELS = [9659, 7946, 5562, 3759, 2300]
UNIQUE_LABELS = [10000, 9988, 9989, 9957, 9966]
DIPPED = {"sizes": [500, 1000, 2000, 4000], "hits": [100, 95, 97, 50], "samples": [100] * 4}


@st.composite
def curves(draw):
    """Increasing sizes with hits of 100 samples each."""
    sizes = sorted(draw(st.sets(st.integers(1, 100_000), min_size=1, max_size=8)))
    hits = draw(arrays(np.int64, len(sizes), elements=st.integers(0, 100)))
    return np.array(sizes), hits, np.full(len(sizes), 100)


@pytest.mark.parametrize(
    ("hits", "log", "linear"), [(UNCONDITIONAL, 1047.6, 1067.1), (TRUE_LABELS, 1305.6, 1384.7)]
)
def test_published_table(hits, log, linear):
    assert isotonic_emm(SIZES, hits, SAMPLES, 0.1).value == pytest.approx(log, abs=0.05)
    unscaled = isotonic_emm(SIZES, hits, SAMPLES, 0.1, log=False)
    assert unscaled.value == pytest.approx(linear, abs=0.05)
    assert published_emm(SIZES, np.divide(hits, 10000), 0.1).value == pytest.approx(unscaled.value)


def test_unique_labels_are_censored_above():
    emm = bootstrap_emm(SIZES, UNIQUE_LABELS, SAMPLES, 0.1)
    assert math.isnan(emm.value)
    assert (emm.status, emm.bound, emm.lower, emm.upper) == ("above", 5000, math.inf, math.inf)


def test_censored_below():
    emm = bootstrap_emm(SIZES, UNCONDITIONAL, SAMPLES, 0.01)
    assert math.isnan(emm.value)
    assert (emm.status, emm.bound, emm.lower, emm.upper) == ("below", 1000, -math.inf, -math.inf)


def test_interval_reaches_past_the_sizes():
    emm = bootstrap_emm([100, 200], [96, 91], [100, 100], 0.1)
    assert emm.status == "above"
    assert 100 < emm.lower < 200
    assert emm.upper == math.inf


def test_pooled_violators():
    assert isotonic_emm(**DIPPED, epsilon=0.1).value == pytest.approx(2189.2, abs=0.05)
    assert isotonic_emm(**DIPPED, epsilon=0.1, log=False).value == pytest.approx(2260.9, abs=0.05)


def test_last_fall_counts():
    emm = published_emm([1, 2, 3, 4, 5], [1.0, 0.5, 1.0, 0.8, 0.1], 0.1)
    assert emm.value == pytest.approx(3.5)
    assert published_emm([1, 2, 3], [1.0, 0.5, 1.0], 0.1).status == "above"


def test_threshold_itself_is_reached():
    assert isotonic_emm([10, 20], [90, 80], [100, 100], 0.1).value == 10
    assert isotonic_emm([10, 20], [90, 90], [100, 100], 0.1).status == "above"
    assert isotonic_emm([10], [89], [100], 0.1).status == "below"
    assert isotonic_emm([10], [90], [100], 0.1).status == "above"


def test_seeds_are_pooled_and_may_lack_sizes():
    pooled = isotonic_emm([10, 20], [180, 45], [200, 100], 0.2)
    seeds = isotonic_emm([10, 20], [[90, 45], [90, 0]], [[100, 100], [100, 0]], 0.2)
    assert seeds == pooled
    assert np.isfinite(
        bootstrap_emm([10, 20], [[90, 45], [90, 0]], [[100, 100], [100, 0]], 0.2).upper
    )


def test_spread_between_seeds_widens_the_interval():
    hits = np.array([[100, 99, 40], [100, 60, 10], [100, 97, 30]]) * 100
    samples = np.full_like(hits, 10000)
    apart = bootstrap_emm([10, 20, 40], hits, samples, 0.1)
    pooled = bootstrap_emm([10, 20, 40], hits.sum(0), samples.sum(0), 0.1)
    assert apart.value == pooled.value
    assert apart.upper - apart.lower > 5 * (pooled.upper - pooled.lower)


def test_interval_covers_a_known_emm():
    """A logistic curve in log N with EMM 1000: intervals cover it about 19 times in 20."""
    sizes = np.array([500, 700, 1000, 1400, 2000])
    ratios = 1 / (1 + (sizes / 1000) ** 3 / 9)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        emm = bootstrap_emm(sizes, rng.binomial(1000, ratios), np.full(5, 1000), 0.1, draws=200)
        covered += emm.lower <= 1000 <= emm.upper
    assert 180 <= covered <= 200


def test_bootstrap_repeats_and_is_quick():
    hits = np.linspace(10000, 1000, 10).astype(int)
    start = time.perf_counter()
    first = bootstrap_emm(np.arange(1, 11), hits, [10000] * 10, 0.1)
    assert time.perf_counter() - start < 0.5
    assert bootstrap_emm(np.arange(1, 11), hits, [10000] * 10, 0.1) == first
    assert bootstrap_emm(np.arange(1, 11), hits, [10000] * 10, 0.1, seed=1) != first


@given(curves())
def test_fit_is_that_of_scipy(curve):
    _, hits, samples = curve
    samples = samples + np.arange(len(samples))
    ours = decreasing_fit(hits, samples)
    theirs = isotonic_regression(hits / samples, weights=samples, increasing=False).x
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert (np.diff(ours) <= 0).all()


@given(curves())
def test_emm_grows_with_epsilon(curve):
    def at_least(epsilon):
        emm = isotonic_emm(*curve, epsilon)
        return {"below": -math.inf, "above": math.inf}.get(emm.status, emm.value)

    values = [at_least(epsilon) for epsilon in EPSILONS]
    assert values == sorted(values)


@given(curves(), st.integers(2, 50))
def test_scaling_sizes_scales_emm(curve, factor):
    sizes, hits, samples = curve
    for log in (True, False):
        emm = isotonic_emm(sizes, hits, samples, 0.1, log)
        scaled = isotonic_emm(sizes * factor, hits, samples, 0.1, log)
        assert scaled.status == emm.status
        assert scaled.value == pytest.approx(factor * emm.value, nan_ok=True)


@given(curves(), st.integers(2, 9))
def test_more_samples_at_the_same_ratios_change_nothing(curve, factor):
    sizes, hits, samples = curve
    emm, larger = (isotonic_emm(sizes, hits * k, samples * k, 0.1) for k in (1, factor))
    assert (larger.status, larger.bound) == pytest.approx((emm.status, emm.bound), nan_ok=True)
    assert larger.value == pytest.approx(emm.value, nan_ok=True)


@given(curves())
def test_estimate_lies_in_its_bracket(curve):
    sizes, hits, samples = curve
    emm = isotonic_emm(sizes, hits, samples, 0.1)
    fit = decreasing_fit(hits, samples)
    if emm.status == "bracketed":
        assert sizes[fit >= 0.9].max() <= emm.value * (1 + 1e-12)
        assert emm.value <= sizes[fit < 0.9].min() * (1 + 1e-12)
        assert math.isnan(emm.bound)
    else:
        assert emm.bound == (sizes[-1] if (fit >= 0.9).all() else sizes[0])


@settings(max_examples=30)
@given(curves(), st.integers(0, 5))
def test_interval_is_ordered(curve, seed):
    emm = bootstrap_emm(*curve, 0.1, draws=100, seed=seed)
    assert emm.lower <= emm.upper


@pytest.mark.parametrize(
    "bad",
    [
        {"sizes": [2, 1], "hits": [1, 1], "samples": [1, 1]},
        {"sizes": [], "hits": [], "samples": []},
        {"sizes": [1, 2], "hits": [1, 3], "samples": [2, 2]},
        {"sizes": [1, 2], "hits": [1, 0], "samples": [2, 0]},
        {"sizes": [1, 2], "hits": [1], "samples": [2]},
        {"sizes": [1], "hits": [1], "samples": [2], "epsilon": 0.0},
    ],
)
def test_bad_input(bad):
    with pytest.raises(ValueError, match=r"sizes|hits|epsilon"):
        isotonic_emm(**{"epsilon": 0.1, **bad})


@pytest.mark.parametrize("ratios", [[1.0], [1.0, math.nan], [92.0, 60.0]])
def test_bad_ratios(ratios):
    with pytest.raises(ValueError, match="ratios"):
        published_emm([1, 2], ratios, 0.1)
