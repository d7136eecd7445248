"""Folders of images: order, classes, colour, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from emm.data.folder import read_folder
from emm.errors import UserError


def uniform(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def test_order_names_and_classes(tmp_path):
    names = ["b/2.png", "b/10.png", "a/x/1.PNG", "a-b/1.png", "z.bmp"]
    for seed, name in enumerate(names):
        save(tmp_path / name, uniform(seed, 4, 6, 3))
    folder = read_folder(tmp_path)
    assert folder.names == ["a/x/1.PNG", "a-b/1.png", "b/10.png", "b/2.png", "z.bmp"]
    assert folder.class_of == ["a/x", "a-b", "b", "b", ""]
    assert folder.images.shape == (5, 4, 6, 3)
    assert folder.images.dtype == np.uint8
    for name, image in zip(folder.names, folder.images, strict=True):
        np.testing.assert_array_equal(image, uniform(names.index(name), 4, 6, 3))


def test_hidden_and_other_files_are_passed_over(tmp_path):
    for name in ("a.png", ".b.png", ".cache/c.png"):
        save(tmp_path / name, uniform(0, 4, 4, 3))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    assert read_folder(str(tmp_path)).names == ["a.png"]


def test_greyscale_stays_one_channel_only_if_all_are(tmp_path):
    save(tmp_path / "a.png", uniform(1, 4, 4))
    save(tmp_path / "b.png", uniform(2, 4, 4), "LA")
    images = read_folder(tmp_path).images
    assert images.shape == (2, 4, 4, 1)
    np.testing.assert_array_equal(images[0, ..., 0], uniform(1, 4, 4))
    save(tmp_path / "c.png", uniform(3, 4, 4, 3))
    images = read_folder(tmp_path).images
    assert images.shape == (3, 4, 4, 3)
    np.testing.assert_array_equal(images[0], np.repeat(uniform(1, 4, 4)[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_other_colour_formats_become_rgb(tmp_path, mode):
    pixels = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), pixels, mode)
    np.testing.assert_array_equal(read_folder(tmp_path).images[0], pixels)


def test_different_sizes_name_both_files(tmp_path):
    save(tmp_path / "a.png", uniform(1, 4, 4, 3))
    save(tmp_path / "b.png", uniform(2, 4, 6, 3))
    with pytest.raises(UserError, match=r"a\.png is 4x4, .*b\.png is 6x4"):
        read_folder(tmp_path)


def test_sixteen_bit_images_are_refused(tmp_path):
    save(tmp_path / "a.png", np.arange(16, dtype=np.uint16).reshape(4, 4))
    with pytest.raises(UserError, match=r"a\.png: more than 8 bits"):
        read_folder(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif"])
@pytest.mark.parametrize("kept", [0, 10, 0.5])
def test_damaged_images_are_named(tmp_path, suffix, kept):
    save(tmp_path / f"a.{suffix}", uniform(1, 64, 64, 3))
    path = tmp_path / f"b.{suffix}"
    save(path, uniform(2, 64, 64, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(UserError, match=rf"b\.{suffix}: cannot be read as an image") as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_folder_and_no_images(tmp_path):
    with pytest.raises(UserError, match="no images in this folder"):
        read_folder(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_folder(tmp_path / "missing")
