"""All figures on one page of Markdown."""

import re

import pandas as pd
import pytest
from PIL import Image

from emm import catalog
from emm.errors import UserError
from emm.report.gallery import write_gallery

EXPERIMENT = """
title: Mine
runs: [{data.size: [10, 20]}]
figures:
  fig10a: {title: Ten, plot: curve, x: data.size}
  fig2: {title: Two, plot: curve, x: data.size, caption: "In the paper <5 % at 8x8 [sic]."}
  table1: {title: One, plot: table, rows: labels.kind, columns: data.size}
  table2: {title: Two, plot: metrics_table, metrics: [n_memorized], columns: data.size}
  extra: {title: More, plot: grid}
"""


@pytest.fixture
def results(tmp_path, replication):
    """The catalog of an experiment whose figures and replication table are there."""
    from emm.analyse.parquet import write_table

    (tmp_path / "mine.yaml").write_text(EXPERIMENT)
    config = {
        "scale": "paper",
        "experiments": str(tmp_path / "mine.yaml"),
        "results": str(tmp_path),
    }
    found = catalog.load(config)
    folder = found.root / "figures"
    folder.mkdir(parents=True)
    for name in found.figures:
        pd.DataFrame({"data.size": [10, 20], "memorization_ratio_percent": [90, 80]}).to_csv(
            folder / f"{name}.csv", index=False
        )
        Image.new("RGB", (2000, 1000), "white").save(folder / f"{name}.png")
    Image.new("RGB", (2000, 1000), "white").save(folder / "advice.png")
    (found.root / "advice.md").write_text("# Advice\n\n## What moves it\n\nNothing.\n")
    (folder / "table2.md").write_text("| Metric | 10 |\n| --- | ---: |\n| copies | 9 |\n")
    (folder / "table1.md").write_text("| Labels | 10 |\n| --- | ---: |\n| none | 90 |\n")
    write_table(found.root / "tables" / "replication.parquet", replication)
    return found


def gallery(found, folder) -> str:
    table = found.root / "tables" / "replication.parquet"
    write_gallery(found, table, folder / "docs" / "figures.md", folder / "docs" / "pictures", "All")
    return (folder / "docs" / "figures.md").read_text()


def test_every_figure_stands_in_the_order_of_the_paper(results, tmp_path):
    text = gallery(results, tmp_path)
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == [
        *("fig2", "fig10a", "table1", "table2", "extra"),
        "What moves it",
    ]
    assert text.startswith("# All\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Mine",
        "What moves the EMM",
        "Advice",
    ]
    assert text.endswith("### What moves it\n\nNothing.\n")
    assert "[fig10a](#fig10a)" in text
    assert "In the paper <5 % at 8x8 [sic]." in text


def test_pictures_are_small_and_tables_are_text(results, tmp_path):
    text = gallery(results, tmp_path)
    assert "![Two](pictures/fig2.png)" in text
    with Image.open(tmp_path / "docs/pictures/fig2.png") as picture:
        assert picture.size == (620, 310)
    assert "| none | 90 |" in text
    assert "| copies | 9 |" in text
    assert not (tmp_path / "docs/pictures/table1.png").exists()


def test_a_missing_figure_is_one_line(results, tmp_path):
    (results.root / "figures" / "fig2.png").unlink()
    with pytest.raises(UserError, match=r"fig2\.png: no such figure; run the workflow first"):
        gallery(results, tmp_path)
