"""Samples against reconstructed training images."""

import numpy as np
import pytest

from emm.score.reconstructed import COLUMNS, summarise


def noise(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


def blurred(images: np.ndarray) -> np.ndarray:
    """What is left of images when half of them is lost."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return (mean + (images - mean) / 2).astype(np.uint8)


def test_planted_copies_and_fresh_noise():
    training = blurred(noise(0, 20))
    assert summarise(training[:5], training, "distinct", np) == pytest.approx(
        dict(zip(COLUMNS, (5, 1.0, 0.5655, 1.0), strict=True)), abs=1e-4
    )
    fresh = summarise(noise(1, 10), training, "distinct", np)
    assert (fresh["n_memorized_reconstructed"], fresh["memorization_ratio_reconstructed"]) == (0, 0)


def test_a_blurred_copy_is_one_of_the_reconstruction_alone():
    from emm.score.stage import score_arrays

    training = noise(2, 20)
    copies = blurred(training)
    assert score_arrays(copies, training, xp=np).memorized.sum() == 0
    assert summarise(copies, copies, "distinct", np)["n_memorized_reconstructed"] == 20


def test_the_rule_for_duplicates_is_followed():
    known = blurred(noise(3, 10))
    known[1] = known[0]
    found = [
        summarise(known[:1], known, rule, np)[COLUMNS[0]] for rule in ("distinct", "published")
    ]
    assert found == [1, 0]
