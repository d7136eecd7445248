"""Copies of repeated images apart from those of others."""

import numpy as np
import pytest

from emm.data.sources import load_source
from emm.data.stage import Subset, build_subset
from emm.score.copies import COLUMNS, counter
from emm.score.criteria import wilson_interval
from emm.score.stage import score_arrays

FRESH = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def subset() -> Subset:
    """20 digits, 4 of which stand 5 times."""
    return build_subset(load_source("digits"), size=20, duplicated=0.2, copies=5)


def counted(subset: Subset, samples: np.ndarray, rows: slice | None = None) -> dict[str, float]:
    rows = rows or slice(0, len(subset))
    return counter(subset, rows)(score_arrays(samples, subset.images[rows], xp=np))


def kinds(subset: Subset) -> tuple[np.ndarray, np.ndarray]:
    """Images that are repeated, and those that are not, once each."""
    repeated = subset.multiplicity[:20] > 1
    return subset.images[:20][repeated], subset.images[:20][~repeated]


def test_rates_per_image(subset):
    repeated, single = kinds(subset)
    samples = np.concatenate([repeated[[0, 0, 0, 1, 1, 2]], single[[0, 0, 5, 7]], FRESH])
    found = counted(subset, samples)
    assert set(found) == set(COLUMNS)
    assert (found["n_repeated"], found["n_single"]) == (4, 16)
    assert (found["n_memorized_repeated"], found["n_memorized_single"]) == (6, 4)
    assert (found["repeated_ratio"], found["single_ratio"]) == (6 / 20, 4 / 20)
    assert (found["repeated_rate"], found["single_rate"]) == (75, 12.5)
    assert found["relative_rate"] == pytest.approx(6)
    assert (found["coverage_repeated"], found["coverage_single"]) == (3 / 4, 3 / 16)
    assert found["coverage"] == 6 / 20
    assert found["coverage_ceiling"] == pytest.approx(1 - np.exp(-1))


def test_intervals(subset):
    repeated, single = kinds(subset)
    found = counted(subset, np.concatenate([repeated[[0, 0, 0, 1, 1, 2]], single[:4], FRESH]))
    low, high = wilson_interval(6, 10)
    assert found["relative_rate_low"] == pytest.approx(4 * low / (1 - low))
    assert found["relative_rate_high"] == pytest.approx(4 * high / (1 - high))
    assert (found["repeated_ratio_low"], found["repeated_ratio_high"]) == wilson_interval(6, 20)


def test_images_drawn_by_their_shares_have_the_rate_of_their_copies(subset):
    drawn = np.random.default_rng(1).integers(0, len(subset), 20_000)
    found = counted(subset, subset.images[drawn])
    assert found["relative_rate"] == pytest.approx(5, rel=0.05)
    assert found["relative_rate_low"] < 5 < found["relative_rate_high"]


def test_without_copies_of_single_images_there_is_no_quotient(subset):
    found = counted(subset, kinds(subset)[0])
    assert np.isnan(found["relative_rate"])
    assert found["relative_rate_low"] > 0
    found = counted(subset, FRESH)
    assert np.isnan([found["relative_rate"], found["relative_rate_low"]]).all()
    assert (found["repeated_rate"], found["coverage"]) == (0, 0)


def test_a_subset_without_copies_has_no_such_columns():
    plain = build_subset(load_source("digits"), size=20)
    assert counted(plain, plain.images) == {}


def test_dummies_are_of_neither_kind():
    data = load_source("mondrian", size=10, resolution=8, margin=1)
    dummies = load_source("gaussian_mixture", size=6, resolution=8)
    mixed = build_subset(data, size=10, dummies=dummies, dummy_size=6, duplicated=0.2, copies=3)
    samples = np.concatenate([mixed.images[:10], dummies.images[:3]])
    found = counted(mixed, samples)
    assert (found["n_repeated"], found["n_single"]) == (2, 8)
    assert found["n_memorized_repeated"] + found["n_memorized_single"] == 10
    assert found["coverage"] == 13 / 16
    without = counted(mixed, samples, slice(0, len(mixed) - 6))
    assert without["coverage"] == 1
