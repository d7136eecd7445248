"""Large image files read straight to a small resolution: the originals are never held together."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from emm.data.catalogue import too_large
from emm.data.folder import check_depth, read_image
from emm.errors import UserError
from emm.train.progress import Progress

PNG_END = b"IEND"  # the last chunk of a whole file
TAIL = 64  # bytes of a file that are looked through for it

Result = TypeVar("Result")


class Reduction(NamedTuple):
    """The square resolution that images are brought to.

    strict: images that are not square, or smaller than that, are refused.
    """

    resolution: int
    strict: bool = False


def read_reduced(files: Sequence[Path], reduction: Reduction, threads: int = 1) -> np.ndarray:
    """Images as uint8 (N, resolution, resolution, 3): RGB, centre square, Lanczos on uint8.

    UserError for a file that cannot be read, has more than 8 bits or is refused; the first of them
    in the order of files.
    """
    images = np.empty((len(files), reduction.resolution, reduction.resolution, 3), np.uint8)

    def read(position: int) -> None:
        file = files[position]
        images[position] = read_image(file, lambda image: _reduced(image, file, reduction))

    _for_each(read, range(len(files)), threads)
    return images


def image_sizes(
    files: Sequence[Path], reduction: Reduction, threads: int = 1
) -> list[tuple[int, int]]:
    """Width and height of each file; UserError for what `read_reduced` would refuse.

    Of a PNG file only header and end are read, other formats are decoded.
    """

    def look(file: Path) -> tuple[int, int]:
        return read_image(file, lambda image: _size(image, file, reduction))

    return _for_each(look, files, threads)


def _for_each(work: Callable[..., Result], items: Sequence, threads: int) -> list[Result]:
    """Results in the order of the items; after an error no further item is begun."""
    pool = ThreadPoolExecutor(threads)
    results = []
    try:
        with Progress("image", len(items)) as show:
            for result in pool.map(work, items):
                results.append(result)
                show(len(results))
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _reduced(image: Image.Image, file: Path, reduction: Reduction) -> np.ndarray:
    _check(image, file, reduction)
    width, height = image.size
    side = min(image.size)
    left, top = (width - side) // 2, (height - side) // 2
    centre = image.convert("RGB").crop((left, top, left + side, top + side))
    if side == reduction.resolution:
        return np.asarray(centre)
    shape = (reduction.resolution, reduction.resolution)
    return np.asarray(centre.resize(shape, Image.Resampling.LANCZOS))


def _check(image: Image.Image, file: Path, reduction: Reduction) -> None:
    """Refuse what a header already tells."""
    check_depth(file, image.mode)
    width, height = image.size
    if reduction.strict and width != height:
        raise UserError(f"{file}: is {width}x{height} (width x height), not square")
    if reduction.strict and reduction.resolution > width:
        raise UserError(f"{file}: {too_large(reduction.resolution, width)}")


def _size(image: Image.Image, file: Path, reduction: Reduction) -> tuple[int, int]:
    _check(image, file, reduction)
    if image.format != "PNG":
        image.load()
    elif PNG_END not in _tail(file):
        raise UserError(f"{file}: cut short; download it again")
    return image.size


def _tail(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - TAIL))
        return stream.read()
