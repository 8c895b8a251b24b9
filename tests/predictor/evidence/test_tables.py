"""Tables: a run, its export and others' tables are read alike; what is wrong with one is told."""

from pathlib import Path

import minimal
import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.core.errors import InputError
from cleansteer.core.records import Manifest
from cleansteer.core.settings import SteeringSetting
from cleansteer.predictor.evidence.tables import (
    REPLICATION,
    STATISTIC_PREFIXES,
    LabelledTable,
    read_columns,
    read_labelled,
    read_run,
)
from cleansteer.predictor.model.targets import ABSOLUTE, clean_score
from exports import MEASURED, as_run, exported, write


def assert_same(one: LabelledTable, other: LabelledTable) -> None:
    order = one.statistics.index
    pd.testing.assert_frame_equal(
        other.statistics.loc[order, list(one.statistics)], one.statistics, check_exact=True
    )
    mine, theirs = (t.labels.loc[order].select_dtypes("number") for t in (one, other))
    shared = mine.columns.intersection(theirs.columns)
    assert set(ABSOLUTE.targets) <= set(shared)
    pd.testing.assert_frame_equal(theirs[shared], mine[shared], check_names=False)


def test_statistics_are_known_by_how_they_begin_and_labels_are_other_numbers(
    tmp_path: Path,
) -> None:
    table = exported().assign(note="x", input_score=1.5)
    found = read_labelled(write(tmp_path / "mine.csv", table))
    assert found.name == "mine"
    assert list(found.statistics) == list(synthetic.STATISTICS)
    assert set(found.labels) == {*ABSOLUTE.targets, "input_score"}
    assert list(found.statistics.index) == list(found.labels.index) == list(table["feature"])
    assert found.halves is None
    assert found.notes == []


def test_scores_are_computed_from_what_was_measured(tmp_path: Path) -> None:
    table = exported()
    labels = read_labelled(write(tmp_path / "t.csv", table)).labels
    per_effect = table["collateral_count_0.05"] / (table["effect_l2"] + 1e-8)
    np.testing.assert_allclose(labels["collateral_per_effect"], per_effect)
    np.testing.assert_allclose(labels["clean_score"], clean_score(table))


def test_scores_that_are_there_are_kept(tmp_path: Path) -> None:
    own = exported().assign(collateral_per_effect=np.arange(40.0), clean_score=-np.arange(40.0))
    labels = read_labelled(write(tmp_path / "t.csv", own)).labels
    assert list(labels["collateral_per_effect"]) == list(range(40))
    assert list(labels["clean_score"]) == [-n for n in range(40)]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_run_and_its_export_are_read_alike(tmp_path: Path, ending: str) -> None:
    table = exported()
    run = read_labelled(as_run(tmp_path / "run", table))
    assert run.name == "run"
    assert len(run.statistics) == 40
    other = read_labelled(write(tmp_path / f"export.{ending}", table))
    assert_same(run, other)


def test_a_run_is_named_also_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = as_run(tmp_path / "run", exported())
    monkeypatch.chdir(run)
    assert read_labelled(Path()).name == "run"


def test_halves_of_a_run_are_those_of_the_labelled_features_that_have_them(tmp_path: Path) -> None:
    table = exported()
    run = as_run(tmp_path / "run", table)
    halves = table[["feature", *MEASURED]].assign(other=1.0)
    some = pd.concat(
        [
            halves.iloc[:30].assign(context_type="half-1"),
            halves.iloc[::-1].assign(context_type="half-2"),
        ]
    )
    write(run / "halves.parquet", some)
    found = read_labelled(run).halves
    assert found is not None
    one, two = found
    assert list(one.index) == list(two.index) == sorted(table["feature"].iloc[:30])
    assert np.isfinite(one[list(MEASURED)].to_numpy()).all()
    write(run / "halves.parquet", some.iloc[:30])
    assert read_labelled(run).halves is None


def test_other_context_types_are_ignored(tmp_path: Path) -> None:
    table = exported()
    typed = [
        table.assign(context_type="top", effect_l2=99.0),
        table.assign(context_type="mixed"),
        table.assign(context_type="low", effect_l2=np.nan),
    ]
    alike = read_labelled(write(tmp_path / "typed.csv", pd.concat(typed)))
    assert_same(read_labelled(write(tmp_path / "plain.csv", table)), alike)


def test_the_replications_tables_are_recognised(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.random((40, len(REPLICATION)))
    theirs = pd.DataFrame(values, columns=list(REPLICATION)).assign(
        effect_l2=generator.random(40), effect_cv=0.5, feature=np.arange(40)
    )
    found = read_labelled(write(tmp_path / "t.csv", theirs))
    assert found.notes == ["columns are the replication's, renamed to ours"]
    ours = {name for name in REPLICATION.values() if name.startswith(STATISTIC_PREFIXES)}
    assert set(found.statistics) == ours
    assert len(ours) == 19
    for name, own in REPLICATION.items():
        side = found.statistics if own in ours else found.labels
        np.testing.assert_allclose(side[own], theirs[name])
    assert {*ABSOLUTE.targets, "stability_signed", "kl_clean_steered", "effect_cv"} <= set(
        found.labels
    )
    by_hand = read_labelled(tmp_path / "t.csv", REPLICATION)
    assert by_hand.notes == []
    assert_same(found, by_hand)


def test_a_users_mapping(tmp_path: Path) -> None:
    table = exported()
    names = {"id": "feature", "norm": "decoder_norm", "size": "effect_l2"}
    theirs = table.rename(columns={ours: name for name, ours in names.items()})
    lines = "".join(f'{name} = "{ours}"\n' for name, ours in names.items())
    (tmp_path / "map.toml").write_text(f"[columns]\n{lines}", "utf-8")
    mapping = read_columns(tmp_path / "map.toml")
    assert mapping == names
    found = read_labelled(write(tmp_path / "theirs.csv", theirs), mapping)
    assert_same(read_labelled(write(tmp_path / "ours.csv", table)), found)


def test_what_says_nothing_or_is_missing_is_noted(tmp_path: Path) -> None:
    table = exported().assign(decoder_norm=1.0).drop(columns="stability_abs")
    found = read_labelled(write(tmp_path / "t.csv", table))
    assert "decoder_norm" not in found.statistics
    assert found.notes == [
        "without the labels clean_score, stability_abs",
        "the same for all features, so left out: decoder_norm",
    ]


def test_controls_are_every_column_once() -> None:
    statistics = pd.DataFrame({"final_act_mean": [1.0, 2.0], "both": [3.0, 4.0]})
    labels = pd.DataFrame({"effect_l2": [5.0, 6.0], "both": [7.0, 8.0]})
    controls = LabelledTable("t", statistics, labels).controls()
    assert sorted(controls) == ["both", "effect_l2", "final_act_mean"]
    assert list(controls["both"]) == [3.0, 4.0]


def with_manifest(run: Path) -> SteeringSetting:
    """Make it a run of the least setting; how that steers."""
    setting = minimal.setting().replace("steering", collateral="absolute")
    Manifest(
        setting=setting,
        setting_fingerprint=setting.fingerprint,
        setting_folder=str(setting.folder),
        versions={},
    ).write(run / "manifest.json")
    return setting.steering


def test_labels_of_another_mode_beside_a_runs_own_are_not_taken(tmp_path: Path) -> None:
    """As ``cleansteer evaluate --mode`` leaves them, of the same and of other features."""
    run = as_run(tmp_path / "run", exported())
    steering = minimal.setting().steering
    labels = pd.read_parquet(run / "labels.parquet").assign(alpha=steering.alpha)
    write(run / "labels.parquet", labels)
    before = read_labelled(run)
    others = labels.assign(mode="clamp_q95", effect_l2=0.5)
    strange = others.assign(feature=others["feature"] + 10_000)
    stronger = labels.assign(alpha=7.0, effect_l2=0.5)
    write(run / "labels.parquet", pd.concat([labels, others, strange, stronger]))
    with pytest.raises(InputError, match="labelled more than once"):
        read_labelled(run)
    with_manifest(run)
    assert_same(before, read_labelled(run))


@pytest.mark.parametrize("manifest", [True, False])
def test_only_the_sample_counts_where_a_run_keeps_it(tmp_path: Path, manifest: bool) -> None:
    """As ``cleansteer evaluate --features`` leaves a run: features steered by hand stand beside the
    sample, in labels and halves, in the setting's own mode and strength.
    """
    steering = minimal.setting().steering
    table = exported().assign(mode=steering.mode, alpha=steering.alpha)
    run = as_run(tmp_path / "run", table)
    sample = table["feature"].iloc[:35]
    halves = [table.assign(context_type=name) for name in ("half-1", "half-2")]
    write(run / "halves.parquet", pd.concat(halves))
    if manifest:
        with_manifest(run)
    assert len(read_labelled(run).labels) == 40
    write(run / "sample.parquet", pd.DataFrame({"feature": sample}))
    taken = read_labelled(run)
    assert sorted(taken.labels.index) == sorted(sample)
    assert all(sorted(half.index) == sorted(sample) for half in taken.halves or ())
    alone = as_run(tmp_path / "alone", table.iloc[:35])
    assert_same(read_labelled(alone), taken)
    write(run / "sample.parquet", pd.DataFrame({"feature": [77_777]}))
    with pytest.raises(InputError, match="label table is empty, expected a row a feature"):
        read_labelled(run)


def test_some_features_of_a_run_as_if_no_others_were_labelled(tmp_path: Path) -> None:
    table = exported()
    run = as_run(tmp_path / "run", table)
    some = table["feature"].iloc[3:20]
    alone = as_run(tmp_path / "alone", table.iloc[3:20])
    assert_same(read_labelled(alone), read_run(run, some))
    with pytest.raises(InputError, match="none of the features asked for is labelled"):
        read_run(run, [77_777])
