"""Choice of training images from a source, and their resolution (Gu et al. 2023, section 3.1)."""

import numpy as np
from PIL import Image

from emm.data.catalogue import shares, too_large
from emm.data.sources import Source
from emm.data.synthetic import generator
from emm.errors import UserError


def select(
    source: Source,
    *,
    size: int | None = None,
    num_classes: int | None = None,
    alpha: float | None = None,
    selection: str = "balanced_prefix",
    seed: int = 0,
    part: int = 1,
) -> np.ndarray:
    """Rows of the source that make up a subset, int64, in the order they are stored.

    balanced_prefix: the first N/k images of each of the first k classes in file order, class
    after class. If k does not divide N, each class gives N//k and the last the remainder; with
    N < k, the first N classes give one each. Without classes: the first N images.
    random: the first N of the images (of the first k classes) in an order that the seed fixes.
    Subsets of one seed are nested, balanced ones where k divides N. size None takes everything;
    num_classes None all classes. With alpha the first int(N (1 - alpha)) images of the first of
    two classes, then the first of the second. part 2: the last images of each order instead of the
    first, which makes another subset with no image of the first. UserError if the source has too
    few images.
    """
    classes = len(source.class_names)
    counts = np.bincount(source.labels[source.labels >= 0], minlength=classes).tolist()
    wanted = shares(size, counts if classes else (), len(source), num_classes, selection, alpha)
    if selection == "random":
        orders = [(random_order(pool(source.labels, num_classes), seed, "selection"), size)]
    elif not classes:
        orders = [(np.arange(len(source)), size)]
    else:
        orders = [(np.flatnonzero(source.labels == c), n) for c, n in enumerate(wanted)]
    return np.concatenate([_part(order, count, part) for order, count in orders])


def _part(order: np.ndarray, count: int | None, part: int) -> np.ndarray:
    """The first `count` rows of an order, or the last; UserError if some are both."""
    count = len(order) if count is None else count
    if part == 1:
        return order[:count]
    if 2 * count > len(order):
        raise UserError(
            f"data.part 2: two disjoint subsets need {2 * count} images where there are "
            f"{len(order)}; choose a smaller data.size"
        )
    return order[::-1][:count]


def pool(labels: np.ndarray, num_classes: int | None) -> np.ndarray:
    """Rows that a random selection may take: those with a class, if there are classes."""
    if (labels < 0).all():
        return np.arange(len(labels))
    limit = labels.max() + 1 if num_classes is None else num_classes
    return np.flatnonzero((labels >= 0) & (labels < limit))


def random_order(rows: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """Rows sorted by random keys; raw bits, whose stream NumPy keeps across versions."""
    keys = generator(seed, purpose).bit_generator.random_raw(len(rows))
    return rows[np.argsort(keys, kind="stable")]


def resize(images: np.ndarray, resolution: int) -> np.ndarray:
    """Square uint8 images (N, resolution, resolution, C) by Lanczos on uint8, C 1 or 3.

    What is not square loses its margins (centre crop) first. Images of that resolution already
    stay as they are; enlarging is a UserError.
    """
    images = _centre_square(images)
    native = images.shape[1]
    if resolution > native:
        raise UserError(too_large(resolution, native))
    if resolution == native:
        return images
    if resolution < 1 or images.shape[3] not in (1, 3):
        raise UserError(f"cannot resize {images.shape[3]}-channel images to {resolution} pixels")
    resized = np.empty((len(images), resolution, resolution, images.shape[3]), np.uint8)
    for image, target in zip(images, resized, strict=True):
        pixels = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        small = pixels.resize((resolution, resolution), Image.Resampling.LANCZOS)
        target[:] = np.asarray(small).reshape(target.shape)
    return resized


def _centre_square(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[:, top : top + side, left : left + side]
