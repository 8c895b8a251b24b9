"""The table of features in the browser: order, filters, search, keyboard."""

from pathlib import Path
from typing import Any

import cleansteer as cs
import numpy as np
import pandas as pd
import pytest
import reported
import world
from browser import until, visit
from cleansteer.core.layout import ALLOWLIST, EXAMPLES, FEATURES, TOKENS
from cleansteer.core.records import Allowlist
from cleansteer.report import write_report
from driven import click, count, fill, find, heading, shown, sort

N_LARGE = 5000


@pytest.mark.parametrize(
    ("title", "column"),
    [
        ("Rank", "rank"),
        ("Feature", "feature"),
        ("Predicted clean", "predicted_clean_score"),
        ("Measured", "measured_clean_score"),
        ("Stability", "predicted_stability_abs"),
        ("Collateral", "predicted_collateral_per_effect"),
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


def test_the_worse_of_both_axes_is_shown_and_what_is_clean_by_one_alone(
    page: Any, ranking: pd.DataFrame
) -> None:
    eligible = ranking[ranking["eligible"]].set_index("feature")
    stable = eligible["predicted_stability_abs"].rank(pct=True)
    sparing = eligible["predicted_collateral_per_effect"].rank(pct=True, ascending=False)
    sort(page, "Both axes")
    worse = np.minimum(stable, sparing).loc[shown(page)].to_numpy()
    assert (np.diff(worse) <= 1e-9).all()
    titles = [h.text for h in find(page, "table.features thead th")]
    place = next(i for i, title in enumerate(titles) if "Both" in title)
    for feature, row in zip(shown(page), find(page, "tr[data-position]"), strict=True):
        told = row.find_elements("css selector", "td")[place].text
        assert told.startswith(f"{100 * min(stable[feature], sparing[feature]):.0f}"[:1])
        for axis, own, other in (("stability", stable, sparing), ("collateral", sparing, stable)):
            alone = own[feature] >= 0.75 and other[feature] < 0.5
            assert (f"{axis} alone" in told) == alone


def test_a_measured_run_with_relative_collateral_shows_its_own_columns(
    browser: Any, tmp_path: Path
) -> None:
    changes = {"steering.collateral": "relative"}
    setting = world.build(tmp_path, "jumprelu")
    study = cs.screen(setting, labels="all", changes=changes, run=tmp_path / "run", progress=False)
    visit(browser, study.path / "report.html")
    assert "the ranking is measured" in find(browser, ".headline")[0].text
    assert heading(browser, "Measured clean score")
    titles = [h.text for h in find(browser, "table.features thead th")]
    assert not any(title.startswith("Predicted") for title in titles)
    column = "predicted_collateral_relative_per_effect"
    values = study.ranking.set_index("feature")[column]
    sort(browser, "Collateral")
    found = values.loc[shown(browser)].to_numpy()
    assert len(found) > 10
    signs = np.sign(np.diff(found))
    assert set(signs) - {0.0} in ({1.0}, {-1.0})


def test_unknown_values_come_last_either_way(page: Any, ranking: pd.DataFrame) -> None:
    click(page, "#filter-eligible")
    values = ranking.set_index("feature")["measured_clean_score"]
    for _ in range(2):
        sort(page, "Measured")
        assert values.loc[shown(page)[:10]].notna().all()


def test_filters_let_through_what_they_say(
    page: Any, ranking: pd.DataFrame, screened_world: Path
) -> None:
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
    known = Allowlist.load(screened_world / "run" / ALLOWLIST).features
    allowed = set(known) & set(ranking.loc[high, "feature"])
    assert count(page) == len(allowed)


def test_an_opened_feature_shows_where_it_fires(
    page: Any, ranking: pd.DataFrame, screened_world: Path
) -> None:
    run = screened_world / "run"
    found = pd.read_parquet(run / EXAMPLES).set_index("feature")
    tokens = pd.read_parquet(run / TOKENS).set_index("context")["tokens"]
    for place in ("0", "3"):
        click(page, f"tr[data-position='{place}'] td.name")
        feature = shown(page)[int(place)]
        examples = found.loc[[feature]]
        rows = find(page, "tr.details .examples tbody tr")
        assert [row.find_elements("css selector", "th")[0].text for row in rows] == [
            "strongest",
            "middling",
            "random",
        ]
        for row, example in zip(rows, examples.to_dict("records"), strict=True):
            mark = row.find_elements("css selector", "mark")[0]
            told = tokens[example["context"]]
            assert mark.get_property("textContent") == told[example["position"]]
            context = row.find_elements("css selector", ".context")[0].get_property("textContent")
            assert context.strip("\u2026") in "".join(told)
            assert (
                "".join(told[max(1, example["position"] - 5) : example["position"] + 3]) in context
            )


def test_runs_without_examples_show_features_all_the_same(
    browser: Any, screened_world: Path, tmp_path: Path
) -> None:
    run = reported.copied(
        screened_world / "run", tmp_path / "run", reported.without(EXAMPLES, TOKENS)
    )
    table = pd.read_parquet(run / FEATURES).drop(columns="peak_top_tokens")
    table.to_parquet(run / FEATURES)
    write_report([run], tmp_path / "report.html")
    visit(browser, tmp_path / "report.html")
    click(browser, "tr[data-position='0'] td.name")
    assert find(browser, "tr.details .feature h4")
    assert not find(browser, "tr.details .examples")
    titles = [h.text for h in find(browser, "table.features thead th")]
    assert "Fires at" not in titles
    assert "Why" in titles


@pytest.mark.parametrize("kind", ["index", "token", "peak", "description"])
def test_searching(page: Any, ranking: pd.DataFrame, screened_world: Path, kind: str) -> None:
    click(page, "#filter-eligible")
    row = ranking.iloc[7]
    peaks = pd.read_parquet(screened_world / "run" / FEATURES).set_index("feature")
    peaks = peaks["peak_top_tokens"].loc[ranking["feature"]]
    promoted = ranking["direct_top_tokens"]
    tokens = [[*some, *more] for some, more in zip(promoted, peaks, strict=True)]
    if kind in ("token", "peak"):
        text = (row["direct_top_tokens"] if kind == "token" else peaks.iloc[7])[0]
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
