"""The page as people see it: driven in headless Chromium."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reported
from browser import chromium, complaints, requested, until, visit
from cleansteer.adapters.allowlist import read_allowlist
from cleansteer.core.settings import read_setting
from cleansteer.report.page import write_report

N_LARGE = 5000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("browser")
    with chromium(folder) as found:
        found.downloads = folder / "downloads"
        yield found


@pytest.fixture(scope="module")
def report(screened_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    lines = [f'{{"index": {i}, "description": "about thing {i}"}}' for i in range(0, 96, 2)]
    (folder / "labels.jsonl").write_text("\n".join(lines), "utf-8")
    write_report([screened_world / "run"], folder / "report.html", folder / "labels.jsonl")
    return folder / "report.html"


@pytest.fixture(scope="module")
def ranking(screened_world: Path) -> pd.DataFrame:
    return pd.read_parquet(screened_world / "run" / "ranking.parquet")


@pytest.fixture
def page(browser: Any, report: Path) -> Any:
    visit(browser, report)
    return browser


def find(page: Any, selector: str) -> list[Any]:
    return page.find_elements("css selector", selector)


def click(page: Any, selector: str) -> None:
    page.execute_script("arguments[0].click()", find(page, selector)[0])


def shown(page: Any) -> list[int]:
    """Features of the rows that are in the document, from above."""
    rows = page.execute_script(
        "return [...document.querySelectorAll('tr[data-position] td.name')].map(c => c.textContent)"
    )
    return [int(re.sub(r"\D", "", row)) for row in rows]


def count(page: Any) -> int:
    return int(find(page, ".count")[0].text.split(" of ")[0].replace(",", ""))


def fill(page: Any, selector: str, text: str) -> None:
    page.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
        find(page, selector)[0],
        text,
    )


def heading(page: Any, title: str) -> Any:
    return next(h for h in find(page, "table.features thead th") if title in h.text)


def sort(page: Any, title: str) -> None:
    button = heading(page, title).find_element("tag name", "button")
    page.execute_script("arguments[0].click()", button)


def test_it_loads_without_a_complaint_and_asks_nobody(browser: Any, report: Path) -> None:
    requested(browser), complaints(browser)
    visit(browser, report)
    until(lambda: not find(browser, ".chart:not(.js-plotly-plot)"))
    assert complaints(browser) == []
    asked = [address for address in requested(browser) if not address.startswith("data:")]
    assert asked == [report.resolve().as_uri()]
    assert len(find(browser, ".js-plotly-plot .main-svg")) > 3


def test_the_verdict_comes_first(page: Any, screened_world: Path) -> None:
    screening = json.loads((screened_world / "run" / "screening.json").read_text("utf-8"))
    assert find(page, "#main section")[0].get_attribute("id") == "verdict"
    text = find(page, "#verdict")[0].text
    for axis, found in screening["trust"]["axes"].items():
        assert axis.capitalize() in text
        for reason in found["reasons"]:
            assert reason in text


@pytest.mark.parametrize(
    ("title", "column"),
    [
        ("Rank", "rank"),
        ("Feature", "feature"),
        ("Predicted clean", "predicted_clean_score"),
        ("Measured", "measured_clean_score"),
        ("Stability", "predicted_stability_abs"),
        ("Fires in", "final_act_freq"),
    ],
)
def test_sorting_by_a_heading(page: Any, ranking: pd.DataFrame, title: str, column: str) -> None:
    values = ranking.set_index("feature", drop=False)[column]
    seen = set()
    for _ in range(2):
        sort(page, title)
        way = heading(page, title).get_attribute("aria-sort")
        sign = {"ascending": 1, "descending": -1}[way]
        found = values.loc[shown(page)].dropna().to_numpy()
        assert len(found) > 10
        assert (np.diff(sign * found) >= -1e-4 * np.abs(values).max()).all()
        seen.add(way)
    assert len(seen) == 2
    others = [h.get_attribute("aria-sort") for h in find(page, "th[aria-sort]")]
    assert sorted(others)[-1] == "none"
    assert sum(way != "none" for way in others) == 1


def test_unknown_values_come_last_either_way(page: Any, ranking: pd.DataFrame) -> None:
    click(page, "#filter-eligible")
    values = ranking.set_index("feature")["measured_clean_score"]
    for _ in range(2):
        sort(page, "Measured")
        assert values.loc[shown(page)[:10]].notna().all()


def test_filters_let_through_what_they_say(page: Any, ranking: pd.DataFrame) -> None:
    assert count(page) == ranking["eligible"].sum()
    click(page, "#filter-eligible")
    assert count(page) == len(ranking)
    click(page, "#filter-measured")
    assert count(page) == ranking["measured"].sum()
    fill(page, "#least", "0.5")
    high = ranking["measured"] & (ranking["predicted_clean_score"] >= 0.5)
    assert count(page) == high.sum()
    assert set(shown(page)) <= set(ranking.loc[high, "feature"])
    click(page, "#filter-allowed")
    allowed = set(data(page)["features"]) & set(ranking.loc[high, "feature"])
    assert count(page) == len(allowed)


def data(page: Any) -> dict[str, Any]:
    return json.loads(Path(page.run / "allowlist.json").read_text("utf-8"))


@pytest.fixture(autouse=True)
def _run(browser: Any, screened_world: Path) -> None:
    browser.run = screened_world / "run"


@pytest.mark.parametrize("kind", ["index", "token", "description"])
def test_searching(page: Any, ranking: pd.DataFrame, kind: str) -> None:
    click(page, "#filter-eligible")
    row = ranking.iloc[7]
    tokens = ranking["direct_top_tokens"]
    if kind == "token":
        text = row["direct_top_tokens"][0]
        expected = {
            f for f, t in zip(ranking["feature"], tokens, strict=True) if any(text in x for x in t)
        }
    elif kind == "index":
        text, expected = str(row["feature"]), {row["feature"]}
        assert not any(text == token for ts in tokens for token in ts)
        expected |= {
            f for f, t in zip(ranking["feature"], tokens, strict=True) if any(text in x for x in t)
        }
        expected |= {f for f in ranking["feature"] if f % 2 == 0 and text in str(f)}
    else:
        text, expected = "ABOUT THING 42", {42}
    fill(page, "#search", text)
    until(lambda: count(page) == len(expected))
    assert set(shown(page)) <= expected
    fill(page, "#search", "no such thing anywhere")
    until(lambda: count(page) == 0)
    assert "No feature" in find(page, ".grid")[0].text


def test_the_keyboard_moves_opens_and_chooses(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    first = find(page, 'td[tabindex="0"]')[0]
    page.execute_script("arguments[0].focus()", first)

    def press(*keys: str) -> Any:
        for key in keys:
            page.switch_to.active_element.send_keys(key)
        return page.switch_to.active_element

    here = press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    row = here.find_element("xpath", "..")
    assert (row.get_attribute("aria-rowindex"), here.get_attribute("aria-colindex")) == ("4", "2")
    here = press(Keys.ENTER)
    assert here.find_element("xpath", "..").get_attribute("aria-expanded") == "true"
    feature = shown(page)[2]
    assert f"Feature {feature}" in find(page, "tr.details")[0].text
    here = press(Keys.SPACE)
    assert here.find_element("xpath", "..").get_attribute("aria-selected") == "true"
    assert find(page, ".selection strong")[0].text == "1 chosen"
    here = press(Keys.ESCAPE, Keys.CONTROL + Keys.END)
    last = int(find(page, "table.features")[0].get_attribute("aria-rowcount"))
    assert here.find_element("xpath", "..").get_attribute("aria-rowindex") == str(last)


def test_the_allowlist_that_is_downloaded_is_accepted(page: Any, screened_world: Path) -> None:
    boxes = find(page, "tr[data-position] input")
    expected = sorted(shown(page)[i] for i in (0, 3))
    page.execute_script("arguments[0].click()", boxes[0])
    page.execute_script("arguments[0].click()", find(page, "tr[data-position] input")[3])
    text = download(page)
    path = page.downloads / "given.json"
    path.write_text(text, "utf-8")
    found = read_allowlist(path, read_setting(screened_world / "tiny.toml"))
    ours = data(page)
    assert found.features == expected
    assert found.sae_fingerprint == ours["sae"]["fingerprint"]
    assert found.model_fingerprint == ours["model"]["fingerprint"]
    assert found.hook == ours["hook"]
    assert found.trust == ours["trust"]
    assert json.loads(text).keys() == ours.keys()
    assert json.loads(text)["criterion"]["how"] == ["ticked rows"]


def download(page: Any) -> str:
    known = set(page.downloads.glob("*.json"))
    click(page, "#download")
    (made,) = until(lambda: set(page.downloads.glob("*.json")) - known)
    return made.read_text("utf-8")


def scatter(page: Any) -> Any:
    place = find(page, ".scatter")[0]
    page.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", place
    )
    until(lambda: find(page, ".scatter .main-svg"))
    return place


@pytest.mark.parametrize("mode", ["Box", "Lasso"])
def test_what_is_circled_in_the_chart_is_chosen(page: Any, mode: str) -> None:
    from selenium.webdriver import ActionChains

    place = scatter(page)
    click(page, f".modes button:nth-child({('Lasso', 'Box').index(mode) + 1})")
    width, height = place.size["width"], place.size["height"]
    left, top = -width // 2 + 60, -height // 2 + 14
    right, bottom = width // 2 - 18, height // 2 - 50
    chain = ActionChains(page, duration=20).move_to_element_with_offset(place, left, top)
    chain.click_and_hold()
    corners = [(right, top), (right, bottom), (left, bottom), (left, top + 4)]
    for x, y in corners[1:2] if mode == "Box" else corners:
        chain.move_to_element_with_offset(place, x, y)
    chain.release().perform()
    until(lambda: find(page, ".selection strong")[0].text != "0 chosen")
    assert find(page, ".selection strong")[0].text == f"{count(page)} chosen"
    how = json.loads(download(page))["criterion"]["how"]
    assert len(how) == 1
    assert how[0].startswith(mode.lower())
    assert how[0].endswith("filter: eligible")


def test_what_is_circled_can_be_taken_away(page: Any) -> None:
    from selenium.webdriver import ActionChains

    place = scatter(page)
    click(page, "#choose-all")
    click(page, "#remove")
    click(page, ".modes button:nth-child(2)")
    width, height = place.size["width"], place.size["height"]
    chain = ActionChains(page, duration=20)
    chain.move_to_element_with_offset(place, -width // 2 + 60, -height // 2 + 14).click_and_hold()
    chain.move_to_element_with_offset(place, 0, height // 2 - 50).release().perform()
    everyone = count(page)
    until(lambda: find(page, ".selection strong")[0].text != f"{everyone} chosen")
    found = json.loads(download(page))
    assert 0 < len(found["features"]) < everyone
    assert [how.split(":")[0] for how in found["criterion"]["how"]] == ["filter", "without box"]


def test_pointing_at_a_feature_shows_it(page: Any) -> None:
    from selenium.webdriver import ActionChains

    place = scatter(page)
    width, height = place.size["width"], place.size["height"]
    for x in range(-width // 2 + 60, width // 2 - 20, 12):
        for y in range(-height // 2 + 14, height // 2 - 50, 60):
            ActionChains(page, duration=0).move_to_element_with_offset(place, x, y).perform()
            if find(page, ".tip:not([hidden])"):
                assert re.search(r"Feature \d+", find(page, ".tip")[0].text)
                return
    pytest.fail("no feature was found in the chart")


def test_what_the_filter_shows_can_be_chosen_at_once(page: Any, ranking: pd.DataFrame) -> None:
    fill(page, "#least", "0.25")
    chosen = ranking["eligible"] & (ranking["predicted_clean_score"] >= 0.25)
    assert 1 < chosen.sum() < ranking["eligible"].sum()
    click(page, "#choose-all")
    found = json.loads(download(page))
    assert found["features"] == sorted(ranking.loc[chosen, "feature"])
    assert "0.25 or more" in found["criterion"]["how"][0]


def test_hostile_text_is_shown_and_never_run(
    browser: Any, screened_world: Path, tmp_path: Path
) -> None:
    run = reported.copied(screened_world / "run", tmp_path / "run", reported.hostile)
    lines = [json.dumps({"index": i, "description": reported.HOSTILE[i % 6]}) for i in range(96)]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines), "utf-8")
    out = tmp_path / "report.html"
    write_report([run], out, tmp_path / "labels.jsonl")
    complaints(browser), requested(browser)
    visit(browser, out)
    until(lambda: not find(browser, ".chart:not(.js-plotly-plot)"))
    cells = find(browser, 'tr[data-position="0"] .token')
    assert reported.HOSTILE[0] in [cell.get_property("textContent") for cell in cells]
    assert find(browser, "h1")[0].text == reported.HOSTILE[0]
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


def test_only_rows_on_screen_are_in_the_document(
    browser: Any, screened_world: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    reported.copied(screened_world / "run", run, lambda path: reported.stretched(path, N_LARGE))
    write_report([run], tmp_path / "report.html")
    visit(browser, tmp_path / "report.html")
    click(browser, "#filter-eligible")
    table = find(browser, "table.features")[0]
    assert table.get_attribute("aria-rowcount") == str(N_LARGE + 1)
    assert 10 < len(shown(browser)) < 60
    last = pd.read_parquet(run / "ranking.parquet")["feature"].iloc[-1]
    browser.execute_script(
        "const g = document.querySelector('.grid'); g.scrollTop = g.scrollHeight"
    )
    until(lambda: shown(browser)[-1] == last)
    assert len(shown(browser)) < 60


def test_features_alone_show_what_is_missing(
    browser: Any, screened_world: Path, tmp_path: Path
) -> None:
    from cleansteer.core import layout as files

    later = (files.LABELS, files.RANKING, files.SCREENING, files.ALLOWLIST, files.FRESH_LABELS)
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
    tables = [SimpleNamespace(name="sets", title="By set", note="Of all.", frame=frame)]
    write_report([screened_world / "run", other], tmp_path / "report.html", tables=lambda: tables)
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


def test_a_phone_needs_no_sideways_scrolling(report: Path, tmp_path: Path) -> None:
    with chromium(tmp_path, width=390, height=844) as phone:
        visit(phone, report)
        until(lambda: not find(phone, ".chart:not(.js-plotly-plot)"))
        assert phone.execute_script("return document.documentElement.scrollWidth") <= 390
        grid = find(phone, ".grid")[0]
        assert phone.execute_script("return arguments[0].scrollWidth", grid) <= 390
        assert len(shown(phone)) > 5
