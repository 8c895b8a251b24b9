"""The predictor: deterministic, by column name, without extrapolation, saved as plain text."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.core.errors import InputError
from cleansteer.predictor.models import (
    AnchoredBoosting,
    LogTransform,
    ModularityPredictor,
    paper_ridge,
)
from scipy.stats import spearmanr
from sklearn.base import clone

FITTED = ("clean_score", "effect_l2")
N = 150


def fitted(seed: int = 0, noise: float = 0.3) -> tuple[ModularityPredictor, pd.DataFrame]:
    table = synthetic.statistics(N, seed=1)
    predictor = ModularityPredictor(FITTED, seed)
    return predictor.fit(table, synthetic.labels(table, noise, seed=1)), table


def fresh(n: int = 60) -> pd.DataFrame:
    return synthetic.statistics(n, seed=2)


def values(n: int = N, seed: int = 1, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    table = synthetic.statistics(n, seed)
    return table.to_numpy(), synthetic.labels(table, noise, seed)["clean_score"].to_numpy()


def test_saved_and_loaded_it_predicts_the_same(tmp_path: Path) -> None:
    predictor, table = fitted()
    predictor.save(tmp_path / "deep" / "predictor")
    loaded = ModularityPredictor.load(tmp_path / "deep" / "predictor")
    for rows in (table, fresh(), 100 * fresh()):
        pd.testing.assert_frame_equal(
            loaded.predict(rows), predictor.predict(rows), check_exact=True
        )
    loaded.save(tmp_path / "again")
    for file in (tmp_path / "again").iterdir():
        assert file.read_bytes() == (tmp_path / "deep" / "predictor" / file.name).read_bytes()


def test_files_are_text_that_names_everything(tmp_path: Path) -> None:
    predictor, _ = fitted()
    predictor.save(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".txt"}
    for file in tmp_path.iterdir():
        assert file.read_text("utf-8").replace("\n", " ").isprintable()
    data = json.loads((tmp_path / "predictor.json").read_text("utf-8"))
    assert data["columns"] == list(synthetic.STATISTICS)
    assert tuple(data["models"]) == FITTED


def test_unpickling_is_never_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was read or written")

    predictor, table = fitted()
    for name in ("load", "loads", "dump", "dumps", "Unpickler", "Pickler"):
        monkeypatch.setattr(pickle, name, refuse)
    predictor.save(tmp_path)
    assert len(ModularityPredictor.load(tmp_path).predict(table)) == N


def test_rows_and_columns_may_come_in_any_order() -> None:
    predictor, _ = fitted()
    rows = fresh()
    expected = predictor.predict(rows)
    assert list(expected.columns) == list(FITTED)
    mixed = rows.assign(unknown=np.nan).sample(frac=1, random_state=0)[
        ["unknown", *reversed(rows.columns)]
    ]
    pd.testing.assert_frame_equal(
        predictor.predict(mixed), expected.loc[mixed.index], check_exact=True
    )
    alone = pd.concat([predictor.predict(rows.iloc[[i]]) for i in range(len(rows))])
    pd.testing.assert_frame_equal(alone, expected)


def test_the_anchor_does_not_depend_on_the_order_of_rows_or_columns() -> None:
    X, y = values()
    rows = np.random.default_rng(0).permutation(len(y))
    columns = np.random.default_rng(1).permutation(X.shape[1])
    plain = AnchoredBoosting(0).fit(X, y)
    moved = AnchoredBoosting(0).fit(X[np.ix_(rows, columns)], y[rows])
    np.testing.assert_allclose(moved.coefficients, plain.coefficients[columns], rtol=1e-8)
    assert moved.intercept == pytest.approx(plain.intercept)


def test_the_anchor_is_a_ridge_on_standardised_columns() -> None:
    """Z'(y - Zw - b) = alpha w for one alpha, and residuals add up to 0: b is the intercept."""
    X, y = values()
    model = AnchoredBoosting(0).fit(X, y)
    Z = model.transform(X)
    residual = y - Z @ model.coefficients - model.intercept
    assert residual.mean() == pytest.approx(0, abs=1e-12)
    deviation = Z.std(axis=0)
    standardised = (Z - Z.mean(axis=0)) / deviation
    alphas = standardised.T @ residual / (model.coefficients * deviation)
    np.testing.assert_allclose(alphas, alphas[0], rtol=1e-6)
    assert alphas[0] > 0


def test_a_row_outside_the_range_predicts_as_the_clipped_one() -> None:
    predictor, table = fitted()
    generator = np.random.default_rng(0)
    for scale in (10.0, 1e6):
        outside = fresh() + scale * generator.normal(size=(60, table.shape[1]))
        clipped = outside.clip(table.min(), table.max(), axis=1)
        assert not clipped.equals(outside)
        pd.testing.assert_frame_equal(
            predictor.predict(outside), predictor.predict(clipped), check_exact=True
        )


def test_a_feature_unlike_all_labelled_ones_is_not_extrapolated_to() -> None:
    """A straight line through two statistics would leave the labels' range far behind."""
    predictor, table = fitted()
    labels = synthetic.labels(table, 0.3, seed=1)
    strange = pd.DataFrame(1e30, index=[7], columns=table.columns).assign(final_act_freq=0.0)
    predicted = predictor.predict(strange).iloc[0]
    for target in FITTED:
        spread = np.ptp(labels[target])
        assert labels[target].min() - spread < predicted[target] < labels[target].max() + spread


def test_the_transform_is_its_formula() -> None:
    X = np.array([[0.0, 0.0, -3.0], [10.0, 0.0, 1.0], [30.0, 0.0, 2.0], [50.0, 0.0, 0.0]])
    transform = LogTransform().fit(X)
    scale = np.array([3.0, 1.0, 0.2])  # a tenth of the median of what is not 0; 1 without any
    np.testing.assert_allclose(transform(X), np.sign(X) * np.log1p(np.abs(X) / scale))


def test_the_transform_rises_and_is_odd() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(200, 3)) * [1, 1e-6, 1e6]
    transform = LogTransform().fit(X)
    assert (np.diff(transform(np.sort(X, axis=0)), axis=0) > 0).all()
    np.testing.assert_array_equal(LogTransform().fit(-X)(-X), -transform(X))


@pytest.mark.parametrize("unit", [2.0**-30, 4.0, 2.0**30])
def test_statistics_have_no_unit(unit: float) -> None:
    """Powers of two scale without rounding, so that every split stays where it was."""
    X, y = values()
    new = fresh().to_numpy()
    one = AnchoredBoosting(0).fit(X, y).predict(new)
    other = AnchoredBoosting(0).fit(unit * X, y).predict(unit * new)
    np.testing.assert_allclose(other, one, rtol=1e-9)


def test_labels_have_no_unit_and_no_zero() -> None:
    X, y = values()
    new = fresh().to_numpy()
    one = AnchoredBoosting(0).fit(X, y).predict(new)
    doubled = AnchoredBoosting(0).fit(X, 2 * y).predict(new)
    np.testing.assert_allclose(doubled, 2 * one, rtol=1e-9)
    moved = AnchoredBoosting(0).fit(X, y + 5).predict(new)
    np.testing.assert_allclose(moved, one + 5, atol=0.02 * y.std())  # splits may tie otherwise


def test_constant_labels_are_predicted_as_they_are() -> None:
    X, _ = values()
    predicted = AnchoredBoosting(0).fit(X, np.full(N, 3.5)).predict(fresh().to_numpy())
    np.testing.assert_allclose(predicted, 3.5, rtol=1e-6)


def test_a_statistic_that_is_the_same_everywhere_says_nothing() -> None:
    X, y = values()
    for constant in (0.0, 7.0):
        wider = np.column_stack([X, np.full(N, constant)])
        model, plain = AnchoredBoosting(0).fit(wider, y), AnchoredBoosting(0).fit(X, y)
        np.testing.assert_allclose(model.coefficients[:-1], plain.coefficients, rtol=1e-8)
        assert model.intercept + model.coefficients[-1] * model.transform(wider)[0, -1] == (
            pytest.approx(plain.intercept)
        )


def test_same_seed_same_predictions_other_seed_others() -> None:
    one, again, other = (fitted(seed)[0].predict(fresh()) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, again, check_exact=True)
    assert not np.allclose(one, other, rtol=1e-6)
    assert one.corrwith(other).min() > 0.9


def test_the_boosting_adds_what_is_not_linear() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(1200, 4))
    y = X[:, 0] * np.sign(X[:, 1]) + 0.1 * generator.normal(size=1200)
    train, test = slice(900), slice(900, None)
    ours = AnchoredBoosting(0).fit(X[train], y[train]).predict(X[test])
    linear = paper_ridge(X[train], y[train], X[test])
    assert spearmanr(ours, y[test]).statistic > 0.6
    assert abs(spearmanr(linear, y[test]).statistic) < 0.3


def test_targets_are_fitted_apart() -> None:
    """Another target's labels change nothing."""
    table = synthetic.statistics(N, seed=1)
    labels = synthetic.labels(table, 0.3, seed=1)
    alone = ModularityPredictor(FITTED[:1]).fit(table, labels).predict(fresh())
    other = labels.assign(effect_l2=labels["effect_l2"].to_numpy()[::-1])
    together = ModularityPredictor(FITTED).fit(table, other).predict(fresh())
    pd.testing.assert_frame_equal(together[["clean_score"]], alone, check_exact=True)


@pytest.mark.parametrize("seed", range(3))
def test_the_papers_ridge_is_its_formula(seed: int) -> None:
    X, y = values(seed=seed)
    new = fresh().to_numpy()
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    weights = np.linalg.solve(Z.T @ Z + np.eye(X.shape[1]), Z.T @ (y - y.mean()))
    expected = (new - X.mean(axis=0)) / X.std(axis=0) @ weights + y.mean()
    np.testing.assert_allclose(paper_ridge(X, y, new), expected, rtol=1e-9)


def test_a_clone_is_set_up_alike() -> None:
    predictor, _ = fitted(seed=3)
    copied = clone(predictor)
    assert copied.get_params() == {"targets": FITTED, "seed": 3}
    assert not hasattr(copied, "models_")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(value: float) -> None:
    table = synthetic.statistics(N, seed=1)
    labels = synthetic.labels(table, 0.3, seed=1)
    predictor = ModularityPredictor(FITTED).fit(table, labels)
    row = table.index[17]
    broken, unlabelled = table.copy(), labels.copy()
    broken.loc[row, "decoder_norm"] = unlabelled.loc[row, "effect_l2"] = value
    with pytest.raises(InputError, match=f"'decoder_norm' holds {value} for feature {row},"):
        ModularityPredictor(FITTED).fit(broken, labels)
    with pytest.raises(InputError, match=f"'effect_l2' holds {value} for feature {row},"):
        ModularityPredictor(FITTED).fit(table, unlabelled)
    with pytest.raises(InputError, match=f"'decoder_norm' holds {value} for feature {row},"):
        predictor.predict(broken)


def test_missing_targets_and_statistics_are_named() -> None:
    predictor, table = fitted()
    labels = synthetic.labels(table, 0.3, seed=1)
    with pytest.raises(InputError, match="labels lack the target 'effect_l2'"):
        ModularityPredictor(FITTED).fit(table, labels[["clean_score"]])
    with pytest.raises(InputError, match="lacks the statistics decoder_norm, direct_logit_l2 "):
        predictor.predict(table.drop(columns=["decoder_norm", "direct_logit_l2"]))


def test_other_formats_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"predictor\.json does not exist"):
        ModularityPredictor.load(tmp_path)
    predictor, _ = fitted()
    predictor.save(tmp_path)
    trees = sorted(tmp_path.glob("trees-*.txt"))[0]
    text = trees.read_text("utf-8")
    trees.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        ModularityPredictor.load(tmp_path)
    for cut in (0, 400, 1000, len(text) // 2, len(text) - 1):  # LightGBM's parser would crash
        trees.write_text(text[:cut], "utf-8")
        with pytest.raises(InputError, match="checksum"):
            ModularityPredictor.load(tmp_path)
    trees.write_text(text, "utf-8")
    file = tmp_path / "predictor.json"
    file.write_text(file.read_text("utf-8").replace("predictor/1", "predictor/2"), "utf-8")
    with pytest.raises(InputError, match="has format 'cleansteer-predictor/2', expected"):
        ModularityPredictor.load(tmp_path)


def test_a_predictor_file_without_its_keys_is_damaged(tmp_path: Path) -> None:
    predictor, _ = fitted()
    predictor.save(tmp_path)
    file = tmp_path / "predictor.json"
    whole = json.loads(file.read_text("utf-8"))
    for key in ("seed", "columns", "models"):
        file.write_text(json.dumps({k: v for k, v in whole.items() if k != key}), "utf-8")
        with pytest.raises(InputError, match="damaged"):
            ModularityPredictor.load(tmp_path)


def test_a_save_that_is_cut_short_leaves_the_old_predictor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, table = fitted()
    predictor.save(tmp_path)
    before = predictor.predict(table)
    other = ModularityPredictor(FITTED).fit(table, 100 * synthetic.labels(table, 0.3, seed=8))

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cleansteer.predictor.models.write_json", die)
    with pytest.raises(KeyboardInterrupt):
        other.save(tmp_path)
    pd.testing.assert_frame_equal(ModularityPredictor.load(tmp_path).predict(table), before)
