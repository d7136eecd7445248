"""All criteria of copying, against their definitions in loops over pairs of images."""

import json
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from emm.analyse.metrics import is_metric
from emm.data.sources import load_source
from emm.data.stage import build_subset, write_source, write_subset
from emm.diffusion import SAMPLE_INDEX
from emm.errors import UserError
from emm.files import write_arrays, write_text
from emm.measure.columns import whole as columns
from emm.measure.criteria import (
    compare,
    make_reference,
    near_limit,
    relative_distance,
    twins,
)
from emm.measure.sampled import compare_images, measure_criteria
from emm.score.criteria import is_memorized
from emm.score.k_nearest import k_nearest
from emm.score.nearest import Neighbours, two_nearest
from emm.spec import DEFAULTS

RNG = np.random.default_rng(0)
NAMES = ("memorization_ratio_held_out", "carlini_share", "near_share", "authentic_share")


def images_of(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 5, 5, 1), np.uint8)


def shifted(images: np.ndarray, by: int) -> np.ndarray:
    """Images that differ from others by up to `by` grey levels."""
    noise = RNG.integers(-by, by + 1, images.shape)
    return np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8)


def apart(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first.astype(float) - second.astype(float)))


@pytest.fixture(scope="module")
def training():
    return images_of(70)


@pytest.fixture(scope="module")
def samples(training):
    """Copies from near to far, and images of their own of which some are twins."""
    near = [shifted(training[:20], by) for by in (4, 25, 60, 110)]
    own = images_of(20)
    return np.concatenate([*near, own, shifted(own[:6], 5), own[6:8], own[8:9], own[8:9]])


@pytest.fixture(scope="module")
def held_out(training):
    return np.concatenate([images_of(180), shifted(training[:5], 10)])


@pytest.fixture(scope="module")
def found(samples, training, held_out):
    return compare(samples, make_reference(training, held_out, np), np)


def by_hand(images, training):
    """Sorted distances from each image to all training images, and the nearest of these."""
    distances = np.array([[apart(image, other) for other in training] for image in images])
    return np.sort(distances, axis=1), distances.argmin(axis=1)


def test_shares_at_each_threshold(found, samples, training, held_out):
    for images, end in ((samples, ""), (held_out, "_held_out")):
        sorted_distances, _ = by_hand(images, training)
        ratios = sorted_distances[:, 0] / sorted_distances[:, 1]
        for percent in range(10, 100, 10):
            share = np.mean(ratios < percent / 100)
            assert found[f"ratio_share_{percent}{end}"] == pytest.approx(share), (percent, end)
        third = found["memorization_ratio_held_out"] if end else 1 - _not_memorized(found)
        assert third == pytest.approx(np.mean(ratios < 1 / 3))


def _not_memorized(found):
    return found["spurious_share"] + found["novel_share"]


def test_relative_distance_is_over_the_mean_of_fifty(found, samples, training):
    sorted_distances, _ = by_hand(samples, training)
    relative = sorted_distances[:, 0] / (0.5 * sorted_distances[:, :50].mean(axis=1))
    assert found["carlini_share"] == np.mean(relative < 1)
    assert found["carlini_q50"] == pytest.approx(np.median(relative))
    assert found["carlini_neighbours"] == 50
    assert 0 < found["carlini_share"] < 1


def test_of_two_images_the_relative_distance_is_the_rule_of_a_third():
    squared = RNG.integers(0, 40, (3000, 2)) ** 2
    squared.sort(axis=1)
    rows = Neighbours(np.zeros_like(squared), squared)
    np.testing.assert_array_equal(relative_distance(rows) < 1, is_memorized(squared))
    assert (relative_distance(rows)[squared[:, 1] == 0] == 2).all()


def test_near_is_nearer_than_most_held_out_images(found, samples, training, held_out):
    nearest = np.sort(by_hand(held_out, training)[0][:, 0])
    limit = nearest[int(0.05 * (len(held_out) + 1)) - 1]
    assert found["near_distance"] == pytest.approx(limit / 5)  # of 25 components
    assert found["near_share"] == np.mean(by_hand(samples, training)[0][:, 0] < limit)


def test_the_rate_of_false_positives_of_near_is_at_most_what_it_says():
    for count, share in ((19, 0.05), (60, 0.05), (500, 0.2)):
        drawn = RNG.integers(0, 10**9, (20_000, count + 1))
        limits = np.array([near_limit(row[1:], share) for row in drawn])
        rate = np.mean(drawn[:, 0] < limits)
        assert rate == pytest.approx(int(share * (count + 1)) / (count + 1), abs=0.006)
    assert near_limit(np.arange(18)) is None


def test_authentic_samples_are_farther_than_training_images_are_apart(found, samples, training):
    spacing = np.sort(by_hand(training, training)[0], axis=1)[:, 1]
    sorted_distances, nearest = by_hand(samples, training)
    assert found["authentic_share"] == np.mean(sorted_distances[:, 0] > spacing[nearest])
    assert 0 < found["authentic_share"] < 1


def test_twins_by_loops(samples):
    verdicts, squared = twins(samples, np)
    for row, image in enumerate(samples):
        others = np.delete(samples, row, axis=0)
        distances = np.sort([apart(image, o) for o in np.unique(others, axis=0)])
        assert verdicts[row] == (3 * distances[0] < distances[1]), row
        assert np.sqrt(squared[row]) == pytest.approx(distances[0])


def test_memorized_spurious_and_novel_make_up_all(found, samples, training):
    memorized = is_memorized(two_nearest(samples, training, xp=np).squared_distances)
    similar, squared = twins(samples, np)
    assert found["spurious_share"] == np.mean(similar & ~memorized)
    assert memorized.mean() + _not_memorized(found) == pytest.approx(1)
    assert found["spurious_share"] >= 10 / len(samples)  # 6 pairs, 2 repeated, one thrice
    sorted_distances, _ = by_hand(samples, training)
    clustered = 9 * squared < (sorted_distances[:, 0] ** 2).round()
    assert found["clustered_share"] == np.mean(clustered & ~memorized)


def test_clusters_of_three_hide_from_the_rule_and_are_counted_apart():
    training, own = images_of(40), images_of(30)
    crowd = np.concatenate([own, *(shifted(own[:10], 3) for _ in range(3))])
    result = compare(crowd, make_reference(training, None, np), np)
    assert result["spurious_share"] == 0
    assert result["clustered_share"] == pytest.approx(40 / 60)


def test_copies_are_counted_by_training_image(found, samples, training):
    indices, squared = two_nearest(samples, training, xp=np)
    copied = indices[is_memorized(squared), 0]
    assert found["chao1_total"] - found["chao1_unseen"] == len(np.unique(copied))


def test_repeated_training_images_count_once(found, samples, training, held_out):
    repeated = np.concatenate([training, training[:9], training[:1]])
    again = compare(samples, make_reference(repeated, held_out, np), np)
    assert again == found


def test_without_held_out_images_the_rest_is_the_same(found, samples, training):
    alone = compare(samples, make_reference(training, None, np), np)
    assert alone.keys() == found.keys()
    gone = {name for name in alone if np.isnan(alone[name])}
    assert {"near_share", "near_distance", *(n for n in NAMES if n.endswith("held_out"))} <= gone
    assert alone.pop("n_held_out") == 0
    assert all(alone[name] == found[name] for name in alone if name not in gone)


def test_every_column_is_a_metric_with_its_interval(found):
    ends = ("_low", "_high")
    assert all(is_metric(name) for name in found if not name.endswith(ends))
    for name in found:
        if f"{name}_low" in found:
            assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert {f"{name}_low" for name in NAMES} <= found.keys()


def test_too_few_images_are_refused(training):
    with pytest.raises(UserError, match="one sample"):
        compare(training[:1], make_reference(training, None, np), np)
    with pytest.raises(UserError, match="two must differ"):
        make_reference(np.repeat(training[:1], 5, axis=0), None, np)
    assert compare(training[:2], make_reference(training, None, np), np)["spurious_share"] == 0


def written_run(folder, augment="none", size=30, selection="balanced_prefix"):
    """A source, a subset of it and samples of two checkpoints, as the stages before write them."""
    source = load_source("digits")
    subset = build_subset(source, size=size, resolution=8, selection=selection)
    samples = {1: images_like(subset.images), 2: shifted(subset.images[:20], 3)}
    (folder / "samples").mkdir()
    entries = []
    for step, images in samples.items():
        write_arrays(folder / "samples" / f"{step}.npz", {"images": images})
        entries.append({"step": step, "epoch": step / 2, "file": f"{step}.npz"})
    settings = DEFAULTS | {"train.augment": augment, "data.selection": selection}
    index = {"run": "r", "evaluation": "e", "settings": settings, "checkpoints": entries}
    write_text(folder / "samples" / SAMPLE_INDEX, pd.Series(index).to_json())
    write_subset(folder / "subset.npz", subset)
    write_source(folder / "source.npz", source)
    return folder / "samples", folder / "subset.npz", folder / "source.npz"


def images_like(images):
    return RNG.integers(0, 256, (25, *images.shape[1:]), np.uint8)


def test_a_run_has_a_row_per_checkpoint(tmp_path):
    frame = measure_criteria(*written_run(tmp_path), tmp_path / "out.parquet", device="cpu")
    written = pd.read_parquet(tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(frame, written)
    assert frame[["run", "evaluation", "step", "epoch"]].to_numpy().tolist() == [
        ["r", "r/e", 1, 0.5],
        ["r", "r/e", 2, 1.0],
    ]
    assert frame["carlini_neighbours"].tolist() == [30, 30]
    assert frame["n_held_out"].between(1700, 1797).all()
    assert frame["near_share"].tolist() == [0, 1]
    assert set(columns(frame)) & {"run", "evaluation", "epoch"} == set()


def test_held_out_images_are_of_what_the_training_set_was_drawn_from(tmp_path):
    """Six digits are of few kinds: images of all kinds are farther from them than of these."""
    distances = {}
    for selection in ("random", "balanced_prefix"):
        folder = tmp_path / selection
        folder.mkdir()
        paths = written_run(folder, size=6, selection="random")
        index = json.loads((paths[0] / SAMPLE_INDEX).read_text())
        index["settings"]["data.selection"] = selection
        write_text(paths[0] / SAMPLE_INDEX, json.dumps(index))
        distances[selection] = measure_criteria(*paths, folder / "out.parquet", device="cpu")
    pooled, alike = distances["random"].iloc[0], distances["balanced_prefix"].iloc[0]
    assert pooled["n_held_out"] > 1700
    assert pooled["n_held_out"] > 1.2 * alike["n_held_out"]
    assert pooled["near_distance"] > 1.03 * alike["near_distance"]


def test_where_nothing_is_held_out_the_false_positives_are_unknown(tmp_path):
    paths = written_run(tmp_path, size=None)
    frame = measure_criteria(*paths, tmp_path / "out.parquet", device="cpu")
    assert frame["n_held_out"].tolist() == [0, 0]
    assert frame["near_share"].isna().all()
    assert frame["carlini_share"].notna().all()


def test_augmentation_is_refused(tmp_path):
    with pytest.raises(UserError, match="augment flip: images that were moved"):
        measure_criteria(*written_run(tmp_path, "flip"), tmp_path / "out.parquet", device="cpu")


def test_images_of_others_are_judged_alike(tmp_path, samples, training, held_out, found):
    for name, images in {"s": samples, "t": training, "h": held_out}.items():
        np.save(tmp_path / f"{name}.npy", images)
    paths = (tmp_path / f"{name}.npy" for name in "sth")
    assert compare_images(*paths, device="cpu") == found


def test_thresholds_are_exact(training):
    """A sample at exactly half the distance counts at no threshold up to a half."""
    two = np.zeros((2, 1, 1, 1), np.uint8)
    two[1] = 3
    middle = np.full((2, 1, 1, 1), 1, np.uint8)
    found = compare(middle, make_reference(two, None, np), np)
    assert k_nearest(middle, two, 2, xp=np).squared_distances.tolist() == [[1, 4], [1, 4]]
    assert found["ratio_share_50"] == 0
    assert found["ratio_share_60"] == 1
    assert is_memorized(np.array([[1, 4]]), Fraction(51, 100)).all()
