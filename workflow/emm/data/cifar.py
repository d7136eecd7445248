"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the official archives for Python.

Packed or extracted.
"""

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emm.data.download import check_md5, fetch, md5_of
from emm.errors import UserError


@dataclass(frozen=True)
class Release:
    """An official archive: its name, the folder in it, the training files and their labels' key.

    md5: hash of each file by name; files without one are not checked.
    """

    title: str
    archive: str
    folder: str
    batches: tuple[str, ...]
    labels: bytes
    md5: Mapping[str, str]

    @property
    def url(self) -> str:
        """Where the archive is downloaded from."""
        return f"https://www.cs.toronto.edu/~kriz/{self.archive}"


CIFAR10 = Release(
    "CIFAR-10",
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py",
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    b"labels",
    {
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
)
CIFAR100 = Release(
    "CIFAR-100",
    "cifar-100-python.tar.gz",
    "cifar-100-python",
    ("train",),
    b"fine_labels",
    {
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
        "train": "16019d7e3df5f24257cddd939b257f8d",
    },
)

RECONSTRUCT = np.empty(0).__reduce__()[0]  # what NumPy names when it pickles an array
ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def read_cifar(release: Release, path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Training images (50000, 32, 32, 3) uint8 and labels int64, in file order.

    path: the archive, the extracted folder, or a folder that holds either. Damaged and foreign
    files are UserErrors.
    """
    place = _locate(release, Path(path))
    contents = (_read_extracted if place.is_dir() else _read_archive)(release, place)
    batches = [
        _parse_batch(release, contents[name], f"{place}: {name}") for name in release.batches
    ]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def fetch_cifar(release: Release, cache: Path | str) -> Path:
    """Path of a release in the cache folder; downloads the archive when it is not there."""
    name = release.archive
    return cached_cifar(release, cache) or fetch(release.url, release.md5[name], name, cache)


def cached_cifar(release: Release, cache: Path | str) -> Path | None:
    """Path of a release in the cache folder, extracted or packed, if it is there."""
    places = (Path(cache) / name for name in (release.folder, release.archive))
    return next((place for place in places if place.exists()), None)


def _locate(release: Release, path: Path) -> Path:
    """The archive or the folder of batches that a path means."""
    for place in (path / release.folder, path / release.archive, path):
        if place.exists():
            return place
    raise UserError(
        f"{path}: no such file or folder; expected {release.archive} or {release.folder}"
    )


def _read_extracted(release: Release, folder: Path) -> dict[str, bytes]:
    """Bytes of each batch of an extracted archive."""
    contents = {}
    for name in release.batches:
        if not (folder / name).is_file():
            raise UserError(f"{folder}: has no {name}; not an extracted {release.archive}")
        contents[name] = (folder / name).read_bytes()
        digest = hashlib.md5(contents[name], usedforsecurity=False).hexdigest()
        check_md5(folder / name, digest, release.md5.get(name), release.url)
    return contents


def _read_archive(release: Release, path: Path) -> dict[str, bytes]:
    """Bytes of each batch of a packed archive, which is not extracted to disk."""
    check_md5(path, md5_of(path), release.md5.get(release.archive), release.url)
    wanted = {f"{release.folder}/{name}": name for name in release.batches}
    try:
        with tarfile.open(path) as archive:
            members = (member for member in archive if member.isfile() and member.name in wanted)
            contents = {wanted[m.name]: archive.extractfile(m).read() for m in members}
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(
            f"{path}: damaged ({error}); download it again from {release.url}"
        ) from error
    if missing := sorted(set(release.batches) - set(contents)):
        raise UserError(f"{path}: has no {missing[0]}; not {release.archive}")
    return contents


def _parse_batch(release: Release, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) and labels (n,) of one pickled batch."""
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        planes = batch[b"data"].reshape(-1, 3, 32, 32)
        labels = np.asarray(batch[release.labels], np.int64)
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"{where}: not a batch of {release.title} ({error})") from error
    if planes.dtype != np.uint8 or labels.shape != (len(planes),):
        raise UserError(f"{where}: {planes.dtype} images {planes.shape}, labels {labels.shape}")
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


class _ArrayUnpickler(pickle.Unpickler):
    """Loads plain values and NumPy arrays, and refuses every other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"refuses to load {module}.{name}")
        return ARRAY_PARTS[module, name]
