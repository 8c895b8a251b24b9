"""Doses: how strongly features can be steered, and several strengths from the command line."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import world
from cleansteer.core.tables import read_table
from cleansteer.steering_eval.doses import DEFAULT_BUDGET, recommend

ALPHAS = (0.5, 1.0, 2.0, 4.0)
FEATURES = "4,8,10,40,77"
KEYS = ["feature", "alpha", "context_type"]
ADDED = {
    "kl_budget",
    "recommended_alpha",
    "recommended_coefficient",
    "recommended_kl",
    "all_doses_within",
}


def doses(seed: int, n_features: int = 60, alphas: tuple[float, ...] = ALPHAS) -> pd.DataFrame:
    """Rows in any order; KL is not always rising, ends above and below 0.1, and sometimes NaN."""
    generator = np.random.default_rng(seed)
    features = generator.permutation(1000)[:n_features]
    rows = pd.DataFrame(
        [(f, a, 3.5 * a) for f in features for a in alphas],
        columns=["feature", "alpha", "coefficient"],
    )
    size = 0.03 * np.repeat(generator.lognormal(sigma=2.0, size=n_features), len(alphas))
    noise = generator.lognormal(sigma=0.7, size=len(rows))
    rows["kl_clean_steered"] = size * rows["alpha"] ** 2 * noise
    rows.loc[generator.random(len(rows)) < 0.05, "kl_clean_steered"] = np.nan
    return rows.sample(frac=1, random_state=seed)


def expected(rows: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Feature by feature, as the words say it."""
    found = []
    for feature in sorted(set(rows["feature"])):
        own = [row for _, row in rows.iterrows() if row["feature"] == feature]
        within = [row for row in own if row["kl_clean_steered"] <= budget]
        best = max(within, key=lambda row: abs(row["alpha"]), default=None)
        strongest = max(own, key=lambda row: abs(row["alpha"]))
        none = best is None
        found.append(
            {
                "feature": feature,
                "kl_budget": budget,
                "recommended_alpha": np.nan if none else best["alpha"],
                "recommended_coefficient": np.nan if none else best["coefficient"],
                "recommended_kl": np.nan if none else best["kl_clean_steered"],
                "all_doses_within": not none and best["alpha"] == strongest["alpha"],
            }
        )
    return pd.DataFrame(found)


@pytest.mark.parametrize("budget", [0.05, DEFAULT_BUDGET, 0.2])
@pytest.mark.parametrize("alphas", [ALPHAS, (-4.0, -1.0, -0.5), (-2.0, 0.5, 1.0)], ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_the_strongest_dose_within_the_budget(
    seed: int, alphas: tuple[float, ...], budget: float
) -> None:
    rows = doses(seed, alphas=alphas)
    found = recommend(rows, budget)
    pd.testing.assert_frame_equal(found, expected(rows, budget), check_dtype=False)
    assert found["feature"].is_monotonic_increasing
    assert 0 < found["recommended_alpha"].isna().sum() < len(found)
    assert 0 < found["all_doses_within"].sum() < len(found)
    assert found["recommended_alpha"].nunique() == len(alphas)


def test_without_a_budget_it_is_a_tenth_of_a_nat() -> None:
    pd.testing.assert_frame_equal(recommend(doses(0)), recommend(doses(0), 0.1))


def test_the_order_of_rows_changes_nothing() -> None:
    rows = doses(0)
    for seed in range(3):
        moved = rows.sample(frac=1, random_state=seed)
        pd.testing.assert_frame_equal(recommend(moved), recommend(rows), check_exact=True)


def test_a_larger_budget_never_recommends_less() -> None:
    rows = doses(1)
    found = [recommend(rows, budget) for budget in (1e-9, 0.001, 0.01, 0.1, 1.0, np.inf)]
    for small, large in itertools.pairwise(found):
        less = small["recommended_alpha"].fillna(0.0)
        assert (less <= large["recommended_alpha"].fillna(0.0)).all()
        assert (small["all_doses_within"] <= large["all_doses_within"]).all()
    assert found[0]["recommended_alpha"].isna().all()
    assert not found[0]["all_doses_within"].any()


def test_a_dose_at_the_budget_is_within_it() -> None:
    rows = doses(2).dropna()
    one = rows.iloc[[0]]
    kl = float(one["kl_clean_steered"].iloc[0])
    assert recommend(one, kl)["recommended_alpha"].notna().all()
    assert recommend(one, np.nextafter(kl, 0.0))["recommended_alpha"].isna().all()


def test_features_do_not_matter_to_each_other() -> None:
    rows = doses(3)
    together = recommend(rows).set_index("feature")
    for feature, own in rows.groupby("feature"):
        alone = recommend(own).set_index("feature")
        pd.testing.assert_frame_equal(alone, together.loc[[feature]])


# `cleansteer evaluate --alpha 0.5,1,2,4` on the tiny world


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world, with a run that has its statistics."""
    folder = tmp_path_factory.mktemp("world")
    world.build(folder)
    with pytest.MonkeyPatch.context() as patch:
        code = world.run(patch, "features", folder / "tiny.toml", "--run", folder / "measured")
    assert code == 0
    return folder


def evaluate(built: Path, run: Path, patch: pytest.MonkeyPatch, *arguments: object) -> int:
    if not run.exists():
        shutil.copytree(built / "measured", run)
    return world.run(patch, "evaluate", built / "tiny.toml", "--run", run, *arguments)


@pytest.fixture(scope="module")
def budget(dosed: Path) -> float:
    """In the middle of what was measured."""
    labels = read_table(dosed / "labels.parquet")
    return float(labels.loc[labels["context_type"] == "mixed", "kl_clean_steered"].median())


@pytest.fixture(scope="module")
def dosed(built: Path) -> Path:
    run = built / "dosed"
    with pytest.MonkeyPatch.context() as patch:
        code = evaluate(built, run, patch, "--features", FEATURES, "--alpha", "2,0.5,4,1,2")
    assert code == 0
    return run


def test_rows_equal_single_runs(built: Path, dosed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = []
    for alpha in ALPHAS:
        run = built / f"alone-{alpha}"
        assert evaluate(built, run, monkeypatch, "--features", FEATURES, "--alpha", alpha) == 0
        alone.append(read_table(run / "labels.parquet"))
        assert set(alone[-1]["alpha"]) == {alpha}
        assert not (run / "doses.parquet").exists()
    expected = pd.concat(alone).sort_values(KEYS, ignore_index=True)
    labels = read_table(dosed / "labels.parquet")
    assert len(labels) == len(ALPHAS) * 5 * 4  # features, context types
    pd.testing.assert_frame_equal(
        labels.sort_values(KEYS, ignore_index=True), expected, check_exact=True
    )
    coefficient = labels.groupby("alpha")["coefficient"].unique()
    assert [len(values) for values in coefficient] == [1] * 4
    scale = coefficient.map(lambda values: values[0]) / coefficient.index
    np.testing.assert_allclose(scale, scale.iloc[0], rtol=1e-12)


def test_a_row_for_every_coefficient_and_feature(
    built: Path,
    dosed: Path,
    budget: float,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    capfd.readouterr()
    arguments = ("--features", FEATURES, "--alpha", "0.5,1,2,4", "--kl-budget", budget, "--json")
    assert evaluate(built, dosed, monkeypatch, *arguments) == 0
    rows = pd.DataFrame(json.loads(capfd.readouterr().out))
    labels = read_table(dosed / "labels.parquet")
    mixed = labels[labels["context_type"] == "mixed"]
    assert sorted(zip(rows["feature"], rows["alpha"], strict=True)) == sorted(
        (int(feature), alpha) for feature in FEATURES.split(",") for alpha in ALPHAS
    )
    assert set(rows.columns) - set(labels.columns) == ADDED
    written = read_table(dosed / "doses.parquet")
    wanted = expected(mixed, budget)
    pd.testing.assert_frame_equal(written, wanted, check_dtype=False)
    assert wanted["recommended_alpha"].nunique() > 1
    shown = rows.drop_duplicates("feature")[["feature", *sorted(ADDED)]]
    np.testing.assert_allclose(
        shown.sort_values("feature").astype(float), wanted[list(shown.columns)].astype(float)
    )
    for _, row in rows[rows["alpha"] == rows["recommended_alpha"]].iterrows():
        assert row["coefficient"] == row["recommended_coefficient"]
        assert row["kl_clean_steered"] == pytest.approx(row["recommended_kl"])
        assert row["recommended_kl"] <= budget


def test_measured_strengths_are_not_measured_again_and_the_rest_stays(
    built: Path,
    dosed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(dosed, run)
    before = read_table(run / "labels.parquet")
    monkeypatch.setattr(
        "cleansteer.steering_eval.evaluation.Evaluator.evaluate",
        lambda *arguments, **named: pytest.fail("measured again"),
    )
    capfd.readouterr()
    assert evaluate(built, run, monkeypatch, "--features", "40,8", "--alpha", "1,4") == 0
    out, err = capfd.readouterr()
    assert out == ""
    pd.testing.assert_frame_equal(read_table(run / "labels.parquet"), before, check_exact=True)
    mixed = before[
        (before["context_type"] == "mixed")
        & before["feature"].isin([8, 40])
        & before["alpha"].isin([1.0, 4.0])
    ]
    pd.testing.assert_frame_equal(
        read_table(run / "doses.parquet"), expected(mixed, DEFAULT_BUDGET), check_dtype=False
    )
    lines = [line.split() for line in err.splitlines()]
    assert [line[:2] for line in lines if line and line[0] in ("0.5", "1", "2", "4")] == [
        ["1", "2"],
        ["4", "2"],
    ]
    assert "stays within 0.1 nats" in " ".join(err.split())


def test_doses_of_the_sample_are_of_the_sample_alone(
    built: Path, dosed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feature that was measured at one of the strengths before has no dose-response."""
    run = tmp_path / "run"
    shutil.copytree(dosed, run)
    assert evaluate(built, run, monkeypatch, "--features", 5, "--alpha", 4) == 0
    monkeypatch.setattr(
        "cleansteer.study.labelling.Labelling.sample", lambda self: np.array([8, 40])
    )
    assert evaluate(built, run, monkeypatch, "--alpha", "1,4") == 0
    assert read_table(run / "doses.parquet")["feature"].tolist() == [8, 40]


CLAMPED = ("takes no strength", "--mode add")
BUDGET = ("--kl-budget", "several strengths")
CASES: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    *(
        (("--alpha", given), ("--alpha", repr(named), "not a strength"))
        for given, named in [
            ("0", "0"),
            ("nan", "nan"),
            ("x", "x"),
            ("inf", "inf"),
            ("", ""),
            ("1e-999", "1e-999"),
            ("1,0,2", "0"),
            ("1,,2", ""),
            ("0.5, -inf", "-inf"),
            ("1;2", "1;2"),
        ]
    ),
    (("--alpha", "2", "--mode", "clamp_q95"), ("--alpha 2", "clamp_q95", *CLAMPED)),
    (("--alpha", "1,2", "--mode", "clamp_global"), ("--alpha 1,2", "clamp_global", *CLAMPED)),
    (("--kl-budget", "0.1"), BUDGET),
    (("--kl-budget", "0.1", "--alpha", "2"), BUDGET),
    (("--kl-budget", "0.1", "--alpha", "2,2"), BUDGET),
    (("--kl-budget", "0", "--alpha", "1,2"), ("--kl-budget 0", "above 0")),
    (("--kl-budget", "-1", "--alpha", "1,2"), ("--kl-budget -1", "above 0")),
    (("--kl-budget", "nan", "--alpha", "1,2"), ("--kl-budget nan", "above 0")),
    (("--kl-budget", "small", "--alpha", "1,2"), ("small",)),
]


def assert_refused(
    built: Path,
    arguments: tuple[str, ...],
    parts: tuple[str, ...],
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    setting: str = "tiny.toml",
) -> None:
    capfd.readouterr()
    assert world.run(monkeypatch, "evaluate", built / setting, "--run", run, *arguments) == 2
    world.one_line(capfd, *parts)
    assert not run.exists()


@pytest.mark.parametrize(("arguments", "parts"), CASES, ids=lambda some: " ".join(some))
def test_wrong_strengths_are_one_line(
    arguments: tuple[str, ...],
    parts: tuple[str, ...],
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert_refused(built, arguments, parts, tmp_path / "run", monkeypatch, capfd)


@pytest.mark.parametrize(
    ("key", "alphas", "parts"),
    [
        ('mode = "clamp_q95"', "1", ("clamp_q95", *CLAMPED)),
        ("vocabulary_labels = false", "1,2", ("vocabulary_labels = false", "set it to true")),
    ],
)
def test_strengths_that_the_setting_has_no_use_for_are_one_line(
    key: str,
    alphas: str,
    parts: tuple[str, ...],
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    text = (built / "tiny.toml").read_text("utf-8")
    (built / "other.toml").write_text(text.replace("alpha = 0.7", key), "utf-8")
    arguments, run = ("--alpha", alphas), tmp_path / "run"
    assert_refused(built, arguments, parts, run, monkeypatch, capfd, "other.toml")
