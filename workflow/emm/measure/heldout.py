"""Images of what a training set was drawn from, but not in it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from emm.data.catalogue import class_number
from emm.data.sources import Source
from emm.data.stage import Subset
from emm.data.subsets import pool as pool_of
from emm.data.subsets import random_order, resize
from emm.errors import UserError


class NothingHeldOutError(UserError):
    """All images of a source are in the training set."""


def drawn_from(source: Source, settings: Mapping[str, Any]) -> np.ndarray | None:
    """Rows of the source that a random training set was drawn from; None for one by classes.

    settings: dotted, of its run.
    """
    if settings["data.selection"] != "random":
        return None
    if settings["data.only_class"] is not None:
        number = class_number(settings["data.only_class"], source.class_names)
        return np.flatnonzero(source.labels == number)
    return pool_of(source.labels, settings["data.num_classes"])


def held_out(
    source: Source,
    subset: Subset,
    count: int,
    seed: int = 0,
    pool: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Up to `count` images uint8 (M, H, W, C) and their true classes int64 (M,), -1 without.

    source: that of the subset. Classes come in the shares that they have in the subset, dummies
    left out; or with a pool, rows of the source that the subset is a random draw of, as they come
    there: a small draw has other shares than what it is drawn from. Copies of training images, as
    they are after resizing, are left out. The seed orders the source, and the first images that are
    left are taken: training sets of several sizes have nearly the same. NothingHeldOutError where
    nothing is left.
    """
    data = ~subset.is_dummy
    classes = _classes(source, subset, pool)
    order = random_order(np.arange(len(source)), seed, "held out")
    free = order[~np.isin(order, subset.index[data])]
    if pool is None:
        rows = _in_shares(free, classes, subset.classes[data], count)
    else:
        rows = free[np.isin(free, pool)][: count + len(subset)]
    images = resize(source.images[rows], subset.images.shape[1]) if len(rows) else subset.images[:0]
    new = np.flatnonzero(~among(images, subset.images))[:count]
    if not len(new):
        raise NothingHeldOutError(
            f"all {len(source)} images of the source are in the training set: nothing is held out; "
            "choose a smaller data.size"
        )
    return images[new], classes[rows[new]]


def require_new(images: np.ndarray, training: np.ndarray) -> None:
    """UserError where images uint8 (N, ...) that should be new are training images (M, ...)."""
    known = int(among(images, training).sum())
    if known:
        raise UserError(
            f"{known:,} of {len(images):,} held-out images are training images: leave them out"
        )


def _in_shares(free: np.ndarray, classes: np.ndarray, wanted: np.ndarray, count: int) -> np.ndarray:
    """The first rows of each class that make up the shares that are wanted, in their order."""
    chosen = np.zeros(len(free), bool)
    for value, share in zip(*np.unique(wanted, return_counts=True), strict=True):
        most = int(np.ceil(count * share / len(wanted)))
        chosen[np.flatnonzero(classes[free] == value)[:most]] = True
    return free[chosen]


def _classes(source: Source, subset: Subset, pool: np.ndarray | None) -> np.ndarray:
    """Classes of the source's images as the subset numbers them; -2 for those it does not draw."""
    data = ~subset.is_dummy
    own, index = subset.classes[data], subset.index[data]
    if (own < 0).all() or not source.class_names:
        return np.full(len(source), own[0])
    if pool is not None and np.array_equal(source.labels[index], own):
        return source.labels  # also of classes of which it happens to have no image
    classes = np.full(len(source), -2)
    for label, value in set(zip(source.labels[index].tolist(), own.tolist(), strict=True)):
        classes[source.labels == label] = value
    return classes


def among(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each image is equal to one of the others, bool (N,)."""
    known = {image.tobytes() for image in others}
    return np.array([image.tobytes() in known for image in images], bool)
