"""How copies are spread, against pairs, simulations and published numbers."""

import itertools

import numpy as np
import pytest

from emm.measure.hits import chao1, even_gini, gini, of_hits

RNG = np.random.default_rng(0)


def test_gini_is_the_mean_difference_of_pairs():
    counts = RNG.poisson(1.5, 40)
    pairs = [abs(a - b) for a, b in itertools.product(counts.tolist(), repeat=2)]
    assert gini(counts) == pytest.approx(np.mean(pairs) / (2 * counts.mean()), rel=1e-12)


def test_gini_of_equal_counts_and_of_one_image_that_has_all():
    assert gini(np.full(9, 4)) == 0
    assert gini(np.array([0, 0, 0, 7])) == pytest.approx(3 / 4)


@pytest.mark.parametrize("rate", [0.05, 1.0, 30.0])
def test_even_gini_is_what_chance_makes(rate):
    drawn = np.mean([gini(RNG.multinomial(4000 * rate, np.full(4000, 1 / 4000))) for _ in range(9)])
    assert even_gini(rate) == pytest.approx(drawn, rel=0.02)


def test_chao1_counts_those_seen_once_and_twice():
    counts = np.array([1] * 6 + [2] * 3 + [5, 8, 0, 0])
    total, low, high = chao1(counts)
    assert total == 11 + 6 * 5 / (2 * 4)
    variance = 6 * 5 / (2 * 4) + 6 * 11**2 / (4 * 4**2) + 6**2 * 3 * 5**2 / (4 * 4**4)
    ratio = np.exp(1.959964 * np.sqrt(np.log(1 + variance / (total - 11) ** 2)))
    assert (low, high) == pytest.approx((11 + 3.75 / ratio, 11 + 3.75 * ratio), rel=1e-6)


@pytest.mark.parametrize(
    ("copies", "spread"), [(80, 0.0), (150, 0.0), (300, 0.0), (250, 0.4)], ids=str
)
def test_the_interval_covers_the_number_of_images(copies, spread):
    """On 100 images that are copied alike, or nearly so: of a lower bound 95 % is expected."""
    images, hits, totals = 100, 0, []
    for _ in range(1000):
        weights = np.exp(spread * RNG.standard_normal(images))
        total, low, high = chao1(RNG.multinomial(copies, weights / weights.sum()))
        hits += low <= images <= high
        totals.append(total)
    assert hits >= 900, hits
    assert np.median(totals) == pytest.approx(images, rel=0.06)


def test_where_none_is_missing_the_interval_starts_at_what_was_seen():
    counts = np.full(50, 12)
    assert chao1(counts) == pytest.approx((50, 50, 50), abs=0.1)
    total, low, high = chao1(np.array([1, 3, 0, 0]))  # one seen once says nothing by itself
    assert total == low == 2
    assert high > 2.3


@pytest.mark.parametrize("once", [2, 5, 40])
def test_images_that_were_all_seen_once_may_be_few_of_very_many(once):
    total, low, high = chao1(np.ones(once, int))
    assert once < low < total < high
    assert total == once + once * (once - 1) / 2


def test_columns():
    found = of_hits(np.array([3, 0, 1, 1]))
    assert (found["chao1_total"], found["chao1_unseen"], found["chao1_share"]) == (4, 1, 1)
    assert found["chao1_total_low"] <= 4 <= found["chao1_total_high"]
    assert found["chao1_share_high"] == 1
    assert found["hit_gini"] == gini(np.array([3, 0, 1, 1]))
    assert found["hit_gini_even"] == even_gini(1.25)


def test_without_copies_nothing_is_known():
    found = of_hits(np.zeros(5, int))
    assert found.keys() == of_hits(np.arange(5)).keys()
    assert np.isnan(list(found.values())).all()
    with pytest.raises(ValueError, match="no copies"):
        chao1(np.zeros(5, int))
