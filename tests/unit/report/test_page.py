"""The replication page, opened in a browser: what it shows, sorts and hides."""

import re

import pytest

from emm.documents import Scale
from emm.report.page import page

QUICK = Scale(title="Digits & more", comparable=False)
PAPER = Scale(title="As published", comparable=True)
HIDDEN = {"v10", "c5x"}  # not measured
TABLE = ["Figure", "Statement", "Published", "Ours", "Difference", "Probability", "Verdict"]


@pytest.fixture
def shown(browser, replication, tmp_path):
    """The browser, showing the page of the table."""
    path = tmp_path / "replication.html"
    path.write_text(page(replication, PAPER))
    browser.open(path)
    return browser


def order(browser) -> list[str]:
    """Ids of the rows that are seen, from top to bottom."""
    seen = "[...document.querySelectorAll('tbody tr')].filter(row => row.checkVisibility())"
    return browser.ask(f"{seen}.map(row => row.id)")


def sorting(browser) -> dict[str, str]:
    """How each column says that it is sorted."""
    pairs = "[...document.querySelectorAll('thead th')].map(th => [th.innerText, th.ariaSort])"
    return {name.strip(): how for name, how in browser.ask(pairs)}


def header(name: str) -> str:
    return f"[...document.querySelectorAll('thead button')].find(b => b.innerText === {name!r})"


def cells(browser, identifier: str) -> list[str]:
    return browser.ask(f"[...document.getElementById({identifier!r}).cells].map(c => c.innerText)")


def box(kind: str, verdict: str) -> str:
    return f"document.querySelector('fieldset[data-kind={kind}] input[value=\"{verdict}\"]')"


def test_needs_nothing_but_itself(shown, tmp_path):
    assert shown.requests == [(tmp_path / "replication.html").as_uri()]
    assert shown.errors == []
    assert not re.search(r"https?:|//\w|\bsrc=|<link", (tmp_path / "replication.html").read_text())


def test_says_the_scale_and_what_may_be_compared(browser, replication, tmp_path):
    path = tmp_path / "page.html"
    for scale, sentence in ((PAPER, "values may be compared"), (QUICK, "may not be compared")):
        path.write_text(page(replication, scale))
        browser.open(path)
        text = browser.ask("document.querySelector('.scale').innerText")
        assert text.startswith(f"{scale.title}. ")
        assert sentence in text
        assert browser.ask("document.title") == f"Replication of Gu et al. 2023: {scale.title}"
        assert ("Claims are inequalities" in text) == (scale is QUICK)


def test_counts_of_verdicts_stand_at_the_top(shown):
    fields = shown.ask("[...document.querySelectorAll('fieldset')].map(f => f.innerText)")
    assert [" ".join(text.split()) for text in fields] == [
        "Claims: 3 contradicted 1 supported 1 not measured 1",
        "Published values: 4 outside 2 within 1 not measured 1",
    ]


def test_cells_have_units_uncertainties_and_words(shown):
    assert list(sorting(shown)) == TABLE
    _, statement, published, ours, difference, support, verdict = cells(shown, "v5")
    assert statement.split("\n") == ["Ratio at 1000 images", "conditioning · from the table"]
    assert (published, ours) == ("92.09 %", "92.4 ± 0.5 %\n1 run")
    assert (difference, support, verdict) == ("+0.31", "", "within")
    assert cells(shown, "emm5")[2:] == [
        *("1,000 images\n900 to 1,300", "≥ 2,000 images\n4 runs"),
        *("", "", "outside"),
    ]
    assert cells(shown, "v2")[2:4] == ["≥ 90 %", "98.6 %\n97.1 to 99.2 · 3 runs"]
    assert cells(shown, "c5")[1].endswith("\nSection 6 · conditioning")
    assert cells(shown, "c5")[2:] == ["", "6 runs", "", "97 %", "supported"]
    assert cells(shown, "c2")[1:4] == [
        "It falls with resolution.\n"
        "Section 3.1 · conditioning · numbers are our reading · largest rise 4.8 points",
        *("", "4.8 ± 1.6 points\n4 runs"),
    ]
    shown.click("document.querySelector('button[type=reset]')")
    assert cells(shown, "c5x")[1].endswith("\nAppendix C.3 · conditioning")
    align = "getComputedStyle(document.getElementById('v5').cells[3]).textAlign"
    assert shown.ask(align) == "right"


def test_statements_are_text(shown):
    assert cells(shown, "v2")[1].startswith("Ratio at <b>16x16</b> & *more*\n")


def test_verdicts_differ_in_colour(shown):
    style = "getComputedStyle(document.querySelector('#{} td .verdict')).backgroundColor"
    colours = [shown.ask(style.format(name)) for name in ("c5", "c2", "c5x")]
    assert len(set(colours)) == 3


def test_starts_by_figure_without_what_was_not_measured(shown):
    assert order(shown) == ["c2", "v2", "c5", "v5", "emm5"]
    assert sorting(shown)["Figure"] == "ascending"
    assert shown.ask("document.getElementById('shown').innerText") == "5 of 7 rows"


def test_click_on_a_header_sorts_and_another_turns_it(shown):
    shown.click(header("Ours"))
    assert order(shown) == ["c2", "v5", "v2", "emm5", "c5"]
    assert sorting(shown) == dict.fromkeys(TABLE, "none") | {"Ours": "ascending"}
    shown.click(header("Ours"))
    assert order(shown) == ["emm5", "v2", "v5", "c2", "c5"]
    assert sorting(shown)["Ours"] == "descending"
    shown.click(header("Verdict"))
    assert order(shown)[:3] == ["emm5", "v2", "c2"]
    assert order(shown)[-1] == "c5"
    shown.click("document.querySelector('button[type=reset]')")
    shown.click(header("Figure"))
    assert [name for name in order(shown) if name not in {"v2", "c2"}][-1] == "v10"


def test_headers_are_reached_and_pressed_by_keyboard(shown):
    shown.ask("document.querySelector('.scroll').focus()")
    for _ in range(3):
        shown.press("Tab")
    assert shown.ask("document.activeElement.innerText") == "Published"
    shown.press("Enter")
    assert sorting(shown)["Published"] == "ascending"
    assert order(shown)[:3] == ["v2", "v5", "emm5"]
    shown.press(" ")
    assert sorting(shown)["Published"] == "descending"
    assert order(shown)[:3] == ["emm5", "v5", "v2"]


def test_filter_by_verdict(shown):
    shown.click(box("value", "outside"))
    assert order(shown) == ["c2", "c5", "v5"]
    shown.click(box("claim", "not measured"))
    assert order(shown) == ["c2", "c5x", "c5", "v5"]
    assert shown.ask("document.getElementById('shown').innerText") == "4 of 7 rows"


def test_filter_by_kind(shown):
    choose = "{const s = document.getElementById('kind'); s.value = 'claim';"
    shown.ask(choose + "s.dispatchEvent(new Event('input', {bubbles: true}))}")
    assert order(shown) == ["c2", "c5"]


def test_filter_by_figure_and_by_text(shown):
    shown.click("document.getElementById('figure')")
    shown.type("5A")
    assert order(shown) == ["c5", "v5", "emm5"]
    shown.click("document.getElementById('text')")
    shown.type("read off")
    assert order(shown) == ["emm5"]
    shown.click("document.querySelector('button[type=reset]')")
    assert len(order(shown)) == 7
    assert shown.ask("document.getElementById('figure').value") == ""


def test_all_rows_are_seen_when_nothing_was_measured(browser, replication, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page(replication[replication["verdict"] == "not measured"], QUICK))
    browser.open(path)
    assert set(order(browser)) == HIDDEN
    assert "Difference" not in sorting(browser)


def test_columns_that_would_be_empty_are_left_out(browser, replication, tmp_path):
    path = tmp_path / "page.html"
    values = replication[replication["kind"] == "value"].replace("within", "not comparable")
    path.write_text(page(values.replace("outside", "not comparable"), QUICK))
    browser.open(path)
    assert list(sorting(browser)) == ["Figure", "Statement", "Published", "Ours", "Verdict"]
    assert {len(cells(browser, name)) for name in values["id"]} == {5}
    assert browser.ask("document.getElementById('kind').checkVisibility()") is False
    assert "probability" not in browser.ask("document.body.innerText")


def test_empty_table_says_so(browser, replication, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page(replication.iloc[:0], QUICK))
    browser.open(path)
    assert "No published value and no claim" in browser.ask("document.body.innerText")
    assert browser.errors == []


def test_all_rows_are_seen_without_scripts(browser, replication, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page(replication, PAPER))
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(path)
        assert len(order(browser)) == 7
        assert browser.ask("document.querySelector('.controls').checkVisibility()") is False
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
