"""Which labels can be used: each rule by a table that breaks it alone."""

import numpy as np
import pandas as pd
import pytest
from cleansteer.core.records import LabelReliability
from cleansteer.predictor.evidence.usability import judge_labels
from cleansteer.predictor.model import ABSOLUTE, MATCHED, RELATIVE, Scheme

N, PANEL = 60, 50
GOOD = LabelReliability(value=0.8, low=0.7, high=0.9, whole=0.89)


def labels(scheme: Scheme, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    table = pd.DataFrame({name: generator.normal(10, 1, N) for name in scheme.targets})
    return table.rename_axis("feature")


def judge(scheme: Scheme = ABSOLUTE, **changes: object) -> dict[str, object]:
    table, random = labels(scheme, 0), labels(scheme, 1) + 5
    repeats = dict.fromkeys(scheme.targets, GOOD)
    for name, value in changes.items():
        {"labels": table, "random": random, "reliability": repeats}[name].update(value)
    return judge_labels(table, repeats, random, PANEL, scheme)


@pytest.mark.parametrize("scheme", [ABSOLUTE, RELATIVE, MATCHED])
def test_labels_that_break_no_rule_are_usable(scheme: Scheme) -> None:
    judged = judge(scheme)
    assert set(judged) == {*scheme.judged, scheme.spread}
    assert all(label.usable and not label.reasons + label.caveats for label in judged.values())


@pytest.mark.parametrize(
    ("value", "low"), [(0.29, 0.1), (0.5, -0.01), (-0.32, -0.5), (np.nan, 0.1)]
)
def test_one_that_does_not_repeat_is_not(value: float, low: float) -> None:
    bad = LabelReliability(value=value, low=low, high=0.6, whole=0.5)
    judged = judge(reliability={"stability_abs": bad})
    assert [name for name, label in judged.items() if not label.usable] == ["stability_abs"]
    (reason,) = judged["stability_abs"].reasons
    assert reason.startswith(f"it does not repeat: {value:.2f} [{low:.2f}, 0.60]")
    assert "contexts_per_type" in reason


@pytest.mark.parametrize(("alike", "usable"), [(30, True), (31, False), (60, False)])
def test_one_that_is_the_same_for_most_features_is_not(alike: int, usable: bool) -> None:
    values = labels(ABSOLUTE, 0)["collateral_per_effect"].to_numpy().copy()
    values[:alike] = 7.0
    label = judge(labels={"collateral_per_effect": values})["collateral_per_effect"]
    assert label.usable == usable
    assert usable or label.reasons == [
        f"it is the same for {alike / N:.0%} of the features; change the strength (alpha, target_kl)"
    ]


def test_a_count_of_nearly_the_whole_panel_is_not() -> None:
    values = np.linspace(44, 48, N)
    judged = judge(labels={ABSOLUTE.spread: values})
    assert "it is saturated: 46 of 50 panel features move" in judged[ABSOLUTE.spread].reasons[0]
    assert judged["collateral_per_effect"].usable


def test_a_mass_is_no_count_and_has_no_such_bound() -> None:
    """Sums of changes in their own units may exceed the number of features."""
    assert judge(MATCHED, labels={MATCHED.spread: np.linspace(900, 1000, N)})[MATCHED.spread].usable


def test_one_that_tells_nothing_from_random_directions_has_a_caveat() -> None:
    judged = judge(random={"stability_abs": labels(ABSOLUTE, 2)["stability_abs"]})
    label = judged["stability_abs"]
    assert label.usable
    assert label.caveats[0].startswith(
        "stability_abs does not tell features from random directions of their norms"
    )
    assert not judged["collateral_per_effect"].caveats
