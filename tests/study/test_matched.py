"""Mode ``matched``, and collateral in units of each panel feature's own scale."""

import shutil
from pathlib import Path

import cleansteer as cs
import numpy as np
import pandas as pd
import pytest
import reported
import scipy.sparse
import torch
import world
from cleansteer.cli.figures import fresh_table
from cleansteer.core.layout import LABELS, MANIFEST, UNFINISHED
from cleansteer.core.records import LabelJudgement
from cleansteer.features.activation import firing_medians
from cleansteer.predictor.evidence import Groups, read_run, targets_of
from cleansteer.predictor.model.targets import MATCHED, RELATIVE
from cleansteer.steering_eval import matching
from cleansteer.steering_eval.collateral import choose_panel
from cleansteer.steering_eval.evaluation import Evaluator
from cleansteer.steering_eval.matching import TOLERANCE
from cleansteer.study import matching as study_matching
from cleansteer.study import prediction
from safetensors.torch import load_file

TARGET = 0.02
CHANGES = {
    "steering.mode": "matched",
    "steering.alpha": 1.0,
    "steering.target_kl": TARGET,
    "steering.collateral": "relative",
}
MEASURED = {"steering.response": True, "steering.response_contexts": 12}
RESIDUAL = {
    "steering.alpha_units": "residual",
    "steering.alpha": 0.25,
    "steering.collateral": "relative",
} | MEASURED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world with a run in mode matched; not to be changed."""
    made = tmp_path_factory.mktemp("matching")
    setting = world.build(made, "jumprelu")
    setting.write_text(setting.read_text("utf-8").replace("n_features = 60", "n_features = 30"))
    cs.screen(made / "tiny.toml", changes=CHANGES, run=made / "run", progress=False)
    return made


def mixed(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["context_type"] == "mixed"].set_index("feature")


def test_every_feature_does_equally_much(folder: Path) -> None:
    study = cs.load_study(folder / "run", progress=False)
    labels = mixed(study.labels)
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
    row = mixed(study.evaluate(study.sample[:2], target_kl=2 * TARGET)).iloc[0]
    assert row["kl_clean_steered"] == pytest.approx(2 * TARGET, rel=TOLERANCE)
    feature, push = study.sample[0], mixed(study.labels).loc[study.sample[0], "coefficient"]
    assert row["coefficient"] > push
    alpha = push / study._run.manifest.global_value
    again = mixed(study.evaluate([feature], mode="add", alpha=alpha)).iloc[0]
    assert again["kl_clean_steered"] == pytest.approx(TARGET, rel=TOLERANCE)


def test_the_pilot_leaves_out_what_cannot_be_matched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = mixed(cs.load_study(folder / "run", progress=False).labels)
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


@pytest.mark.parametrize(("alpha", "told"), [(1e-3, True), (0.3, False), (3.0, True)])
def test_a_push_that_is_hardly_one_or_too_long_is_told(
    alpha: float, told: bool, folder: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    changes = {"steering.alpha_units": "residual", "steering.alpha": alpha}
    study = cs.open_study(
        folder / "tiny.toml", changes=changes, run=tmp_path / "run", progress=False
    )
    labels = mixed(study.evaluate(sample=5))
    push = study._parts.prediction.push(labels)
    assert push.share == pytest.approx(alpha)
    assert push.kl == pytest.approx(labels["kl_clean_steered"].median())
    said = [str(w.message) for w in recwarn if "residual stream's length" in str(w.message)]
    assert bool(said) == told


def test_scales_are_medians_where_a_feature_fires() -> None:
    generator = np.random.default_rng(0)
    values = generator.lognormal(size=(40, 30)) * (generator.random((40, 30)) < 0.3)
    values[:, 7] = 0.0
    values[:, 8] = 0.0
    values[3, 8] = 2.5
    found = firing_medians(scipy.sparse.csc_array(values))
    expected = [np.median(v[v > 0]) if (v > 0).any() else np.nan for v in values.T]
    np.testing.assert_allclose(found, expected)
    frequency = (values > 0).mean(axis=0)
    table = {"feature": range(30), "final_act_freq": frequency, "final_firing_median": found}
    panel = choose_panel(pd.DataFrame(table), 30)
    silent = panel.features.tolist().index(7)
    assert panel.scales[silent] == pytest.approx(np.nanmedian(found))
    assert np.delete(panel.scales, silent) == pytest.approx(
        np.delete(found[panel.features], silent)
    )


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
    labels = mixed(plain.labels)
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


def scaled(folder: Path, path: Path, factor: float) -> None:
    """The SAE in ``folder`` with activations ``factor`` times as large, and the same reconstructions."""
    shutil.copytree(folder, path)
    state = load_file(folder / "sae_weights.safetensors")
    changed = {name: state[name] * factor for name in ("W_enc", "b_enc")}
    changed["W_dec"] = state["W_dec"] / factor
    if "threshold" in state:
        changed["threshold"] = state["threshold"] * factor
    world.overwrite_tensor(path, **{name: value.contiguous() for name, value in changed.items()})


@pytest.mark.parametrize("changes", [RESIDUAL, CHANGES | MEASURED], ids=["residual", "matched"])
def test_the_size_of_activations_is_a_convention(
    folder: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    """Dictionaries with ten times the activations and the same reconstructions: the same relative
    labels, the same ranking, linear response among what it is fitted on, and the same verdict.
    """
    factor = 10.0
    made = tmp_path / "scaled"
    shutil.copytree(folder / "model", made / "model")
    for name in ("primary", "downstream"):
        scaled(folder / name, made / name, factor)
    for name in ("tiny.toml", "texts.txt", "fresh.txt"):
        shutil.copy(folder / name, made / name)
    plain, other = (
        cs.screen(at / "tiny.toml", changes=changes, run=tmp_path / name, progress=False)
        for at, name in ((folder, "plain"), (made, "other"))
    )
    ours, theirs = mixed(plain.labels), mixed(other.labels)
    assert theirs.index.tolist() == ours.index.tolist()
    assert theirs["coefficient"].to_numpy() == pytest.approx(factor * ours["coefficient"], rel=1e-3)
    for name in ("stability_abs", "collateral_relative_mass", "collateral_relative_count_0.2"):
        np.testing.assert_allclose(theirs[name], ours[name], rtol=2e-3, atol=0.05)
    absolute = theirs["collateral_l2"].to_numpy() / ours["collateral_l2"].to_numpy()
    assert absolute == pytest.approx(factor, rel=1e-2)
    assert {n: j.usable for n, j in other.screening.labels.items()} == {
        n: j.usable for n, j in plain.screening.labels.items()
    }
    assert other.verdict.overall == plain.verdict.overall
    a, b = (s.ranking.set_index("feature")["predicted_clean_score"] for s in (plain, other))
    np.testing.assert_allclose(a, b.reindex(a.index), atol=1e-3)


def test_residual_units_push_every_feature_equally_far(folder: Path, tmp_path: Path) -> None:
    changes = {"steering.alpha_units": "residual", "steering.alpha": 0.25}
    study = cs.open_study(
        folder / "tiny.toml", changes=changes, run=tmp_path / "run", progress=False
    )
    labels = mixed(study.evaluate(sample=10))
    norms = study.features.set_index("feature").loc[labels.index, "decoder_norm"]
    lengths = labels["coefficient"] * norms / study._run.manifest.residual_norm
    assert lengths.to_numpy() == pytest.approx(0.25)
    inputs, tokens = study._parts.inputs, load_file(tmp_path / "run" / "contexts.safetensors")
    (values,) = inputs.model.read(tokens["tokens"].long(), [inputs.primary.site])
    with torch.no_grad():
        exact = float(values[:, 1:].norm(dim=-1).median())
    assert study._run.manifest.residual_norm == pytest.approx(exact, rel=1e-3)


def test_relative_collateral_in_mode_add(folder: Path, tmp_path: Path) -> None:
    changes = {"steering.collateral": "relative"}
    study = cs.screen(folder / "tiny.toml", changes=changes, run=tmp_path / "run", progress=False)
    assert tuple(study.screening.skill) == RELATIVE.targets
    labels = mixed(study.labels)
    expected = labels["collateral_relative_mass"] / (labels["effect_l2"] + 1e-8)
    assert labels["collateral_relative_per_effect"].to_numpy() == pytest.approx(expected)
    assert study.report(tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steering.target_kl": 0.1}, "`target_kl` is 0.1 with `mode` 'add'"),
        ({"steering.mode": "matched", "steering.target_kl": 0.0}, "greater than 0"),
        ({"steering.mode": "matched"}, "`alpha` is 0.7 with `mode` 'matched'"),
        (
            {
                "steering.mode": "clamp_global",
                "steering.alpha": 1.0,
                "steering.alpha_units": "residual",
            },
            "`alpha_units` is 'residual' with `mode` 'clamp_global'",
        ),
        ({"steering.alpha_units": "norms"}, "'global' or 'residual'"),
        ({"steering.collateral": "some"}, "'absolute' or 'relative'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    changes: dict[str, object], told: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(cs.InputError, match="steering") as error:
        cs.open_study(folder / "tiny.toml", changes=changes, run=tmp_path / "run", progress=False)
    assert told in str(error.value)
    assert not (tmp_path / "run" / MANIFEST).exists()
