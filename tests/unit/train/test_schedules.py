"""Schedules against the published numbers (Gu et al. 2023, Section 2 and appendix)."""

import math
from itertools import pairwise

import numpy as np
import pytest

from emm.errors import UserError
from emm.train.order import DataOrder
from emm.train.schedules import (
    PUBLISHED_EMA,
    check_ema,
    ema_rate,
    epoch_of,
    snapshot_steps,
    total_steps,
    warmup_factor,
)

# size, epochs, thousands of images, steps, warm-up steps, snapshots, epochs between them
PUBLISHED = [
    (500, 40000, 20_000, 39_063, 195, 8, 5018),
    (1000, 40000, 40_000, 78_125, 391, 16, 2509),
    (2000, 40000, 80_000, 156_250, 781, 32, 1254),
    (3000, 40000, 120_000, 234_375, 1172, 48, 836),
    (4000, 40000, 160_000, 312_500, 1563, 64, 627),
    (5000, 40000, 200_000, 390_625, 1953, 80, 502),
    (8000, 40000, 320_000, 625_000, 3125, 128, 314),
    (16000, 40000, 640_000, 1_250_000, 6250, 256, 157),
    (50000, 12000, 600_000, 1_171_875, 19531, 240, 50),
]
SIZES = [row[0] for row in PUBLISHED]


def published_warmup(images: int, size: int) -> float:
    return min(images / (1000 * math.floor(size / 5)), 1)


def published_ema(images: int, size: int, batch: int = 512) -> float:
    half_life = min(1000 * math.floor(size / 100), 0.05 * images) * 50000 / size
    return 0.5 ** (batch / half_life) if half_life else 0.0


@pytest.mark.parametrize("row", PUBLISHED, ids=SIZES)
def test_published_durations(row):
    size, epochs, kimg, steps, warmup, snapshots, apart = row
    assert total_steps(epochs, size, 512) == steps
    assert math.ceil(kimg * 1000 / 512) == steps
    assert epoch_of(steps, size, 512) == pytest.approx(epochs, abs=512 / size)
    kept = snapshot_steps("published", epochs, size, 512)
    assert (len(kept), kept[-1]) == (snapshots, steps)
    assert {b - a for a, b in pairwise(kept[:-1])} <= {4900}
    assert kept[0] * 512 == 2_508_800
    assert epoch_of(kept[0], size, 512) == pytest.approx(apart, abs=0.61)
    below = [step for step in range(warmup + 2) if warmup_factor(step * 512, size, 200) < 1]
    assert math.floor(200 * size / 512 + 0.5) == warmup
    assert len(below) in (warmup, warmup + 1)


@pytest.mark.parametrize("batch", [128, 256, 384, 512, 640, 768, 896])
def test_published_snapshots_are_apart_by_images_that_depend_on_the_batch(batch):
    first, second = snapshot_steps("published", 40000, 1000, batch)[:2]
    assert first * batch == 50 * math.ceil(50000 / batch) * batch
    assert second == 2 * first


def test_a_training_shorter_than_the_cadence_keeps_its_end():
    assert snapshot_steps("published", 100, 1000, 512) == [196]


@pytest.mark.parametrize(
    ("count", "steps"), [(1, [196]), (2, [98, 196]), (3, [66, 131, 196]), (4, [49, 98, 147, 196])]
)
def test_evenly_spaced_snapshots(count, steps):
    assert snapshot_steps(count, 100, 1000, 512) == steps


def test_no_more_snapshots_than_steps():
    assert snapshot_steps(50, 3, 4, 4) == [1, 2, 3]


def test_a_shorter_published_training_keeps_a_prefix_of_the_snapshots():
    short, long = (snapshot_steps("published", epochs, 2000, 512) for epochs in (4000, 40000))
    assert short[:-1] == long[: len(short) - 1]


@pytest.mark.parametrize("size", SIZES)
def test_warmup_is_the_published_one(size):
    for images in (0, 512, 5120, 100 * size, 199 * size, 200 * size, 1000 * size):
        expected = published_warmup(images, size)
        assert warmup_factor(images, size, 200) == pytest.approx(expected, rel=1e-12)
    assert warmup_factor(0, size, 200) == 0
    assert warmup_factor(200 * size, size, 200) == 1


def test_warmup_has_the_published_floor():
    assert warmup_factor(400_000, 2003, 200) == 1
    assert warmup_factor(399_999, 2003, 200) < 1


@pytest.mark.parametrize("size", [1, 3, 7, 250])
def test_warmup_of_other_lengths(size):
    assert warmup_factor(0, size, 0) == 1
    assert warmup_factor(0, size, 10) == 0
    assert warmup_factor(max(size, 5) * 10, size, 10) == 1


@pytest.mark.parametrize("size", [*SIZES, 250, 1234])
def test_default_ema_is_the_published_one(size):
    for epoch in (0, 0.3, 1, 10, 60, 199, 201, 5000):
        images = round(epoch * size)
        expected = published_ema(images, size)
        found = ema_rate(PUBLISHED_EMA, images, size, 512, 200)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("size", [1000, 5000])
def test_ema_ramp(size):
    assert ema_rate(PUBLISHED_EMA, 0, size, 512, 200) == 0
    for epoch in (1, 7, 50, 150, 200):
        found = ema_rate(PUBLISHED_EMA, epoch * size, size, 512, 200)
        assert found == pytest.approx(0.5 ** (512 / (2500 * epoch)))
    for epoch in (200, 201, 40000):
        found = ema_rate(PUBLISHED_EMA, epoch * size, size, 512, 200)
        assert found == pytest.approx(0.99929, abs=1e-6)
        assert math.log(0.5) / math.log(found) == pytest.approx(976, abs=1)


def test_floors_bite_unless_the_size_is_a_multiple_of_hundred():
    assert ema_rate(PUBLISHED_EMA, 10**9, 250, 512, 200) == pytest.approx(0.99911, abs=5e-6)


def test_ema_below_a_hundred_images_has_no_floor():
    assert ema_rate(PUBLISHED_EMA, 10**9, 20, 512, 200) == pytest.approx(0.99929, abs=1e-6)


@pytest.mark.parametrize("images", [0, 1000, 10**5, 10**7])
def test_default_ema_does_not_follow_the_batch(images):
    rates = {ema_rate(PUBLISHED_EMA, images, 1000, batch, 200) for batch in (32, 256, 512, 896)}
    assert len(rates) == 1


@pytest.mark.parametrize("final", [0.999, 0.99, 0.9, 0.8, 0.5, 0.2, 0.1, 0.0])
@pytest.mark.parametrize("batch", [256, 512])
def test_other_rates_scale_the_ramp_and_follow_the_batch(final, batch):
    for images in (0, 5120, 100_000, 10**7):
        expected = final / 0.99929 * published_ema(images, 1000, batch)
        assert ema_rate(final, images, 1000, batch, 200) == pytest.approx(expected, rel=1e-12)
    assert ema_rate(final, 10**7, 1000, 512, 200) == pytest.approx(final, abs=1e-6)


@pytest.mark.parametrize("batch", [32, 128, 256, 512])
def test_a_rate_that_would_end_at_1_is_refused(batch):
    """The ramp is that of the published rate, so that much larger ones end above 1."""
    for rate in (0.5, 0.999, PUBLISHED_EMA):
        check_ema(rate, 1000, batch, 200)
    if ema_rate(0.9999, 10**9, 1000, batch, 200) >= 1:
        with pytest.raises(UserError, match=r"train.ema 0.9999.* the rate would end at 1\.000"):
            check_ema(0.9999, 1000, batch, 200)
    else:
        assert batch == 512
        check_ema(0.9999, 1000, batch, 200)


def test_ema_ramp_follows_the_warmup():
    assert ema_rate(0.9, 0, 1000, 512, 0) == 0
    assert ema_rate(0.9, 1, 1000, 512, 0) == pytest.approx(0.9, abs=1e-6)
    for epoch in (1, 5, 10, 50):
        short = ema_rate(PUBLISHED_EMA, epoch * 1000, 1000, 512, 10)
        assert short == pytest.approx(ema_rate(PUBLISHED_EMA, 20 * epoch * 1000, 1000, 512, 200))


def batches(size: int, batch: int, steps: int) -> np.ndarray:
    order = DataOrder(size, batch, 1024, "cpu")
    return np.concatenate([order.batch(step).numpy() for step in range(steps)])


def test_data_order_is_the_published_one():
    assert batches(1000, 5, 1).tolist() == [570, 246, 619, 639, 467]


@pytest.mark.parametrize(("size", "batch"), [(1000, 512), (10, 4), (3, 8), (8, 8)])
def test_the_same_permutation_is_repeated_across_epochs(size, batch):
    drawn = batches(size, batch, 20)
    permutation = np.random.RandomState(1024).permutation(size)
    np.testing.assert_array_equal(drawn, np.resize(permutation, 20 * batch))
