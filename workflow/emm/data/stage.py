"""The two stages before training: source -> source.npz -> subset.npz."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emm.data.labels import SEED, make_labels
from emm.data.sources import Source
from emm.data.subsets import resize, select
from emm.errors import UserError
from emm.files import checked, read_arrays, write_arrays


@dataclass(frozen=True, eq=False)
class Subset:
    """The training set D of a run, as it is stored.

    images: (N, height, width, channels) uint8; labels: (N,) int64, what the network is told, -1
    when it is told nothing; classes: (N,) int64, true class or -1; index: (N,) int64, row in the
    source; label_dim: width of the label input, 0 when unconditional. ValueError when these do
    not fit together.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    index: np.ndarray
    label_dim: int

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

    def __len__(self) -> int:
        return len(self.images)


def build_subset(
    source: Source,
    *,
    size: int | None = None,
    num_classes: int | None = None,
    alpha: float | None = None,
    selection: str = "balanced_prefix",
    selection_seed: int = 0,
    resolution: int | None = None,
    label_kind: str = "none",
    label_classes: int | None = None,
    label_seed: int = SEED,
) -> Subset:
    """Select, resize and label; see `select`, `resize` and `make_labels` for the settings.

    resolution None keeps that of the source. True labels without label_classes are as wide as the
    number of classes that the subset draws from, even if it is too small to hold each of them.
    UserError if fewer than two images differ: the ratio of distances would mean nothing.
    """
    index = select(
        source,
        size=size,
        num_classes=num_classes,
        alpha=alpha,
        selection=selection,
        seed=selection_seed,
    )
    images, classes = source.images[index], source.labels[index]
    images = resize(images, resolution or min(images.shape[1:3]))
    if label_kind == "true":
        label_classes = label_classes or num_classes or source.num_classes
    labels, label_dim = make_labels(
        label_kind, classes=classes, num_classes=label_classes, seed=label_seed
    )
    if all(np.array_equal(images[0], image) for image in images[1:]):
        raise UserError(f"data.size {len(images)}: a subset needs two images that differ")
    return Subset(images, labels, classes, index, label_dim)


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
    """Write a subset as .npz, atomically."""
    names = ("images", "labels", "classes", "index")
    arrays = {name: getattr(subset, name) for name in names}
    write_arrays(path, {**arrays, "label_dim": np.int64(subset.label_dim)})


def read_subset(path: Path | str) -> Subset:
    """Read a subset; a missing or damaged file is a UserError."""
    return checked(path, _subset_of)


def _subset_of(path: Path) -> Subset:
    arrays = read_arrays(path)
    label_dim = arrays["label_dim"].item()
    names = ("images", "labels", "classes", "index")
    return Subset(*(arrays[name] for name in names), label_dim)
