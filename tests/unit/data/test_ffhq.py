"""Faces: which files, how they are reduced, and what is refused."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emm.data import ffhq, reduced
from emm.data.reduced import Reduction, read_reduced
from emm.data.sources import load_source
from emm.data.subsets import resize
from emm.errors import UserError

COUNT = 12


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(ffhq, "COUNT", COUNT)


def pixels(number: int, side: int = 48) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def distributed(folder: Path, count: int = COUNT + 3, per_folder: int = 5, side: int = 48) -> Path:
    """Images in numbered sub-folders as they are distributed, written in another order."""
    for number in reversed(range(count)):
        part = f"{number // per_folder * per_folder:05d}"
        save(folder / part / f"{number:05d}.png", pixels(number, side))
    return folder


def test_first_images_in_order_of_their_names(tmp_path):
    distributed(tmp_path)
    source = load_source("ffhq", path=tmp_path, resolution=16, threads=3)
    assert (source.images.shape, source.class_names) == ((COUNT, 16, 16, 3), ())
    assert (source.labels == -1).all()
    assert source.names[4:6] == ("00000/00004.png", "00005/00005.png")
    originals = np.stack([pixels(number) for number in range(COUNT)])
    np.testing.assert_array_equal(source.images, resize(originals, 16))


def test_the_number_of_threads_changes_nothing(tmp_path):
    distributed(tmp_path)
    one, many = (load_source("ffhq", path=tmp_path, resolution=8, threads=n) for n in (1, 5))
    np.testing.assert_array_equal(one.images, many.images)


def test_the_resolution_of_the_files_is_kept(tmp_path):
    distributed(tmp_path)
    source = load_source("ffhq", path=tmp_path, resolution=48)
    np.testing.assert_array_equal(source.images[3], pixels(3))


def test_the_large_images_of_the_official_folder_come_first(tmp_path):
    save(tmp_path / "a" / "wild.png", pixels(99)[:30])
    save(tmp_path / "in-the-wild-images" / "00000" / "00000.png", pixels(98)[:30])
    distributed(tmp_path / "thumbnails128x128", side=20)
    assert load_source("ffhq", path=tmp_path, resolution=8).names[0] == "00000/00000.png"
    with pytest.raises(UserError, match=r"00000\.png: data\.resolution 32: .* 20 pixels"):
        load_source("ffhq", path=tmp_path, resolution=32)
    distributed(tmp_path / "images1024x1024")
    source = load_source("ffhq", path=tmp_path, resolution=32)
    np.testing.assert_array_equal(source.images[0], resize(pixels(0)[None], 32)[0])


def test_the_folder_in_the_cache(tmp_path):
    distributed(tmp_path / "ffhq")
    assert len(load_source("ffhq", cache=tmp_path, resolution=8)) == COUNT


def test_any_square_images_will_do(tmp_path):
    for number in range(COUNT):
        side = 20 + number
        save(tmp_path / f"{number:02d}.jpg", np.full((side, side), 10 * number, np.uint8))
    source = load_source("ffhq", path=tmp_path, resolution=16)
    assert source.images[:, 0, 0].tolist() == [[10 * n] * 3 for n in range(COUNT)]


@pytest.mark.parametrize("cache", ["here", "there"])
def test_missing_images_say_where_they_are_expected(tmp_path, cache):
    if cache == "here":
        distributed(tmp_path / "here" / "ffhq", count=5)
    with pytest.raises(UserError) as caught:
        load_source("ffhq", cache=tmp_path / cache, resolution=8)
    reason = "has 5 images" if cache == "here" else "no such folder"
    assert str(caught.value).startswith(f"{tmp_path / cache / 'ffhq'}: {reason}")
    assert str(caught.value).endswith("(docs/data.md)")
    assert "\n" not in str(caught.value)


def test_ten_thousand_are_needed():
    from emm.data.catalogue import SOURCES

    assert SOURCES["ffhq"].size == 10_000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pixels(0)[:40], r"00007\.png: is 48x40 \(width x height\), not square"),
        (pixels(0, 12), r"00007\.png: data\.resolution 16: the images have 12 pixels"),
        (np.zeros((48, 48), np.uint16), r"00007\.png: more than 8 bits"),
    ],
)
def test_unsuitable_images_are_named(tmp_path, values, message):
    distributed(tmp_path)
    save(tmp_path / "00005" / "00007.png", values)
    with pytest.raises(UserError, match=message):
        load_source("ffhq", path=tmp_path, resolution=16)


def test_a_damaged_image_is_named(tmp_path):
    distributed(tmp_path)
    path = tmp_path / "00005" / "00008.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"00008\.png: cannot be read as an image"):
        load_source("ffhq", path=tmp_path, resolution=16, threads=2)


def test_a_resolution_is_needed(tmp_path):
    with pytest.raises(UserError, match=r"data\.resolution: needed for ffhq"):
        load_source("ffhq", path=tmp_path)


def test_after_an_error_no_further_image_is_read(tmp_path, monkeypatch):
    files = [tmp_path / f"{number}.png" for number in range(50)]
    begun = []

    def read(file, get):
        begun.append(file)
        time.sleep(0.01)
        raise UserError(f"{file}: damaged")

    monkeypatch.setattr(reduced, "read_image", read)
    with pytest.raises(UserError, match=r"0\.png: damaged"):
        read_reduced(files, Reduction(8), threads=2)
    assert len(begun) < 10


def test_originals_are_held_one_for_each_thread(tmp_path, monkeypatch):
    distributed(tmp_path)
    opened, most, lock = [], [], threading.Lock()
    original = reduced.read_image

    def count(file, get):
        with lock:
            opened.append(file)
            most.append(len(opened))
        result = original(file, get)
        with lock:
            opened.remove(file)
        return result

    monkeypatch.setattr(reduced, "read_image", count)
    load_source("ffhq", path=tmp_path, resolution=16, threads=2)
    assert len(most) == COUNT
    assert max(most) <= 2
