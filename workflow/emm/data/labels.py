"""What a conditional network is told about each training image (Gu et al. 2023, section 5)."""

import random

import numpy as np

from emm.errors import UserError

KINDS = ("none", "constant", "true", "random", "unique", "vectors")
SEED = 1024


def make_labels(
    kind: str,
    *,
    classes: np.ndarray,
    num_classes: int | None = None,
    size: int | None = None,
    seed: int = SEED,
) -> tuple[np.ndarray, int]:
    """Labels (N,) int64 and label_dim, the width of the network's label input.

    none: -1 and 0. constant: 0 and 1. true: the class; label_dim is num_classes, by default the
    highest class + 1. random: uniform on 0..num_classes-1 per image in stored order; label_dim is
    the highest label drawn + 1. unique and vectors: 0..N-1. classes (N,): true classes, -1 where
    there is none. num_classes 0 or None: not given. size N: by default the length of classes.
    """
    size = len(classes) if size is None else size
    if kind == "none":
        return np.full(size, -1), 0
    if kind == "constant":
        return np.zeros(size, np.int64), 1
    if kind == "true":
        return _true(classes, num_classes)
    if kind == "random":
        return _random(size, num_classes, seed)
    if kind in ("unique", "vectors"):
        return _unique(size, num_classes)
    raise UserError(f"labels.kind: no kind {kind!r}; allowed: {', '.join(KINDS)}")


def _true(classes: np.ndarray, num_classes: int | None) -> tuple[np.ndarray, int]:
    if (classes < 0).any():
        raise UserError("labels.kind true: the source has images without a class")
    needed = int(classes.max()) + 1
    if num_classes and num_classes < needed:
        raise UserError(f"labels.num_classes {num_classes}: the subset has class {needed - 1}")
    return classes.astype(np.int64), num_classes or needed


def _random(size: int, num_classes: int | None, seed: int) -> tuple[np.ndarray, int]:
    """Draws of Python's own generator, as published; a longer set begins with the same labels."""
    if not num_classes or num_classes < 1:
        raise UserError("labels.kind random: set labels.num_classes to one or more")
    draws = random.Random(seed)
    labels = np.array([draws.randint(0, num_classes - 1) for _ in range(size)], np.int64)
    return labels, int(labels.max()) + 1


def _unique(size: int, num_classes: int | None) -> tuple[np.ndarray, int]:
    if num_classes and num_classes != size:
        raise UserError(f"labels.num_classes {num_classes}: {size} images have {size} labels")
    return np.arange(size), size
