"""The two stages before training: source -> source.npz -> subset.npz."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emm.data.catalogue import class_number, repeated_images
from emm.data.labels import SEED, make_labels
from emm.data.sources import Source
from emm.data.subsets import random_order, resize, select
from emm.errors import UserError
from emm.files import checked, read_arrays, write_arrays


@dataclass(frozen=True, eq=False)
class Subset:
    """The training set D of a run, as it is stored.

    images: (N, height, width, channels) uint8; labels: (N,) int64, what the network is told, -1
    when it is told nothing; classes: (N,) int64, true class or -1; index: (N,) int64, row in the
    source; label_dim: width of the label input, 0 when unconditional; n_dummy: how many of the
    last images are dummies, from a source of their own; class_names: of the classes, empty where
    there are none; copy_of: (N,) int64, row of the image that each one repeats, its own if none;
    None where no image is repeated on purpose. ValueError when these do not fit together.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    index: np.ndarray
    label_dim: int
    n_dummy: int = 0
    class_names: tuple[str, ...] = ()
    copy_of: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8 or not len(self):
            raise ValueError(f"images are {self.images.dtype} {self.images.shape}")
        for name in ("labels", "classes", "index"):
            values = getattr(self, name)
            if values.shape != (len(self),) or values.dtype != np.int64:
                raise ValueError(f"{name} are {values.dtype} {values.shape}")
        first, last = (0, self.label_dim - 1) if self.label_dim else (-1, -1)
        if not first <= self.labels.min() <= self.labels.max() <= last:
            raise ValueError(f"labels outside {first}..{last}")
        if not 0 <= self.n_dummy < len(self):
            raise ValueError(f"{self.n_dummy} dummies among {len(self)} images")
        if self.copy_of is not None and not self._has_copies():
            raise ValueError("copies are not of the images that they say")

    def __len__(self) -> int:
        return len(self.images)

    def _has_copies(self) -> bool:
        if self.copy_of.shape != (len(self),):
            return False
        is_copy = self.copy_of != np.arange(len(self))
        return np.array_equal(self.images[is_copy], self.images[self.copy_of[is_copy]])

    @property
    def is_dummy(self) -> np.ndarray:
        """Whether each image is a dummy, bool (N,)."""
        return np.arange(len(self)) >= len(self) - self.n_dummy

    @property
    def originals(self) -> np.ndarray:
        """Row of the image that each one repeats, its own if none, int64 (N,)."""
        return np.arange(len(self)) if self.copy_of is None else self.copy_of

    @property
    def multiplicity(self) -> np.ndarray:
        """How often each image stands in the set by data.copies, int64 (N,)."""
        return np.bincount(self.originals, minlength=len(self))[self.originals]

    @property
    def size(self) -> int:
        """Number of images without dummies and without copies: data.size."""
        n_copies = int((self.originals != np.arange(len(self))).sum())
        return len(self) - self.n_dummy - n_copies


def build_subset(
    source: Source,
    *,
    size: int | None = None,
    num_classes: int | None = None,
    only_class: str | None = None,
    alpha: float | None = None,
    selection: str = "balanced_prefix",
    selection_seed: int = 0,
    resolution: int | None = None,
    label_kind: str = "none",
    label_classes: int | None = None,
    label_seed: int = SEED,
    dummies: Source | None = None,
    dummy_size: int = 0,
    duplicated: float = 0.0,
    copies: int = 1,
    part: int = 1,
) -> Subset:
    """Select, resize and label; see `select`, `resize` and `make_labels` for the settings.

    The share `duplicated` of the images, drawn by selection_seed, stands `copies` times; see
    `repeat`.

    resolution None keeps that of the source. True labels without label_classes are as wide as the
    number of classes that the subset draws from, even if it is too small to hold each of them.
    The first dummy_size images of `dummies` come after the others and are one further class (Yoon
    et al. 2023, section 3.2). UserError if fewer than two images of the data differ: the ratio of
    distances would mean nothing.
    """
    rows, source = _only(source, only_class)
    index = select(
        source,
        size=size,
        num_classes=num_classes,
        alpha=alpha,
        selection=selection,
        seed=selection_seed,
        part=part,
    )
    images, classes = source.images[index], source.labels[index]
    images = resize(images, resolution or min(images.shape[1:3]))
    if all(np.array_equal(images[0], image) for image in images[1:]):
        raise UserError(f"data.size {len(images)}: a subset needs two images that differ")
    names, index = source.class_names[: num_classes or None], rows[index]
    if dummies is not None and dummy_size:
        if not names:
            names, classes = ("data",), np.zeros_like(classes)
        images, classes = _with_dummies(images, classes, dummies, dummy_size, len(names))
        index = np.concatenate([index, np.arange(dummy_size)])
        names = (*names, *dummies.class_names)
    if label_kind == "true":
        label_classes = label_classes or len(names)
    labels, label_dim = make_labels(
        label_kind, classes=classes, num_classes=label_classes, seed=label_seed
    )
    subset = Subset(images, labels, classes, index, label_dim, dummy_size, names)
    return repeat(subset, duplicated, copies, selection_seed)


def repeat(subset: Subset, share: float, copies: int, seed: int = 0) -> Subset:
    """A subset in which a random share of the images stands `copies` times (Somepalli et al. 2023).

    The distinct images keep their rows; the copies, with the labels of their originals, come after
    them and before the dummies. The same seed repeats the same images, however often.
    """
    size = subset.size
    count = repeated_images(size, share) if copies > 1 else 0
    if not count:
        return subset
    chosen = np.sort(random_order(np.arange(size), seed, "duplicated")[:count])
    added = np.tile(chosen, copies - 1)
    rows = np.concatenate([np.arange(size), added, np.arange(size, len(subset))])
    parts = (part[rows] for part in (subset.images, subset.labels, subset.classes, subset.index))
    copy_of = np.arange(len(rows))
    copy_of[size : size + len(added)] = added
    return Subset(*parts, subset.label_dim, subset.n_dummy, subset.class_names, copy_of)


def _only(source: Source, name: str | None) -> tuple[np.ndarray, Source]:
    """Rows of one class of a source, or of all, and a source of those alone."""
    if name is None:
        return np.arange(len(source)), source
    rows = np.flatnonzero(source.labels == class_number(name, source.class_names))
    return rows, Source(source.images[rows], np.zeros(len(rows), np.int64), (name,))


def _with_dummies(
    images: np.ndarray, classes: np.ndarray, dummies: Source, size: int, label: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images and classes, followed by the first dummies, all of class `label`."""
    if size > len(dummies):
        raise UserError(f"data.dummy_size {size}: the source of dummies has {len(dummies)} images")
    added = resize(dummies.images[:size], images.shape[1])
    if added.shape[3] == 3 and images.shape[3] == 1:
        added = added[..., :1]  # of generated images each channel has the same distribution
    if added.shape[1:] != images.shape[1:]:
        raise UserError(
            f"data.dummy: dummies of shape {added.shape[1:]} among images of {images.shape[1:]}"
        )
    return np.concatenate([images, added]), np.append(classes, np.full(size, label))


def write_source(path: Path | str, source: Source) -> None:
    """Write a source as .npz, atomically."""
    arrays = {"images": source.images, "labels": source.labels}
    for name in ("class_names", "names"):
        arrays[name] = np.array(getattr(source, name), np.str_)
    write_arrays(path, arrays)


def read_source(path: Path | str) -> Source:
    """Read a source; a missing or damaged file is a UserError."""
    return checked(path, _source_of)


def _source_of(path: Path) -> Source:
    arrays = read_arrays(path)
    names = (tuple(arrays[name].tolist()) for name in ("class_names", "names"))
    return Source(arrays["images"], arrays["labels"], *names)


def write_subset(path: Path | str, subset: Subset) -> None:
    """Write a subset as .npz, atomically; with `copy_of` and `multiplicity` if images repeat."""
    names = ("images", "labels", "classes", "index")
    if subset.copy_of is not None:
        names += ("copy_of", "multiplicity")
    arrays = {name: getattr(subset, name) for name in names}
    counts = {name: np.int64(getattr(subset, name)) for name in ("label_dim", "n_dummy")}
    write_arrays(path, {**arrays, **counts, "class_names": np.array(subset.class_names, np.str_)})


def read_subset(path: Path | str) -> Subset:
    """Read a subset; a missing or damaged file is a UserError."""
    return checked(path, _subset_of)


def _subset_of(path: Path) -> Subset:
    arrays = read_arrays(path)
    names = ("images", "labels", "classes", "index")
    n_dummy = int(arrays.get("n_dummy", 0))  # older files have none
    class_names = tuple(arrays["class_names"].tolist()) if "class_names" in arrays else ()
    label_dim = arrays["label_dim"].item()
    copy_of = arrays.get("copy_of")
    return Subset(*(arrays[name] for name in names), label_dim, n_dummy, class_names, copy_of)
