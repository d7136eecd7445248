"""SVHN from its MATLAB file: images, digits, damage, download."""

import hashlib
from pathlib import Path

import numpy as np
import pooch
import pytest
from scipy.io import savemat

from emm.data import svhn
from emm.data.catalogue import SOURCES
from emm.data.sources import load_source
from emm.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
DIGITS = np.array([1, 9, 10, 2, 10, 5])  # 10 is the digit 0


@pytest.fixture
def file(tmp_path) -> Path:
    """A file in the official form."""
    path = tmp_path / "train_32x32.mat"
    content = {"X": IMAGES.transpose(1, 2, 3, 0), "y": DIGITS[:, None].astype(np.uint8)}
    savemat(path, content, do_compression=True)
    return path


@pytest.mark.parametrize("place", ["file", "folder"])
def test_images_and_digits(file, place):
    images, labels = svhn.read_svhn({"file": file, "folder": file.parent}[place], md5=None)
    np.testing.assert_array_equal(images, IMAGES)
    assert images.flags.c_contiguous
    assert labels.tolist() == [1, 9, 0, 2, 0, 5]
    assert labels.dtype == np.int64


def test_a_hash_is_checked(file):
    found = hashlib.md5(file.read_bytes()).hexdigest()
    assert len(svhn.read_svhn(file, md5=found)[0]) == 6
    with pytest.raises(UserError) as error:
        svhn.read_svhn(file)
    assert f"MD5 {found}, expected e26dedcc434d2e4c54c9b2d4a06d8373" in str(error.value)


@pytest.mark.parametrize("kept", [0, 100, 10_000])
def test_truncated_files(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match="not a file of SVHN") as error:
        svhn.read_svhn(file, md5=None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        {"X": IMAGES.transpose(1, 2, 3, 0)},
        {"X": IMAGES.transpose(1, 2, 3, 0).astype(float), "y": DIGITS},
        {"X": IMAGES.transpose(1, 2, 3, 0)[:16], "y": DIGITS},
        {"X": IMAGES.transpose(1, 2, 3, 0), "y": DIGITS[:5]},
    ],
)
def test_foreign_files(file, content):
    savemat(file, content)
    with pytest.raises(UserError, match=r"not a file of SVHN|images"):
        svhn.read_svhn(file, md5=None)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"no such file; expected train_32x32\.mat"):
        svhn.read_svhn(tmp_path)


def test_the_cache_comes_before_a_download(file, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pooch, "retrieve", lambda *a: asked.append(a) or tmp_path / a[2])
    assert svhn.fetch_svhn(tmp_path) == file
    assert not asked
    file.unlink()
    svhn.fetch_svhn(tmp_path)
    assert asked == [
        (
            "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
            "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
            "train_32x32.mat",
            tmp_path / "svhn",
        )
    ]


def test_source(file, monkeypatch):
    monkeypatch.setattr(svhn.read_svhn, "__defaults__", (None,))
    source = load_source("svhn", path=file)
    assert source.class_names[source.labels[2]] == "0"
    assert sum(SOURCES["svhn"].class_counts) == SOURCES["svhn"].size == 73_257
