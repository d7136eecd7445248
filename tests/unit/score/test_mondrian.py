"""Mondrian samples: found in any geometry, told from noise, and their copies of layouts counted."""

import itertools
import math

import numpy as np
import pytest

from emm.data.synthetic import flat, gaussian_mixture, mondrian, random_ink
from emm.score.criteria import distance_ratio, is_memorized
from emm.score.mondrian import (
    COLUMNS,
    SHARES,
    Crosses,
    Layouts,
    copies_layout,
    cross_lines,
    crosses_of,
    find_layouts,
    is_mondrian,
    summarise,
)
from emm.score.nearest import two_nearest

GEOMETRIES = {  # resolution, cross width, position, margin
    "random-1": (32, 1, "random", 4),
    "random-2": (32, 2, "random", 4),
    "centre-2": (32, 2, "centre", 4),
    "centre-4": (32, 4, "centre", 4),
    "edge": (16, 1, "random", 0),
    "small": (8, 1, "random", 1),
}


def drawn(name: str, count: int, seed: int) -> tuple[np.ndarray, Crosses]:
    """Images of a geometry, and where their crosses may be."""
    resolution, width, position, margin = GEOMETRIES[name]
    about = {"cross_width": width, "cross_position": position, "margin": margin}
    settings = {f"data.{key}": value for key, value in about.items()}
    settings |= {"data.dataset": "mondrian", "data.cross_margin": margin}
    images = mondrian(count, seed, resolution=resolution, **about)
    return images, crosses_of(settings, resolution)


def apart(count: int) -> np.ndarray:
    """Squared distances (N, 2) of samples that are no copies."""
    return np.full((count, 2), 10**6)


def on_cross(images: np.ndarray, name: str) -> np.ndarray:
    """Pixels (N, H, H) of the cross, from the layouts found."""
    _, crosses = drawn(name, 1, 0)
    starts = find_layouts(images, crosses).starts
    offset = np.arange(images.shape[1]) - starts[:, :, None]
    on_line = (offset >= 0) & (offset < crosses.width)
    return on_line[:, 0, :, None] | on_line[:, 1, None, :]


def redrawn(images: np.ndarray, name: str, seed: int = 0) -> np.ndarray:
    """The same layouts with other pixels on the cross."""
    pixels = np.random.default_rng(seed).integers(0, 256, images.shape, np.uint8)
    return np.where(on_cross(images, name)[..., None], pixels, images)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_layouts_of_true_images_are_exact(name):
    images, crosses = drawn(name, 150, 1)
    layouts = find_layouts(images, crosses)
    assert (layouts.quadrant_sd == 0).all()
    assert is_mondrian(layouts).all()
    assert np.isin(layouts.starts, crosses.starts).all()
    for image, (row, column), colours in zip(images, layouts.starts, layouts.colours, strict=True):
        ends = row + crosses.width, column + crosses.width
        quadrants = (
            *(image[:row, :column], image[:row, ends[1] :]),
            *(image[ends[0] :, :column], image[ends[0] :, ends[1] :]),
        )
        for quadrant, colour in zip(quadrants, colours, strict=True):
            assert (quadrant == colour).all()
            assert np.isnan(colour).all() == (quadrant.size == 0)


@pytest.mark.parametrize("name", ["random-1", "small"])
def test_noise_and_flat_images_are_no_mondrian_images(name):
    images, crosses = drawn(name, 60, 1)
    size = {"resolution": images.shape[1]}
    noisy = images + np.random.default_rng(0).normal(0, 6, images.shape)
    for kind, expected in (
        (noisy.clip(0, 255).astype(np.uint8), True),
        (gaussian_mixture(60, 1, **size), False),
        (random_ink(60, 1, **size), False),
        (flat(60, 1, **size), False),
    ):
        assert (is_mondrian(find_layouts(kind, crosses)) == expected).all()


def test_other_data_sets_have_no_crosses():
    assert crosses_of({"data.dataset": "cifar10"}, 32) is None


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("random-1", 0.44, 0.48), ("centre-2", 0.66, 0.70), ("centre-4", 0.80, 0.83)],
)
def test_copies_of_layouts_are_hardly_ever_memorized(name, least, most):
    """Figures of a computation with these images; fresh images never trip the rule."""
    training, crosses = drawn(name, 2000, 1)
    copies = redrawn(training[:400], name)
    fresh, _ = drawn(name, 400, 2)
    found = two_nearest(np.concatenate([copies, fresh]), training, xp=np).squared_distances
    ratio, memorized = distance_ratio(found), is_memorized(found)
    assert least <= np.median(ratio[:400]) <= most
    assert memorized[:400].mean() <= (0.02 if name == "random-1" else 0)
    assert not memorized[400:].any()
    assert 0.95 < np.median(ratio[400:]) < 0.99
    known = find_layouts(training, crosses)
    assert copies_layout(find_layouts(copies, crosses), known, found[:400]).all()
    assert not copies_layout(find_layouts(fresh, crosses), known, found[400:]).any()


@pytest.mark.parametrize(("name", "count"), [("random-1", 300), ("small", 16), ("edge", 60)])
def test_whoever_copies_an_image_copies_its_layout(name, count):
    """Noise on pixels, and colours that are off: up to where some are still memorized."""
    training, crosses = drawn(name, count, 1)
    known, rng = find_layouts(training, crosses), np.random.default_rng(0)
    source = training[rng.integers(0, count, 300)]
    for kind, spread in itertools.product(("pixels", "colours"), (10, 20, 30)):
        noise = rng.normal(0, spread, source.shape)
        if kind == "colours":
            noise = evened(noise, find_layouts(source, crosses), crosses.width)
        samples = (source + noise).clip(0, 255).astype(np.uint8)
        layouts, found = find_layouts(samples, crosses), two_nearest(samples, training, xp=np)
        distances, shown = found.squared_distances, is_mondrian(layouts)
        memorized = is_memorized(distances) & shown
        assert memorized.any() or (kind, spread) == ("pixels", 30)  # no longer Mondrian images
        assert copies_layout(layouts, known, distances)[memorized].all(), (kind, spread)
        facts = summarise(samples, layouts, distances, known, crosses)
        if shown.any():
            assert facts["layout_copy_ratio"] >= facts["mondrian_memorization_ratio"]


@pytest.mark.parametrize(("name", "count"), [("small", 16), ("small", 64), ("edge", 60)])
def test_fresh_images_copy_no_layout(name, count):
    training, crosses = drawn(name, count, 1)
    fresh, _ = drawn(name, 2000, 2)
    found = two_nearest(fresh, training, xp=np).squared_distances
    known = find_layouts(training, crosses)
    assert not copies_layout(find_layouts(fresh, crosses), known, found).any()


def evened(noise: np.ndarray, layouts: Layouts, width: int) -> np.ndarray:
    """The first noise of each quadrant on all of it: its colour is off, its pixels agree."""
    result = np.zeros_like(noise)
    for one, made, (row, column) in zip(result, noise, layouts.starts, strict=True):
        for rows in (slice(None, row), slice(row + width, None)):
            for columns in (slice(None, column), slice(column + width, None)):
                one[rows, columns] = made[rows, columns][:1, :1]
    return result


def test_a_layout_is_copied_where_position_and_colours_are():
    images, crosses = drawn("random-1", 20, 1)
    known = find_layouts(images, crosses)
    shade, inside = np.where(images < 128, 1, -1), 3 * (32 - 1) ** 2
    for step in (10, 20, 30, 40):
        shifted = (images + step * shade).astype(np.uint8)
        found = two_nearest(shifted, images, xp=np).squared_distances
        expected = 9 * step**2 * inside < found[:, 1]
        layouts = find_layouts(shifted, crosses)
        assert (copies_layout(layouts, known, found) == expected).all()
    rolled = np.roll(images, 1, axis=1)
    found = two_nearest(rolled, images, xp=np).squared_distances
    assert not copies_layout(find_layouts(rolled, crosses), known, found).any()


def test_summary_counts_mondrian_samples_only():
    training, crosses = drawn("random-1", 200, 1)
    fresh, _ = drawn("random-1", 500, 2)
    samples = np.concatenate(
        [training[:3], redrawn(training[3:5], "random-1"), fresh, gaussian_mixture(95, 1)]
    )
    distances = np.where(np.arange(600) < 3, 0, 10**6)[:, None] + [0, 10**6]
    distances[-1] = 0, 1  # memorized, of another kind
    known = find_layouts(training, crosses)
    found = summarise(samples, find_layouts(samples, crosses), distances, known, crosses)
    assert list(found) == list(COLUMNS)
    assert (found["n_mondrian"], found["n_memorized_mondrian"]) == (505, 3)
    assert found["mondrian_ratio"] == 505 / 600
    assert found["mondrian_memorization_ratio"] == 3 / 505
    for name in SHARES:
        assert 0 < found[f"{name}_low"] < found[name] < found[f"{name}_high"] < 1
    assert found["layout_copy_ratio"] == 5 / 505
    assert found["quadrant_sd_q50"] == 0
    assert found["colour_ks"] < 0.03
    assert found["cross_ks"] < 0.01
    assert abs(found["cross_correlation"]) < 0.01
    assert 0.001 < found["position_p"] < 1


def test_what_is_not_random_shows():
    images, crosses = drawn("random-1", 300, 1)
    layouts = find_layouts(images, crosses)
    dark = np.where(on_cross(images, "random-1")[..., None], images // 2, images // 4 * 3)
    smooth = images.copy()
    mask = on_cross(images, "random-1")
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    smooth[mask] = np.broadcast_to(ramp[:, None] // 2 + ramp // 2, mask.shape)[mask][:, None]
    kept = images[(layouts.starts[:, 0] > 14)]
    facts = [
        summarise(part, at := find_layouts(part, crosses), apart(len(part)), at, crosses)
        for part in (images, dark, smooth, kept)
    ]
    even, dimmed, smoothed, lower = facts
    assert dimmed["cross_ks"] > 0.4 > 0.05 > even["cross_ks"]
    assert dimmed["colour_ks"] > 0.2 > 0.05 > even["colour_ks"]
    assert smoothed["cross_correlation"] > 0.9 > 0.05 > abs(even["cross_correlation"])
    assert lower["position_p"] < 1e-6 < 0.001 < even["position_p"]


@pytest.mark.parametrize(("name", "count"), [("random-1", 50), ("centre-4", 50)])
def test_few_positions_tell_nothing(name, count):
    images, crosses = drawn(name, count, 1)
    layouts = find_layouts(images, crosses)
    found = summarise(images, layouts, apart(count), layouts, crosses)
    assert math.isnan(found["position_p"])


def test_without_mondrian_samples_all_but_their_number_is_unknown():
    training, crosses = drawn("random-1", 20, 1)
    samples = random_ink(30, 1)
    known = find_layouts(training, crosses)
    found = summarise(samples, find_layouts(samples, crosses), apart(30), known, crosses)
    assert [found[name] for name in COLUMNS[:4]] == [0, 0, 0, 0]
    assert 0 < found["mondrian_ratio_high"] < 0.15
    assert all(math.isnan(found[name]) for name in COLUMNS[5:])


@pytest.mark.parametrize("name", ["random-2", "centre-4"])
def test_lines_are_what_the_crosses_are_made_of(name):
    images, crosses = drawn(name, 20, 3)
    lines = cross_lines(images, find_layouts(images, crosses), crosses)
    assert lines.shape == (2 * 20 * crosses.width, 32, 3)
    start = find_layouts(images, crosses).starts[0]
    np.testing.assert_array_equal(lines[0], images[0, start[0]])
    np.testing.assert_array_equal(lines[20 * crosses.width], images[0, :, start[1]])
