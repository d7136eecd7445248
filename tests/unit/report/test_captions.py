"""Captions and the summary: what they say, and that they are valid reStructuredText."""

import re
from dataclasses import replace

import pandas as pd
import pytest
from docutils.core import publish_parts
from typer.testing import CliRunner

from emm.analyse.parquet import write_table
from emm.catalog import load
from emm.cli import app
from emm.documents import Figure, Scale
from emm.errors import UserError
from emm.planned import PlannedFigure
from emm.report.captions import caption, summary
from emm.report.stage import write_pages
from emm.runs import Row
from emm.spec import DEFAULTS

SCALE = Scale(title="Digits_ on *a* laptop", comparable=False)
SETTINGS = {"source": "Gu et al. 2023, Fig. 5a", "caption": "In the paper labels help."}
EMM = ("emm", "emm_low", "emm_high", "emm_status", "emm_bound")


def figure(**changed) -> PlannedFigure:
    content = {"title": "Labels", "plot": "curve", "hue": "labels.kind", "emm": True}
    return PlannedFigure("fig5a", "conditioning", Figure(**SETTINGS | content | changed), ())


def row() -> Row:
    """A row of an experiment whose guidance a scale has lowered."""
    settings = DEFAULTS | {"data.size": 10}
    published, scaled = (settings | {"eval.guidance": value} for value in (7.5, 1.5))
    return Row("conditioning", published, scaled, "run", "evaluation")


def shown(text: str) -> str:
    """What a reader sees of reStructuredText, one line per paragraph or item; no warnings."""
    settings = {"report_level": 1, "halt_level": 2}
    page = publish_parts(text, writer="html5", settings_overrides=settings)["body"]
    return re.sub(r"\n+", "\n", re.sub(r"<[^>]+>", "", page)).strip()


@pytest.fixture
def drawn(tmp_path):
    """The csv of a figure with a bracketed EMM, and one beyond the sizes."""
    rows = [
        ("none", 10, 24.7545, 22.449, 27.248, "bracketed", None),
        ("none", 20, 24.7545, 22.449, 27.248, "bracketed", None),
        ("unique", 10, None, float("inf"), float("inf"), "above", 20),
        ("unique", 20, None, float("inf"), float("inf"), "above", 20),
    ]
    path = tmp_path / "fig5a.csv"
    pd.DataFrame(rows, columns=["labels.kind", "data.size", *EMM]).to_csv(path, index=False)
    return path


def test_caption_of_a_figure(replication, drawn):
    text = shown(caption(figure(), drawn, replication, SCALE))
    title, source, paper, key, *found = text.splitlines()
    assert (title, source) == ("Labels", "Gu et al. 2023, Fig. 5a")
    assert paper == "In the paper labels help."
    assert key.startswith("Dashed: 90 %.")
    assert found == [
        "What we found (Digits_ on *a* laptop):",
        "EMM, unconditional: 24.8 images (95 % interval 22.4 to 27.2)",
        "EMM, unique labels: ≥ 20 images",
        "supported (97 %): True labels raise the |D| of memorization_",
        "Claims: 1 not measured",
        "Published values: 1 outside, 1 within",
    ]


def test_one_series_has_no_name(replication, drawn):
    table = pd.read_csv(drawn).iloc[:2].drop(columns="labels.kind")
    table.to_csv(drawn, index=False)
    text = shown(caption(figure(hue=None), drawn, replication, SCALE))
    assert "EMM: 24.8 images (95 % interval 22.4 to 27.2)" in text.splitlines()


def test_what_all_series_share_names_none_of_them(replication, drawn):
    pd.read_csv(drawn).assign(**{"eval.guidance": 1.5}).to_csv(drawn, index=False)
    planned = replace(figure(where={"eval.guidance": 7.5}), rows=(row(),))
    assert planned.shared["eval.guidance"] == 1.5
    text = shown(caption(planned, drawn, replication, SCALE))
    assert "EMM, unique labels: ≥ 20 images" in text.splitlines()


def test_emm_of_the_last_checkpoints(replication, drawn):
    names = {"emm": "emm_last", "emm_low": "emm_last_low", "emm_high": "emm_last_high"}
    names |= {"emm_status": "emm_status_last", "emm_bound": "emm_bound_last"}
    pd.read_csv(drawn).rename(columns=names).to_csv(drawn, index=False)
    text = shown(caption(figure(epoch="last"), drawn, replication, SCALE))
    assert "EMM, unconditional: 24.8 images (95 % interval 22.4 to 27.2)" in text
    assert "EMM, unique labels: ≥ 20 images" in text


def test_figure_of_nothing_published_keeps_its_caption(replication, tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("data.size,memorization_ratio_percent\n10,5\n")
    planned = PlannedFigure("own", "mine", Figure(plot="table", title="Mine"), ())
    assert caption(planned, path, replication, SCALE) == planned.caption


def test_missing_data_is_one_line(replication, tmp_path):
    with pytest.raises(UserError, match=r"fig5a.csv: no such file"):
        caption(figure(), tmp_path / "fig5a.csv", replication, SCALE)


def test_summary(replication):
    lines = shown(summary(replication, SCALE)).splitlines()
    assert lines[0].startswith("Digits_ on *a* laptop. At this scale values may not be compared")
    assert lines[1:] == [
        "Claims of the papers: 1 contradicted, 1 supported, 1 not measured",
        "Published values: 2 outside, 1 within, 1 not measured",
    ]
    comparable = SCALE.model_copy(update={"comparable": True})
    assert "values may be compared" in shown(summary(replication, comparable))


def test_the_command_writes_page_summary_and_captions(replication, tmp_path):
    catalog = load({"experiments": ["conditioning"], "results": str(tmp_path)})
    table = tmp_path / "tables" / "replication.parquet"
    write_table(table, replication)
    drawn = [tmp_path / f"{name}.csv" for name in catalog.figures]
    for path in drawn:
        path.write_text("data.size,memorization_ratio_percent\n10,5\n")
    words = ["pages", "--config", catalog.config.model_dump_json(), "--replication", str(table)]
    words += ["--output", str(table.with_suffix(".html")), *map(str, drawn)]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert catalog.scale.title in table.with_suffix(".html").read_text()
    assert catalog.scale.title in table.with_suffix(".rst").read_text()
    for name, planned in catalog.figures.items():
        text = (tmp_path / f"{name}.rst").read_text()
        assert text.startswith(planned.caption)
        assert ("*supported* (97 %)" in text) == (name == "fig5a")


def test_figure_that_is_not_selected_is_one_line(replication, tmp_path):
    catalog = load({"experiments": ["conditioning"]})
    write_table(tmp_path / "replication.parquet", replication)
    with pytest.raises(UserError, match=r"fig1a.csv: no such figure; "):
        write_pages(
            catalog,
            tmp_path / "replication.parquet",
            [tmp_path / "fig1a.csv"],
            tmp_path / "page.html",
        )


def test_claims_of_ours_are_counted_apart(replication):
    own = replication[replication["id"] == "c5"].assign(id="own", provenance="ours")
    text = summary(pd.concat([replication, own]), SCALE)
    assert "- Claims of the papers: 1 contradicted, 1 supported, 1 not measured\n" in text
    assert "- Claims of this project: 1 supported\n" in text


def test_an_emm_tells_the_sizes_that_it_lies_between(drawn, replication):
    rows = pd.read_csv(drawn).assign(**{"data.size": [10, 100, 10, 100]})
    rows.to_csv(drawn, index=False)
    text = caption(figure(), drawn, replication, SCALE)
    line = "EMM, unconditional: 24.8 images (95 % interval 22.4 to 27.2, between 10 and 100)"
    assert line in shown(text).splitlines()


def test_a_claim_tells_what_select_left_out(drawn, replication):
    note = "smallest step 3; 3 of its 5 evaluations are left out by `select`"
    rows = replication.assign(note=replication["note"].where(replication["id"] != "c5", note))
    text = shown(caption(figure(), drawn, rows, SCALE))
    assert "memorization_ (3 of its 5 evaluations are left out by `select`)" in text
