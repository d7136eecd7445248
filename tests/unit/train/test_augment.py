"""Augmentation of batches: members of orbits, evenly drawn, the same after a resume."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from emm.data.orbits import Move, moved, moves
from emm.errors import Interrupted
from emm.spec import Train
from emm.train import loop
from emm.train.augment import augmented, move

IMAGES = torch.from_numpy(
    np.random.default_rng(0).integers(0, 256, (4, 2, 6, 6), np.uint8)
)  # as tensors: channels first
WHOLE = slice(None)


def settings(kind: str, batch_size: int = 4, **changed) -> Train:
    return Train(augment=kind, batch_size=batch_size, **changed)


def test_without_augmentation_nothing_is_touched():
    assert augmented(IMAGES, settings("none"), 3, WHOLE) is IMAGES


@pytest.mark.parametrize("drawn", [Move(True, 0, 0), Move(False, 2, -1), Move(True, -2, 1)])
def test_moves_are_those_of_the_reference(drawn):
    flip, down, right = (torch.full((4,), int(part)) for part in drawn)
    expected = moved(IMAGES.permute(0, 2, 3, 1).numpy(), drawn)
    found = move(IMAGES, flip, down, right)
    assert found.is_contiguous()
    np.testing.assert_array_equal(found.permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.parametrize("kind", ["flip", "shift", "flip_shift"])
def test_every_member_of_an_orbit_is_drawn_equally_often(kind):
    image, count = IMAGES[:1], 4000
    found = augmented(image.repeat(count, 1, 1, 1), settings(kind, count, shift=1), 0, WHOLE)
    counts = Counter(one.numpy().tobytes() for one in found.permute(0, 2, 3, 1).contiguous())
    orbit = moves(kind, 1)
    members = {moved(image.permute(0, 2, 3, 1).numpy(), one).tobytes() for one in orbit}
    assert set(counts) == members
    expected = count / len(orbit)
    assert all(abs(n - expected) < 5 * expected**0.5 for n in counts.values())


def test_each_step_and_seed_has_its_own_moves():
    made = [
        augmented(IMAGES, settings("flip_shift", seed=seed), step, WHOLE).numpy().tobytes()
        for step in range(3)
        for seed in (0, 1)
    ]
    assert len(set(made)) == len(made)


def test_processes_see_the_rows_of_one_batch():
    whole = augmented(IMAGES, settings("flip_shift"), 5, WHOLE)
    for rows in (slice(0, 2), slice(2, 4)):
        part = augmented(IMAGES[rows], settings("flip_shift"), 5, rows)
        assert torch.equal(part, whole[rows])


def test_a_resumed_training_sees_the_same_images(case, tmp_path):
    made = case(12, train__augment="flip_shift", train__shift=1)
    whole = made.run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        made.run(tmp_path / "parts", until=0.0)
    parts = made.run(tmp_path / "parts")
    assert torch.equal(parts.flat.values, whole.flat.values)
    plain = case(12).run(tmp_path / "plain")
    assert not torch.equal(plain.flat.values, whole.flat.values)


def test_trainings_without_it_do_not_depend_on_its_shift(case, tmp_path):
    first = case(3).run(tmp_path / "first")
    second = case(3, train__shift=1).run(tmp_path / "second")
    assert torch.equal(first.flat.values, second.flat.values)


def test_copies_are_drawn_as_often_as_they_stand(case, digits, tmp_path):
    made = case(16, size=10)
    made = dataclasses.replace(made, subset=digits(10, duplicated=0.2, copies=4))
    assert len(made.subset) == 16
    order = loop.begin(*_parts(made))[1].order
    seen = torch.cat([order.batch(step) for step in range(4)])  # 16 images in batches of 4
    assert sorted(seen.tolist()) == [*range(16)]
    assert made.plan.epoch(5) == 2  # 20 images drawn of 10 distinct ones


def _parts(made):
    from emm.train.device import as_tensors, build_denoiser

    cpu = torch.device("cpu")
    denoiser = build_denoiser(made.recipe, made.subset, cpu)
    return denoiser, *as_tensors(made.subset, cpu), made.plan
