"""The page of an audit in Chromium: what it shows, sorts and opens, and that nothing in it is run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reported
from browser import chromium, complaints, requested, until, visit
from cleansteer.core.records.audit import AuditRecord
from cleansteer.core.records.movement import MovementRecord
from cleansteer.report.adapter import write_audit
from driven import click, find, heading, shown, sort

N = 30
HOOK = "blocks.2.hook_resid_pre"


def context(number: int, activation: float) -> dict[str, Any]:
    """Of hostile text, and the token is the number-th of it."""
    words = reported.HOSTILE
    return {
        "before": f"left {words[number % 6]}",
        "token": words[(number + 1) % 6],
        "after": words[(number + 2) % 6],
        "activation": activation,
    }


def feature(number: int) -> dict[str, Any]:
    draw = np.random.default_rng(number)
    return {
        "hook": HOOK,
        "feature": 3 * number + 1,
        "description": reported.HOSTILE[number % 6],
        "parameters": {"scale": float(draw.normal())},
        "size": float(draw.random()),
        "residual": float(draw.random()),
        "edited": float(draw.random()),
        "silent": number == 7,
        "attribution": float(draw.normal()),
        **({"switched_off": float(draw.normal())} if number % 3 else {}),
        "form": float(draw.random()),
        "overlap": float(draw.random()),
        "promotes": list(reported.HOSTILE),
        "strongest": [context(number, 2.0), context(number + 1, 1.5)],
        "strongest_after": [context(number + 2, 3.0)],
    }


def meaning(downstream: bool) -> dict[str, Any]:
    group = {"n": 90, "n_judged": 40, "overlap": 0.75, "shift": 0.1, "kept": [0, 5, 15, 20]}
    drifted = {"feature": 5, "description": reported.HOSTILE[0], "overlap": 0.2, "before": 0.1}
    more = {"after": 0.3, "fires_before": 0.1, "fires_after": 0.2}
    places = {"strongest": [context(0, 1.0)], "strongest_after": [context(3, 1.0)]}
    return {
        "hook": reported.HOSTILE[1] if downstream else HOOK,
        "sae": reported.HOSTILE[0],
        "fingerprint": "0" * 16,
        "downstream": downstream,
        "n_texts": 30,
        "n_tokens": 500,
        "contexts": 3,
        **({} if downstream else {"edited": group}),
        "others": group,
        "drifted": [drifted | more | places],
    }


@pytest.fixture(scope="module")
def record() -> AuditRecord:
    shares = {"form": 0.6, "layout": 0.1, "punctuation": 0.2, "function_words": 0.3}
    features = sorted(map(feature, range(N)), key=lambda each: -abs(each["attribution"]))
    pair = {"hook": HOOK, "source": 1, "target": 4, "weight": 0.5, "effect": -0.25}
    return AuditRecord.model_validate(
        {
            "adapter": f"out/{reported.HOSTILE_NAME}",
            "component": "scale",
            "model": reported.HOSTILE[0],
            "places": [
                {"hook": HOOK, "sae": reported.HOSTILE[1], "fingerprint": None, "n_features": 90}
            ],
            "n_features": 90,
            "n_changed": N,
            "n_silent": 1,
            "order": "attribution",
            "n_tokens": 400,
            "loss_without": 3.5,
            "loss_with": 3.25,
            "kl": 0.02,
            "form": {
                "n_texts": 9,
                "n_tokens": 400,
                "tokens": shares,
                "edit": shares,
                "dictionary": shares,
                "covered": 0.9,
                "edit_interval": {"value": 0.6, "low": 0.5, "high": 0.7},
            },
            "meaning": [meaning(downstream=False), meaning(downstream=True)],
            "agreement": {"n": 20, "spearman": 0.9, "low": 0.7, "high": 0.95},
            "features": features,
            "pairs": [pair],
        }
    )


@pytest.fixture(scope="module")
def file(record: AuditRecord, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit") / "audit.html"
    write_audit(record, out)
    return out


@pytest.fixture
def audited(browser: Any, file: Path) -> Any:
    complaints(browser), requested(browser)
    visit(browser, file)
    return browser


def test_all_parts_are_drawn_and_nothing_is_run(
    audited: Any, file: Path, record: AuditRecord
) -> None:
    until(lambda: not find(audited, ".chart:not(.js-plotly-plot)"))
    assert find(audited, "h1")[0].text == reported.HOSTILE_NAME
    verdict = find(audited, "#verdict")[0].text
    for part in ("lowers the loss by 0.250", "3.5000 without, 3.2500 with", "0.02 nats", "75.0"):
        assert part in verdict
    for section in ("effects", "features", "form", "pairs", "meaning"):
        assert find(audited, f"#{section} h2"), section
    assert len(find(audited, ".drifted")) == 2
    for row in ("0", "1", "2"):
        click(audited, f"tr[data-position='{row}'] td.name")
    click(audited, "details.folded summary")
    assert not find(audited, "img")
    assert not find(audited, "#main script")
    text = audited.execute_script("return document.body.textContent")
    for word in reported.HOSTILE[:2]:
        assert word in text
    assert not set("\u202e\u202c\x00\x07") & set(text)
    assert complaints(audited) == []
    asked = [address for address in requested(audited) if not address.startswith("data:")]
    assert asked == [file.resolve().as_uri()]
    with pytest.raises(Exception, match="no such alert"):
        audited.switch_to.alert.accept()


@pytest.mark.parametrize(
    ("title", "name"),
    [("Feature", "feature"), ("forecast", "attribution"), ("measured", "switched_off")],
)
def test_headings_sort(audited: Any, record: AuditRecord, title: str, name: str) -> None:
    values = {each.feature: getattr(each, name) for each in record.features}
    ways = set()
    for _ in range(2):
        sort(audited, title)
        way = heading(audited, title).get_attribute("aria-sort")
        found = [values[each] for each in shown(audited)]
        known = [value for value in found if value is not None]
        assert len(known) >= 8
        assert found[: len(known)] == known  # what is unknown comes last
        assert known == sorted(known, reverse=way == "descending")
        ways.add(way)
    assert ways == {"ascending", "descending"}


def test_an_opened_feature_shows_its_contexts_before_and_after(
    audited: Any, record: AuditRecord
) -> None:
    click(audited, "tr[data-position='3'] td.name")
    number = shown(audited)[3]
    known = next(each for each in record.features if each.feature == number)
    rows = find(audited, "tr.details .examples tbody tr")
    contexts = [*(known.strongest or ()), *(known.strongest_after or ())]
    assert [row.find_elements("css selector", "th")[0].text for row in rows] == [
        "before",
        "before",
        "after",
    ]
    for row, each in zip(rows, contexts, strict=True):
        mark = row.find_elements("css selector", "mark")[0].get_property("textContent")
        token = each.token
        if token.isprintable():
            assert mark == token
        whole = row.find_elements("css selector", ".context")[0].get_property("textContent")
        assert whole.startswith("left ")
        assert mark in whole


def test_silent_features_are_marked(audited: Any, record: AuditRecord) -> None:
    silent = next(each.feature for each in record.features if each.silent)
    sort(audited, "Feature")
    row = find(audited, f"tr[data-position='{shown(audited).index(silent)}']")[0]
    assert "off" in row.get_attribute("class").split()
    assert "silent" in row.text


def test_a_phone_needs_no_sideways_scrolling(file: Path, tmp_path: Path) -> None:
    with chromium(tmp_path, width=390, height=844) as phone:
        visit(phone, file)
        until(lambda: not find(phone, ".chart:not(.js-plotly-plot)"))
        assert phone.execute_script("return document.documentElement.scrollWidth") <= 390


def test_checkpoints_are_drawn_and_told(browser: Any, record: AuditRecord, tmp_path: Path) -> None:
    adapters = [
        {"path": f"out/checkpoint-{step}", "step": step, "n_changed": step} for step in (2, 4, 9)
    ]
    moved = {
        "hook": HOOK,
        "feature": 12,
        "description": reported.HOSTILE[0],
        "parameters": {"scale": [0.1, 0.2, -0.75]},
        "size": [0.1, 0.2, 0.75],
    }
    entries = {"component": "scale", "n_features": 9, "adapters": adapters, "features": [moved]}
    alone = MovementRecord.model_validate(entries)
    both = alone.model_copy(update={"last": record})
    for found, has_features in ((alone, False), (both, True)):
        write_audit(found, tmp_path / "moved.html")
        complaints(browser)
        visit(browser, tmp_path / "moved.html")
        until(lambda: not find(browser, ".chart:not(.js-plotly-plot)"))
        (row,) = find(browser, "#movement tbody tr")
        assert row.text.startswith("12 ")
        for part in ("+0.100", "+0.200", "\u22120.750"):
            assert part in row.text
        assert bool(find(browser, "#features")) == has_features
        assert complaints(browser) == []
