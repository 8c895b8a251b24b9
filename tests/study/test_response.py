"""Linear response in a study: beside the other statistics, and in contexts of its own."""

import shutil
from pathlib import Path
from typing import Any

import cleansteer as cs
import numpy as np
import pandas as pd
import pytest
import reported
import tiny
import world
from cleansteer.core.layout import CONTEXTS, FEATURES, MANIFEST, RESPONSE_CONTEXTS
from cleansteer.core.runs import RunDirectory
from cleansteer.predictor.model import predictor_sets
from safetensors.torch import load_file

N_CONTEXTS = 12
NAMES = ("response_top_tokens", "response_bottom_tokens")
NOT_ASKED = "response = false\n"
ASKED = f"response = true\nresponse_contexts = {N_CONTEXTS}\n"


def setting_with(folder: Path, name: str, more: str, architecture: str = "jumprelu") -> Path:
    """A setting of the world that says more about steering."""
    path = world.build(folder, architecture) if not (folder / "model").is_dir() else None
    made = folder / f"{name}.toml"
    text = (path or folder / "tiny.toml").read_text("utf-8")
    made.write_text(text.replace(NOT_ASKED, more or NOT_ASKED), "utf-8")
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world with a run without and one with linear response; not to be changed."""
    made = tmp_path_factory.mktemp("responding")
    for name, more in (("without", ""), ("with", ASKED)):
        cs.screen(setting_with(made, name, more), run=made / name, progress=False)
    return made


def features(run: Path) -> pd.DataFrame:
    return RunDirectory.existing(run).table(FEATURES)


def response_of(table: pd.DataFrame) -> pd.DataFrame:
    numbers = table.select_dtypes("number")
    return numbers[[name for name in numbers if name.startswith("response_")]]


def test_the_other_statistics_and_labels_are_the_same(folder: Path) -> None:
    plain, more = features(folder / "without"), features(folder / "with")
    pd.testing.assert_frame_equal(more[plain.columns.tolist()], plain)
    one, other = (
        RunDirectory.existing(folder / name).table("labels.parquet") for name in ("without", "with")
    )
    pd.testing.assert_frame_equal(one, other)


def test_every_feature_has_every_column(folder: Path) -> None:
    response = response_of(features(folder / "with"))
    assert len(response) == 96
    assert response.shape[1] == 21
    assert np.isfinite(response.to_numpy()).all()
    assert (response.nunique() > 10).all()


def test_its_contexts_follow_those_of_the_labels(folder: Path) -> None:
    run, setting = folder / "with", (folder / "with.toml").read_text("utf-8")
    theirs = load_file(run / CONTEXTS)["tokens"].tolist()
    ours = load_file(run / RESPONSE_CONTEXTS)["tokens"].tolist()
    assert len(ours) == N_CONTEXTS
    longer = folder / "longer.toml"
    longer.write_text(setting.replace("n_contexts = 96", f"n_contexts = {96 + N_CONTEXTS}"))
    study = cs.open_study(longer, run=folder / "longer", progress=False)
    assert len(study.features) == 96
    assert load_file(folder / "longer" / CONTEXTS)["tokens"].tolist() == theirs + ours


def test_the_predictor_sees_it_and_the_papers_sets_do_not(folder: Path) -> None:
    study = cs.load_study(folder / "with", progress=False)
    columns = response_of(study.features).columns.tolist()
    sets = predictor_sets(study.features.columns)
    assert sets["response_only"] == columns
    assert set(columns) < set(sets["full_with_response"])
    for name, members in sets.items():
        if "response" not in name:
            assert not set(members) & set(columns), name
    assert set(columns) <= set(study.predictor.columns_)
    assert not any(name in sets["full_with_response"] for name in NAMES)
    plain = cs.load_study(folder / "without", progress=False)
    assert plain.ranking["feature"].tolist() != study.ranking["feature"].tolist()


def test_the_report_shows_what_a_push_raises_and_lowers(folder: Path, tmp_path: Path) -> None:
    study = cs.load_study(folder / "with", progress=False)
    story = reported.data_of(study.report(tmp_path / "report.html"))["run-0"]
    table = study.ranking.merge(study.features[["feature", *NAMES]], on="feature")
    table = table.set_index("feature").loc[story["features"]["feature"]]
    for kind, name in zip(("raised", "lowered"), NAMES, strict=True):
        assert reported.words(story, kind) == [list(tokens) for tokens in table[name]]
    forecast = study.features.set_index("feature").loc[table.index, "response_stability_abs"]
    found = reported.numbers(story, "response_stability_abs")
    assert found == pytest.approx(forecast.to_numpy(), abs=1e-5)


def test_reasons_name_it_in_words(folder: Path) -> None:
    reasons = cs.load_study(folder / "with", progress=False).ranking["reasons"]
    assert reasons.str.contains("linear response").any()
    assert not reasons.str.contains("response_").any()


def test_a_stronger_push_is_scaled(folder: Path) -> None:
    path = folder / "stronger.toml"
    path.write_text((folder / "with.toml").read_text("utf-8").replace("alpha = 0.7", "alpha = 1.4"))
    once = response_of(features(folder / "with"))
    study = cs.open_study(path, run=folder / "stronger", progress=False)
    twice = response_of(study.features)
    for name, factor in (
        ("effect_l2", 2),
        ("resid_delta_norm", 2),
        ("kl_clean_steered", 4),
        ("stability_abs", 1),
        ("stability_signed", 1),
        ("effect_cv", 1),
        ("effect_pc1_ratio", 1),
    ):
        ours, before = (table[f"response_{name}"].to_numpy() for table in (twice, once))
        assert ours == pytest.approx(factor * before, rel=1e-5), name


@pytest.mark.parametrize("mode", ["clamp_global", "clamp_q95"])
def test_clamping_pushes_by_what_is_missing(mode: str, folder: Path) -> None:
    """A feature that never fires is pushed to its value from 0, as by mode add with that value."""
    path = folder / f"{mode}.toml"
    text = (folder / "with.toml").read_text("utf-8")
    path.write_text(text.replace("alpha = 0.7", f'mode = "{mode}"'), "utf-8")
    clamped = cs.open_study(path, run=folder / mode, progress=False).features
    silent = (clamped["token_act_max"] == 0).to_numpy()
    assert silent.any()
    added = features(folder / "with")
    value = 1.0 if mode == "clamp_q95" else None
    c = RunDirectory.existing(folder / "with").manifest.global_value
    assert c is not None
    factor = (value or c) / (0.7 * c)
    assert clamped.loc[silent, "response_effect_l2"].to_numpy() == pytest.approx(
        factor * added.loc[silent, "response_effect_l2"].to_numpy(), rel=1e-4
    )
    firing = ~silent
    assert clamped.loc[firing, "response_effect_l2"].to_numpy() != pytest.approx(
        factor * added.loc[firing, "response_effect_l2"].to_numpy(), rel=1e-4
    )


def test_full_passes_give_the_same(folder: Path, tmp_path: Path) -> None:
    """Where the fast pass was shown to be wrong, or does not know the family."""
    run = tmp_path / "run"
    shutil.copytree(folder / "with", run)
    table = features(run)
    directory = RunDirectory.existing(run)
    directory.write_table(
        FEATURES, table.drop(columns=list(NAMES)).drop(columns=response_of(table).columns)
    )
    evaluator = directory.manifest.evaluator
    assert evaluator is not None
    slow = evaluator.model_copy(update={"method": "full", "reason": "a test"})
    directory.update(evaluator=slow)
    with pytest.warns(
        UserWarning, match=f"takes {N_CONTEXTS * tiny.WIDTH:,} full forward passes.* = false"
    ):
        again = cs.load_study(run, progress=False).features
    response = response_of(again)
    for name in response:
        if "count" not in name and "per_effect" not in name and "clean_score" not in name:
            expected = table[name].to_numpy()
            assert response[name].to_numpy() == pytest.approx(expected, rel=1e-3, abs=1e-5), name


def test_stopped_between_them_it_goes_on_to_the_same(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in (MANIFEST, CONTEXTS, RESPONSE_CONTEXTS, "final_activations.parquet"):
        shutil.copy(folder / "with" / name, run)
    shutil.copy(folder / "with" / "downstream.parquet", run)
    whole = features(folder / "with")
    plain = whole[[name for name in whole if not name.startswith("response_")]]
    RunDirectory.existing(run).write_table(FEATURES, plain)
    again = cs.open_study(folder / "with.toml", run=run, progress=False).features
    pd.testing.assert_frame_equal(again, whole)


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ("response = true\nresponse_contexts = 0\n", ("response_contexts", "= 0", "equal to 2")),
        ("response = true\nresponse_contexts = 1\n", ("response_contexts", "= 1", "equal to 2")),
        (
            "response = true\nresponse_contexts = 1000\n",
            ("n_contexts = 96 and response_contexts = 1000 behind them", "lower"),
        ),
        ("response = 3\n", ("steering.response", "= 3", "boolean")),
    ],
    ids=["0", "1", "too many", "not a truth value"],
)
def test_bad_values(
    more: str,
    parts: tuple[str, ...],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = setting_with(folder, "bad", more)
    run: Any = tmp_path / "run"
    assert world.run(monkeypatch, "screen", path, "--run", run) == 2
    world.one_line(capsys, *parts)
    assert not run.exists()
