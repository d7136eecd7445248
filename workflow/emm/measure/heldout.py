"""Images of the same source as a training set, and in the same proportions, but not in it."""

import numpy as np

from emm.data.sources import Source
from emm.data.stage import Subset
from emm.data.subsets import random_order, resize
from emm.errors import UserError


class NothingHeldOutError(UserError):
    """All images of a source are in the training set."""


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
    they are after resizing, are left out. The seed fixes which. NothingHeldOutError where nothing
    is left.
    """
    data = ~subset.is_dummy
    classes = _classes(source, subset)
    free = np.setdiff1d(np.arange(len(source)) if pool is None else pool, subset.index[data])
    if pool is None:
        rows = _in_shares(free, classes, subset.classes[data], count, seed)
    else:
        rows = random_order(free, seed, "held out of a pool")[: count + len(subset)]
    images = resize(source.images[rows], subset.images.shape[1]) if len(rows) else subset.images[:0]
    new = ~_among(images, subset.images)
    if not new.any():
        raise NothingHeldOutError(
            f"all {len(source)} images of the source are in the training set: nothing is held out; "
            "choose a smaller data.size"
        )
    order = random_order(np.flatnonzero(new), seed, "held out")[:count]
    return images[order], classes[rows[order]]


def _in_shares(
    free: np.ndarray, classes: np.ndarray, wanted: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Free rows with the shares of classes that are wanted."""
    chosen = []
    for value, share in zip(*np.unique(wanted, return_counts=True), strict=True):
        rows = free[classes[free] == value]
        most = int(np.ceil(count * share / len(wanted)))
        chosen.append(random_order(rows, seed, f"held out {value}")[:most])
    return np.concatenate(chosen)


def _classes(source: Source, subset: Subset) -> np.ndarray:
    """Classes of the source's images as the subset numbers them; -2 for those it does not draw."""
    data = ~subset.is_dummy
    own, index = subset.classes[data], subset.index[data]
    if (own < 0).all() or not source.class_names:
        return np.full(len(source), own[0])
    classes = np.full(len(source), -2)
    for label, value in set(zip(source.labels[index].tolist(), own.tolist(), strict=True)):
        classes[source.labels == label] = value
    return classes


def _among(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each image is equal to one of the others, bool (N,)."""
    known = {image.tobytes() for image in others}
    return np.array([image.tobytes() in known for image in images], bool)
