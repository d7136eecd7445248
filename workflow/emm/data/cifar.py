"""CIFAR-10 (Krizhevsky 2009) from the official archive for Python, packed or extracted."""

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emm.errors import UserError

ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
MD5 = {
    ARCHIVE: "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}

RECONSTRUCT = np.empty(0).__reduce__()[0]  # what NumPy names when it pickles an array
ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def read_cifar10(
    path: Path | str, md5: Mapping[str, str] | None = MD5
) -> tuple[np.ndarray, np.ndarray]:
    """Training images (50000, 32, 32, 3) uint8 and labels int64, in file order, batches 1 to 5.

    path: the archive, the extracted folder, or a folder that holds either. md5: expected hash of
    each file by name; None skips the check. Damaged and foreign files are UserErrors.
    """
    place = _locate(Path(path))
    read = _read_extracted if place.is_dir() else _read_archive
    contents = read(place, md5 or {})
    batches = [_parse_batch(contents[name], f"{place}: {name}") for name in BATCHES]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def fetch_cifar10(cache: Path | str) -> Path:
    """Path of CIFAR-10 in the cache folder; downloads the archive when it is not there."""
    if place := cached_cifar10(cache):
        return place
    import pooch

    try:
        return Path(pooch.retrieve(URL, f"md5:{MD5[ARCHIVE]}", ARCHIVE, cache))
    except (OSError, ValueError) as error:  # no network, disk full; wrong hash
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(
            f"cannot download {URL} ({reason}); fetch it on another machine and put it "
            f"at {Path(cache) / ARCHIVE}, or name its folder as `cache` in config.yaml "
            "(docs/data.md)"
        ) from error


def cached_cifar10(cache: Path | str) -> Path | None:
    """Path of CIFAR-10 in the cache folder, extracted or packed, if it is there."""
    places = (Path(cache) / name for name in (FOLDER, ARCHIVE))
    return next((place for place in places if place.exists()), None)


def _locate(path: Path) -> Path:
    """The archive or the folder of batches that a path means."""
    for place in (path / FOLDER, path / ARCHIVE, path):
        if place.exists():
            return place
    raise UserError(f"{path}: no such file or folder; expected {ARCHIVE} or {FOLDER}")


def _read_extracted(folder: Path, md5: Mapping[str, str]) -> dict[str, bytes]:
    """Bytes of each batch of an extracted archive."""
    contents = {}
    for name in BATCHES:
        if not (folder / name).is_file():
            raise UserError(f"{folder}: has no {name}; not an extracted {ARCHIVE}")
        contents[name] = (folder / name).read_bytes()
        digest = hashlib.md5(contents[name], usedforsecurity=False).hexdigest()
        _check_md5(folder / name, digest, md5.get(name))
    return contents


def _read_archive(path: Path, md5: Mapping[str, str]) -> dict[str, bytes]:
    """Bytes of each batch of a packed archive, which is not extracted to disk."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    _check_md5(path, digest.hexdigest(), md5.get(ARCHIVE))
    wanted = {f"{FOLDER}/{name}": name for name in BATCHES}
    try:
        with tarfile.open(path) as archive:
            members = (member for member in archive if member.isfile() and member.name in wanted)
            contents = {wanted[m.name]: archive.extractfile(m).read() for m in members}
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error}); download it again from {URL}") from error
    if missing := sorted(set(BATCHES) - set(contents)):
        raise UserError(f"{path}: has no {missing[0]}; not {ARCHIVE}")
    return contents


def _check_md5(path: Path, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise UserError(
            f"{path}: truncated or not the official file: MD5 {found}, expected {expected}; "
            f"download it again from {URL}"
        )


def _parse_batch(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) and labels (n,) of one pickled batch."""
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        planes = batch[b"data"].reshape(-1, 3, 32, 32)
        labels = np.asarray(batch[b"labels"], np.int64)
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"{where}: not a batch of CIFAR-10 ({error})") from error
    if planes.dtype != np.uint8 or labels.shape != (len(planes),):
        raise UserError(f"{where}: {planes.dtype} images {planes.shape}, labels {labels.shape}")
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


class _ArrayUnpickler(pickle.Unpickler):
    """Loads plain values and NumPy arrays, and refuses every other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"refuses to load {module}.{name}")
        return ARRAY_PARTS[module, name]
