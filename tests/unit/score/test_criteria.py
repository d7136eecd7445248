"""Verdicts and summaries at their limits."""

import numpy as np
import pytest
from scipy.stats import binomtest

from emm.score import criteria
from emm.score.nearest import Neighbours, two_nearest


def grey(value: int, changed: int = 0, components: int = 192) -> np.ndarray:
    """An even image with `changed` components one level brighter."""
    image = np.full((components,), value, np.uint8)
    image[:changed] += 1
    return image


@pytest.mark.parametrize(("second", "memorized"), [(44, False), (45, False), (46, True)])
def test_third_of_the_distance_is_not_enough(second, memorized):
    found = two_nearest(grey(100)[None], np.stack([grey(100, second), grey(100, 5)]), xp=np)
    np.testing.assert_array_equal(found.squared_distances, [[5, second]])
    assert criteria.is_memorized(found.squared_distances).tolist() == [memorized]


@pytest.mark.parametrize("components", [3072, 12288, 196608])
@pytest.mark.parametrize(("level", "memorized"), [(84, True), (85, False), (86, False)])
def test_third_of_the_largest_distance(components, level, memorized):
    near = np.full(components, 85, np.uint8)
    near[-1] = level
    training = np.stack([near, np.full(components, 255, np.uint8)])
    found = two_nearest(np.zeros((1, components), np.uint8), training, xp=np)
    assert criteria.is_memorized(found.squared_distances).tolist() == [memorized]


def test_verdict_of_small_integer_types_does_not_overflow():
    squared = np.array([[300_000_000, 500_000_000], [1, 700_000_000]], np.int32)
    assert 9 * 300_000_000 > 2**31
    assert criteria.is_memorized(squared).tolist() == [False, True]


def test_equal_distances_are_never_memorized():
    squared = np.array([[0, 0], [7, 7], [0, 1]])
    assert criteria.is_memorized(squared).tolist() == [False, False, True]
    np.testing.assert_array_equal(criteria.distance_ratio(squared), [1, 1, 0])


def test_distances_are_grey_levels():
    squared = np.array([[4 * 192, 10_000], [36 * 192, 10_000]])
    np.testing.assert_allclose(criteria.nearest_distance(squared, 192), [2, 6])
    assert criteria.knn_distance(squared, 192) == pytest.approx(4)


def test_summary_of_known_distances():
    squared = np.array([[0, 9], [0, 9], [4, 16], [9, 9], [1, 100]])
    indices = np.array([[3, 0], [3, 1], [2, 1], [0, 1], [1, 0]])
    row = criteria.summarise(Neighbours(indices, squared), components=1)
    assert row["n_samples"] == 5
    assert row["n_memorized"] == 3
    assert row["memorization_ratio"] == 0.6
    assert row["knn_distance"] == pytest.approx((0 + 0 + 2 + 3 + 1) / 5)
    assert row["distinct_copied"] == 2
    assert row["d1_q50"] == 1
    assert row["ratio_q50"] == pytest.approx(0.1)
    assert row["ratio_q25"] == 0
    assert row["ratio_q95"] == pytest.approx(np.percentile([0, 0, 0.5, 1, 0.1], 95))


def test_summary_columns():
    row = criteria.summarise(Neighbours(np.array([[0, 1]]), np.array([[1, 2]])), 3)
    quantiles = [f"{name}_q{q}" for name in ("d1", "ratio") for q in ("05", "25", "50", "75", "95")]
    counts = ["n_samples", "n_memorized", "distinct_copied"]
    ratio = ["memorization_ratio", "memorization_ratio_low", "memorization_ratio_high"]
    assert set(row) == {*counts, *ratio, "knn_distance", *quantiles}
    assert row["distinct_copied"] == 0
    assert all(type(value) in (int, float) for value in row.values())


@pytest.mark.parametrize("trials", [1, 10, 10_000])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("share", [0, 0.002, 0.5, 0.9, 1])
def test_wilson_interval_is_scipys(trials, level, share):
    successes = round(share * trials)
    expected = binomtest(successes, trials).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(
        criteria.wilson_interval(successes, trials, level), expected, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_of_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match="no interval"):
        criteria.wilson_interval(successes, trials)
