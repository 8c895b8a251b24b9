"""Screening with every feature labelled: the ranking is the measurement."""

import json
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
from cleansteer.core.errors import InputError
from cleansteer.core.layout import HALVES_LABELS, LABELS, RANKING, SCREENING
from cleansteer.core.records import Allowlist, Screening
from cleansteer.core.runs import RunDirectory
from cleansteer.steering_eval.choice import eligible_features
from cleansteer.steering_eval.evaluation import Evaluator
from scipy.stats import spearmanr

N = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of 240 features, some of which never fire, with a run of all of them in ``run``; not to be
    changed.
    """
    made = tmp_path_factory.mktemp("exhaustive")
    path = world.build(made, "jumprelu")
    world.save_sae(tiny.sae("jumprelu", "blocks.1.hook_resid_pre", N), made / "primary")
    cs.screen(path, labels="all", run=made / "run", progress=False)
    return made


@pytest.fixture(scope="module")
def study(folder: Path) -> cs.Study:
    return cs.load_study(folder / "run", progress=False)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "run", tmp_path / "run"))


@pytest.fixture(scope="module")
def measured(folder: Path, study: cs.Study) -> pd.DataFrame:
    """Labels in mixed contexts with the clean score, worked out by hand, by feature."""
    table = RunDirectory.existing(folder / "run").table(LABELS)
    table = table[table["context_type"] == "mixed"].set_index("feature").sort_index()
    return scored(table, eligible_features(study.features))


def scored(table: pd.DataFrame, among: np.ndarray) -> pd.DataFrame:
    spread = np.log1p(table["collateral_count_0.05"]) / (table["effect_l2"] + 1e-8)
    terms = [(x - x[among].mean()) / x[among].std(ddof=0) for x in (table["stability_abs"], spread)]
    return table.assign(clean_score=terms[0] - terms[1])


def test_every_feature_is_labelled_and_ranked_by_its_labels(
    study: cs.Study, measured: pd.DataFrame
) -> None:
    ranking = study.ranking.set_index("feature")
    eligible = eligible_features(study.features)
    assert 0 < len(eligible) < N == len(measured) == len(ranking)
    assert study.sample == sorted(eligible)
    assert ranking["measured"].all()
    assert set(ranking.index[ranking["eligible"]]) == set(eligible)
    for label in ("clean_score", "stability_abs", "collateral_per_effect", "effect_l2"):
        for kind in ("predicted", "measured"):
            found = ranking.loc[measured.index, f"{kind}_{label}"]
            np.testing.assert_allclose(found, measured[label], rtol=1e-9, atol=1e-12)
    order = measured["clean_score"].sort_values(ascending=False, kind="stable").index
    assert ranking.index.tolist() == order.tolist()


def test_intervals_are_those_of_a_hand_computation(
    folder: Path, study: cs.Study, measured: pd.DataFrame
) -> None:
    eligible = np.sort(eligible_features(study.features))
    halves = RunDirectory.existing(folder / "run").table(HALVES_LABELS)
    one, two = (
        scored(halves[halves["context_type"] == name].set_index("feature").loc[eligible], eligible)
        for name in ("half-1", "half-2")
    )
    ranking = study.ranking.set_index("feature")
    for label in ("clean_score", "stability_abs"):
        off = (one[label] - two[label]).abs() / 2
        near = measured.loc[eligible, label].sort_values(kind="stable").index
        for feature in eligible[::17]:
            place = near.get_loc(feature)
            first = min(max(place - 50, 0), max(len(near) - 101, 0))
            width = np.quantile(off[near[first : first + 101]], 0.9)
            low, high = (
                ranking.loc[feature, f"predicted_{label}_{end}"] for end in ("low", "high")
            )
            value = measured.loc[feature, label]
            ends = [value - width, value + width]
            if label == "stability_abs":
                ends = np.clip(ends, 0, 1)
            assert [low, high] == pytest.approx(ends, rel=1e-6, abs=1e-9)


def test_the_verdict_asks_whether_labels_hold_on_fresh_contexts(
    study: cs.Study, measured: pd.DataFrame
) -> None:
    screening = study.screening
    assert (screening.ranked_by, screening.n_labelled) == ("measurement", N)
    assert Screening.model_validate_json(screening.to_json()) == screening
    check = screening.forecasts
    assert check is not None
    drawn = screening.fresh_check.features["random"]
    fresh = study.fresh_labels.set_index("feature").loc[drawn]
    for label in ("stability_abs", "collateral_per_effect", "effect_l2"):
        expected = spearmanr(measured.loc[drawn, label], fresh[label]).statistic
        assert check.spearman[label].value == pytest.approx(expected, rel=1e-6)
    groups = screening.fresh_check.features
    scores = {name: measured.loc[features, "clean_score"] for name, features in groups.items()}
    assert scores["predicted_clean"].min() >= scores["random"].max()
    assert scores["random"].min() >= scores["predicted_messy"].max()
    assert screening.skill
    assert screening.controls is not None
    assert Allowlist.load(study.path / "allowlist.json").ranked_by == "measurement"
    assert "every feature measured" in str(study.allowlist(top=5))
    assert "measured" in study._repr_html_()


def test_labels_that_are_not_the_features_own_are_not_trusted(
    study: cs.Study, copied: Path
) -> None:
    directory = RunDirectory.existing(copied)
    order = np.random.default_rng(0).permutation(N)
    for name in (LABELS, HALVES_LABELS):
        table = directory.table(name)
        directory.write_table(name, table.assign(feature=order[table["feature"]]))
    for name in (RANKING, SCREENING):
        (copied / name).unlink()
    shuffled = cs.load_study(copied, progress=False).screen()
    assert shuffled.verdict.overall == "not trusted"
    reasons = [reason for axis in shuffled.verdict.axes.values() for reason in axis.reasons]
    assert "the label's rank correlation with its fresh label is not above zero" in reasons


def test_stopped_in_the_rest_it_goes_on_to_the_same(
    folder: Path, study: cs.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, rest = Evaluator.evaluate, []
    eligible = eligible_features(study.features)

    def stopped(self: Evaluator, plan: Any, *given: Any) -> pd.DataFrame:
        if np.isin(plan.features, eligible).any():
            return whole(self, plan, *given)
        rest.append(plan.features.tolist())
        if len(rest) == 1:
            raise KeyboardInterrupt
        return whole(self, plan, *given)

    monkeypatch.setattr(Evaluator, "evaluate", stopped)
    run = tmp_path / "run"
    arguments = ("screen", folder / "tiny.toml", "--labels", "all", "--run", run)
    assert world.run(monkeypatch, *arguments) == 130
    assert not (run / SCREENING).exists()
    assert world.run(monkeypatch, *arguments) == 0
    assert rest == 2 * [np.setdiff1d(np.arange(N), eligible).tolist()]
    one, other = map(RunDirectory.existing, (folder / "run", run))
    for name in (LABELS, RANKING):
        pd.testing.assert_frame_equal(one.table(name), other.table(name))
    first, second = (
        json.loads((each.path / SCREENING).read_text("utf-8")) for each in (one, other)
    )
    assert first == second


def test_the_command_and_the_report_say_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    arguments = ("screen", folder / "tiny.toml", "--labels", "all", "--run", folder / "run")
    assert world.run(monkeypatch, *arguments) == 0
    shown = " ".join(capfd.readouterr().err.split())
    assert f"{N} features ranked by measurement: {N} of them were steered" in shown
    assert "measured (90 %)" in shown
    assert "Labels: Spearman with the fresh label" in shown
    assert "in linear response" not in shown
    story = reported.data_of(cs.load_study(folder / "run").report(tmp_path / "r.html"))["run-0"]
    assert story["counts"]["ranked_by"] == "measurement"
    assert [section["key"] for section in story["sections"]][:2] == ["forecasts", "fresh"]
    assert len(story["verdict"]["rules"]) == 2
    assert story["missing"] == []


def test_what_follows_knows_such_a_run(study: cs.Study, copied: Path) -> None:
    again = cs.load_study(copied, progress=False)
    pd.testing.assert_frame_equal(again.rank(), study.ranking)
    chosen = again.allowlist(top=10, by="both").features
    assert len(chosen) == 10
    floor = float(study.ranking["predicted_stability_abs_low"].median())
    kept = again.allowlist(min_stability=floor).features
    low = study.ranking.set_index("feature")["predicted_stability_abs_low"]
    assert (low[kept] >= floor).all()
    assert cs.validate(again, progress=False).tables


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--labels", "some"), ("--labels 'some'", "'all'")),
        (("--labels", "-1"), ("n_features = -1", "from 0 on")),
        (("--labels", "all", "--strategy", "uniform"), ("--strategy uniform", "every one")),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...],
    parts: tuple[str, ...],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert world.run(monkeypatch, "screen", folder / "tiny.toml", *arguments, "--run", run) == 2
    world.one_line(capsys, *parts)
    assert not run.exists()


@pytest.mark.parametrize("value", ['"some"', "true", "-3", "2.5"])
def test_a_file_says_a_number_or_all(
    value: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = folder / "bad.toml"
    text = (folder / "tiny.toml").read_text("utf-8")
    path.write_text(text.replace("n_features = 60", f"n_features = {value}"), "utf-8")
    assert world.run(monkeypatch, "screen", path, "--run", tmp_path / "run") == 2
    world.one_line(capsys, "steering.n_features = ", 'a whole number from 0 on, or "all"')
    with pytest.raises(InputError, match="n_features"):
        cs.open_study(folder / "tiny.toml", labels=-1, progress=False)
