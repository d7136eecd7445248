"""ArtBench-10 (Liao et al. 2022): the first paintings of each style, from its 256x256 folders."""

import csv
from itertools import islice
from pathlib import Path

from emm.data.catalogue import SOURCES, no_resolution
from emm.data.folder import find_images
from emm.data.reduced import Reduction
from emm.errors import UserError

STYLES = SOURCES["artbench10"].class_names
PER_STYLE = SOURCES["artbench10"].smallest_class  # all 50,000 would take 10 GB
PARTS = (  # of the official archives: training images alone, then those with the test images
    "artbench-10-imagefolder-split/train",
    "train",
    "artbench-10-imagefolder",
)
METADATA = "ArtBench-10.csv"
COLUMNS = ("name", "label", "split")


def artbench_folder(path: Path) -> Path:
    """The folder with a sub-folder per style: `path`, or its part of the official archives."""
    return next((path / part for part in PARTS if (path / part).is_dir()), path)


def artbench_reduction(resolution: int | None) -> Reduction:
    """How the images, which are square, are reduced; UserError without a resolution."""
    if resolution is None:
        raise UserError(no_resolution("artbench10"))
    return Reduction(resolution, strict=True)


def artbench_files(path: Path) -> list[Path]:
    """The first training images of each style in order of their names, style after style.

    Where test images lie among them, ArtBench-10.csv beside the folders tells them apart; without
    it they count as the others. UserError that names the styles that are missing or too small.
    """
    folder = artbench_folder(path)
    test = _test_images(path)
    found = {style: _first(folder / style, test) for style in STYLES}
    _check_found(folder, found)
    return [file for files in found.values() for file in files]


def _first(folder: Path, test: set[tuple[str, str]]) -> list[Path] | None:
    """The first images of a style that are not test images; None where it has no folder."""
    if not folder.is_dir():
        return None
    kept = (file for file in find_images(folder, "*") if (folder.name, file.name) not in test)
    return list(islice(kept, PER_STYLE))


def _test_images(path: Path) -> set[tuple[str, str]]:
    """Style and name of each test image by the metadata; empty where there are none."""
    file = path / METADATA
    if not file.is_file():
        return set()
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read as a table ({error})") from error
    if not rows or any(rows[0].get(column) is None for column in COLUMNS):
        raise UserError(f"{file}: needs the columns {', '.join(COLUMNS)}; download it again")
    return {(row["label"], row["name"]) for row in rows if row["split"] == "test"}


def _check_found(folder: Path, found: dict[str, list[Path] | None]) -> None:
    missing = [style for style, files in found.items() if files is None]
    if len(missing) == len(found):
        state = "has none of them" if folder.is_dir() else "no such folder"
        raise UserError(
            f"{folder}: {state}; a folder for each of ArtBench's {len(STYLES)} styles, such as "
            f"{STYLES[0]}, is expected there (docs/data.md)"
        )
    short = [
        f"{style} ({len(files)} of {PER_STYLE} images)"
        for style, files in found.items()
        if files is not None and len(files) < PER_STYLE
    ]
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += [f"too few images: {', '.join(short)}"] if short else []
    if problems:
        raise UserError(
            f"{folder}: {len(STYLES) - len(missing)} of {len(STYLES)} styles found; "
            f"{'; '.join(problems)} (docs/data.md)"
        )
