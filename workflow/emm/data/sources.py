"""Sources: whole data sets in one internal form."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emm.data import cifar, synthetic
from emm.data.catalogue import SOURCES, source_info
from emm.errors import UserError
from emm.files import checked


@dataclass(frozen=True, eq=False)
class Source:
    """A data set.

    images: (N, height, width, channels) uint8; labels: (N,) int64, -1 where there is no class;
    class_names: name of each label, empty without classes; names: file name of each image, empty
    where images are not files. ValueError when these do not fit together.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(f"images are {self.images.dtype} {self.images.shape}")
        if self.labels.shape != (len(self),) or self.labels.dtype != np.int64:
            raise ValueError(f"labels are {self.labels.dtype} {self.labels.shape}")
        if len(self) and not -1 <= self.labels.min() <= self.labels.max() < self.num_classes:
            raise ValueError(f"labels outside the {self.num_classes} classes")
        if len(self.names) not in (0, len(self)):
            raise ValueError(f"{len(self.names)} names for {len(self)} images")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 when there are none."""
        return len(self.class_names)


def load_source(
    dataset: str,
    *,
    path: Path | str | None = None,
    cache: Path | str = "data",
    size: int | None = None,
    seed: int = 0,
    cross_width: int = 1,
    cross_position: str = "random",
    margin: int = 4,
) -> Source:
    """The source called `dataset` in catalogue.SOURCES.

    path: local copy of cifar10, or what `folder` reads; cache: folder for downloads; size, seed:
    of generated sources, by default as many images as the catalogue says; cross_width,
    cross_position, margin: of mondrian. Every source ignores what is not for it.
    """
    info = source_info(dataset)
    if not info.generated:
        return LOADERS[dataset](path, Path(cache))
    count = info.size if size is None else size
    if count < 1:
        raise UserError(f"{dataset}: cannot generate {count} images")
    cross = {"cross_width": cross_width, "cross_position": cross_position, "margin": margin}
    images = GENERATORS[dataset](count, seed, **(cross if dataset == "mondrian" else {}))
    return Source(images, np.full(count, -1))


def _digits(path: Path | str | None, cache: Path) -> Source:
    """Handwritten digits of scikit-learn, 8x8, values 0..16 stretched to 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    return Source(images, digits.target.astype(np.int64), SOURCES["digits"].class_names)


def _cifar10(path: Path | str | None, cache: Path) -> Source:
    images, labels = cifar.read_cifar10(cifar.fetch_cifar10(cache) if path is None else path)
    return Source(images, labels, SOURCES["cifar10"].class_names)


def _folder(path: Path | str | None, cache: Path) -> Source:
    """The user's own images: a folder, whose sub-folders are classes, or an array file."""
    if path is None:
        raise UserError("data.dataset folder: set data.path to a folder of images or an array file")
    if Path(path).suffix in (".npy", ".npz") and not Path(path).is_dir():
        return checked(path, _array_source)
    from emm.data.folder import read_folder

    images, names, class_of = read_folder(path)
    class_names = tuple(sorted({name for name in class_of if name}))
    number = {name: label for label, name in enumerate(class_names)}
    labels = np.array([number.get(name, -1) for name in class_of], np.int64)
    return Source(images, labels, class_names, tuple(names))


def _array_source(path: Path) -> Source:
    """Images of a .npy file, or of an .npz file: `images` or its only array, and maybe `labels`."""
    content = np.load(path, allow_pickle=False)
    arrays = dict(content) if path.suffix == ".npz" else {"images": content}
    if "images" not in arrays and len(arrays) == 1:
        arrays = {"images": arrays.popitem()[1]}
    if "images" not in arrays:
        raise UserError(f"{path}: has no array called images, but {', '.join(sorted(arrays))}")
    images = arrays["images"]
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        shape = f"{images.dtype} {arrays['images'].shape}"
        raise UserError(f"{path}: images are {shape}; need uint8 (N, height, width, 1 or 3)")
    return Source(images, *_classes_of(arrays.get("labels"), len(images), path))


def _classes_of(
    values: np.ndarray | None, count: int, path: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels and class names from the whole numbers of an array file; -1 is no class."""
    if values is None:
        return np.full(count, -1), ()
    if values.shape != (count,) or values.dtype.kind not in "iu":
        shape = f"{values.dtype} {values.shape}"
        raise UserError(f"{path}: labels are {shape}; need whole numbers, one for each image")
    values = values.astype(np.int64)
    known = np.unique(values[values >= 0])
    labels = np.where(values >= 0, np.searchsorted(known, values), -1)
    return labels, tuple(str(value) for value in known)


LOADERS: dict[str, Callable[[Path | str | None, Path], Source]] = {
    "cifar10": _cifar10,
    "digits": _digits,
    "folder": _folder,
}
GENERATORS: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_mixture": synthetic.gaussian_mixture,
    "mondrian": synthetic.mondrian,
    "random_ink": synthetic.random_ink,
}
