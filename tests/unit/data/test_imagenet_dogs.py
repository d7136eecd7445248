"""ImageNet's dogs: which files, in which order, how reduced, and what a folder may lack."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emm.data import cifar
from emm.data.imagenet_dogs import SYNSETS, WILD, dog_files
from emm.data.sources import load_source
from emm.data.subsets import resize
from emm.errors import UserError


def colour(synset: str, number: int) -> tuple[int, int, int]:
    """A colour that tells which image it is."""
    return SYNSETS.index(synset), number, 7


def save(folder: Path, synset: str, number: int) -> None:
    folder.joinpath(synset).mkdir(exist_ok=True)
    image = Image.new("RGB", (40, 34), colour(synset, number))
    image.save(folder / synset / f"{synset}_{number:02d}.JPEG", "PNG")  # of which colours survive


@pytest.fixture(scope="module")
def dogs(tmp_path_factory) -> Path:
    """As in the training set: 18 images of each synset, other synsets, other files."""
    folder = tmp_path_factory.mktemp("train")
    for synset in SYNSETS:
        for number in range(18):
            save(folder, synset, number)
    (folder / "n01440764").mkdir()
    (folder / "n02085374").mkdir()  # lies between the breeds, is none of them
    Image.new("RGB", (40, 34)).save(folder / "n02085374" / "n02085374_1.JPEG")
    (folder / "n02085620" / ".hidden.JPEG").touch()
    (folder / "n02085620" / "a.txt").touch()
    return folder


@pytest.fixture
def copied(dogs, tmp_path) -> Path:
    """A copy of the folder that a test may change."""
    return shutil.copytree(dogs, tmp_path / "dogs")


def test_synsets():
    breeds = [name for name in SYNSETS if "n02085620" <= name <= "n02113978"]
    assert len(breeds) == 118
    assert (breeds[0], breeds[-1]) == ("n02085620", "n02113978")
    assert list(SYNSETS) == sorted({*breeds, *WILD})
    assert len(SYNSETS) == 123
    assert all(re.fullmatch(r"n021?\d{5,6}", name) and len(name) == 9 for name in SYNSETS)


def test_two_thousand_files_by_name(dogs):
    files = dog_files(dogs)
    expected = {
        dogs / synset / f"{synset}_{number:02d}.JPEG"
        for rank, synset in enumerate(SYNSETS)
        for number in range(17 if rank < 32 else 16)
    }
    assert len(files) == len(expected) == 2000
    assert set(files) == expected


def test_the_shuffle_is_fixed(dogs):
    files, again = dog_files(dogs), dog_files(Path(str(dogs)))
    assert files == again
    position = {file: number for number, file in enumerate(sorted(files))}
    assert [position[file] for file in files[:6]] == [573, 1236, 13, 1990, 1996, 952]
    first = {file.parent.name for file in files[:200]}
    assert len(first) > 80  # every short prefix is of many breeds


def test_missing_and_short_synsets_are_named(copied):
    shutil.rmtree(copied / "n02113978")
    shutil.rmtree(copied / "n02115641")
    for number in (16, 17):
        (copied / "n02085620" / f"n02085620_{number:02d}.JPEG").unlink()
        (copied / "n02114855" / f"n02114855_{number:02d}.JPEG").unlink()
    (copied / "n02114855" / "n02114855_03.JPEG").unlink()
    with pytest.raises(UserError) as caught:
        dog_files(copied)
    assert str(caught.value) == (
        f"{copied}: 121 of 123 synsets found; missing: n02113978, n02115641; too few images: "
        "n02085620 (16 of 17 images), n02114855 (15 of 16 images) (docs/data.md)"
    )


def test_sixteen_are_enough_after_the_first_synsets(copied):
    (copied / SYNSETS[31] / f"{SYNSETS[31]}_17.JPEG").unlink()
    for synset in SYNSETS[32:]:
        for number in (16, 17):
            (copied / synset / f"{synset}_{number}.JPEG").unlink()
    assert len(dog_files(copied)) == 2000


def test_no_folder_and_a_wrong_folder(tmp_path):
    with pytest.raises(UserError, match=r"none: no such folder; 123 folders .*docs/data\.md"):
        dog_files(tmp_path / "none")
    (tmp_path / "n01440764").mkdir()
    with pytest.raises(UserError, match=r"has none of them; 123 folders .*docs/data\.md"):
        dog_files(tmp_path)


@pytest.fixture
def cifar10(monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in place of CIFAR-10's: more dogs than are needed, between others."""
    rng = np.random.default_rng(0)
    labels = np.where(np.arange(4100) % 2, 5, rng.integers(6, 10, 4100))
    images = rng.integers(0, 256, (4100, 32, 32, 3), np.uint8)
    monkeypatch.setattr(cifar, "fetch_cifar", lambda release, cache: cache / release.folder)
    monkeypatch.setattr(cifar, "read_cifar", lambda release, path: (images, labels))
    return images, labels


def test_source(dogs, cifar10):
    images, labels = cifar10
    source = load_source("cifar10_imagenet_dog", path=dogs, threads=3)
    assert source.images.shape == (4000, 32, 32, 3)
    assert source.labels.tolist() == [0] * 2000 + [1] * 2000
    assert source.class_names == ("cifar10", "imagenet")
    rows = np.flatnonzero(labels == 5)[:2000]
    np.testing.assert_array_equal(source.images[:2000], images[rows])
    assert source.names[:2] == ("cifar10/1", "cifar10/3")
    for image, name in zip(source.images[2000:], source.names[2000:], strict=True):
        synset, number = name.split("/")[0], int(name[-7:-5])
        np.testing.assert_array_equal(
            np.unique(image.reshape(-1, 3), axis=0), [colour(synset, number)]
        )


def test_the_folder_in_the_cache(dogs, cifar10, tmp_path):
    (tmp_path / "imagenet_dogs").symlink_to(dogs)
    source = load_source("cifar10_imagenet_dog", cache=tmp_path)
    assert len(source) == 4000
    assert source.names[2000].startswith("n02")
    with pytest.raises(UserError, match="imagenet_dogs: no such folder"):
        load_source("cifar10_imagenet_dog", cache=tmp_path / "other")


@pytest.mark.parametrize(("height", "width"), [(50, 41), (40, 67)])
def test_centre_and_lanczos(copied, cifar10, height, width):
    name = dog_files(copied)[0]
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(name, "PNG")
    source = load_source("cifar10_imagenet_dog", path=copied)
    np.testing.assert_array_equal(source.images[2000], resize(pixels[None], 32)[0])


def test_grey_and_small_images_are_taken(copied, cifar10):
    first, second = dog_files(copied)[:2]
    Image.new("L", (60, 60), 99).save(first, "JPEG")
    Image.new("RGB", (20, 30), (1, 2, 3)).save(second, "PNG")
    source = load_source("cifar10_imagenet_dog", path=copied)
    assert (source.images[2000] == 99).all()
    assert (source.images[2001] == [1, 2, 3]).all()
