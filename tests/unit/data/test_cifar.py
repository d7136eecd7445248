import hashlib
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import pytest
import requests

from emm.data import cifar
from emm.data.cifar import CIFAR10, CIFAR100
from emm.data.sources import load_source
from emm.errors import UserError

IMAGES = 4  # per batch
UNCHECKED = replace(CIFAR10, md5={})


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote for the official files: byte strings and NumPy's old module."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    def save_function(self, function):
        if function is not cifar.RECONSTRUCT:
            return self.save_global(function)
        self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
        return self.memoize(function)

    dispatch[bytes] = save_bytes
    dispatch[type(cifar.RECONSTRUCT)] = save_function


def write_pickle(path: Path, value) -> None:
    with path.open("wb") as stream:
        Python2Pickler(stream, protocol=2).dump(value)


def planes_of(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (IMAGES, 3072), np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    """An extracted archive in the official format, with IMAGES images per batch."""
    folder = tmp_path / CIFAR10.folder
    folder.mkdir()
    for number in range(1, 6):
        batch = {
            b"batch_label": b"training batch %d of 5" % number,
            b"labels": [(number + i) % 10 for i in range(IMAGES)],
            b"data": planes_of(number),
            b"filenames": [b"image_%d.png" % i for i in range(IMAGES)],
        }
        write_pickle(folder / f"data_batch_{number}", batch)
    return folder


def pack(folder: Path) -> Path:
    """Archive of a folder, its batches in another order than they are numbered."""
    path = folder.parent / CIFAR10.archive
    with tarfile.open(path, "w:gz") as archive:
        for name in sorted(folder.iterdir(), reverse=True):
            archive.add(name, f"{CIFAR10.folder}/{name.name}")
    return path


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_fake_batches_are_like_the_official_ones(folder):
    content = (folder / "data_batch_1").read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct" in content
    assert b"_codecs" not in content
    assert content[:2] == b"\x80\x02"


@pytest.mark.parametrize("place", ["archive", "extracted", "parent of archive", "parent of folder"])
def test_reads_batches_in_order_and_planes_as_channels(folder, place):
    archive = pack(folder)
    if place == "parent of archive":
        folder.rename(folder.with_name("elsewhere"))
    paths = {"archive": archive, "extracted": folder}
    images, labels = cifar.read_cifar(UNCHECKED, paths.get(place, folder.parent))
    assert (images.shape, images.dtype, labels.dtype) == ((20, 32, 32, 3), np.uint8, np.int64)
    assert images.flags.c_contiguous
    assert labels.tolist() == [(n + i) % 10 for n in range(1, 6) for i in range(IMAGES)]
    for position in (0, 7, 19):
        batch, row = divmod(position, IMAGES)
        planes = planes_of(batch + 1)[row]
        for channel in range(3):
            expected = planes[1024 * channel : 1024 * (channel + 1)].reshape(32, 32)
            np.testing.assert_array_equal(images[position, ..., channel], expected)


def test_right_hashes_pass(folder):
    names = [*folder.iterdir(), pack(folder)]
    md5 = {path.name: md5_of(path) for path in names}
    assert len(cifar.read_cifar(replace(CIFAR10, md5=md5), folder)[0]) == 20
    assert len(cifar.read_cifar(replace(CIFAR10, md5=md5), names[-1])[0]) == 20


def test_wrong_hash_names_file_and_both_hashes(folder):
    for path in (pack(folder), folder):
        file = path if path.is_file() else path / "data_batch_1"
        with pytest.raises(UserError) as error:
            cifar.read_cifar(CIFAR10, path)
        assert "\n" not in str(error.value)
        for part in (str(file), md5_of(file), CIFAR10.md5[file.name]):
            assert part in str(error.value)


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated_archive(folder, kept):
    archive = pack(folder)
    content = archive.read_bytes()
    archive.write_bytes(content[: kept if kept > 1 else int(len(content) * kept)])
    for md5, message in ((CIFAR10.md5, "truncated"), ({}, "damaged|has no data_batch")):
        with pytest.raises(UserError, match=message):
            cifar.read_cifar(replace(CIFAR10, md5=md5), archive)


def test_truncated_batch(folder):
    batch = folder / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"data_batch_3: not a batch of CIFAR-10"):
        cifar.read_cifar(UNCHECKED, folder)


def test_missing_batch(folder):
    (folder / "data_batch_5").unlink()
    for path in (folder, pack(folder)):
        with pytest.raises(UserError, match="has no data_batch_5"):
            cifar.read_cifar(UNCHECKED, path)


def test_missing_path(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        cifar.read_cifar(CIFAR10, tmp_path / "nowhere.tar.gz")


@pytest.mark.parametrize(
    "content",
    [
        {b"labels": [1]},
        {b"data": planes_of(1), b"labels": [1]},
        {b"data": planes_of(1).astype(np.float32), b"labels": [1] * IMAGES},
        {b"data": b"text", b"labels": [1]},
        [1, 2],
    ],
)
def test_foreign_content(folder, content):
    write_pickle(folder / "data_batch_2", content)
    with pytest.raises(UserError, match="data_batch_2"):
        cifar.read_cifar(UNCHECKED, folder)


class Attack:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", range(6))
def test_malicious_pickle_is_refused_unrun(folder, protocol):
    marker = folder / "attacked"
    content = pickle.dumps({b"data": Attack(marker), b"labels": [0]}, protocol=protocol)
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(UserError, match="refuses to load"):
        cifar.read_cifar(UNCHECKED, folder)
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "numpy.load", "numpy.core.multiarray.scalar"])
def test_other_names_are_refused(folder, name):
    module, function = name.rsplit(".", 1)
    (folder / "data_batch_1").write_bytes(f"c{module}\n{function}\n.".encode())
    with pytest.raises(UserError, match=f"refuses to load {name}"):
        cifar.read_cifar(UNCHECKED, folder)


@pytest.mark.parametrize(
    "failure", [requests.exceptions.ConnectionError("no route"), ValueError("wrong hash")]
)
def test_failed_download_says_where_to_put_the_file(tmp_path, monkeypatch, failure):
    def refuse(*arguments, **options):
        raise failure

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(UserError) as error:
        load_source("cifar10", cache=tmp_path)
    assert str(tmp_path / CIFAR10.archive) in str(error.value)
    assert "\n" not in str(error.value)


def test_download_asks_for_the_official_archive(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pooch, "retrieve", lambda *a: asked.append(a) or tmp_path / a[2])
    assert cifar.fetch_cifar(CIFAR10, tmp_path) == tmp_path / "cifar-10-python.tar.gz"
    (url, known_hash, name, folder), *_ = asked
    assert url == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert known_hash == "md5:c58f30108f718f92721af3b95e74349a"
    assert (name, folder) == ("cifar-10-python.tar.gz", tmp_path)


def test_cached_files_are_not_downloaded(folder, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", None)
    assert cifar.fetch_cifar(CIFAR10, folder.parent) == folder
    archive = pack(folder)
    folder.rename(folder.with_name("elsewhere"))
    assert cifar.fetch_cifar(CIFAR10, folder.parent) == archive


def test_source(folder, monkeypatch):
    monkeypatch.setattr(cifar, "CIFAR10", UNCHECKED)
    source = load_source("cifar10", path=folder)
    assert len(source) == 20
    assert source.class_names[5] == "dog"


def test_cifar100_has_its_fine_labels(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    batch = {b"fine_labels": [19, 29, 0, 99], b"coarse_labels": [1] * 4, b"data": planes_of(1)}
    write_pickle(folder / "train", batch)
    with pytest.raises(UserError, match="expected 16019d7e3df5f24257cddd939b257f8d"):
        load_source("cifar100", path=tmp_path)
    monkeypatch.setattr(cifar, "CIFAR100", replace(CIFAR100, md5={}))
    source = load_source("cifar100", path=tmp_path)
    assert source.labels.tolist() == [19, 29, 0, 99]
    assert [source.class_names[label] for label in source.labels] == [
        *("cattle", "dinosaur", "apple", "worm"),
    ]
    np.testing.assert_array_equal(
        source.images[2, ..., 1], planes_of(1)[2, 1024:2048].reshape(32, 32)
    )


def test_cifar100_is_fetched_from_its_place(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pooch, "retrieve", lambda *a: asked.append(a) or tmp_path / a[2])
    cifar.fetch_cifar(CIFAR100, tmp_path)
    assert asked[0][:2] == (
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "md5:eb9058c3a382ffc7106e4002c42a8d85",
    )


def test_a_malicious_cifar100_is_refused(tmp_path):
    (tmp_path / "train").write_bytes(pickle.dumps({b"data": Attack(tmp_path / "attacked")}))
    with pytest.raises(UserError, match=r"not a batch of CIFAR-100 \(refuses to load"):
        cifar.read_cifar(replace(CIFAR100, md5={}), tmp_path)
    assert not (tmp_path / "attacked").exists()
