"""All figures and tables on one page of Markdown, each with what was found."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from emm.catalog import Catalog
from emm.errors import UserError
from emm.figures.advice import TITLE
from emm.files import atomic_path, write_text
from emm.planned import PlannedFigure
from emm.report.captions import caption, summary
from emm.report.verdicts import papers, read_replication

WIDE = 1100  # pixels
WIDTHS = {"grid": WIDE, "examples": WIDE, "pairs": WIDE}
TABLES = ("table", "metrics_table")  # plots that are also written as Markdown
WIDTH = 620  # of all others
COLOURS = 96  # of a picture's palette: text stays crisp, and files a tenth of their size


def write_gallery(
    catalog: Catalog, replication: Path, output: Path, pictures: Path, title: str
) -> None:
    """Write a page of all figures of the catalog, and their pictures, made small, into a folder.

    The results must be there: a figure that is missing is a UserError.
    """
    table = read_replication(replication)
    sections = _sections(catalog)
    parts = [f"# {title}", summary(table, catalog.scale), _contents(sections)]
    for heading, names in sections.items():
        parts.append(f"## {heading}")
        for name in names:
            planned, stem = catalog.figures[name], catalog.root / "figures" / name
            text = caption(planned, stem.with_suffix(".csv"), table, catalog.scale)
            shown = _shown(planned, stem, pictures, output.parent)
            parts.append(f"### {name}\n\n{shown}\n\n{_markdown(text)}")
    parts += _advice(catalog, pictures, output.parent)
    write_text(output, "\n\n".join(parts) + "\n")


def _advice(catalog: Catalog, pictures: Path, folder: Path) -> list[str]:
    """What moves the EMM, over all experiments: the picture and the page of it."""
    picture = pictures / "advice.png"
    _shrink(catalog.root / "figures" / "advice.png", picture, WIDE)
    page = (catalog.root / "advice.md").read_text(encoding="utf-8").strip()
    shown = f"![{TITLE}]({picture.relative_to(folder).as_posix()})"
    return [f"## {TITLE}", shown, re.sub(r"^#", "##", page, flags=re.MULTILINE)]


def _sections(catalog: Catalog) -> dict[str, list[str]]:
    """Names of figures by heading: the papers in their own order, then each other experiment."""
    found: dict[str, list[str]] = {paper: [] for paper in papers().values()}
    for name in sorted(catalog.figures, key=_place):
        experiment = catalog.experiments[catalog.figures[name].experiment]
        cited = next((paper for paper in papers().values() if paper in experiment.source), None)
        found.setdefault(cited or experiment.title, []).append(name)
    return {heading: names for heading, names in found.items() if names}


def _place(name: str) -> tuple[int, list[tuple[str, int]]]:
    """Figures, then tables, then the rest, each in the order of their numbers."""
    first = re.match(r"fig|table|", name)[0]
    numbered = re.findall(r"(\D*)(\d*)", name)
    return ("fig", "table", "").index(first), [(text, int(n or 0)) for text, n in numbered]


def _contents(sections: Mapping[str, Sequence[str]]) -> str:
    lines = []
    for heading, names in sections.items():
        links = " · ".join(f"[{name}](#{name.lower()})" for name in names)
        lines.append(f"- **{heading}**: {links}")
    lines.append(f"- **[{TITLE}](#{TITLE.lower().replace(' ', '-')})**")
    return "\n".join(lines)


def _shown(planned: PlannedFigure, stem: Path, pictures: Path, folder: Path) -> str:
    """A table as Markdown, anything else as its picture."""
    text = stem.with_suffix(".md")
    if planned.figure.plot in TABLES and text.is_file():
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
