"""The report's pages as a stage: the replication table and the figures' data in, texts out."""

from pathlib import Path

from emm.catalog import Catalog
from emm.files import write_text
from emm.report.captions import caption, summary
from emm.report.page import page
from emm.report.verdicts import read_replication


def write_pages(catalog: Catalog, replication: Path, figures: Path, output: Path) -> None:
    """Write the page of the replication table, its summary beside it, and captions.

    figures: folder with the csv of each figure of the catalog; its caption is added as .rst.
    """
    table = read_replication(replication)
    write_text(output, page(table, catalog.scale))
    write_text(output.with_suffix(".rst"), summary(table, catalog.scale) + "\n")
    for name, planned in catalog.figures.items():
        text = caption(planned, figures / f"{name}.csv", table, catalog.scale)
        write_text(figures / f"{name}.rst", text + "\n")
