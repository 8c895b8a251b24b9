"""Validation: ours beside plain models on the same folds, and intervals that say what they claim."""

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.core.records import Interval
from cleansteer.core.records.skill import OURS
from cleansteer.predictor.evidence import validation
from cleansteer.predictor.evidence.scores import out_of_fold, spearman
from cleansteer.predictor.evidence.validation import (
    NO_BASELINE,
    validate,
    validate_sets,
)
from cleansteer.predictor.model.baselines import boosting, paper_ridge
from cleansteer.predictor.model.blend import blended
from cleansteer.predictor.model.sets import BASELINES, predictor_sets
from cleansteer.predictor.model.targets import ABSOLUTE
from resampled import bootstrapped_spearman
from scipy.stats import binomtest, spearmanr

SIGNIFICANT = 1e-3  # seeds are fixed, so what passes once passes always
CLOSE = 1e-12  # another order of sums
FEW = ABSOLUTE.targets[:2]


@pytest.fixture
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "RESAMPLES", 400)


def ours(statistics: pd.DataFrame, labels: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Out-of-fold predictions of the blend, ``[feature, target]``."""
    X = statistics.to_numpy()
    found = {t: out_of_fold(blended(seed), X, y.to_numpy(), seed) for t, y in labels.items()}
    return pd.DataFrame(found, index=labels.index)


def noisy(labels: pd.DataFrame, seed: int, noise: float = 0.5) -> pd.DataFrame:
    """Made-up predictions: the labels and noise."""
    return labels + noise * np.random.default_rng([seed, 5]).normal(size=labels.shape)


def made_up(n: int, noise: float = 1.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = synthetic.statistics(n, seed=0)
    return table, synthetic.labels(table, noise, seed=0)


@pytest.mark.usefixtures("_few_resamples")
def test_shuffled_labels_cannot_be_predicted() -> None:
    """Labels that could be predicted, given to other features: intervals of ours cover 0, and few lie
    above it.

    Those of leads cover it less often, from below: out-of-fold predictions of noise lean to the
    negative (the mean of the other folds is high where the held-out one is low), ours more than the
    baselines'.
    """
    covered, claimed, beaten = [], [], []
    for seed in range(16):
        table = synthetic.statistics(80, seed)
        labels = synthetic.labels(table, 0.5, seed)[list(FEW)]
        generator = np.random.default_rng(seed)
        shuffled = labels.apply(lambda column, g=generator: g.permutation(column))
        predictions = {seed: ours(table, shuffled, seed)}
        for skill in validate(table, shuffled, predictions).values():
            score = skill.scores[OURS]
            covered.append(score.low <= 0 <= score.high)
            claimed.append(score.above_zero and skill.over_best_baseline.above_zero)
            beaten.append(score.above_zero)
    assert binomtest(sum(covered), len(covered), 0.93, "less").pvalue > SIGNIFICANT
    assert binomtest(sum(beaten), len(beaten), 0.025, "greater").pvalue > SIGNIFICANT
    assert binomtest(sum(claimed), len(claimed), 0.025, "greater").pvalue > SIGNIFICANT


@pytest.mark.usefixtures("_few_resamples")
def test_what_follows_from_the_statistics_is_predicted_almost_perfectly() -> None:
    table = synthetic.statistics(200, seed=0)
    labels = pd.DataFrame(
        table.to_numpy() @ np.random.default_rng(0).normal(size=(table.shape[1], len(FEW))),
        index=table.index,
        columns=list(FEW),
    )
    for skill in validate(table, labels, {0: ours(table, labels, 0)}).values():
        assert skill.scores["ridge"].value > 0.99
        assert skill.scores[OURS].value > 0.9
        assert skill.scores[OURS].low > 0.8
        assert skill.over_best_baseline.above_zero
        assert not skill.over_ridge.above_zero
        for name, score in skill.scores.items():
            assert score.low <= score.value <= score.high, name


@pytest.mark.usefixtures("_few_resamples")
def test_a_label_that_is_frequency_is_no_merit_of_ours() -> None:
    """The baseline that sees only frequencies predicts it as well."""
    table = synthetic.statistics(150, seed=0)
    labels = table[["final_act_freq"]].set_axis(["effect_l2"], axis=1)
    skill = validate(table, labels, {0: ours(table, labels, 0)})["effect_l2"]
    assert skill.best_baseline == "freq_only"
    assert not skill.over_best_baseline.above_zero


@pytest.mark.usefixtures("_few_resamples")
def test_the_parts_of_a_validation_fit_together() -> None:
    table, labels = made_up(90)
    predictions = {seed: noisy(labels, seed) for seed in (4, 9)}
    found = validate(table, labels, predictions)
    assert list(found) == list(ABSOLUTE.targets)
    sets = predictor_sets(table.columns)
    for target, skill in found.items():
        y = labels[target].to_numpy()
        assert set(skill.scores) == {OURS, "ridge", "boosting", *BASELINES}
        values = {
            OURS: [spearmanr(p[target], y).statistic for p in predictions.values()],
            "ridge": [
                spearman(out_of_fold(paper_ridge, table.to_numpy(), y, s), y) for s in predictions
            ],
        }
        for name in BASELINES:
            X = table[sets[name]].to_numpy()
            values[name] = [spearman(out_of_fold(paper_ridge, X, y, s), y) for s in predictions]
        for name, repeats in values.items():
            assert skill.scores[name].value == pytest.approx(np.mean(repeats), abs=CLOSE), name
        best = max(BASELINES, key=lambda name: skill.scores[name].value)
        assert skill.best_baseline == best
        for lead, other in ((skill.over_best_baseline, best), (skill.over_ridge, "ridge")):
            expected = skill.scores[OURS].value - skill.scores[other].value
            assert lead.value == pytest.approx(expected, abs=CLOSE)
        assert skill.n_features == 90
        assert not skill.constant
        assert skill.model_dump()["scores"][OURS]["low"] == skill.scores[OURS].low


@pytest.mark.usefixtures("_few_resamples")
def test_trees_are_validated_on_all_statistics() -> None:
    table, labels = made_up(60)
    labels = labels[["effect_l2"]]
    skill = validate(table, labels, {3: noisy(labels, 0)})["effect_l2"]
    y = labels["effect_l2"].to_numpy()
    found = out_of_fold(boosting, table.to_numpy(), y, 3)
    assert skill.scores["boosting"].value == pytest.approx(spearmanr(found, y).statistic)


def test_intervals_are_widened_bootstraps_over_features() -> None:
    """Against a plain bootstrap with other draws: quantiles of 2,000 agree to about 0.01."""
    table, labels = made_up(90)
    labels = labels[list(FEW)]
    predictions = {seed: noisy(labels, seed) for seed in (0, 1)}
    found = validate(table, labels, predictions)
    generator = np.random.default_rng(99)
    draws = generator.integers(90, size=(2000, 90))
    for target, skill in found.items():
        y = labels[target].to_numpy()
        ridge = [out_of_fold(paper_ridge, table.to_numpy(), y, seed) for seed in (0, 1)]
        mine = [p[target].to_numpy() for p in predictions.values()]
        resampled, other = (
            np.mean([bootstrapped_spearman(p, y, draws) for p in repeats], axis=0)
            for repeats in (mine, ridge)
        )
        lead = resampled - other
        for interval, of in ((skill.scores[OURS], resampled), (skill.over_ridge, lead)):
            low, high = np.quantile(of, [0.025, 0.975])
            value = interval.value
            assert interval.low == pytest.approx(value - 1.5 * (value - low), abs=0.045)
            assert interval.high == pytest.approx(value + 1.5 * (high - value), abs=0.045)


@pytest.mark.usefixtures("_few_resamples")
def test_same_seed_same_result_other_seed_another() -> None:
    table, labels = made_up(60)
    predictions = noisy(labels, 0)
    one, again, other = (validate(table, labels, {seed: predictions}) for seed in (0, 0, 1))
    assert one == again
    assert one != other


@pytest.mark.usefixtures("_few_resamples")
def test_predictions_that_are_a_baselines_lead_it_by_nothing() -> None:
    """Leads are taken on the same resampled features, so nothing is left of chance."""
    table, labels = made_up(60)
    labels = labels[["effect_l2"]]
    y = labels["effect_l2"].to_numpy()
    ridge = labels.assign(effect_l2=out_of_fold(paper_ridge, table.to_numpy(), y, 0))
    lead = validate(table, labels, {0: ridge})["effect_l2"].over_ridge
    assert (lead.value, lead.low, lead.high) == pytest.approx((0, 0, 0), abs=CLOSE)


@pytest.mark.usefixtures("_few_resamples")
def test_without_a_baseline_ours_leads_nothing_by_its_own_skill() -> None:
    table, labels = made_up(60)
    table = table.drop(columns=["final_act_freq", "final_act_mean"])
    for skill in validate(table, labels, {0: noisy(labels, 0)}).values():
        assert skill.best_baseline == NO_BASELINE
        assert set(skill.scores) == {OURS, "ridge", "boosting"}
        assert skill.over_best_baseline == skill.scores[OURS]


@pytest.mark.usefixtures("_few_resamples")
def test_a_label_that_is_the_same_for_all_is_told_and_scores_zero() -> None:
    table, labels = made_up(60)
    labels = labels.assign(stability_abs=0.25)
    found = validate(table, labels, {0: noisy(labels, 0)})
    assert [target for target, skill in found.items() if skill.constant] == ["stability_abs"]
    zero = Interval(value=0, low=0, high=0)
    assert all(score == zero for score in found["stability_abs"].scores.values())
    assert found["stability_abs"].over_ridge == zero


def test_tables_of_other_features_are_refused() -> None:
    table, labels = made_up(40)
    with pytest.raises(ValueError, match="not of the same features in the same order"):
        validate(table, labels.iloc[::-1], {0: labels.iloc[::-1]})


@pytest.mark.usefixtures("_few_resamples")
def test_sets_are_scored_as_the_ridge_and_the_baselines_are() -> None:
    table, labels = made_up(60)
    labels = labels[list(FEW)]
    found = validate_sets(table, labels, seed=3)
    assert set(found) == {name for name, there in predictor_sets(table.columns).items() if there}
    skills = validate(table, labels, {3: noisy(labels, 3)})
    for target in FEW:
        assert found["full_all"][target] == skills[target].scores["ridge"]
        for name in set(BASELINES) & set(found):
            assert found[name][target] == skills[target].scores[name]
