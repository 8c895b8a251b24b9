"""Which features are labelled, and in how many contexts: the same again, whatever stops it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import world
from cleansteer.core.tables import read_table
from cleansteer.predictor.model.targets import ABSOLUTE
from cleansteer.steering_eval.evaluation import Evaluator

LABELS = ("labels", "halves", "random_directions")
TABLES = (*LABELS, "fresh_labels", "ranking")
UNCERTAIN = ("--strategy", "uncertain", "--labels", 40)
UNREACHABLE = ("--reliability", 0.999, "--most-contexts", 15)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world.build(folder, "jumprelu")
    return folder


def screened(built: Path, name: str, *options: object) -> Path:
    run = built / name
    with pytest.MonkeyPatch.context() as patch:
        assert world.run(patch, "screen", built / "tiny.toml", "--run", run, *options) == 0
    return run


@pytest.fixture(scope="module")
def plain(built: Path) -> Path:
    return screened(built, "plain", "--labels", 30)


@pytest.fixture(scope="module")
def uncertain(built: Path) -> Path:
    return screened(built, "uncertain", *UNCERTAIN)


@pytest.fixture(scope="module")
def both(built: Path) -> Path:
    """In two rounds, with a reliability that no number of contexts gives."""
    return screened(built, "both", *UNCERTAIN, *UNREACHABLE)


def json_of(run: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / f"{name}.json").read_text("utf-8"))
    return found


def table(run: Path, name: str) -> pd.DataFrame:
    return read_table(run / f"{name}.parquet")


def assert_same(one: Path, other: Path, names: tuple[str, ...] = TABLES) -> None:
    for name in names:
        pd.testing.assert_frame_equal(table(one, name), table(other, name), check_exact=True)


def test_the_first_round_is_labelled_as_a_spread_sample_of_half(
    plain: Path, uncertain: Path
) -> None:
    """30 of 40 at least; the same labels, also: their global value is that of the first round."""
    sample = table(uncertain, "sample")
    first = sample.loc[sample["round"] == 1, "feature"]
    for name in ("labels", "halves"):
        before, after = table(plain, name), table(uncertain, name)
        assert sorted(set(before["feature"])) == first.tolist()
        after = after[after["feature"].isin(first)].reset_index(drop=True)
        pd.testing.assert_frame_equal(before, after, check_exact=True)


def test_the_second_round_is_where_the_committee_is_least_sure(uncertain: Path) -> None:
    sample = table(uncertain, "sample")
    assert sample["feature"].tolist() == sorted(set(table(uncertain, "labels")["feature"]))
    assert sample["round"].value_counts().to_dict() == {1: 30, 2: 10}
    assert (sample["uncertainty"].isna() == (sample["round"] == 1)).all()
    ranking = table(uncertain, "ranking").set_index("feature")
    assert ranking.loc[sample["feature"], "eligible"].all()
    assert json_of(uncertain, "screening")["n_labelled"] == 40


def test_no_reliability_asked_for_no_pilot(plain: Path, uncertain: Path) -> None:
    for run in (plain, uncertain):
        for name in ("manifest", "screening"):
            assert json_of(run, name).get("reliability") is None


def test_a_reliability_that_is_already_met_changes_no_label(
    built: Path, plain: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = screened(built, "met", "--labels", 30, "--reliability", 0.05)
    assert_same(plain, run)
    found = json_of(run, "screening")["reliability"]
    assert found == json_of(run, "manifest")["reliability"]
    assert found["reached"]
    assert found["contexts_per_type"] == 6
    assert len(found["steps"]) == 1
    assert "reaches 0.05 in the pilot" in " ".join(capfd.readouterr().err.split())


def test_one_that_cannot_be_met_stops_at_the_budget_and_says_so(
    built: Path, both: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = json_of(both, "screening")["reliability"]
    assert found == json_of(both, "manifest")["reliability"]
    assert not found["reached"]
    numbers = [step["contexts_per_type"] for step in found["steps"]]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 6
    assert numbers[-1] == found["contexts_per_type"] == found["most_contexts_per_type"] == 15
    for step in found["steps"]:
        assert set(step["reliability"]) == set(ABSOLUTE.judged)
        assert min(step["reliability"].values()) < 0.999
    capfd.readouterr()
    arguments = ("screen", built / "tiny.toml", "--run", both, *UNCERTAIN, *UNREACHABLE)
    assert world.run(monkeypatch, *arguments) == 0
    shown = " ".join(capfd.readouterr().err.split())
    assert "Contexts of each type: 15 a label, from 6" in shown
    assert "does not reach 0.999" in shown
    assert "pilot, 6" not in shown  # it is not measured again


def test_every_label_is_of_the_final_number_of_contexts(both: Path) -> None:
    labels = table(both, "labels")
    assert set(labels["feature"]) == set(table(both, "sample")["feature"])
    typed = labels.set_index("context_type")["n_contexts"]
    assert (typed[["top", "low", "random"]] == 15).all()
    mixed = labels[labels["context_type"] == "mixed"].set_index("feature")["n_contexts"]
    halves = table(both, "halves").groupby("feature")["n_contexts"].sum()
    random = table(both, "random_directions").set_index("feature")["n_contexts"]
    for other in (halves, random):
        assert other.to_dict() == mixed[other.index].to_dict()


def test_the_pilot_is_of_the_sample_and_its_last_figure_of_these_contexts(both: Path) -> None:
    """Where the pilot holds the whole first round, its last step measures what halves.parquet
    holds, without the labels that need every logit.
    """
    from cleansteer.predictor.evidence.controls import split_half

    sample = table(both, "sample")
    first = sample.loc[sample["round"] == 1, "feature"].to_numpy()
    halves = table(both, "halves")
    pair = [
        halves[halves["context_type"] == name].set_index("feature").loc[first]
        for name in ("half-1", "half-2")
    ]
    measured = json_of(both, "screening")["reliability"]["steps"][-1]["reliability"]
    swaps = 0.01  # features whose labels differ by rounding alone may change places
    assert split_half(*pair, ABSOLUTE) == pytest.approx(measured, abs=swaps)


def test_stopped_in_the_middle_of_every_measurement_it_goes_on_to_the_same(
    built: Path, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pilots at least, two rounds, random directions, fresh check: each is stopped once."""
    whole = Evaluator.evaluate
    seen = set()

    def stopped(self: Evaluator, plan: Any, *others: Any) -> pd.DataFrame:
        steering, directions = self._steering.model_dump_json(), others[6]
        work = (plan.features.tobytes(), plan.n_pairs, steering, directions is None)
        if work in seen:
            return whole(self, plan, *others)
        seen.add(work)

        def stop(done: int) -> None:
            raise KeyboardInterrupt

        return whole(self, plan, *others[:5], stop, *others[6:])

    monkeypatch.setattr(Evaluator, "evaluate", stopped)
    run = tmp_path / "run"
    arguments = ("screen", built / "tiny.toml", "--run", run, *UNCERTAIN, *UNREACHABLE)
    codes = [world.run(monkeypatch, *arguments)]
    while codes[-1] == 130:
        assert not (run / "screening.json").exists()
        codes.append(world.run(monkeypatch, *arguments))
    assert codes == [130] * len(seen) + [0]
    assert len(seen) >= 6
    assert_same(both, run, (*TABLES, "sample"))
    assert json_of(run, "screening") == json_of(both, "screening")
    assert not list(run.glob("*unfinished*"))


@pytest.mark.parametrize("lost", ["labels.parquet", "sample.parquet", "features.parquet"])
def test_going_on_after_a_lost_piece_gives_the_same(
    lost: str, built: Path, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(both, run)
    (run / lost).unlink()
    arguments = ("screen", built / "tiny.toml", "--run", run, *UNCERTAIN, *UNREACHABLE)
    assert world.run(monkeypatch, *arguments) == 0
    assert_same(both, run, (*TABLES, "sample"))
    assert json_of(run, "screening") == json_of(both, "screening")


def test_a_uniform_sample_is_the_settings(
    built: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = built / "uniform.toml"
    text = (built / "tiny.toml").read_text("utf-8").replace("n_features = 60", "n_features = 30")
    path.write_text(text + 'sample = "uniform"\n', "utf-8")
    assert world.run(monkeypatch, "evaluate", path, "--run", tmp_path / "file") == 0
    run = screened(built, "uniform", "--labels", 30, "--strategy", "uniform")
    assert_same(run, tmp_path / "file", ("labels", "halves"))
    assert set(table(run, "labels")["feature"]) != set(table(plain, "labels")["feature"])


def test_evaluate_labels_as_the_run_does(
    built: Path, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(both, run)
    before = table(run, "labels")
    others = np.setdiff1d(np.arange(96), before["feature"])[:3].tolist()
    chosen = ",".join(map(str, others))
    setting = built / "tiny.toml"
    assert world.run(monkeypatch, "evaluate", setting, "--run", run, "--features", chosen) == 0
    assert world.run(monkeypatch, "features", setting, "--run", run) == 0
    after = table(run, "labels")
    known = after["feature"].isin(before["feature"])
    pd.testing.assert_frame_equal(after[known].reset_index(drop=True), before, check_exact=True)
    new = after[~known]
    assert sorted(set(new["feature"])) == others
    assert (new.loc[new["context_type"] == "top", "n_contexts"] == 15).all()
    assert json_of(run, "manifest")["reliability"] == json_of(both, "manifest")["reliability"]
    arguments = ("evaluate", setting, "--run", run, "--mode", "clamp_q95")
    assert world.run(monkeypatch, *arguments) == 0
    clamped = table(run, "labels").query("mode == 'clamp_q95'")
    assert set(clamped["feature"]) == set(table(both, "sample")["feature"])


def test_what_another_command_left_off_is_in_nobodys_way(
    built: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    (run / "unfinished" / "work-0").mkdir(parents=True)
    arguments = ("evaluate", built / "tiny.toml", "--run", run, "--mode", "clamp_q95")
    assert world.run(monkeypatch, *arguments) == 0
    assert (run / "unfinished" / "work-0").is_dir()


def test_labels_without_the_vocabulary_are_screened_too(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = built / "lean.toml"
    path.write_text(
        (built / "tiny.toml").read_text("utf-8") + "vocabulary_labels = false\n", "utf-8"
    )
    run = tmp_path / "run"
    assert world.run(monkeypatch, "screen", path, "--run", run, "--labels", 20) == 0
    controls = json_of(run, "screening")["controls"]
    assert "kl_clean_steered" not in controls["reliability"]
    assert set(controls["random_directions"]["labels"]) < set(controls["reliability"])


REFUSED: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
    *(
        (("--reliability", given), ("reliability", str(given), "give another value"))
        for given in (0, 1, 1.5, -0.2, "nan", "inf")
    ),
    (("--reliability", "high"), ("high", "--reliability")),
    (
        ("--reliability", 0.8, "--most-contexts", 5),
        ("most_contexts_per_type", "5", "contexts_per_type` = 6", "--most-contexts"),
    ),
    (("--reliability", 0.8, "--most-contexts", 1), ("most_contexts_per_type", "1")),
    (("--most-contexts", 12), ("12", "`reliability`", "--reliability R")),
    (("--strategy", "greedy"), ("'greedy'", "'uniform'", "'frequency-spread'", "'uncertain'")),
    (("--strategy", ""), ("''", "'uniform'")),
    (
        ("--strategy", "uncertain", "--labels", 0),
        ("--strategy uncertain", "--labels 0 labels none"),
    ),
    (("--reliability", 0.8, "--labels", 0), ("`reliability` = 0.8", "`n_features` is 0")),
    (("--most-contexts", 12, "--labels", 0), ("12", "`reliability`", "--reliability R")),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "expected"), REFUSED, ids=lambda some: " ".join(map(str, some))
)
def test_wrong_spending_is_one_line(
    options: tuple[object, ...],
    expected: tuple[str, ...],
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert world.run(monkeypatch, "screen", built / "tiny.toml", "--run", run, *options) == 2
    world.one_line(capfd, *expected)
    assert not run.exists()
