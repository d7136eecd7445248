"""Folders of images as arrays."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from emm.errors import UserError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
GREY = {"1", "L", "LA", "La"}  # Pillow's pixel formats; all but these and 16 bit become RGB
DEEP = ("I", "F")  # formats whose names start so have more than 8 bits
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)

Result = TypeVar("Result")


class Folder(NamedTuple):
    """Images uint8 (N, H, W, C), with their paths and classes relative to the folder.

    C is 1 if every image is greyscale, else 3. The class of an image is the folder it lies in,
    '' for the top.
    """

    images: np.ndarray
    names: list[str]
    class_of: list[str]


def read_folder(path: Path | str) -> Folder:
    """All images below a folder, ordered by path; hidden and other files are passed over.

    Transparency is dropped, and of an animation the first frame counts. Raises UserError where
    there is no image, sizes differ, a file cannot be read or has more than 8 bits per channel.
    """
    path = Path(path)
    files = image_files(path)
    headers = [read_image(file, lambda image: (image.mode, image.size)) for file in files]
    _check_depth(files, [mode for mode, _ in headers])
    _check_sizes(files, [size for _, size in headers])
    mode = "L" if all(mode in GREY for mode, _ in headers) else "RGB"
    width, height = headers[0][1]
    images = np.empty((len(files), height, width, len(mode)), np.uint8)
    for image, file in zip(images, files, strict=True):
        image[:] = read_image(file, lambda opened: np.array(opened.convert(mode))).reshape(
            image.shape
        )
    names = [file.relative_to(path) for file in files]
    class_of = ["/".join(name.parent.parts) for name in names]
    return Folder(images, [name.as_posix() for name in names], class_of)


def image_files(path: Path | str) -> list[Path]:
    """Image files below a folder, ordered by path. Raises UserError if there are none."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    if found := list(find_images(path)):
        return found
    kinds = ", ".join(sorted(SUFFIXES))
    raise UserError(f"{path}: no images in this folder (looked for {kinds})")


def find_images(path: Path, pattern: str = "**/*") -> Iterator[Path]:
    """Image files below a folder, ordered by path; hidden ones are passed over."""
    found = [
        file
        for file in path.glob(pattern)
        if file.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    found.sort(key=lambda file: file.relative_to(path).parts)
    return (file for file in found if file.is_file())


def read_image(file: Path, get: Callable[[Image.Image], Result]) -> Result:
    """What `get` makes of an image; a file that Pillow cannot read is a UserError."""
    try:
        with Image.open(file) as image:
            return get(image)
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read as an image ({reason})") from error


def check_depth(file: Path, mode: str) -> None:
    """UserError for an image, by Pillow's name of its format, that has more than 8 bits."""
    if mode.startswith(DEEP):
        raise UserError(f"{file}: more than 8 bits per channel; convert it to 8 bits first")


def _check_depth(files: list[Path], modes: list[str]) -> None:
    for file, mode in zip(files, modes, strict=True):
        check_depth(file, mode)


def _check_sizes(files: list[Path], sizes: list[tuple[int, int]]) -> None:
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            first, other = (f"{width}x{height}" for width, height in (sizes[0], size))
            raise UserError(
                f"images differ in size: {files[0]} is {first}, {file} is {other} (width x height);"
                " resize them to one size"
            )
