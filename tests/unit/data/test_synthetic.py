import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from emm.data.synthetic import (
    BLOCK,
    gaussian_mixture,
    gaussian_mixture_modes,
    mondrian,
    random_ink,
)
from emm.errors import UserError
from emm.seeds import derive

GENERATORS = [mondrian, random_ink, gaussian_mixture]
CORNERS = {(0, 0), (0, -1), (-1, 0), (-1, -1)}


def cross_lines(image: np.ndarray, axis: int) -> np.ndarray:
    """Rows (axis 0) or columns (axis 1) with more colours than two quadrants and a line have."""
    codes = image.astype(np.int64) @ [1, 256, 65536]
    lines = codes if axis == 0 else codes.T
    return np.flatnonzero([len(set(line)) > 12 for line in lines.tolist()])


def distance_ratios(samples: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distance to the nearest over that to the second nearest reference image."""
    a, b = (x.reshape(len(x), -1) / 255.0 for x in (samples, reference))
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    nearest, second = np.sqrt(np.partition(squares, 1)[:, :2].T)
    return nearest / second


@pytest.mark.parametrize("generate", GENERATORS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), lengths=st.tuples(st.integers(0, 200), st.integers(0, 200)))
def test_longer_set_begins_with_shorter(generate, seed, lengths):
    short, long = sorted(lengths)
    longer = generate(long, seed)
    assert longer.shape == (long, 32, 32, 3)
    assert longer.dtype == np.uint8
    np.testing.assert_array_equal(longer[:short], generate(short, seed))


@pytest.mark.parametrize("generate", GENERATORS)
def test_seeds_and_blocks_differ(generate):
    images = generate(3 * BLOCK, 0)
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    assert (images != generate(3 * BLOCK, 1)).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
    ("generate", "start", "total"),
    [
        (mondrian, [5, 245, 38], 25_026_577),
        (random_ink, [0, 255, 0], 25_535_190),
        (gaussian_mixture, [171, 255, 147], 25_456_242),
    ],
)
def test_golden_values(generate, start, total):
    images = generate(BLOCK + 1, 0)
    assert (images[0, 0, 0].tolist(), int(images.sum())) == (start, total)


@pytest.mark.parametrize("generate", GENERATORS)
def test_ten_thousand_images_take_under_three_seconds(generate):
    start = time.process_time()
    generate(10_000, 0)
    assert time.process_time() - start < 3


@pytest.mark.parametrize("generate", GENERATORS)
def test_other_resolution(generate):
    assert generate(3, 0, resolution=16).shape == (3, 16, 16, 3)


@pytest.mark.parametrize(
    ("generate", "lowest", "median"),
    [(mondrian, 0.6, 0.95), (random_ink, 0.97, 0.99), (gaussian_mixture, 0.85, 0.99)],
)
def test_fresh_samples_are_never_replicas(generate, lowest, median):
    ratios = distance_ratios(generate(200, 1), generate(1000, 0))
    assert ratios.min() > lowest
    assert median < np.median(ratios) < 1


def test_mondrian_quadrants_have_one_colour():
    for image in mondrian(100, 3):
        (row,), (column,) = cross_lines(image, 0), cross_lines(image, 1)
        for rows in (slice(0, row), slice(row + 1, None)):
            for columns in (slice(0, column), slice(column + 1, None)):
                assert len(np.unique(image[rows, columns].reshape(-1, 3), axis=0)) == 1


def test_mondrian_cross_is_uniform_on_4_to_27():
    images = mondrian(1200, 5)
    for axis in (0, 1):
        lines = np.concatenate([cross_lines(image, axis) for image in images])
        assert len(lines) == len(images)
        assert set(lines) == set(range(4, 28))
        assert stats.chisquare(np.bincount(lines - 4)).pvalue > 1e-3


def test_mondrian_colours_and_pixels_are_uniform():
    images = mondrian(4000, 7, cross_position="centre")
    for values in (*(images[:, y, x] for y, x in CORNERS), images[:, 15]):
        bins = np.bincount(values.ravel() // 16, minlength=16)
        assert stats.chisquare(bins).pvalue > 1e-4
    line = images[:, 15].astype(float)
    neighbours = np.corrcoef(line[:, :-1].ravel(), line[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 0.01


@pytest.mark.parametrize(("width", "first"), [(1, 15), (2, 15), (4, 14)])
def test_mondrian_centre_cross(width, first):
    for image in mondrian(5, 0, cross_width=width, cross_position="centre"):
        expected = list(range(first, first + width))
        assert cross_lines(image, 0).tolist() == cross_lines(image, 1).tolist() == expected


def test_a_centred_cross_has_no_margin():
    """A margin that a random cross would not fit into says nothing of one in the middle."""
    about = {"resolution": 8, "cross_width": 2, "cross_position": "centre"}
    wide, narrow = (mondrian(5, 0, margin=margin, **about) for margin in (4, 1))
    np.testing.assert_array_equal(wide, narrow)


@settings(max_examples=15, deadline=None)
@given(width=st.integers(1, 6), margin=st.integers(0, 8), seed=st.integers(0, 9))
def test_mondrian_cross_keeps_its_margin(width, margin, seed):
    for image in mondrian(4, seed, cross_width=width, margin=margin):
        lines = cross_lines(image, 0)
        assert len(lines) == width
        assert margin <= lines[0] <= lines[-1] <= 31 - margin


def test_mondrian_geometry_changes_neither_colours_nor_pixels():
    thin, wide = (mondrian(50, 0, cross_width=w, cross_position="centre") for w in (1, 4))
    for y, x in CORNERS:
        np.testing.assert_array_equal(thin[:, y, x], wide[:, y, x])
    np.testing.assert_array_equal(thin[:, 15], wide[:, 15])


@pytest.mark.parametrize(
    "options",
    [{"cross_width": 25}, {"cross_width": 0}, {"margin": -1}, {"cross_position": "left"}],
)
def test_mondrian_refuses_impossible_geometry(options):
    with pytest.raises(UserError, match=r"data\.cross_"):
        mondrian(1, 0, **options)


def test_random_ink_is_a_fair_coin():
    images = random_ink(200, 0)
    assert set(np.unique(images)) == {0, 255}
    ones = int((images == 255).sum())
    assert stats.binomtest(ones, images.size).pvalue > 1e-3
    bits = (images > 0).reshape(-1, 3).astype(float)
    assert np.abs(np.corrcoef(bits.T) - np.eye(3)).max() < 0.01


def test_modes_are_fixed_and_uniform():
    modes = gaussian_mixture_modes()
    assert modes.shape == (100, 32, 32, 3)
    np.testing.assert_array_equal(modes, gaussian_mixture_modes())
    assert stats.kstest(modes.ravel(), "uniform").pvalue > 1e-3


def test_mixture_stays_around_its_hundred_modes():
    images = gaussian_mixture(3000, derive(11, "any")) / 255.0
    modes = gaussian_mixture_modes().reshape(100, -1).astype(float)
    flat = images.reshape(len(images), -1)
    nearest = ((modes * modes).sum(1) - 2 * flat @ modes.T).argmin(1)
    assert stats.chisquare(np.bincount(nearest, minlength=100)).pvalue > 1e-3
    means, inner = modes[nearest], (flat > 0) & (flat < 1)
    expected_black = stats.norm.cdf(0.5 / 255, means, 0.5).mean()
    assert (flat < 0.5 / 255).mean() == pytest.approx(expected_black, abs=1e-3)
    noise = np.abs(flat - means)[inner & (np.abs(means - 0.5) < 0.05)]
    inside = stats.truncnorm(0, 0.45 / 0.5, scale=0.5)  # of |noise|, up to where clipping starts
    assert noise[noise < 0.45].mean() == pytest.approx(inside.mean(), abs=2e-3)
