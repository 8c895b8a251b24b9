"""Mode ``matched``, and collateral in units of each panel feature's own scale."""

import shutil
from pathlib import Path

import cleansteer as cs
import numpy as np
import pandas as pd
import pytest
import reported
import world
from cleansteer.cli.figures import fresh_table
from cleansteer.core.layout import LABELS, UNFINISHED
from cleansteer.core.records import LabelJudgement
from cleansteer.predictor.evidence import Groups, read_run, targets_of
from cleansteer.predictor.model.targets import MATCHED
from cleansteer.steering_eval import matching
from cleansteer.steering_eval.evaluation import Evaluator
from cleansteer.steering_eval.matching import TOLERANCE
from cleansteer.study import matching as study_matching
from cleansteer.study import prediction

TARGET = 0.02
CHANGES = {
    "steering.mode": "matched",
    "steering.alpha": 1.0,
    "steering.target_kl": TARGET,
    "steering.collateral": "relative",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world with a run in mode matched; not to be changed."""
    made = tmp_path_factory.mktemp("matching")
    setting = world.build(made, "jumprelu")
    setting.write_text(setting.read_text("utf-8").replace("n_features = 60", "n_features = 30"))
    cs.screen(made / "tiny.toml", changes=CHANGES, run=made / "run", progress=False)
    return made


def test_every_feature_does_equally_much(folder: Path) -> None:
    study = cs.load_study(folder / "run", progress=False)
    labels = world.mixed(study.labels)
    assert len(labels) == len(study.sample) == 30
    assert labels["kl_clean_steered"].to_numpy() == pytest.approx(TARGET, rel=1.01 * TOLERANCE)
    assert set(labels["alpha"]) == {TARGET}
    assert labels["coefficient"].nunique() == len(labels)
    fresh = study.fresh_labels.set_index("feature")
    assert fresh["kl_clean_steered"].to_numpy() == pytest.approx(TARGET, rel=1.01 * TOLERANCE)
    assert study.screening.push.kl == pytest.approx(TARGET, rel=TOLERANCE)


def test_the_axis_is_the_relative_mass_at_equal_effect(folder: Path) -> None:
    study = cs.load_study(folder / "run", progress=False)
    assert tuple(study.screening.skill) == MATCHED.targets
    assert study.screening.collateral == "relative"
    assert "kl_clean_steered" not in study.screening.controls.reliability
    assert study.screening.labels.keys() == {*MATCHED.judged, MATCHED.spread}
    assert "predicted_collateral_relative_mass" in study.ranking
    chosen = study.allowlist(top=5, by="collateral").features
    eligible = study.ranking[study.ranking["eligible"]]
    least = eligible.nsmallest(5, "predicted_collateral_relative_mass")["feature"]
    assert sorted(least) == chosen
    assert study.allowlist(top=5, by="both").criterion.score.endswith("collateral_relative_mass")
    shown = fresh_table(study.screening.fresh_check, MATCHED).columns[0].cells
    assert [*shown].count("rel. mass") == 1
    assert targets_of(read_run(folder / "run")) == list(MATCHED.targets)


def test_what_is_wrong_with_a_label_enters_the_verdict(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    plain = prediction.judge_labels

    def doubted(*given: object) -> dict[str, LabelJudgement]:
        bad = LabelJudgement(usable=False, reasons=["nobody believes it"], caveats=["so far"])
        return plain(*given) | {"stability_abs": bad}

    monkeypatch.setattr(prediction, "judge_labels", doubted)
    with pytest.warns(UserWarning, match="stability_abs cannot be used: nobody believes it"):
        study = cs.load_study(tmp_path / "run", progress=False).screen(top=5)
    judged = study.verdict.stability
    assert "the label stability_abs cannot be used: nobody believes it" in judged.reasons
    assert judged.caveats == ["so far"]
    card = reported.data_of(study.report(tmp_path / "report.html"))["run-0"]["verdict"]["axes"][0]
    for said in (study.verdict._repr_html_(), str(study.verdict), card["caveats"][-1]):
        assert "so far" in said
    assert not study.screening.labels["stability_abs"].usable


@pytest.mark.parametrize("name", ["random_directions", "fresh_labels"])
def test_a_table_that_lacks_a_feature_is_measured_anew(
    name: str, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    study = cs.load_study(tmp_path / "run", progress=False)
    whole = study._run.table(f"{name}.parquet")
    study._run.write_table(f"{name}.parquet", whole.iloc[1:])
    labelling = study._parts.labelling
    again = {
        "random_directions": labelling.random_directions,
        "fresh_labels": lambda: labelling.fresh_labels(whole["feature"].to_numpy()),
    }[name]()
    pd.testing.assert_frame_equal(again.reset_index(), whole)


def test_groups_go_on_without_features_that_have_no_fresh_label() -> None:
    features = {name: np.arange(i, i + 4) for i, name in ((0, "a"), (4, "b"))}
    kept = Groups(features, 10, 8, 8).among(pd.Index([0, 1, 3, 5, 99]))
    assert {name: own.tolist() for name, own in kept.features.items()} == {"a": [0, 1, 3], "b": [5]}
    assert (kept.n_training, kept.n_heldout, kept.n_matched) == (10, 8, 8)


def test_a_strength_is_measured_by_hand_in_either_mode(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    study = cs.load_study(tmp_path / "run", progress=False)
    row = world.mixed(study.evaluate(study.sample[:2], target_kl=2 * TARGET)).iloc[0]
    assert row["kl_clean_steered"] == pytest.approx(2 * TARGET, rel=TOLERANCE)
    feature, push = study.sample[0], world.mixed(study.labels).loc[study.sample[0], "coefficient"]
    assert row["coefficient"] > push
    alpha = push / study._run.manifest.global_value
    again = world.mixed(study.evaluate([feature], mode="add", alpha=alpha)).iloc[0]
    assert again["kl_clean_steered"] == pytest.approx(TARGET, rel=TOLERANCE)


def test_the_pilot_leaves_out_what_cannot_be_matched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = world.mixed(cs.load_study(folder / "run", progress=False).labels)
    norms = cs.load_study(folder / "run", progress=False).features.set_index("feature")
    manifest = cs.load_study(folder / "run", progress=False)._run.manifest
    shares = labels["coefficient"] * norms.loc[labels.index, "decoder_norm"]
    limit = float((shares / manifest.residual_norm).quantile(0.7))
    for module in (matching, study_matching):
        monkeypatch.setattr(module, "LARGEST_PUSH", limit)
    changes = CHANGES | {"steering.reliability": 0.01}
    study = cs.open_study(
        folder / "tiny.toml", changes=changes, run=tmp_path / "run", progress=False
    )
    with pytest.warns(UserWarning, match=r"pilot, 6 contexts of each type: .* do not reach a KL"):
        kept = study.labels
    assert 10 < kept["feature"].nunique() < 30
    assert set(study._run.manifest.reliability.steps[0].reliability) == set(MATCHED.judged)


def test_arguments_of_a_screening_hold_for_later_commands(folder: Path, tmp_path: Path) -> None:
    run, setting = tmp_path / "run", folder / "one.toml"
    setting.write_text((folder / "tiny.toml").read_text("utf-8").replace("alpha = 0.7\n", ""))
    first = cs.open_study(setting, target_kl=TARGET, run=run, progress=False)
    assert len(first.features)
    assert set(first._run.manifest.arguments) == {"alpha", "alpha_units", "mode", "target_kl"}
    later = cs.open_study(setting, run=run, progress=False)
    assert later.setting == first.setting
    assert (later.setting.steering.mode, later.setting.steering.strength) == ("matched", TARGET)
    with pytest.raises(cs.InputError, match="is of another setting"):
        cs.open_study(setting, target_kl=2 * TARGET, run=run, progress=False)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    plain, made = Evaluator.divergences, []

    def limited(self: Evaluator, *args: object, **kwargs: object) -> object:
        made.append(1)
        if len(made) > calls:
            raise KeyboardInterrupt
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Evaluator, "divergences", limited)


def test_an_interrupted_search_goes_on_with_the_same_result(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def labels() -> pd.DataFrame:
        study = cs.open_study(
            folder / "tiny.toml", changes=CHANGES, run=tmp_path / "run", progress=False
        )
        return study.labels

    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            labels()
    assert [path.name for path in (tmp_path / "run" / UNFINISHED).glob("matching-*")]
    calls: list[int] = []
    plain = Evaluator.divergences
    monkeypatch.setattr(Evaluator, "divergences", lambda *a, **k: calls.append(1) or plain(*a, **k))
    whole = cs.load_study(folder / "run", progress=False).labels
    pd.testing.assert_frame_equal(labels(), whole)
    assert not (tmp_path / "run" / UNFINISHED).exists()
    resumed = len(calls)
    other = cs.open_study(
        folder / "tiny.toml", changes=CHANGES, run=tmp_path / "whole", progress=False
    )
    assert len(other.labels)
    assert len(calls) - resumed == resumed + 2


def test_a_feature_that_cannot_be_matched_is_named_and_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = cs.load_study(folder / "run", progress=False)
    labels = world.mixed(plain.labels)
    norms = plain.features.set_index("feature").loc[labels.index, "decoder_norm"]
    shares = labels["coefficient"] * norms / plain._run.manifest.residual_norm
    ordered = shares.sort_values()
    gaps = ordered.to_numpy()[21:] / ordered.to_numpy()[20:-1]
    assert gaps.max() > 1.03  # beyond what a KL within 2 % of its target leaves open
    last = 20 + int(gaps.argmax())
    limit = float(np.sqrt(ordered.iloc[last] * ordered.iloc[last + 1]))
    for module in (matching, study_matching):
        monkeypatch.setattr(module, "LARGEST_PUSH", limit)
    run = tmp_path / "run"
    with pytest.warns(UserWarning, match="do not reach a KL of 0.02") as told:
        study = cs.screen(folder / "tiny.toml", changes=CHANGES, run=run, progress=False)
    missed = set(ordered.index[last + 1 :])
    assert set(plain.sample) - set(study.labels["feature"]) == missed
    assert study.screening.n_labelled == len(plain.sample) - len(missed)
    named = {each.feature for each in study._run.manifest.unmatched if each.stage == "labels"}
    assert named == missed
    assert any(all(str(feature) in str(one.message) for feature in missed) for one in told)
    for each in study._run.manifest.unmatched:
        assert each.kl < TARGET
        assert each.push == pytest.approx(limit)
    before = (run / LABELS).stat().st_mtime_ns
    again = cs.load_study(run, progress=False).labels["feature"]
    assert again.nunique() == len(plain.sample) - len(missed)
    assert (run / LABELS).stat().st_mtime_ns == before
    with pytest.raises(cs.InputError, match=r"1 of 1 features .* do not reach a KL of 50"):
        cs.load_study(run, progress=False).evaluate([plain.sample[0]], target_kl=50.0)
