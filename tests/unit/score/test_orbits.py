"""Neighbours among orbits against a search that compares every member in plain integers."""

import numpy as np
import pytest

from emm.data.orbits import Move, moved, moves
from emm.errors import UserError
from emm.score.criteria import is_memorized
from emm.score.orbits import nearest_in_orbits, orbit_groups, summarise
from emm.score.stage import score_arrays

RNG = np.random.default_rng(0)


def random_images(count: int, side: int = 4) -> np.ndarray:
    return RNG.integers(0, 256, (count, side, side, 1), np.uint8)


def by_hand(samples, training, orbit, groups):
    """Group and squared distance of the two nearest groups, from all distances."""
    found = []
    for sample in samples.astype(np.int64):
        best: dict[int, int] = {}
        for move in orbit:
            for row, image in enumerate(moved(training, move).astype(np.int64)):
                distance = int(((sample - image) ** 2).sum())
                best[groups[row]] = min(best.get(groups[row], distance), distance)
        found.append(sorted((distance, group) for group, distance in best.items())[:2])
    found = np.array(found)
    return found[..., 1], found[..., 0]


def with_twins() -> np.ndarray:
    """Images of which some repeat, mirror or shift others."""
    base = random_images(8)
    base[:, 0] = base[:, -1] = 0  # shifts by a row lose nothing
    flipped, lowered = moved(base[:2], Move(True, 0, 0)), moved(base[2:4], Move(False, 1, 0))
    return np.concatenate([base, flipped, lowered, base[4:5], base[4:5]])


@pytest.mark.parametrize("kind", ["flip", "shift", "flip_shift"])
@pytest.mark.parametrize("twins", [False, True])
def test_neighbours_are_those_of_all_members(kind, twins):
    orbit = moves(kind, 1)
    training = with_twins() if twins else random_images(12)
    members = np.concatenate([moved(training, move) for move in orbit])
    noisy = np.clip(members[::5].astype(int) + RNG.integers(-9, 9, members[::5].shape), 0, 255)
    samples = np.concatenate([noisy.astype(np.uint8), random_images(10), members[::7]])
    first, groups = orbit_groups(training, orbit)
    found = nearest_in_orbits(samples, training, orbit)
    expected, distances = by_hand(samples, training, orbit, groups)
    np.testing.assert_array_equal(found.neighbours.indices, first[expected])
    np.testing.assert_array_equal(found.neighbours.squared_distances, distances)
    apart, distances = by_hand(samples, training, orbit, np.arange(len(training)))
    np.testing.assert_array_equal(found.published.indices, apart)
    np.testing.assert_array_equal(found.published.squared_distances, distances)
    assert found.n_duplicates == len(training) - len(first)


def test_images_in_an_orbit_are_one_group():
    first, groups = orbit_groups(with_twins(), moves("flip_shift", 1))
    assert first.tolist() == [*range(8)]
    assert groups.tolist() == [*range(8), 0, 1, 2, 3, 4, 4]
    first, groups = orbit_groups(with_twins(), moves("flip", 1))
    assert first.tolist() == [*range(8), 10, 11]


def test_groups_are_linked_through_images_between_them():
    image = np.zeros((1, 7, 7, 1), np.uint8)
    image[:, 2:4, 2:4] = random_images(1, 2)
    line = np.concatenate([moved(image, Move(False, 0, by)) for by in range(4)])
    assert orbit_groups(line, moves("shift", 1))[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["flip", "shift", "flip_shift"])
def test_every_copy_of_a_member_is_memorized(kind):
    orbit, training = moves(kind, 1), random_images(10)
    for move in orbit:
        result = score_arrays(moved(training, move), training, moves=orbit)
        assert result.memorized.all()
        assert result.neighbours.indices[:, 0].tolist() == [*range(10)]


def test_a_mirror_twin_hides_copies_from_the_published_rule_alone():
    training = random_images(6)
    training = np.concatenate([training, moved(training[:1], Move(True, 0, 0))])
    orbit = moves("flip", 1)
    result = score_arrays(training[:6], training, moves=orbit)
    assert (int(result.memorized.sum()), result.n_memorized_published) == (6, 5)
    assert result.n_duplicates == 1
    published = score_arrays(training[:6], training, "published", moves=orbit)
    assert int(published.memorized.sum()) == 5


def test_one_move_is_the_plain_score():
    samples, training = random_images(9), random_images(5)
    plain = score_arrays(samples, training)
    for part, same in zip(
        plain.neighbours,
        score_arrays(samples, training, moves=moves("none", 3)).neighbours,
        strict=True,
    ):
        np.testing.assert_array_equal(part, same)


def test_moved_copies_are_missing_where_images_stay():
    training = random_images(8)
    found = summarise(moved(training, Move(True, 0, 0)), training, "distinct", np)
    assert (found["n_memorized_originals"], found["memorization_ratio_originals"]) == (0, 0)
    assert found["memorization_ratio_originals_high"] > 0
    twice = np.concatenate([training, training])
    for rule, count in (("distinct", 8), ("published", 0)):
        assert summarise(training, twice, rule, np)["n_memorized_originals"] == count


def test_one_orbit_is_not_enough():
    image = random_images(1)
    both = np.concatenate([image, moved(image, Move(True, 0, 0))])
    with pytest.raises(UserError, match="all 2 training images have one orbit"):
        nearest_in_orbits(image, both, moves("flip", 1))


def test_verdicts_do_not_depend_on_the_order_of_the_images():
    orbit, training = moves("flip_shift", 1), with_twins()
    samples = np.concatenate([training, random_images(20)])
    counts = set()
    for _ in range(4):
        shuffled = training[RNG.permutation(len(training))]
        found = nearest_in_orbits(samples, shuffled, orbit).neighbours
        counts.add(is_memorized(found.squared_distances).tobytes())
    assert len(counts) == 1
