"""Sources: whole data sets in one internal form."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emm.data import cifar, svhn, synthetic
from emm.data.catalogue import CIFAR10_CLASSES, SOURCES, source_info
from emm.errors import UserError
from emm.files import checked

BLENDED_DIGIT = 3  # the first kind of digits_blend; the second are all other digits


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


@dataclass(frozen=True)
class Place:
    """Where files of a source lie, and how they are read.

    path: what the user names; cache: folder of downloaded and supplied data; resolution: that
    large images are reduced to; threads: that read them.
    """

    path: Path | None = None
    cache: Path = Path("data")
    resolution: int | None = None
    threads: int = 1

    def folder(self, name: str) -> Path:
        """The user's path, else a folder of the cache."""
        return self.path or self.cache / name


def load_source(
    dataset: str,
    *,
    path: Path | str | None = None,
    cache: Path | str = "data",
    resolution: int | None = None,
    threads: int = 1,
    size: int | None = None,
    seed: int = 0,
    cross_width: int = 1,
    cross_position: str = "random",
    margin: int = 4,
) -> Source:
    """The source called `dataset` in catalogue.SOURCES.

    path: local copy of cifar10, cifar100, svhn, ffhq or artbench10, ImageNet's folders for
    cifar10_imagenet_dog, or what `folder` reads; cache: folder for downloads and supplied data;
    resolution: of ffhq, artbench10 and generated images, which have 32 pixels by default; threads:
    that read large images; size, seed: of generated sources, by default as many images as the
    catalogue says; cross_width, cross_position, margin: of mondrian. Every source ignores what is
    not for it.
    """
    info = source_info(dataset)
    if not info.generated:
        place = Place(None if path is None else Path(path), Path(cache), resolution, threads)
        return LOADERS[dataset](place)
    count = info.size if size is None else size
    if count < 1:
        raise UserError(f"{dataset}: cannot generate {count} images")
    cross = {"cross_width": cross_width, "cross_position": cross_position, "margin": margin}
    geometry = {"resolution": resolution or 32} | (cross if dataset == "mondrian" else {})
    images = GENERATORS[dataset](count, seed, **geometry)
    return Source(images, np.zeros(count, np.int64), info.class_names)


def _digits(place: Place) -> Source:
    """Handwritten digits of scikit-learn, 8x8, values 0..16 stretched to 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    return Source(images, digits.target.astype(np.int64), SOURCES["digits"].class_names)


def _digits_rgb(place: Place) -> Source:
    """The same digits as paintings of 64x64 for Stable Diffusion: each pixel is a block of 8x8."""
    digits = _digits(place)
    images = digits.images.repeat(8, axis=1).repeat(8, axis=2).repeat(3, axis=3)
    return Source(images, digits.labels, SOURCES["digits_rgb"].class_names)


def _cifar10(place: Place) -> Source:
    return _cifar("cifar10", cifar.CIFAR10, place)


def _cifar100(place: Place) -> Source:
    """CIFAR-100 with its 100 fine classes."""
    return _cifar("cifar100", cifar.CIFAR100, place)


def _cifar(name: str, release: cifar.Release, place: Place) -> Source:
    path = place.path or cifar.fetch_cifar(release, place.cache)
    images, labels = cifar.read_cifar(release, path)
    return Source(images, labels, SOURCES[name].class_names)


def _svhn(place: Place) -> Source:
    images, labels = svhn.read_svhn(place.path or svhn.fetch_svhn(place.cache))
    return Source(images, labels, SOURCES["svhn"].class_names)


def _digits_blend(place: Place) -> Source:
    """The images of one digit and then all others, each in file order."""
    digits = _digits(place)
    is_second = digits.labels != BLENDED_DIGIT
    order = np.argsort(is_second, kind="stable")
    labels = is_second[order].astype(np.int64)
    return Source(digits.images[order], labels, SOURCES["digits_blend"].class_names)


def _cifar10_imagenet_dog(place: Place) -> Source:
    """The first dogs of CIFAR-10 in file order, and then as many of ImageNet, shuffled once."""
    from emm.data.imagenet_dogs import REDUCTION, dog_files
    from emm.data.reduced import read_reduced

    info, folder = SOURCES["cifar10_imagenet_dog"], place.folder("imagenet_dogs")
    files = dog_files(folder)
    cifar10 = _cifar10(Place(cache=place.cache))
    rows = np.flatnonzero(cifar10.labels == CIFAR10_CLASSES.index("dog"))[: info.class_counts[0]]
    images = np.concatenate([cifar10.images[rows], read_reduced(files, REDUCTION, place.threads)])
    labels = np.repeat([0, 1], [len(rows), len(files)])
    names = [f"cifar10/{row}" for row in rows]
    names += [file.relative_to(folder).as_posix() for file in files]
    return Source(images, labels, info.class_names, tuple(names))


def _ffhq(place: Place) -> Source:
    """The first faces of a folder, reduced to the resolution."""
    from emm.data.ffhq import ffhq_files, ffhq_folder, ffhq_reduction
    from emm.data.reduced import read_reduced

    folder = ffhq_folder(place.folder("ffhq"))
    reduction, files = ffhq_reduction(place.resolution), ffhq_files(folder)
    images = read_reduced(files, reduction, place.threads)
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    return Source(images, np.full(len(files), -1), (), names)


def _artbench10(place: Place) -> Source:
    """The first paintings of each style of a folder, reduced to the resolution."""
    from emm.data.artbench import artbench_files, artbench_folder, artbench_reduction
    from emm.data.reduced import read_reduced

    info, path = SOURCES["artbench10"], place.folder("artbench10")
    reduction, files = artbench_reduction(place.resolution), artbench_files(path)
    images = read_reduced(files, reduction, place.threads)
    labels = np.repeat(np.arange(info.classes), info.class_counts)
    folder = artbench_folder(path)
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    return Source(images, labels, info.class_names, names)


def _folder(place: Place) -> Source:
    """The user's own images: a folder, whose sub-folders are classes, or an array file."""
    path = place.path
    if path is None:
        raise UserError("data.dataset folder: set data.path to a folder of images or an array file")
    if path.suffix in (".npy", ".npz") and not path.is_dir():
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


LOADERS: dict[str, Callable[[Place], Source]] = {
    "artbench10": _artbench10,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "cifar10_imagenet_dog": _cifar10_imagenet_dog,
    "digits": _digits,
    "digits_blend": _digits_blend,
    "digits_rgb": _digits_rgb,
    "ffhq": _ffhq,
    "folder": _folder,
    "svhn": _svhn,
}
GENERATORS: dict[str, Callable[..., np.ndarray]] = {
    "flat": synthetic.flat,
    "gaussian_mixture": synthetic.gaussian_mixture,
    "mondrian": synthetic.mondrian,
    "random_ink": synthetic.random_ink,
}
