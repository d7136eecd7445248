"""The report of a complete run, unpacked and read in a browser without a network."""

import re
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from emm.analyse.replication import sections

pytestmark = pytest.mark.slow

LISTED = "[...document.querySelectorAll('nav table tbody tr')].map(tr => tr.cells[0].innerText)"
FETCHED = re.compile(  # what a page loads from elsewhere when it is shown
    r"<(?:script|link|img|image|iframe|use)\b[^>]*?(?:src|href)\s*=\s*[\"']?(?:https?:)?//"
    r"|url\(\s*[\"']?(?:https?:)?//|@import\s+[\"'](?:https?:)?//"
)


@pytest.fixture(scope="session")
def unpacked(finished, tmp_path_factory) -> Path:
    """The folder that report.zip becomes."""
    folder = tmp_path_factory.mktemp("report")
    with zipfile.ZipFile(finished.results / "report.zip") as archive:
        archive.extractall(folder)
    return folder / "report"


@pytest.fixture
def report(browser, unpacked):
    """The browser, showing the first page of the report."""
    browser.open(unpacked / "report.html")
    browser.wait("document.querySelector('nav a') !== null")
    return browser


def choose(browser, *words: str) -> None:
    """Click on entries of the menu, one after the other."""
    for word in words:
        browser.click(
            f"[...document.querySelectorAll('nav a')].find(a => a.innerText.trim() === {word!r})"
        )


def entries(browser) -> list[str]:
    """What the menu lists."""
    return [
        text.strip()
        for text in browser.ask(
            "[...document.querySelectorAll('nav .p-3 li')].map(li => li.innerText)"
        )
    ]


def button(figure: str, which: int) -> str:
    """Button of a listed figure: 0 shows it, 1 says what it is."""
    row = (
        f"[...document.querySelectorAll('nav tr')].find(tr => tr.cells[0].innerText === {figure!r})"
    )
    return f"{row}.querySelectorAll('a')[{which}]"


def described(browser, figure: str) -> str:
    """Caption of a listed figure."""
    browser.click(button(figure, 1))
    browser.wait("document.querySelector('nav .prose') !== null")
    return browser.ask("document.querySelector('nav .prose').innerText")


def picture(browser, figure: str) -> tuple[str, int]:
    """File name of what is shown of a listed figure, and its width on the screen."""
    browser.click(button(figure, 0))
    image = "document.querySelector('#app .grow > .p-3 > img')"
    browser.wait(f"{image}?.complete && {image}.naturalWidth > 0")
    name, width = browser.ask(f"[{image}.src, {image}.clientWidth]")
    return name.rpartition("/")[2], width


def test_description_tells_the_scale_and_the_verdicts(report, finished):
    text = report.ask("document.querySelector('#app .prose').innerText")
    scale = yaml.safe_load((finished.folder / "workflow/scales/tiny.yaml").read_text())
    assert text.startswith(f"{scale['title']}.")
    assert "may not be compared with the published ones" in text
    table = pd.read_parquet(finished.results / "tables" / "replication.parquet")
    for title, rows in sections(table).items():
        for verdict, number in rows["verdict"].value_counts().items():
            assert re.search(rf"^{title}: .*\b{number} {verdict}\b", text, re.M)
    report.click("document.querySelector('#app .prose a')")
    report.wait("document.querySelector('nav .prose') !== null")
    assert "Click on a header to sort" in report.ask("document.querySelector('nav').innerText")


def test_figures_stand_by_paper_and_section(report):
    assert {"Gu et al. 2023", "Own experiments", "Replication"} <= set(entries(report))
    choose(report, "Gu et al. 2023")
    assert entries(report) == [
        "Section 2: Data size and training length",
        "Section 6: Conditioning on labels",
        "Sections 1 and A.2: The closed-form optimum",
    ]
    choose(report, "Section 6: Conditioning on labels")
    report.wait(f"{LISTED}.length > 0")
    assert {"fig5a", "fig5a_unique", "table3", "conditioning_images"} <= set(report.ask(LISTED))


def test_caption_says_what_the_paper_shows_and_what_was_found(report, finished):
    choose(report, "Gu et al. 2023", "Section 6: Conditioning on labels")
    text = described(report, "fig5a")
    assert "Gu et al. 2023, Fig. 5a" in text
    assert "In the paper class-conditional models memorize more" in text
    assert "What we found (A few seconds a run):" in text
    assert re.search(r"^EMM, unconditional: < 10 images", text, re.M)
    written = (finished.results / "figures" / "fig5a.rst").read_text()
    for line in re.findall(r"^- \*\w+\*.*: (.*)$", written, re.M):
        assert line in text
    assert "replication table" in text


@pytest.mark.parametrize(
    ("places", "figure"),
    [
        (("Gu et al. 2023", "Section 6: Conditioning on labels"), "fig5a"),
        (("Gu et al. 2023", "Section 6: Conditioning on labels"), "table3"),
        (("Gu et al. 2023", "Section 6: Conditioning on labels"), "conditioning_images"),
        (("Gu et al. 2023", "Sections 1 and A.2: The closed-form optimum"), "fig1a"),
        (("Own experiments",), "own_curve"),
    ],
)
def test_figure_is_shown_large(report, places, figure, tmp_path):
    choose(report, *places)
    name, width = picture(report, figure)
    assert name == f"{figure}.svg"
    assert width > 500
    report.screenshot(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        right = image.convert("L").crop((500, 0, *image.size))
        assert right.getextrema()[0] < 80  # something dark is drawn on white


def test_click_on_a_header_of_the_replication_table_sorts_it(report):
    choose(report, "Replication")
    report.click(button("replication", 0))
    report.wait("document.querySelector('iframe') !== null")
    (frame,) = report.frames()
    report.wait("document.querySelector('thead button') !== null", frame)
    assert "may not be compared" in report.ask("document.body.innerText", frame)
    report.click("document.querySelector('button[type=reset]')", frame)
    last = "document.querySelector('thead th:last-child')"
    verdicts = "[...document.querySelectorAll('tbody tr')].map(tr => tr.lastElementChild.innerText)"
    before = report.ask(verdicts, frame)
    report.click(f"{last}.firstElementChild", frame)
    rising = report.ask(verdicts, frame)
    report.click(f"{last}.firstElementChild", frame)
    falling = report.ask(verdicts, frame)
    assert report.ask(f"{last}.ariaSort", frame) == "descending"
    assert len(rising) > 200
    assert sorted(before) == sorted(rising)
    assert rising != before
    assert rising[0] != "not measured" == rising[-1]
    assert falling[0] == "not measured" != falling[-1]
    assert report.errors == []


def test_page_opens_from_the_results_as_well(browser, finished, unpacked):
    page = finished.results / "tables" / "replication.html"
    browser.open(page)
    assert "may not be compared" in browser.ask("document.body.innerText")
    (packed,) = unpacked.rglob("replication.html")
    assert packed.read_bytes() == page.read_bytes()


def test_nothing_is_asked_of_the_network(report, unpacked):
    for place in ("Workflow", "Statistics", "Gu et al. 2023"):
        choose(report, place)
    choose(report, "Section 6: Conditioning on labels")
    for figure in report.ask(LISTED):
        picture(report, figure)
    assert {address.partition(":")[0] for address in report.requests} == {"file"}
    assert report.errors == []


def test_no_file_loads_anything_from_elsewhere(unpacked):
    files = [path for path in unpacked.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".html", ".svg"}
    for path in files:
        assert not FETCHED.search(path.read_text()), path.name


def test_report_of_one_figure_by_hand(finished, tmp_path):
    output = tmp_path / "one.zip"
    finished.snakemake("fig1a", "--report", str(output))
    with zipfile.ZipFile(output) as archive:
        page = archive.read("one/report.html").decode()
    assert "Gu et al. 2023, Fig. 1a" in page
    assert "Scale <strong>tiny</strong>" in page
