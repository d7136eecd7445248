"""Flickr-Faces-HQ (Karras et al. 2019): the first images of a folder, reduced while read."""

from itertools import islice
from pathlib import Path

from emm.data.catalogue import SOURCES, no_resolution
from emm.data.folder import find_images
from emm.data.reduced import Reduction
from emm.errors import UserError

COUNT = SOURCES["ffhq"].size
PARTS = ("images1024x1024", "thumbnails128x128")  # of the official folder, the better one first


def ffhq_folder(path: Path) -> Path:
    """The folder that holds the images: `path`, or its part of the official distribution."""
    return next((path / part for part in PARTS if (path / part).is_dir()), path)


def ffhq_reduction(resolution: int | None) -> Reduction:
    """How the images, which are square, are reduced; UserError without a resolution."""
    if resolution is None:
        raise UserError(no_resolution("ffhq"))
    return Reduction(resolution, strict=True)


def ffhq_files(path: Path) -> list[Path]:
    """The first COUNT images of a folder in order of their paths; UserError if there are fewer."""
    folder = ffhq_folder(path)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; FFHQ's images are expected there (docs/data.md)"
        )
    files = list(islice(find_images(folder), COUNT))
    if len(files) < COUNT:
        raise UserError(
            f"{folder}: has {len(files)} images, and the first {COUNT} of FFHQ are needed; put "
            "them there (docs/data.md)"
        )
    return files
