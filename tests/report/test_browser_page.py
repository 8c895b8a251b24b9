"""The page as people see it: driven in headless Chromium."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import reported
from browser import chromium, complaints, requested, until, visit
from cleansteer.core import layout
from cleansteer.report import write_report
from cleansteer.report.comparison import ComparisonTable
from cleansteer.report.page import write_page
from driven import click, find, shown


def test_it_loads_without_a_complaint_and_asks_nobody(browser: Any, described: Path) -> None:
    requested(browser), complaints(browser)
    visit(browser, described)
    until(lambda: not find(browser, ".chart:not(.js-plotly-plot)"))
    assert complaints(browser) == []
    asked = [address for address in requested(browser) if not address.startswith("data:")]
    assert asked == [described.resolve().as_uri()]
    assert len(find(browser, ".js-plotly-plot .main-svg")) > 3


def test_the_verdict_comes_first(page: Any, screened_world: Path) -> None:
    screening = json.loads((screened_world / "run" / "screening.json").read_text("utf-8"))
    assert find(page, "#main section")[0].get_attribute("id") == "verdict"
    text = find(page, "#verdict")[0].text
    for axis, found in screening["trust"]["axes"].items():
        assert axis.capitalize() in text
        for reason in found["reasons"]:
            assert reason in text


def test_hostile_text_is_shown_and_never_run(
    browser: Any, screened_world: Path, tmp_path: Path
) -> None:
    run = reported.copied(screened_world / "run", tmp_path / "run", reported.hostile)
    lines = [json.dumps({"index": i, "description": reported.HOSTILE[i % 6]}) for i in range(96)]
    (tmp_path / "descriptions.jsonl").write_text("\n".join(lines), "utf-8")
    out = tmp_path / "report.html"
    write_report([run], out, tmp_path / "descriptions.jsonl")
    complaints(browser), requested(browser)
    visit(browser, out)
    until(lambda: not find(browser, ".chart:not(.js-plotly-plot)"))
    cells = find(browser, 'tr[data-position="0"] .token')
    assert reported.HOSTILE[0] in [cell.get_property("textContent") for cell in cells]
    assert find(browser, "h1")[0].text == reported.HOSTILE_NAME
    click(browser, "tr[data-position='0'] td.name")
    assert find(browser, "tr.details")
    assert not find(browser, "img")
    text = browser.execute_script("return document.body.textContent")
    assert "\\u{202e}evil\\u{202c}" in text
    assert "nul\\u{0}bell\\u{7}tab\\tline\\nend" in text
    assert not set("\u202e\u202c\x00\x07") & set(text)
    assert complaints(browser) == []
    asked = [address for address in requested(browser) if not address.startswith("data:")]
    assert asked == [out.resolve().as_uri()]
    with pytest.raises(Exception, match="no such alert"):
        browser.switch_to.alert.accept()


def test_features_alone_show_what_is_missing(
    browser: Any, screened_world: Path, tmp_path: Path
) -> None:
    later = (
        layout.LABELS,
        layout.RANKING,
        layout.SCREENING,
        layout.ALLOWLIST,
        layout.FRESH_LABELS,
    )
    run = reported.copied(screened_world / "run", tmp_path / "run", reported.without(*later))
    write_report([run], tmp_path / "report.html")
    complaints(browser)
    visit(browser, tmp_path / "report.html")
    assert "cleansteer screen" in find(browser, ".notice")[0].text
    assert not find(browser, "#verdict")
    assert len(shown(browser)) > 5
    click(browser, "#choose-all")
    assert find(browser, "#download")[0].get_attribute("disabled")
    assert complaints(browser) == []


def test_several_runs_are_compared_and_each_can_be_looked_at(
    browser: Any, screened_world: Path, tmp_path: Path
) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        manifest["setting"]["name"] = "other"

    other = reported.copied(
        screened_world / "run", tmp_path / "run", reported.edited("manifest.json", rename)
    )
    complaints(browser)
    frame = pd.DataFrame(
        {"setting": ["<b>a</b>", "b"], "skill": [0.5, 0.25], "origin": ["ours", "published"]}
    )
    tables = [ComparisonTable(name="sets", title="By set", note="Of all.", frame=frame)]
    out = tmp_path / "report.html"
    write_page([screened_world / "run", other], out, None, lambda: tables)
    visit(browser, tmp_path / "report.html")
    assert not find(browser, "#table-sets tbody")[0].is_displayed()
    click(browser, "#table-sets summary")
    ours, theirs = (row.text for row in find(browser, "#table-sets tbody tr"))
    assert ours.startswith("<b>a</b>")
    assert "not ours" not in ours
    assert "published, not ours" in theirs
    rows = find(browser, "#comparison tbody tr")
    assert [row.text.split()[0] for row in rows] == ["tiny", "other"]
    assert find(browser, "#story h1")[0].text == "tiny"
    click(browser, "#comparison tbody tr:nth-child(2) button")
    until(lambda: find(browser, "#story h1")[0].text == "other")
    until(lambda: not find(browser, ".chart:not(.js-plotly-plot)"))
    assert len(find(browser, "#verdict")) == 1
    assert complaints(browser) == []


def test_light_and_dark(page: Any) -> None:
    def ground() -> str:
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    until(lambda: find(page, ".chart .main-svg"))
    before = ground()
    click(page, "#theme")
    assert ground() != before
    click(page, "#theme")
    assert ground() == before


def test_a_print_has_the_first_rows_and_every_chart(page: Any) -> None:
    page.execute_cdp_cmd("Page.printToPDF", {})
    assert len(find(page, ".printed tbody tr")) >= 10
    assert not find(page, ".chart:not(.js-plotly-plot)")


def test_a_phone_needs_no_sideways_scrolling(described: Path, tmp_path: Path) -> None:
    with chromium(tmp_path, width=390, height=844) as phone:
        visit(phone, described)
        until(lambda: not find(phone, ".chart:not(.js-plotly-plot)"))
        assert phone.execute_script("return document.documentElement.scrollWidth") <= 390
        grid = find(phone, ".grid")[0]
        assert phone.execute_script("return arguments[0].scrollWidth", grid) <= 390
        assert len(shown(phone)) > 5
