"""All figures and tables on one page of Markdown, each with what was found."""

import re
from pathlib import Path

from PIL import Image

from emm.catalog import Catalog
from emm.errors import UserError
from emm.files import atomic_path, write_text
from emm.planned import PlannedFigure
from emm.report.captions import caption, summary
from emm.report.verdicts import read_replication

WIDTHS = {"grid": 1100, "examples": 1100, "pairs": 1100}  # pixels
WIDTH = 620  # of all others
COLOURS = 96  # of a picture's palette: text stays crisp, and files a tenth of their size


def write_gallery(
    catalog: Catalog, replication: Path, output: Path, pictures: Path, title: str
) -> None:
    """Write a page of all figures of the catalog, and their pictures, made small, into a folder.

    The results must be there: a figure that is missing is a UserError.
    """
    table = read_replication(replication)
    names = sorted(catalog.figures, key=_place)
    parts = [f"# {title}", summary(table, catalog.scale), _contents(names)]
    for name in names:
        planned, stem = catalog.figures[name], catalog.root / "figures" / name
        text = caption(planned, stem.with_suffix(".csv"), table, catalog.scale)
        shown = _shown(planned, stem, pictures, output.parent)
        parts.append(f"## {name}\n\n{shown}\n\n{_markdown(text)}")
    write_text(output, "\n\n".join(parts) + "\n")


def _place(name: str) -> tuple[int, int, str]:
    """Figures by number, then tables, then the rest."""
    found = re.match(r"(fig|table)(\d+)(.*)", name)
    if not found:
        return 2, 0, name
    return ("fig", "table").index(found[1]), int(found[2]), found[3]


def _contents(names: list[str]) -> str:
    return " · ".join(f"[{name}](#{name.lower()})" for name in names)


def _shown(planned: PlannedFigure, stem: Path, pictures: Path, folder: Path) -> str:
    """A table as Markdown, anything else as its picture."""
    text = stem.with_suffix(".md")
    if planned.figure.plot == "table" and text.is_file():
        return text.read_text(encoding="utf-8").strip()
    path = pictures / f"{planned.name}.png"
    _shrink(stem.with_suffix(".png"), path, WIDTHS.get(planned.figure.plot, WIDTH))
    return f"![{planned.figure.title}]({path.relative_to(folder).as_posix()})"


def _shrink(source: Path, target: Path, width: int) -> None:
    if not source.is_file():
        raise UserError(f"{source}: no such figure; run the workflow first")
    with Image.open(source) as picture, atomic_path(target) as temporary:
        share = min(1.0, width / picture.width)
        size = (round(picture.width * share), round(picture.height * share))
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        small.quantize(COLOURS).save(temporary, format="png", optimize=True)


def _markdown(text: str) -> str:
    """Captions are written as reStructuredText; of its markup only escapes differ."""
    return re.sub(r"\\([<>|\[\]])", r"\1", text)
