"""What `emm data --check` says of the files that are there, and of those that are not."""

import hashlib
import io
import signal
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emm import cli
from emm.data import cifar, ffhq, imagenet_dogs


@pytest.fixture
def check(capfd, monkeypatch, tmp_path):
    """The command with KEY=VALUE settings and --options: exit code and all that it prints."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(*settings: str) -> tuple[int, str, str]:
        words = [f"--set={word}" if "=" in word else word for word in settings]
        command = ["emm", "data", *words, "--check", "--cache", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", command)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ending:
            cli.main()
        return ending.value.code or 0, *capfd.readouterr()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def refuses(check):
    """The one error line of a check that has to fail."""

    def run(*settings: str) -> str:
        code, out, err = check(*settings)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err.removeprefix("error: ").strip()

    return run


def save(path: Path, size: tuple[int, int], **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def faces(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(ffhq, "COUNT", 12)
    for number in range(13):
        save(tmp_path / "ffhq" / "images1024x1024" / "00000" / f"{number:05d}.png", (40, 40))
    return tmp_path / "ffhq" / "images1024x1024"


def test_faces(check, faces):
    code, out, err = check("data.dataset=ffhq")
    assert (code, err) == (0, "")
    assert out == (
        f"ffhq: {faces}: the first 12 images, 00000/00000.png to 00000/00011.png, 40x40 pixels\n"
    )


def test_faces_of_several_sizes_elsewhere(check, faces):
    save(faces / "00000" / "00003.png", (60, 60))
    code, out, _ = check("data.dataset=ffhq", f"data.path={faces}", "data.resolution=16")
    assert code == 0
    assert out.endswith("40x40 to 60x60 pixels\n")


def test_faces_that_will_not_do(refuses, faces):
    assert "data.resolution 64: the images have 40 pixels" in refuses(
        "data.dataset=ffhq", "data.resolution=64"
    )
    path = faces / "00000" / "00005.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert refuses("data.dataset=ffhq") == f"{path}: cut short; download it again"
    path.write_bytes(whole[:10])
    assert refuses("data.dataset=ffhq").startswith(f"{path}: cannot be read as an image (")
    save(path, (40, 41))
    assert refuses("data.dataset=ffhq").startswith(f"{path}: is 40x41 (width x height)")
    path.unlink()
    (faces / "00000" / "00006.png").unlink()
    message = refuses("data.dataset=ffhq")
    assert message.startswith(f"{faces}: has 11 images, and the first 12 of FFHQ are needed")
    assert message.endswith("(docs/data.md)")


def test_only_the_faces_that_are_needed_are_looked_at(check, faces):
    (faces / "00000" / "00012.png").write_bytes(b"")
    assert check("data.dataset=ffhq")[0] == 0


def test_no_faces(refuses, tmp_path):
    message = refuses("data.dataset=ffhq")
    assert message == (
        f"{tmp_path / 'ffhq'}: no such folder; FFHQ's images are expected there (docs/data.md)"
    )


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """A small archive in place of CIFAR-10's, whose hash is that of the official one."""
    path = tmp_path / cifar.CIFAR10.archive
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(f"{cifar.CIFAR10.folder}/data_batch_1")
        tar.addfile(member, io.BytesIO())
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    small = replace(cifar.CIFAR10, md5={path.name: md5}, batches=("data_batch_1",))
    monkeypatch.setattr(cifar, "CIFAR10", small)
    images = np.zeros((5000, 32, 32, 3), np.uint8)
    monkeypatch.setattr(cifar, "_parse_batch", lambda *_: (images, np.zeros(5000, np.int64)))
    return path


def test_cifar10(check, archive):
    assert check("data.dataset=cifar10") == (
        0,
        f"cifar10: {archive}: MD5 as published, 5,000 training images\n",
        "",
    )


def test_a_damaged_archive(refuses, archive):
    archive.write_bytes(archive.read_bytes()[:-1])
    message = refuses("data.dataset=cifar10")
    assert message.startswith(f"{archive}: truncated or not the official file: MD5 ")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("cifar100", "has neither cifar-100-python.tar.gz nor cifar-100-python, which `emm data`"),
        ("svhn", "has no svhn/train_32x32.mat, which `emm data` without --check downloads"),
    ],
)
def test_others_that_are_not_downloaded(refuses, tmp_path, dataset, message):
    assert refuses(f"data.dataset={dataset}").startswith(f"{tmp_path}: {message}")


def test_cifar100_and_svhn(check, tmp_path, monkeypatch):
    images = np.zeros((7, 32, 32, 3), np.uint8), np.zeros(7, np.int64)
    for name in ("svhn/train_32x32.mat", "cifar-100-python/train"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"damaged")
    code, out, err = check("data.dataset=cifar100")
    assert (code, out) == (2, "")
    assert "train: truncated or not the official file: MD5" in err
    assert "train_32x32.mat: truncated or not the official file" in check("data.dataset=svhn")[2]
    monkeypatch.setattr("emm.data.check.cifar.read_cifar", lambda *_: images)
    monkeypatch.setattr("emm.data.check.svhn.read_svhn", lambda *_: images)
    for dataset, place in (("cifar100", "cifar-100-python"), ("svhn", "svhn/train_32x32.mat")):
        expected = f"{dataset}: {tmp_path / place}: MD5 as published, 7 training images\n"
        assert check(f"data.dataset={dataset}") == (0, expected, "")


def test_near_duplicates_of_the_training_set(check, tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 6, 6, 1), np.uint8)
    images[1], images[3] = images[0], np.clip(images[2].astype(int) + 2, 0, 255)
    np.save(tmp_path / "mine.npy", images)
    settings = ("data.dataset=folder", f"data.path={tmp_path / 'mine.npy'}", "data.resolution=6")
    code, out, err = check(*settings, "--near-duplicates")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].startswith("20 images: 1 repeat an earlier one, 2 others are less")
    code, _, err = check(*settings, "data.size=3", "--near-duplicates")
    assert code == 2
    assert "2 distinct images: to compare them takes at least three" in err
    out = check("data.dataset=digits", "data.size=50", "--near-duplicates")[1]
    assert out.splitlines()[1].startswith("50 images: 0 repeat an earlier one, 0 others")


def test_no_archive_is_not_downloaded(refuses, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "fetch_cifar", None)
    message = refuses("data.dataset=cifar10")
    assert message.startswith(f"{tmp_path}: has neither cifar-10-python.tar.gz nor cifar-10-b")
    assert message.endswith("(docs/data.md)")


@pytest.fixture
def dogs(tmp_path, archive, monkeypatch) -> Path:
    """Two synsets in place of all: three images of the first, two of the second."""
    monkeypatch.setattr(imagenet_dogs, "SYNSETS", ("n1", "n2"))
    monkeypatch.setattr(imagenet_dogs, "WANTED", {"n1": 3, "n2": 2})
    monkeypatch.setattr("emm.data.check.SYNSETS", ("n1", "n2"))
    folder = tmp_path / "imagenet_dogs"
    for name, sizes in {"n1": [(50, 40), (40, 60), (45, 45)], "n2": [(70, 50), (50, 50)]}.items():
        for number, size in enumerate(sizes):
            save(folder / name / f"{number}.JPEG", size)
    return folder


def test_dogs(check, archive, dogs):
    code, out, err = check("data.dataset=cifar10_imagenet_dog")
    assert (code, err) == (0, "")
    assert out == (
        f"cifar10: {archive}: MD5 as published, 5,000 training images\n"
        f"imagenet_dogs: {dogs}: 2 of 2 synsets, 5 images, 40x40 to 70x60 pixels\n"
    )


def test_dogs_that_are_missing_or_damaged(refuses, dogs):
    path = dogs / "n2" / "1.JPEG"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = refuses("data.dataset=cifar10_imagenet_dog")
    assert message.startswith(f"{path}: cannot be read as an image (")
    path.unlink()
    message = refuses("data.dataset=cifar10_imagenet_dog")
    assert message == (
        f"{dogs}: 2 of 2 synsets found; too few images: n2 (1 of 2 images) (docs/data.md)"
    )


@pytest.mark.parametrize(
    ("dataset", "line"),
    [
        ("digits", "comes with scikit-learn, 1,797 images of 8x8 pixels, 1 channels, 10 classes"),
        ("digits_blend", "comes with scikit-learn, 1,797 images of 8x8 pixels, 1 channels, 2 cl"),
        ("mondrian", "generated, needs no files"),
    ],
)
def test_sources_that_need_no_files(check, dataset, line):
    code, out, err = check(f"data.dataset={dataset}")
    assert (code, err) == (0, "")
    assert out.startswith(f"{dataset}: {line}")


def test_own_images(check, refuses, tmp_path):
    folder = tmp_path / "mine"
    for name in ("a/1.png", "b/1.png"):
        save(folder / name, (6, 5))
    settings = ("data.dataset=folder", f"data.path={folder}")
    expected = f"folder: {folder}: 2 images of 6x5 pixels, 3 channels, 2 classes\n"
    assert check(*settings) == (0, expected, "")
    save(folder / "c.png", (7, 5))
    assert "images differ in size" in refuses(*settings)


def test_without_a_check_a_file_has_to_be_named(capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["emm", "data"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ending:
        cli.main()
    assert ending.value.code == 2
    assert capfd.readouterr().err.startswith("error: --output: name the file to write, or --check")
