"""Validation: no label is seen before it is predicted, and the intervals say what they claim."""

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.predictor import validation
from cleansteer.predictor.models import paper_ridge
from cleansteer.predictor.sets import BASELINES
from cleansteer.predictor.targets import CLEAN_SCORE, TARGETS
from cleansteer.predictor.validation import (
    FOLDS,
    Interval,
    anchored,
    out_of_fold,
    percentile_interval,
    rescored,
    spearman,
    validate,
)
from scipy.stats import binomtest, spearmanr

SIGNIFICANT = 1e-3  # seeds are fixed, so what passes once passes always
MODELS = {"ours": anchored(0), "ridge": paper_ridge}


@pytest.fixture
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "RESAMPLES", 400)


def values(n: int, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    table = synthetic.statistics(n, seed)
    return table.to_numpy(), synthetic.labels(table, noise, seed)["clean_score"].to_numpy()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("row", [0, 17, 63])
def test_a_prediction_does_not_depend_on_its_own_label(name: str, row: int) -> None:
    X, y = values(64)
    before = out_of_fold(MODELS[name], X, y, seed=0)
    wrong = y.copy()
    wrong[row] += 1000
    after = out_of_fold(MODELS[name], X, wrong, seed=0)
    assert after[row] == before[row]
    assert (after != before).sum() >= 0.7 * len(y), "the label is seen by the other folds"


@pytest.mark.parametrize("n", [5, 64, 101])
def test_every_row_is_predicted_once_by_a_model_fitted_on_the_other_folds(n: int) -> None:
    rows = np.arange(n, dtype=float)
    seen: list[tuple[set[float], set[float]]] = []

    def spy(X: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        assert np.array_equal(X[:, 0], y)
        seen.append((set(y), set(new[:, 0])))
        return -new[:, 0]

    predicted = out_of_fold(spy, rows[:, None], rows, seed=3)
    assert np.array_equal(predicted, -rows)
    assert len(seen) == FOLDS == 5
    assert sorted(row for _, new in seen for row in new) == list(rows)
    assert all(train | new == set(rows) and not train & new for train, new in seen)
    assert max(len(new) for _, new in seen) - min(len(new) for _, new in seen) <= 1


def test_folds_are_shuffled_by_the_seed() -> None:
    X, y = values(64)
    one, again, other = (out_of_fold(paper_ridge, X, y, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.usefixtures("_few_resamples")
def test_shuffled_labels_cannot_be_predicted() -> None:
    """Labels that could be predicted, given to other features: intervals cover 0, mostly.

    Not in 95 %: out-of-fold predictions of noise lean to the negative (the mean of the other folds
    is high where the held-out one is low), and the bootstrap over features does not see that the
    models would differ too. Without signal 80 to 85 % cover 0 and 3 to 7 % lie above it, for
    80 to 600 features; so 75 % are asked, and no more than 10 % false claims.
    """
    covered, claimed, beaten = [], [], []
    for seed in range(16):
        table = synthetic.statistics(80, seed)
        labels = synthetic.labels(table, 0.5, seed)
        generator = np.random.default_rng(seed)
        shuffled = labels.apply(lambda column, g=generator: g.permutation(column))
        for skill in validate(table, shuffled, seed).skills.values():
            ours = skill.scores["ours"]
            covered.append(ours.low <= 0 <= ours.high)
            claimed.append(ours.above_zero and skill.over_best_baseline.above_zero)
            beaten.append(ours.above_zero)
    assert binomtest(sum(covered), len(covered), 0.75, "less").pvalue > SIGNIFICANT
    assert binomtest(sum(beaten), len(beaten), 0.1, "greater").pvalue > SIGNIFICANT
    assert binomtest(sum(claimed), len(claimed), 0.05, "greater").pvalue > SIGNIFICANT


@pytest.mark.usefixtures("_few_resamples")
def test_what_follows_from_the_statistics_is_predicted_almost_perfectly() -> None:
    table = synthetic.statistics(200, seed=0)
    labels = pd.DataFrame(
        table.to_numpy() @ np.random.default_rng(0).normal(size=(table.shape[1], len(TARGETS))),
        index=table.index,
        columns=list(TARGETS),
    )
    for skill in validate(table, labels, seed=0).skills.values():
        assert skill.scores["ridge"].value > 0.99
        assert skill.scores["ours"].value > 0.9
        assert skill.scores["ours"].low > 0.8
        assert skill.over_best_baseline.above_zero
        for name, score in skill.scores.items():
            assert score.low <= score.value <= score.high, name


@pytest.mark.usefixtures("_few_resamples")
def test_a_label_that_is_frequency_is_no_merit_of_ours() -> None:
    """The baseline that sees only frequencies predicts it as well."""
    table = synthetic.statistics(150, seed=0)
    labels = pd.DataFrame(dict.fromkeys(TARGETS, table["final_act_freq"]))
    for skill in validate(table, labels, seed=0).skills.values():
        assert skill.best_baseline == "freq_only"
        assert not skill.over_best_baseline.above_zero


def test_the_parts_of_a_validation_fit_together() -> None:
    table = synthetic.statistics(90, seed=0)
    labels = synthetic.labels(table, 1.0, seed=0)
    result = validate(table, labels, seed=4)
    assert list(result.skills) == list(TARGETS)
    assert result.predictions.index.equals(labels.index)
    for target, skill in result.skills.items():
        y = labels[target].to_numpy()
        ours = out_of_fold(anchored(4), table.to_numpy(), y, seed=4)
        assert np.array_equal(result.predictions[target], ours)
        assert skill.scores["ours"].value == pytest.approx(spearmanr(ours, y).statistic)
        assert set(skill.scores) == {"ours", "ridge", *BASELINES}
        best = max(BASELINES, key=lambda name: skill.scores[name].value)
        assert skill.best_baseline == best
        assert skill.over_best_baseline.value == pytest.approx(
            skill.scores["ours"].value - skill.scores[best].value
        )
        assert skill.n_features == 90
        assert skill.to_json()["scores"]["ours"]["low"] == skill.scores["ours"].low


def test_intervals_are_bootstraps_over_features() -> None:
    """Against a plain bootstrap with other draws: quantiles of 2,000 agree to about 0.01."""
    table = synthetic.statistics(90, seed=0)
    labels = synthetic.labels(table, 1.0, seed=0)
    result = validate(table, labels, seed=0)
    generator = np.random.default_rng(99)
    for target in TARGETS[:2]:
        pairs = np.column_stack([result.predictions[target], labels[target]])
        draws = [pairs[generator.integers(90, size=90)] for _ in range(2000)]
        resampled = [spearmanr(draw[:, 0], draw[:, 1]).statistic for draw in draws]
        low, high = np.quantile(resampled, [0.025, 0.975])
        score = result.skills[target].scores["ours"]
        assert score.low == pytest.approx(low, abs=0.03)
        assert score.high == pytest.approx(high, abs=0.03)


@pytest.mark.usefixtures("_few_resamples")
def test_same_seed_same_result_other_seed_another() -> None:
    table = synthetic.statistics(60, seed=0)
    labels = synthetic.labels(table, 1.0, seed=0)
    one, again, other = (validate(table, labels, seed) for seed in (0, 0, 1))
    assert one.skills == again.skills
    assert one.skills != other.skills
    pd.testing.assert_frame_equal(one.predictions, again.predictions, check_exact=True)


def test_spearman_is_scipys_and_zero_for_constants() -> None:
    generator = np.random.default_rng(0)
    for ties in (2, 5, 1000):
        a, b = generator.integers(ties, size=(2, 40)).astype(float)
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman(np.full(40, 3.0), b) == spearman(b, np.full(40, 3.0)) == 0.0


def test_percentile_intervals_of_a_known_distribution() -> None:
    normal = np.random.default_rng(0).normal(2.0, 1.0, 200_000)
    interval = percentile_interval(2.0, np.append(normal, np.nan))
    assert interval.low == pytest.approx(2 - 1.96, abs=0.02)
    assert interval.high == pytest.approx(2 + 1.96, abs=0.02)
    assert interval.value == 2.0


def test_sides_of_zero_exclude_zero() -> None:
    sides = [
        (Interval(0.0, low, high).above_zero, Interval(0.0, low, high).below_zero)
        for low, high in ((0.1, 0.2), (0.0, 0.2), (-0.1, 0.2), (-0.2, 0.0), (-0.2, -0.1))
    ]
    assert sides == [(True, False), (False, False), (False, False), (False, False), (False, True)]


def test_rescoring_sees_these_rows_alone() -> None:
    generator = np.random.default_rng(0)
    columns = ["stability_abs", "collateral_count_0.05", "effect_l2"]
    table = pd.DataFrame(generator.random((50, 3)), columns=columns).assign(clean_score=9.0)
    part = rescored(table.iloc[:20])
    table.iloc[20:] = 1000.0
    pd.testing.assert_frame_equal(rescored(table.iloc[:20]), part, check_exact=True)
    assert abs(part[CLEAN_SCORE].mean()) < 1e-12
    pd.testing.assert_frame_equal(part[columns], table[columns].iloc[:20])
