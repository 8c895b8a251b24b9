"""Choosing features in the browser, and the allowlist that is made of them."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import until
from cleansteer.core.layout import ALLOWLIST
from cleansteer.core.records import Allowlist
from driven import click, count, download, fill, find, scatter, shown


def test_the_allowlist_that_is_downloaded_is_one(page: Any, screened_world: Path) -> None:
    boxes = find(page, "tr[data-position] input")
    expected = sorted(shown(page)[i] for i in (0, 3))
    page.execute_script("arguments[0].click()", boxes[0])
    page.execute_script("arguments[0].click()", find(page, "tr[data-position] input")[3])
    path = page.downloads / "given.json"
    path.write_text(download(page), "utf-8")
    ours, known = Allowlist.load(path), Allowlist.load(screened_world / "run" / ALLOWLIST)
    assert ours.features == expected
    assert ours.criterion.rule == "chosen by hand in the report"
    assert ours.criterion.how == ["ticked rows"]
    same = ("setting", "model", "hook", "sae", "trust")
    assert all(getattr(ours, name) == getattr(known, name) for name in same)
    assert ours.save(page.downloads / "again.json").read_text("utf-8") == path.read_text("utf-8")


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
