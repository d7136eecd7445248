"""The report's pages as a stage: the replication table and the figures' data in, texts out."""

from collections.abc import Iterable
from pathlib import Path

from emm.catalog import Catalog
from emm.errors import UserError
from emm.files import write_text
from emm.report.captions import caption, summary
from emm.report.page import page
from emm.report.verdicts import read_replication
from emm.spec import suggestion


def write_pages(catalog: Catalog, replication: Path, figures: Iterable[Path], output: Path) -> None:
    """Write the page of the replication table, its summary beside it, and captions.

    figures: the csv of each figure that gets a caption (.rst) beside it. One that the catalog does
    not have is a UserError.
    """
    table = read_replication(replication)
    write_text(output, page(table, catalog.scale))
    write_text(output.with_suffix(".rst"), summary(table, catalog.scale) + "\n")
    for drawn in figures:
        if drawn.stem not in catalog.figures:
            raise UserError(f"{drawn}: no such figure{suggestion(drawn.stem, catalog.figures)}")
        text = caption(catalog.figures[drawn.stem], drawn, table, catalog.scale)
        write_text(drawn.with_suffix(".rst"), text + "\n")
