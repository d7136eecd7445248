"""Variance components: a textbook example, known components, and designs that are none."""

import numpy as np
import pandas as pd
import pytest

from emm.analyse.variance import components, mean_squares, ratio_components
from emm.errors import UserError

# Wing lengths of mosquitoes: 3 cages, 4 females in each, measured twice (Sokal and Rohlf, Box 10.1)
WINGS = [
    [[58.5, 59.5], [77.8, 80.9], [84.0, 83.6], [70.1, 68.3]],
    [[69.8, 69.8], [56.0, 54.5], [50.7, 49.3], [63.8, 65.8]],
    [[56.6, 57.5], [77.8, 79.2], [69.9, 69.2], [62.1, 64.5]],
]


def simulated(sds, shape, rng):
    a, b, c = shape
    parts = [(a, 1, 1), (a, b, 1), (a, b, c)]
    return sum(sd * rng.standard_normal(part) for sd, part in zip(sds, parts, strict=True))


def test_the_textbook_example():
    squares, freedom = mean_squares(WINGS)
    np.testing.assert_allclose(squares, [332.8379, 191.1864, 1.3017], atol=1e-3)
    assert list(freedom) == [2, 9, 12]
    found = {part.name: part for part in components(WINGS)}
    variances = [found[name].variance for name in ("data", "initialisation", "sampling")]
    np.testing.assert_allclose(variances, [17.71, 94.94, 1.30], atol=0.01)
    assert found["initialisation"].low > 0
    assert found["data"].low == 0  # cages do not differ for sure: F = 1.74 on 2 and 9


def test_intervals_hold_known_components():
    """As often as they claim, over many data sets with few draws, as a real one has."""
    rng, sds, hits = np.random.default_rng(1), np.array([2.0, 1.0, 0.5]), np.zeros(3)
    for rank in range(300):
        found = components(simulated(sds, (3, 3, 3), rng), draws=1000, seed=rank)[:3]
        hits += [part.low <= sd <= part.high for part, sd in zip(found, sds, strict=True)]
    assert (hits / 300 >= 0.92).all()
    assert (hits[1:] / 300 <= 0.99).all()


def test_many_draws_recover_the_components():
    values = simulated([2.0, 1.0, 0.5], (300, 4, 4), np.random.default_rng(0))
    found = components(values)
    for part, sd in zip(found, [2.0, 1.0, 0.5, np.hypot(2, np.hypot(1, 0.5))], strict=False):
        assert part.sd == pytest.approx(sd, rel=0.1)
        assert part.low < part.sd < part.high


def test_a_component_that_is_absent_is_zero():
    found = components(simulated([0.0, 0.0, 1.0], (4, 4, 4), np.random.default_rng(3)))
    assert found[0].low == found[1].low == 0
    assert found[0].sd < 0.6


def test_counting_stands_for_a_single_sampling():
    rng = np.random.default_rng(0)
    values = simulated([2.0, 1.0, 0.5], (200, 4, 1), rng)
    found = components(values, counting=0.25)
    assert [part.sd for part in found[1:3]] == pytest.approx([1.0, 0.5], rel=0.1)
    assert found[2].low == found[2].high == 0.5
    with pytest.raises(ValueError, match="two initialisations"):
        components(values[:, :1])


def table(inits=(3, 3, 3), samplings=3, ratio=0.5, n=400):
    rng, rows = np.random.default_rng(0), []
    for data, count in enumerate(inits):
        for train in range(count):
            for sampling in range(samplings):
                seeds = {"data.seed": data, "train.seed": 10 * data + train, "eval.seed": sampling}
                hits = rng.binomial(n, ratio)
                name = f"{data}-{train}-{sampling}"
                about = {"evaluation": name, "n_samples": n, "memorization_ratio": hits / n}
                rows.append({**seeds, **about})
    return pd.DataFrame(rows)


def test_ratios_that_only_counting_spreads():
    found = ratio_components(table()).set_index("name")
    assert found.loc["counting", "sd"] == pytest.approx(2.5, abs=0.1)  # 100 sqrt(.25 / 400)
    assert found.loc["sampling", "low"] < 2.5 < found.loc["sampling", "high"]
    assert found.loc["data", "low"] == found.loc["initialisation", "low"] == 0
    assert list(found.iloc[0][["n_data", "n_initialisations", "n_samplings"]]) == [3, 3, 3]


@pytest.mark.parametrize("inits", [(3, 3, 2), (3,), (1, 1, 1)])
def test_a_design_that_is_not_nested_evenly(inits):
    with pytest.raises(UserError, match=r"plot variance: \d data.seed with .* it needs two or"):
        ratio_components(table(inits))
