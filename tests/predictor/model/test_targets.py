"""The clean score against the protocol, and its laws."""

import numpy as np
import oracle
import pandas as pd
import pytest
from cleansteer.core.errors import InputError
from cleansteer.predictor.model.targets import (
    ABSOLUTE,
    CLEAN_SCORE,
    HIGHER_IS_CLEANER,
    MATCHED,
    RELATIVE,
    Scheme,
    bounds,
    clean_score,
    primary_labels,
    scheme_for,
    scheme_of,
    zscore,
)


def labels(n: int = 80, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "stability_abs": generator.random(n),
            "collateral_count_0.05": generator.poisson(40, n) * (generator.random(n) < 0.9),
            "effect_l2": generator.lognormal(sigma=1.5, size=n) * (generator.random(n) < 0.9),
        },
        index=generator.permutation(1000)[:n],
    )


def expected(table: pd.DataFrame) -> np.ndarray:
    return oracle.zscore_clean_score(
        *(
            table[name].to_numpy()
            for name in ("stability_abs", "collateral_count_0.05", "effect_l2")
        )
    )


@pytest.mark.parametrize("seed", range(5))
def test_clean_score_is_the_protocols(seed: int) -> None:
    table = labels(seed=seed)
    score = clean_score(table)
    np.testing.assert_allclose(score, expected(table), rtol=1e-12, atol=1e-12)
    assert score.name == CLEAN_SCORE
    assert score.index.equals(table.index)
    assert abs(score.mean()) < 1e-12


@pytest.mark.parametrize(
    ("name", "value"),
    [("stability_abs", 0.0), ("stability_abs", 0.5), ("collateral_count_0.05", 0.0)],
)
def test_what_is_the_same_everywhere_does_not_count(name: str, value: float) -> None:
    table = labels().assign(**{name: value, "effect_l2": 2.0})
    np.testing.assert_allclose(clean_score(table), expected(table), atol=1e-12)
    other = {"stability_abs", "collateral_count_0.05"} - {name}
    assert abs(np.corrcoef(clean_score(table), table[other.pop()])[0, 1]) > 0.9


def test_every_row_stays_with_its_feature() -> None:
    table = labels()
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(clean_score(shuffled)[table.index], clean_score(table))


def test_stability_has_no_unit_and_no_zero() -> None:
    table = labels()
    moved = table.assign(stability_abs=3 * table["stability_abs"] + 7)
    pd.testing.assert_series_equal(clean_score(moved), clean_score(table))


@pytest.mark.parametrize("doubled", [1, 2, 5])
def test_rows_twice_over_change_nothing(doubled: int) -> None:
    """The standard deviation is the population's."""
    table = labels()
    often = pd.concat([table] * doubled)
    np.testing.assert_allclose(clean_score(often), np.tile(clean_score(table), doubled), rtol=1e-9)


def test_cleaner_is_higher() -> None:
    table = labels()
    feature = table.index[table["effect_l2"] > 0][3]
    before = clean_score(table)[feature]
    for name, change, sign in (
        ("stability_abs", 0.2, 1),
        ("collateral_count_0.05", 30, -1),
        ("effect_l2", 1.0, 1),
    ):
        moved = table.copy().astype(float)
        moved.loc[feature, name] += change
        assert np.sign(clean_score(moved)[feature] - before) == sign, name


def test_zscore_is_standard() -> None:
    values = labels()["effect_l2"].to_numpy()
    standard = zscore(values)
    np.testing.assert_allclose(standard, oracle.zscore(values), rtol=1e-12)
    np.testing.assert_allclose([standard.mean(), standard.std()], [0, 1], atol=1e-12)


def test_names_fit_together() -> None:
    schemes = (ABSOLUTE, RELATIVE, MATCHED)
    for scheme in schemes:
        assert CLEAN_SCORE in scheme.targets
        assert set(scheme.axes.values()) <= set(HIGHER_IS_CLEANER) & set(scheme.targets)
        assert scheme_of(scheme.targets) is scheme
        assert scheme_of(f"x{target}" for target in scheme.targets) is ABSOLUTE
    assert {s.collateral for s in schemes} | {"stability_abs"} == set(HIGHER_IS_CLEANER)
    modes = ("add", "clamp_global", "clamp_q95", "matched")
    assert [scheme_for("absolute", mode) for mode in modes] == [ABSOLUTE] * 4
    assert [scheme_for("relative", mode) for mode in modes] == [*[RELATIVE] * 3, MATCHED]


def long_table() -> pd.DataFrame:
    rows = [
        labels().rename_axis("feature").reset_index().assign(context_type=kind, n_contexts=n)
        for n, kind in enumerate(("mixed", "top", "low"))
    ]
    return pd.concat(rows).sample(frac=1, random_state=0)


@pytest.mark.parametrize("kind", ["mixed", "low"])
def test_primary_labels_are_those_of_one_context_type_in_order(kind: str) -> None:
    rows = primary_labels(long_table(), kind)
    assert list(rows.index) == sorted(labels().index)
    assert (rows["n_contexts"] == {"mixed": 0, "low": 2}[kind]).all()
    pd.testing.assert_series_equal(
        rows[CLEAN_SCORE].rename_axis(None), clean_score(labels()).sort_index()
    )


def test_a_missing_context_type_is_named() -> None:
    with pytest.raises(InputError, match=r"no rows of context type 'random', only (mixed|top|low)"):
        primary_labels(long_table(), "random")


@pytest.mark.parametrize("scheme", [ABSOLUTE, RELATIVE])
def test_what_the_clean_score_is_made_of_is_named_where_it_is_missing(scheme: Scheme) -> None:
    """As in the labels of a run that an earlier version or somebody else made."""
    table = long_table().assign(collateral_relative_mass=1.0)
    with pytest.raises(
        InputError, match=f"lacks {scheme.spread}, of which the clean score is made"
    ):
        primary_labels(table.drop(columns=scheme.spread), scheme=scheme)


def test_a_clean_score_may_be_taken_over_some() -> None:
    some = set(labels().index[::2])
    rows = primary_labels(long_table(), among=some)
    ours = rows[CLEAN_SCORE][rows.index.isin(some)]
    alone = primary_labels(long_table()[long_table()["feature"].isin(some)])[CLEAN_SCORE]
    np.testing.assert_allclose(ours, alone)
    assert len(rows) == len(labels())


def test_a_feature_twice_is_named() -> None:
    table = long_table()
    twice = int(table["feature"].iloc[0])
    with pytest.raises(InputError, match=f"feature {twice} is labelled more than once"):
        primary_labels(pd.concat([table, table[table["feature"] == twice]]))


@pytest.mark.parametrize("value", [0.1, 0.7, -3.3, 1e-9])
@pytest.mark.parametrize("count", [2, 60, 300])
def test_a_constant_column_standardises_to_zeros(value: float, count: int) -> None:
    assert (zscore(np.full(count, value)) == 0).all()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("stability_abs", (0.0, 1.0)),
        ("stability_signed", (-1.0, 1.0)),
        ("effect_pc1_ratio", (0.0, 1.0)),
        ("resid_explained", (-np.inf, 1.0)),
        ("collateral_count_0.05", (0.0, np.inf)),
        ("effect_l2", (0.0, np.inf)),
        ("kl_clean_steered", (0.0, np.inf)),
        ("clean_score", (-np.inf, np.inf)),
        ("my_own", (-np.inf, np.inf)),
    ],
)
def test_bounds_are_those_of_the_definitions(target: str, expected: tuple[float, float]) -> None:
    assert bounds(target) == expected
