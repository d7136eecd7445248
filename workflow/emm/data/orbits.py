"""What random flips and shifts can make of a training image: its orbit, in exact 8-bit values.

A shift leaves black behind. Flip first, then shift; every member is drawn equally often.
"""

from typing import NamedTuple

import numpy as np


class Move(NamedTuple):
    """One of the things that augmentation does: mirror or not, then shift down and right."""

    flip: bool
    down: int
    right: int


STILL = Move(False, 0, 0)


def moves(augment: str, shift: int) -> list[Move]:
    """All moves of train.augment with shifts up to `shift` pixels each way; STILL is the first."""
    flips = (False, True) if "flip" in augment else (False,)
    steps = sorted(range(-shift, shift + 1), key=abs) if "shift" in augment else (0,)
    return [Move(flip, down, right) for flip in flips for down in steps for right in steps]


def moved(images: np.ndarray, move: Move) -> np.ndarray:
    """Images (N, height, width, C) after a move, a copy unless it is STILL."""
    if move == STILL:
        return images
    images = images[:, :, ::-1] if move.flip else images
    result = np.zeros_like(images)
    (to_rows, rows), (to_columns, columns) = (_overlap(by) for by in (move.down, move.right))
    result[:, to_rows, to_columns] = images[:, rows, columns]
    return result


def _overlap(by: int) -> tuple[slice, slice]:
    """Where an axis that is shifted by so many pixels ends up, and what of it."""
    if by >= 0:
        return slice(by, None), slice(0, -by or None)
    return slice(0, by), slice(-by, None)
