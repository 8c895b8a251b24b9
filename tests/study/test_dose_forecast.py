"""A study's dose forecast: what it measures, keeps and refuses."""

import json
from pathlib import Path

import cleansteer as cs
import numpy as np
import pandas as pd
import pytest
import world
from cleansteer.core.layout import DOSE_FORECAST, LABELS, RESPONSE_DOSES
from cleansteer.core.runs import RunDirectory
from cleansteer.study.dosing import covariates

N_LABELS = 20
ASKED = "response = true\nresponse_contexts = 12\n"
BUDGET = 0.02


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> cs.Study:
    folder = tmp_path_factory.mktemp("dosed")
    path = world.build(folder, "jumprelu")
    path.write_text(path.read_text("utf-8").replace("response = false\n", ASKED), "utf-8")
    opened = cs.open_study(path, run=folder / "run", progress=False)
    opened.dose_forecast(kl_budget=BUDGET, labels=N_LABELS)
    return opened


def test_every_feature_has_a_forecast_and_few_are_steered(study: cs.Study) -> None:
    table = study.recommended_doses
    assert table["feature"].tolist() == list(range(96))
    assert table["labelled"].sum() == N_LABELS
    labels = RunDirectory.existing(study.path).table(LABELS)
    doses = np.sort(labels["alpha"].unique())
    assert len(doses) == 6
    np.testing.assert_allclose(doses[1:] / doses[:-1], 2.0)
    assert 0.7 in doses
    assert labels.groupby("alpha")["feature"].nunique().eq(N_LABELS).all()
    assert set(labels["feature"]) <= set(study.sample)
    given = table[table["reason"] == ""]
    assert len(given) > 20
    assert (given["recommended_alpha"] <= given["validity_radius_alpha"]).all()


def test_what_is_measured_is_not_measured_again(
    study: cs.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = study.recommended_doses
    for name in ("steering_eval.evaluation.Evaluator.evaluate", "study.dosing.count_by_dose"):
        monkeypatch.setattr(
            f"cleansteer.{name}", lambda *arguments, **named: pytest.fail("measured again")
        )
    table = study.dose_forecast([0.4, 1.1], kl_budget=BUDGET, labels=N_LABELS)
    assert sorted(table["alpha"].unique()) == [0.4, 1.1]
    assert len(table) == 2 * 96
    pd.testing.assert_frame_equal(study.recommended_doses, before)


def test_counts_at_a_dose_are_those_of_linear_response(study: cs.Study) -> None:
    """At the setting's own strength."""
    counts = RunDirectory.existing(study.path).table(RESPONSE_DOSES)
    own = counts[counts["strength"] == 0.7]["response_collateral_count_0.05"]
    np.testing.assert_allclose(own, study.features["response_collateral_count_0.05"], atol=1e-9)
    rising = counts.groupby("strength")["response_collateral_count_0.05"].mean()
    assert rising.is_monotonic_increasing


def test_dose_features_mostly_lie_in_their_own_intervals(study: cs.Study) -> None:
    labels = RunDirectory.existing(study.path).table(LABELS)
    labels = labels[labels["context_type"] == "mixed"]
    table = study.dose_forecast(kl_budget=BUDGET, labels=N_LABELS)
    both = table[table["within_radius"]].merge(labels, on=["feature", "alpha"])
    assert len(both) > N_LABELS
    inside = (both["kl_low"] <= both["kl_clean_steered"]) & (
        both["kl_clean_steered"] <= both["kl_high"]
    )
    assert inside.mean() > 0.8


def test_the_command_writes_the_same(
    study: cs.Study, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = study.recommended_doses
    setting = study.path.parent / "tiny.toml"
    capfd.readouterr()
    arguments = ("--run", study.path, "--kl-budget", BUDGET, "--labels", N_LABELS)
    assert world.run(monkeypatch, "doses", setting, *arguments, "--alpha", "0.7,1") == 0
    out, err = capfd.readouterr()
    assert out == ""
    told = " ".join(err.split())
    given = int((before["reason"] == "").sum())
    assert f"within {BUDGET} nats is recommended for {given} of 96 features" in told
    assert DOSE_FORECAST in told
    for reason in set(before["reason"]) - {""}:
        assert f"none for {(before['reason'] == reason).sum()}: {reason}" in told
    assert world.run(monkeypatch, "doses", setting, *arguments, "--alpha", "1", "--json") == 0
    rows = pd.DataFrame(json.loads(capfd.readouterr().out))
    ours = study.dose_forecast(1.0, kl_budget=BUDGET, labels=N_LABELS)
    np.testing.assert_allclose(rows["kl"].astype(float), ours["kl"], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "arguments", "parts"),
    [
        (("response = true", "response = false"), (), ("response = false", "response = true")),
        (("alpha = 0.7", 'mode = "clamp_q95"'), (), ("mode = 'clamp_q95'", "mode = 'add'")),
        (
            ("alpha = 0.7", "vocabulary_labels = false"),
            (),
            ("vocabulary_labels = false", "vocabulary_labels = true"),
        ),
        (("", ""), ("--alpha", "-1"), ("--alpha: -1", "positive")),
        (("", ""), ("--alpha", "x"), ("--alpha", "'x'", "not a strength")),
        (("", ""), ("--kl-budget", "0"), ("--kl-budget 0", "above 0")),
        (("", ""), ("--kl-budget", "nan"), ("--kl-budget nan", "above 0")),
        (("", ""), ("--labels", "5"), ("--labels 5", "20 measured features")),
    ],
)
def test_bad_input_is_one_line(
    change: tuple[str, str],
    arguments: tuple[str, ...],
    parts: tuple[str, ...],
    study: cs.Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = study.path.parent / "bad.toml"
    path.write_text((study.path.parent / "tiny.toml").read_text("utf-8").replace(*change), "utf-8")
    capfd.readouterr()
    run = tmp_path / "run"
    assert world.run(monkeypatch, "doses", path, "--run", run, *arguments) == 2
    world.one_line(capfd, *parts)
    assert not run.exists()


def test_without_a_forecast_there_is_none(study: cs.Study) -> None:
    opened = cs.open_study(study.setting, progress=False)
    with pytest.raises(cs.InputError, match=r"is not forecast yet; call its dose_forecast\(\)"):
        _ = opened.recommended_doses


def test_covariates_do_not_depend_on_how_a_feature_is_scaled() -> None:
    """Pushes of equal length, decoder rows k times as long, activations as much smaller."""
    generator = np.random.default_rng(0)
    names = ("decoder_norm", "response_curvature", "response_kl_clean_steered", "token_act_freq")
    names += ("response_effect_cv", "response_stability_abs", "token_act_mean", "token_act_max")
    table = pd.DataFrame({name: generator.lognormal(size=50) for name in names})
    k = generator.lognormal(size=50)
    scaled = table.assign(
        decoder_norm=table["decoder_norm"] * k,
        response_curvature=table["response_curvature"] * k**2,
        token_act_mean=table["token_act_mean"] / k,
        token_act_max=table["token_act_max"] / k,
    )
    np.testing.assert_allclose(covariates(scaled), covariates(table), rtol=1e-9)
