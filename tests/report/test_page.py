"""The file that is written: what it carries, and that nothing of it can break out."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reported
from cleansteer.core.errors import InputError
from cleansteer.core.layout import FEATURES, LABELS, RANKING, SAMPLE, SCREENING
from cleansteer.core.records import Allowlist
from cleansteer.core.runs import RunDirectory
from cleansteer.report import page, write_report
from cleansteer.report.missing import find_missing
from cleansteer.report.run import Run
from cleansteer.study.catalogue import load_setting

DIGITS = 1e-5
"""Numbers are written with six digits of their column's largest."""


@pytest.fixture(scope="module")
def report(screened_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report([screened_world / "run"], out)
    return out


@pytest.fixture(scope="module")
def story(report: Path) -> dict[str, Any]:
    return reported.data_of(report)["run-0"]


@pytest.fixture(scope="module")
def ranking(screened_world: Path) -> pd.DataFrame:
    return pd.read_parquet(screened_world / "run" / RANKING)


def test_the_page_is_the_same_whatever_the_run_says(
    report: Path, screened_world: Path, tmp_path: Path
) -> None:
    """All that comes from a run is in the data, and none of it in the page around them."""
    run = reported.copied(screened_world / "run", tmp_path / "run", reported.hostile)
    write_report([run], tmp_path / "report.html")
    assert reported.page_of(tmp_path / "report.html") == reported.page_of(report)
    carried = reported.data_of(tmp_path / "report.html")["run-0"]
    assert carried["name"] == reported.HOSTILE_NAME
    assert reported.words(carried, "tokens")[0][1:] == list(reported.HOSTILE)


def test_the_policy_lets_only_our_own_scripts_run(report: Path) -> None:
    text = report.read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    checksum = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"'sha256-{checksum}'" in rules["script-src"].split()
    assert "http" not in policy
    assert not re.findall(r'(?:src|href)="(?!#)', reported.page_of(report))


def test_every_feature_is_there_in_the_order_of_the_ranking(
    story: dict[str, Any], ranking: pd.DataFrame, screened_world: Path
) -> None:
    assert story["features"]["feature"] == ranking["feature"].tolist()
    assert story["features"]["rank"] == ranking["rank"].tolist()
    assert story["features"]["flags"]["eligible"] == ranking["eligible"].astype(int).tolist()
    columns = [c for c in ranking if c.startswith(("predicted_", "measured_"))]
    columns = [c for c in columns if "clean_score" in c or not c.endswith(("_low", "_high"))]
    for name in [*columns, "final_act_freq"]:
        known = ranking[name].to_numpy(dtype=np.float64)
        found = reported.numbers(story, name)
        largest = np.nanmax(np.abs(known))
        np.testing.assert_allclose(found, known, atol=DIGITS * largest, err_msg=name)
    assert reported.words(story, "tokens") == [list(t) for t in ranking["direct_top_tokens"]]
    features = pd.read_parquet(screened_world / "run" / FEATURES).set_index("feature")
    peaks = features["peak_top_tokens"].loc[ranking["feature"]]
    assert reported.words(story, "peaks") == [list(t) for t in peaks]
    reasons = ["; ".join(parts) for parts in reported.words(story, "reasons")]
    assert reasons == ranking["reasons"].tolist()


def test_the_allowlist_to_be_is_the_runs_own_without_features(
    story: dict[str, Any], screened_world: Path
) -> None:
    known = json.loads((screened_world / "run" / "allowlist.json").read_text("utf-8"))
    allowed = np.array(story["features"]["flags"]["allowed"], dtype=bool)
    listed = np.array(story["features"]["feature"])[allowed]
    assert sorted(listed.tolist()) == known["features"]
    own = {"features", "criterion", "created"}
    offered = dict(story["allowlist"])
    criterion = offered.pop("criterion")
    assert offered == {k: v for k, v in known.items() if k not in own}
    assert criterion == {"rule": "chosen by hand in the report"}
    chosen = {"features": [3, 5], "criterion": {**criterion, "how": ["box"]}, "created": "now"}
    made = Allowlist.model_validate({**offered, **chosen})
    assert made.trust == Allowlist.load(screened_world / "run" / "allowlist.json").trust


def test_what_was_measured_is_told(story: dict[str, Any], screened_world: Path) -> None:
    manifest = json.loads((screened_world / "run" / "manifest.json").read_text("utf-8"))
    told = {value for facts in story["provenance"] for _, value in facts["items"]}
    assert {*manifest["fingerprints"].values(), *manifest["hooks"].values()} <= told
    assert manifest["setting_fingerprint"] in told
    assert any(manifest["versions"]["torch"] in value for value in told)


def test_several_runs_have_names_that_differ(screened_world: Path, tmp_path: Path) -> None:
    run = screened_world / "run"
    again = reported.copied(run, tmp_path / "again")
    write_report([run, again], tmp_path / "report.html")
    about = reported.data_of(tmp_path / "report.html")["about"]
    assert len(set(about["runs"])) == 2
    names = [row[0] for row in about["comparison"]["verdicts"]["rows"]]
    assert names == about["runs"]
    for section in about["comparison"]["sections"]:
        for panel in section["panels"]:
            assert panel["rows"] == names
            assert all(len(series["figures"]) == 2 for series in panel["series"])


def test_runs_too_large_to_browse_are_compared_all_the_same(
    screened_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = screened_world / "run"
    monkeypatch.setattr(page, "BROWSABLE", 100)  # features: more than one run's 96, less than two
    write_report([run, reported.copied(run, tmp_path / "again")], tmp_path / "report.html")
    found = reported.data_of(tmp_path / "report.html")
    assert (len(found["about"]["runs"]), len(found["about"]["left_out"])) == (1, 1)
    assert len(found["about"]["comparison"]["verdicts"]["rows"]) == 2
    assert set(found) == {"about", "run-0"}
    monkeypatch.setattr(page, "BROWSABLE", 1)
    assert page.count_browsable([Run(run)]) == 1


def test_without_labels_it_says_what_is_missing(screened_world: Path, tmp_path: Path) -> None:
    kept = ("manifest.json", "features.parquet", "labels.parquet")
    texts = []
    for n in (3, 2, 1):
        run = reported.copied(screened_world / "run", tmp_path / f"run{n}")
        for path in run.iterdir():
            if path.is_file() and path.name not in kept[:n]:
                path.unlink()
        write_report([run], tmp_path / "report.html")
        found = reported.data_of(tmp_path / "report.html")["run-0"]
        (missing,) = found["missing"]
        texts.append(missing["what"])
        assert missing["command"] == f"cleansteer screen tiny.toml --run {run}"
        assert found["verdict"] is None
        assert found["allowlist"] is None
        assert (found["features"] is None) == (n == 1)
        assert (found["counts"]["labelled"] > 0) == (n == 3)
    assert len(set(texts)) == 3


def test_labels_without_a_ranking_are_shown_as_measured(
    screened_world: Path, tmp_path: Path
) -> None:
    run = reported.copied(
        screened_world / "run", tmp_path / "run", reported.without(RANKING, SCREENING)
    )
    write_report([run], tmp_path / "report.html")
    story = reported.data_of(tmp_path / "report.html")["run-0"]
    labels = pd.read_parquet(run / "labels.parquet").query("context_type == 'mixed'")
    known = labels.set_index("feature")["stability_abs"].reindex(story["features"]["feature"])
    found = reported.numbers(story, "measured_stability_abs")
    np.testing.assert_allclose(found, known, atol=DIGITS)
    assert "predicted_clean_score" not in story["features"]["numbers"]


def test_what_goes_on_with_a_run_is_a_command_or_a_call(tmp_path: Path) -> None:
    bundled = load_setting("mini-gpt2-relu")
    texts = {"path": None, "packages": None, "in_memory": "abc"}
    given = bundled.replace("corpus", **texts)
    shown = []
    every = bundled.replace("steering", n_features="all")
    for name, setting in (("bundled", bundled), ("given", given), ("every", every)):
        RunDirectory.open(tmp_path / name, setting).record_call()
        (missing,) = find_missing(Run(tmp_path / name))
        shown.append(missing.command)
    assert shown[0] == f"cleansteer screen mini-gpt2-relu --run {tmp_path / 'bundled'}"
    assert shown[1] == f"cleansteer.screen(texts=..., run={str(tmp_path / 'given')!r})"
    every_run = tmp_path / "every"
    assert shown[2] == f"cleansteer screen mini-gpt2-relu --labels all --run {every_run}"


def test_features_steered_by_hand_are_not_counted(screened_world: Path, tmp_path: Path) -> None:
    def steer_one_more(run: Path) -> None:
        labels = pd.read_parquet(run / LABELS)
        sample = pd.DataFrame({"feature": labels["feature"].unique()})
        sample.attrs = labels.attrs
        sample.to_parquet(run / SAMPLE)
        other = next(f for f in range(96) if f not in set(labels["feature"]))
        once = labels[labels["feature"] == labels["feature"].iloc[0]].assign(feature=other)
        more = pd.concat([labels, once], ignore_index=True)
        more.attrs = labels.attrs
        more.to_parquet(run / LABELS)

    run = screened_world / "run"
    more = reported.copied(run, tmp_path / "run", steer_one_more)
    pd.testing.assert_frame_equal(Run(more).measured, Run(run).measured)


def of_another_setting(screening: dict[str, Any]) -> None:
    screening["setting_fingerprint"] = "00"


BAD = {
    "no run": (lambda run: (run / "manifest.json").unlink(), ("holds no run", "manifest.json")),
    "newer run": (
        reported.edited("manifest.json", lambda m: m.update(format="cleansteer-run/9")),
        ("cleansteer-run/9", "expected 'cleansteer-run/1'"),
    ),
    "no setting": (reported.edited("manifest.json", lambda m: m.pop("setting")), ("manifest",)),
    "hooks of another kind": (
        reported.edited("manifest.json", lambda m: m.update(hooks=["x"])),
        ("manifest", "screen anew"),
    ),
    "no fingerprints": (
        reported.edited("manifest.json", lambda m: m.pop("fingerprints")),
        ("manifest", "fingerprints", "screen anew"),
    ),
    "newer screening": (
        reported.edited(SCREENING, lambda s: s.update(format="cleansteer-screening/9")),
        ("cleansteer-screening/9", "expected 'cleansteer-screening/1'"),
    ),
    "screening of another setting": (
        reported.edited(SCREENING, of_another_setting),
        ("of another setting", "'00'"),
    ),
    "screening without skill": (
        reported.edited(SCREENING, lambda s: s.pop("skill")),
        ("screening.json", "'skill'", "screen anew"),
    ),
    "skill of another kind": (
        reported.edited(SCREENING, lambda s: s.update(skill=3)),
        ("screening.json", "screen anew"),
    ),
    "skill without our own": (
        reported.edited(SCREENING, lambda s: s["skill"]["stability_abs"]["scores"].pop("ours")),
        ("screening.json", "'skill.stability_abs'", "screen anew"),
    ),
    "one axis without a verdict": (
        reported.edited(SCREENING, lambda s: s["trust"]["axes"].pop("collateral")),
        ("screening.json", "'trust.axes.collateral'", "screen anew"),
    ),
    "groups that were not compared": (
        reported.edited(SCREENING, lambda s: s["fresh_check"].update(comparisons=[])),
        ("screening.json", "'fresh_check.comparisons.", "screen anew"),
    ),
    "a group without its means": (
        reported.edited(SCREENING, lambda s: s["fresh_check"]["means"].pop("random")),
        ("screening.json", "'fresh_check.means.random.", "screen anew"),
    ),
    "other allowlist": (
        reported.edited("allowlist.json", lambda a: a.update(format="cleansteer-allowlist/9")),
        ("allowlist.json", "cleansteer-allowlist/9", "make the allowlist anew"),
    ),
    "screening cut short": (
        lambda run: (run / SCREENING).write_text('{"format": '),
        ("screening.json", "not JSON"),
    ),
    "ranking cut short": (
        lambda run: (run / RANKING).write_bytes((run / RANKING).read_bytes()[:100]),
        ("ranking.parquet", "not readable Parquet"),
    ),
    "ranking without scores": (
        lambda run: pd.read_parquet(run / RANKING)[["feature"]].to_parquet(run / RANKING),
        ("ranking.parquet", "lacks the columns"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_run_that_cannot_be_read_is_told_in_a_line(
    case: str, screened_world: Path, tmp_path: Path
) -> None:
    change, parts = BAD[case]
    run = reported.copied(screened_world / "run", tmp_path / "run", change)
    with pytest.raises(InputError) as error:
        write_report([run], tmp_path / "out" / "report.html")
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
