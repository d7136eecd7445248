"""Near duplicates among training images, by the rule that samples are judged by.

Where an image has a near twin, a copy of either is about as near to the one as to the other and
does not count as memorized: such pairs lower every memorization ratio, and are to be known before.
"""

from types import ModuleType
from typing import NamedTuple

import numpy as np

from emm.errors import UserError
from emm.score.criteria import is_memorized
from emm.score.nearest import (
    BUDGET,
    Neighbours,
    array_module,
    check_images,
    occurrences,
    plain_search,
)


class Duplicates(NamedTuple):
    """Images of a set, how many of them repeat an earlier one, and how many others have a twin."""

    images: int
    repeated: int
    near: int


def count_duplicates(images: np.ndarray, xp: ModuleType | None = None) -> Duplicates:
    """Repeated images and near duplicates among uint8 images (N, ...); three of them must differ.

    An image has a near duplicate if another, distinct one is less than a third as far from it as
    the next. Of three images that are all near each other none counts.
    """
    check_images(images, images)
    distinct = images[occurrences(images)[0]]
    near = int(is_memorized(two_others(distinct, xp=xp).squared_distances).sum())
    return Duplicates(len(images), len(images) - len(distinct), near)


def two_others(
    images: np.ndarray, *, xp: ModuleType | None = None, budget: int = BUDGET
) -> Neighbours:
    """Two nearest other images of each of uint8 images (N, ...), in exact integers; N >= 3."""
    check_images(images, images)
    if len(images) < 3:
        raise UserError(f"{len(images)} distinct images: to compare them takes at least three")
    keys = plain_search(images, images, budget, xp or array_module(), apart=True)
    squared_distances, indices = np.divmod(keys, len(images))
    return Neighbours(indices, squared_distances)
