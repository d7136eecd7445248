"""Power laws: known exponents from simulated capacities and counts, coverage, censored points."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress, t

from emm.analyse.emm import bootstrap_draws, isotonic_emm
from emm.analyse.fits import Points, points_from, power_law

WIDTHS = np.array([32.0, 64, 128, 256])
SIZES = np.array([8, 16, 32, 64, 128, 256, 512])


def points(slope=1.5, n=4, sd=0.05, scatter=0.1, top=9.0, bottom=-9.0, seed=0) -> Points:
    x = np.log(128 * np.linspace(1, 2.5, n))
    errors = math.hypot(sd, scatter) * np.random.default_rng(seed).standard_normal(n)
    y = 7 + slope * (x - x.mean()) + errors
    side = np.where(y > top, 1, np.where(y < bottom, -1, 0))
    return Points(x, np.clip(y, bottom, top), side, np.full(n, sd))


def counted(capacities, sizes=SIZES, samples=1000, seed=0) -> pd.DataFrame:
    """EMMs of simulated counts, with the columns of a capacity figure."""
    rng, rows = np.random.default_rng(seed), []
    for width, known in zip(WIDTHS, capacities, strict=True):
        hits = rng.binomial(samples, 1 / (1 + (sizes / known) ** 1.6 / 9))
        found = isotonic_emm(sizes, hits, np.full(len(sizes), samples), 0.1)
        draws = bootstrap_draws(sizes, hits, np.full(len(sizes), samples), 0.1)
        about = {"images": found.value, "status": found.status, "bound": found.bound}
        rows.append({"x": width, **about, "draws": draws})
    return pd.DataFrame(rows)


def test_an_exponent_is_recovered_from_counts():
    for slope in (0.5, 1.0):
        table = counted(20 * (WIDTHS / 32) ** slope)
        assert (table["status"] == "bracketed").all()
        law = power_law(points_from(table))
        assert law.slope == pytest.approx(slope, abs=0.15)
        assert law.low < slope < law.high


def test_censored_points_are_no_bias():
    """Of a steep law over sizes that end too soon, what is left out or cut off looks flat."""
    true, slopes, flat = 1.3, [], []
    for seed in range(25):
        table = counted(30 * (WIDTHS / 32) ** true, SIZES[:6], 100, seed)
        law = power_law(points_from(table))
        slopes.append(law.slope)
        cut = table["images"].fillna(table["bound"])
        flat.append(linregress(np.log(table["x"]), np.log(cut)).slope)
    assert np.median(slopes) == pytest.approx(true, abs=0.12)
    assert np.median(flat) < true - 0.12


@pytest.mark.parametrize(("n", "top"), [(8, 9.0), (5, 7.3)])
def test_intervals_hold_the_exponent(n, top):
    laws = [power_law(points(n=n, top=top, seed=seed)) for seed in range(80)]
    laws = [law for law in laws if law is not None]
    assert len(laws) > 70
    assert np.mean([law.low <= 1.5 <= law.high for law in laws]) > 0.87
    assert np.mean([math.isfinite(law.high - law.low) for law in laws]) > 0.3


def test_without_measurement_errors_it_is_ordinary_regression():
    given = points(n=8, sd=1e-6, scatter=0.3)
    law, least = power_law(given), linregress(given.x, given.y)
    assert law.slope == pytest.approx(least.slope, rel=1e-6)
    half = t.ppf(0.975, 6) * least.stderr
    assert (law.low, law.high) == pytest.approx((least.slope - half, least.slope + half), rel=0.02)
    value, low, high = law.at(200.0)
    assert value == pytest.approx(math.exp(least.intercept + least.slope * math.log(200.0)))
    assert low < value < high


def test_the_law_is_surest_amid_its_points():
    law = power_law(points(n=8))
    width = [np.log(high / low) for _, low, high in map(law.at, (40.0, 220.0, 2000.0))]
    assert width[1] < min(width[0], width[2])


def test_a_precise_point_weighs_more():
    x, y = np.log([1.0, 2.0, 4.0, 8.0]), np.log([1.0, 2.0, 4.0, 16.0])
    sure = Points(x, y, np.zeros(4, int), np.array([0.01, 0.01, 0.01, 2.0]))
    assert power_law(sure).slope == pytest.approx(1, abs=0.05)


def test_the_side_of_a_censored_point_pulls():
    x, sd = np.log([1.0, 2.0, 4.0, 8.0]), np.full(4, 0.05)
    y, side = np.log([1.0, 2.1, 3.9, 20.0]), np.array([0, 0, 0, 1])
    above = power_law(Points(x, y, side, sd))
    far = power_law(Points(x, np.where(side, np.log(2.0), y), side, sd))
    assert above.slope > 1.2
    assert far.slope == pytest.approx(1, abs=0.1)  # beyond 2 is no news


def test_what_two_points_or_one_tell():
    two = Points(np.log([1.0, 2.0]), np.log([3.0, 6.0]), np.zeros(2, int), np.full(2, 0.1))
    law = power_law(two)
    assert law.slope == pytest.approx(1)
    assert (law.low, law.high) == (-math.inf, math.inf)
    assert law.at(4.0) == (pytest.approx(12), 0, math.inf)
    one = Points(two.x, two.y, np.array([0, 1]), two.sd)
    assert power_law(one) is None
    assert power_law(Points(np.zeros(2), two.y, two.side, two.sd)) is None


def test_draws_become_errors():
    draws = np.exp(np.random.default_rng(0).normal(3, 0.2, 4000))
    cut = np.where(draws > np.quantile(draws, 0.8), np.inf, draws)
    same = {"x": 1.0, "images": 20.0, "status": "bracketed", "bound": np.nan}
    found = points_from(pd.DataFrame([{**same, "draws": d} for d in (draws, cut, draws * 0 + 5)]))
    assert found.sd[0] == pytest.approx(0.2, rel=0.05)
    assert found.sd[1] == pytest.approx(0.2, rel=0.3)
    assert found.sd[2] == 0.01
