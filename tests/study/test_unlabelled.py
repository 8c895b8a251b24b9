"""Screening without labels: linear response ranks, and the fresh check alone steers."""

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cleansteer as cs
import numpy as np
import pandas as pd
import pytest
import reported
import rooms
import tiny
import world
from cleansteer.core.errors import InputError
from cleansteer.core.layout import ALLOWLIST, FEATURES, FRESH_LABELS, RANKING, REPORT, SCREENING
from cleansteer.core.records import Allowlist, Screening
from cleansteer.core.runs import RunDirectory
from cleansteer.predictor.model.blend import Blend
from cleansteer.report import page
from cleansteer.steering_eval.choice import eligible_features
from cleansteer.steering_eval.evaluation import Evaluator
from scipy.stats import spearmanr

GROUPS = ("predicted_clean", "predicted_messy", "random")
MADE = {
    "manifest.json",
    "contexts.safetensors",
    "response_contexts.safetensors",
    "fresh_contexts.safetensors",
    "final_activations.parquet",
    "downstream.parquet",
    "examples.parquet",
    "tokens.parquet",
    "features.parquet",
    "fresh_labels.parquet",
    "ranking.parquet",
    "screening.json",
    "allowlist.json",
    "report.html",
}
"""All that such a run holds."""
RELATIVE = 1e-6  # sums in another order


@pytest.fixture(scope="module")
def steered() -> list[list[int]]:
    """The features of every evaluation of the first screening."""
    return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, steered: list[list[int]]) -> Path:
    """A world of 240 features with a run without labels in ``run``; not to be changed."""
    made = tmp_path_factory.mktemp("unlabelled")
    path = world.build(made, "jumprelu")
    world.save_sae(tiny.sae("jumprelu", "blocks.1.hook_resid_pre", 240), made / "primary")
    path.write_text(path.read_text("utf-8") + "response_contexts = 24\n", "utf-8")
    whole = Evaluator.evaluate

    def told(self: Evaluator, plan: Any, *others: Any) -> pd.DataFrame:
        steered.append(plan.features.tolist())
        return whole(self, plan, *others)

    def fit(*_: Any) -> None:
        raise AssertionError("nothing is to be fitted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "evaluate", told)
        patch.setattr(Blend, "fit", fit)
        cs.screen(path, labels=0, run=made / "run", progress=False)
    return made


@pytest.fixture(scope="module")
def study(folder: Path) -> cs.Study:
    return cs.load_study(folder / "run", progress=False)


@pytest.fixture(scope="module")
def labelled(folder: Path) -> Path:
    """A run of the same setting with labels; not to be changed."""
    cs.screen(folder / "tiny.toml", labels=30, run=folder / "labelled", progress=False)
    return folder / "labelled"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "run", tmp_path / "run"))


def forecasts(study: cs.Study) -> pd.DataFrame:
    """Forecasts of the eligible features, by index."""
    table = study.features.set_index("feature")
    return table.loc[np.sort(eligible_features(study.features))]


def test_nothing_but_the_fresh_check_is_steered_and_nothing_is_fitted(
    folder: Path, study: cs.Study, steered: list[list[int]]
) -> None:
    groups = study.screening.fresh_check.features
    assert steered == [sorted(feature for name in GROUPS for feature in groups[name])]
    assert {path.name for path in (folder / "run").iterdir()} == MADE
    manifest = RunDirectory.existing(folder / "run").manifest
    assert set(manifest.n_pairs) == {"fresh_labels"}
    assert manifest.n_pairs["fresh_labels"] == 40 * len(steered[0])
    assert study.setting.steering.response
    assert study.sample == []


def test_the_ranking_is_the_forecasts(study: cs.Study) -> None:
    ranking, features = study.ranking, study.features.set_index("feature")
    order = features["response_clean_score"].sort_values(ascending=False, kind="stable")
    assert ranking["feature"].tolist() == order.index.tolist()
    assert ranking["rank"].tolist() == list(range(1, 241))
    told = tomllib.loads((rooms.ROOT / "docs/generate/columns.toml").read_text("utf-8"))["ranking"]
    assert set(ranking) == {name for name in told if "relative" not in name}
    of_rows = features.loc[ranking["feature"]]
    for name in ranking:
        if name.startswith("measured_") or name.endswith(("_low", "_high")):
            assert ranking[name].isna().all(), name
        elif name.startswith("predicted_"):
            forecast = of_rows[f"response_{name.removeprefix('predicted_')}"]
            assert ranking[name].tolist() == forecast.tolist()
    assert not ranking["measured"].any()
    eligible = ranking.loc[ranking["eligible"], "feature"]
    assert sorted(eligible) == forecasts(study).index.tolist()


def test_the_groups_are_those_of_a_hand_computation(study: cs.Study) -> None:
    table = forecasts(study)
    effect, score = (table[f"response_{n}"].to_numpy() for n in ("effect_l2", "clean_score"))
    low, high = np.percentile(effect, [10, 90])
    matched = table.index.to_numpy()[(effect >= low) & (effect <= high)]
    falling = sorted(matched, key=lambda feature: -score[table.index.get_loc(feature)])
    size = min(50, len(matched) // 3)
    check = study.screening.fresh_check
    assert (check.group_size, check.n_training) == (size, 0)
    assert (check.n_heldout, check.n_matched) == (len(table), len(matched))
    assert check.features["predicted_clean"] == sorted(falling[:size])
    assert check.features["predicted_messy"] == sorted(falling[-size:])
    drawn = check.features["random"]
    assert len(drawn) == size
    assert set(drawn) <= set(falling[size:-size])
    fresh = study.fresh_labels.set_index("feature")
    for label in ("stability_abs", "collateral_per_effect"):
        means = [fresh.loc[check.features[name], label].mean() for name in GROUPS[:2]]
        difference = check.comparison(label).difference.value
        assert difference == pytest.approx(means[0] - means[1], rel=RELATIVE)


def test_agreement_is_over_the_random_group(study: cs.Study) -> None:
    check = study.screening.forecasts
    assert check is not None
    drawn = study.screening.fresh_check.features["random"]
    assert check.n_features == len(drawn)
    fresh = study.fresh_labels.set_index("feature").loc[drawn]
    count = np.log1p(fresh["collateral_count_0.05"]) / (fresh["effect_l2"] + 1e-8)
    terms = [(x - x.mean()) / x.std(ddof=0) for x in (fresh["stability_abs"], count)]
    fresh["clean_score"] = terms[0] - terms[1]
    ours = study.features.set_index("feature").loc[drawn]
    assert len(check.spearman) == 4
    for label, found in check.spearman.items():
        expected = spearmanr(ours[f"response_{label}"], fresh[label]).statistic
        assert found.value == pytest.approx(expected, rel=RELATIVE)
        assert -1 <= found.low < found.value < found.high <= 1


def test_the_global_value_is_that_of_all_eligible_features(folder: Path, study: cs.Study) -> None:
    c = np.median(np.maximum(forecasts(study)["final_act_q95"], 1.0))
    assert RunDirectory.existing(folder / "run").manifest.global_value == pytest.approx(c)
    assert study.screening.coefficient == pytest.approx(0.7 * c)


def test_the_records_say_what_they_are_and_read_back(folder: Path, study: cs.Study) -> None:
    screening = study.screening
    assert (screening.ranked_by, screening.n_labelled) == ("linear response", 0)
    assert screening.controls is None
    assert screening.skill == {}
    assert Screening.model_validate_json(screening.to_json()) == screening
    allowlist = Allowlist.load(folder / "run" / ALLOWLIST)
    assert allowlist.ranked_by == "linear response"
    assert allowlist.trust == screening.trust
    assert "linear response" in str(allowlist)
    assert "linear response" in study._repr_html_()


def test_older_records_are_of_labels(labelled: Path, tmp_path: Path) -> None:
    for name, record in ((SCREENING, Screening), (ALLOWLIST, Allowlist)):
        data = json.loads((labelled / name).read_text("utf-8"))
        assert data.pop("ranked_by") == "labels"
        data.pop("forecasts", None)
        path = tmp_path / name
        path.write_text(json.dumps(data), "utf-8")
        assert record.read(path).ranked_by == "labels"


def test_forecasts_that_agree_are_trusted_and_useless_ones_are_not(
    study: cs.Study, copied: Path
) -> None:
    assert study.verdict.overall == "trusted"
    directory = RunDirectory.existing(copied)
    table = directory.table(FEATURES)
    names = [name for name in table if name.startswith("response_")]
    eligible = table["feature"].isin(eligible_features(table)).to_numpy()
    order = np.random.default_rng(0).permutation(np.flatnonzero(eligible))
    table.loc[eligible, names] = table.loc[order, names].to_numpy()
    directory.write_table(FEATURES, table)
    verdict = cs.load_study(copied, progress=False).screen().verdict
    assert verdict.overall == "not trusted"
    assert not any(axis.trusted for axis in verdict.axes.values())


def test_stopped_in_the_fresh_check_it_goes_on_to_the_same(
    folder: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (FRESH_LABELS, RANKING, SCREENING, ALLOWLIST, REPORT):
        (copied / name).unlink()
    whole, calls = Evaluator.evaluate, []

    def stopped(self: Evaluator, *given: Any) -> pd.DataFrame:
        calls.append(len(given))

        def stop(done: int) -> None:
            raise KeyboardInterrupt

        return whole(self, *(given if len(calls) > 1 else (*given[:6], stop, *given[7:])))

    monkeypatch.setattr(Evaluator, "evaluate", stopped)
    arguments = ("screen", folder / "tiny.toml", "--labels", 0, "--run", copied)
    assert world.run(monkeypatch, *arguments) == 130
    assert not (copied / SCREENING).exists()
    part = cs.load_study(copied, progress=False).report(tmp_path / "part.html")
    story = reported.data_of(part)["run-0"]
    assert story["counts"]["ranked_by"] is None
    (missing,) = story["missing"]
    assert "not screened to its end" in missing["what"]
    assert " --labels 0 " in missing["command"]
    assert world.run(monkeypatch, *arguments) == 0
    one, other = map(RunDirectory.existing, (folder / "run", copied))
    for name in (FEATURES, FRESH_LABELS, RANKING):
        pd.testing.assert_frame_equal(one.table(name), other.table(name), check_exact=True)
    first, second = (json.loads((run.path / SCREENING).read_text("utf-8")) for run in (one, other))
    assert first == second


def test_the_summary_says_how_it_was_ranked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("screen", folder / "tiny.toml", "--labels", 0, "--run", folder / "run")
    assert world.run(monkeypatch, *arguments) == 0
    shown = " ".join(capfd.readouterr().err.split())
    assert "240 features ranked by linear response alone" in shown
    assert "Spearman with the fresh label" in shown
    assert "no feature was labelled" in shown
    assert "Skill: out-of-fold" not in shown
    assert "labels.parquet" not in shown.replace("fresh_labels.parquet", "")
    assert world.run(monkeypatch, *arguments, "--json") == 0
    assert json.loads(capfd.readouterr().out)["ranked_by"] == "linear response"


def test_reasons_are_what_the_score_adds_up(study: cs.Study) -> None:
    table = study.features.set_index("feature")
    typical = table["response_stability_abs"].median()
    ranking = study.ranking
    assert (ranking["reasons"] != "").mean() > 0.9
    for feature, reasons in zip(ranking["feature"], ranking["reasons"], strict=True):
        for reason in filter(None, reasons.split("; ")):
            opinion, what, _ = reason.split(": ")
            assert what.endswith("in linear response")
            good = what.startswith(("stable", "spreads little"))
            assert opinion == ("cleaner" if good else "messier")
            if "stable" in what:
                above = table.loc[feature, "response_stability_abs"] >= typical
                assert what.startswith("stable") == above


@pytest.mark.parametrize("by", ["clean", "stability", "collateral", "both"])
def test_allowlists_go_by_the_forecasts(by: Any, study: cs.Study) -> None:
    table = forecasts(study)
    stable = table["response_stability_abs"].rank(pct=True)
    sparing = table["response_collateral_per_effect"].rank(pct=True, ascending=False)
    score = {
        "clean": table["response_clean_score"],
        "stability": stable,
        "collateral": sparing,
        "both": np.minimum(stable, sparing),
    }[by]
    chosen = study.allowlist(top=20, by=by).features
    assert len(chosen) == 20
    assert score[chosen].min() >= score.drop(chosen).max()


def test_what_can_go_on_goes_on(
    folder: Path, copied: Path, study: cs.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that name the setting keep to the run's own, as for other numbers of labels."""
    setting = folder / "tiny.toml"
    assert world.run(monkeypatch, "rank", copied) == 0
    pd.testing.assert_frame_equal(cs.load_study(copied, progress=False).ranking, study.ranking)
    assert world.run(monkeypatch, "evaluate", setting, "--run", copied, "--features", "1,2,3") == 0
    again = cs.load_study(copied, progress=False)
    labels = RunDirectory.existing(copied).table("labels.parquet")
    assert set(labels["feature"]) == {1, 2, 3}
    assert labels["coefficient"].to_numpy() == pytest.approx(study.screening.coefficient)
    assert again.screening == study.screening
    story = reported.data_of(again.report())["run-0"]
    assert story["counts"]["labelled"] == 0
    assert story["missing"] == []


def test_the_report_has_what_there_is(study: cs.Study, tmp_path: Path) -> None:
    story = reported.data_of(study.report(tmp_path / "report.html"))["run-0"]
    assert [section["key"] for section in story["sections"]] == ["forecasts", "fresh"]
    assert story["counts"]["ranked_by"] == "linear response"
    (told,) = story["controls"]
    assert "no feature was labelled" in told
    assert story["allowlist"]["ranked_by"] == "linear response"
    verdict = story["verdict"]
    assert len(verdict["rules"]) == 2
    check = study.screening.forecasts
    assert check is not None
    for axis, label in zip(
        verdict["axes"], ("stability_abs", "collateral_per_effect"), strict=True
    ):
        assert len(axis["evidence"]) == 2
        assert axis["evidence"][0]["figure"]["value"] == check.spearman[label].value
        assert all(found["holds"] for found in axis["evidence"])
    facts = {what for group in story["provenance"] for what, _ in group["items"]}
    assert "ranked by" in facts
    assert "how they were drawn" not in facts


def test_beside_runs_with_labels_it_has_its_own_rows(
    folder: Path, labelled: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = folder / "run", labelled
    pages: dict[str, Any] = {}
    compared: list[list[Path]] = []
    monkeypatch.setattr(page, "compare", lambda runs, _: compared.append(runs) or [])
    for name, runs in {"mixed": (ours, theirs), "alone": (ours, copied)}.items():
        cs.write_report(runs, tmp_path / f"{name}.html", progress=False)
        pages[name] = reported.data_of(tmp_path / f"{name}.html")["about"]["comparison"]
    rows = {s["key"]: len(s["panels"][0]["rows"]) for s in pages["mixed"]["sections"]}
    assert rows == {"skills": 1, "freshes": 2, "reliabilities": 1}
    assert [row[-1] for row in pages["mixed"]["verdicts"]["rows"]] == ["none", 30]
    assert [section["key"] for section in pages["alone"]["sections"]] == ["freshes"]
    assert compared == [[labelled]]


REFUSED: dict[str, tuple[Callable[[cs.Study], object], tuple[str, ...]]] = {
    "fit": (lambda study: study.fit(), ("labels no feature", "--labels N")),
    "labels": (lambda study: study.labels, ("labels no feature", "--features")),
    "evaluate": (lambda study: study.evaluate(), ("labels no feature", "--features")),
    "sample": (lambda study: study.evaluate(sample=3), ("--sample 3", "--features")),
    "floor": (
        lambda study: study.allowlist(min_stability=0.5),
        ("--min-stability 0.5", "has none", "--by"),
    ),
    "ceiling": (
        lambda study: study.allowlist(top=5, max_collateral_per_effect=2),
        ("--max-collateral-per-effect 2", "has none", "--by"),
    ),
    "validate": (lambda study: cs.validate(study, progress=False), ("n_features = 0", "--labels")),
    "fit as a table": (
        lambda study: cs.fit(study.path, out=study.path / "p", progress=False),
        ("n_features = 0", "--labels"),
    ),
    "compare": (
        lambda study: cs.compare([study], progress=False),
        ("ranked by linear response", "leave it out"),
    ),
    "other labels": (
        lambda study: cs.screen(study.setting, labels=30, run=study.path, progress=False),
        ("another setting", "n_features: 0 -> 30", "--overwrite"),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_needs_labels_is_refused(what: str, study: cs.Study) -> None:
    attempt, parts = REFUSED[what]
    with pytest.raises(InputError) as refused:
        attempt(study)
    told = str(refused.value)
    assert "\n" not in told
    assert all(part in told for part in parts), told


def test_families_refuse_it_before_they_screen(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = tmp_path / "free.toml"
    text = (folder / "tiny.toml").read_text("utf-8")
    path.write_text(
        text.replace("n_features = 60", "n_features = 0").replace("= false", "= true"), "utf-8"
    )
    tables = ("--runs", tmp_path, "--out", tmp_path / "tables")
    for source in (path, folder / "run"):
        assert world.run(monkeypatch, "benchmark", "families", source, *tables) == 2
        world.one_line(capsys, "without labels", "leave it out")
