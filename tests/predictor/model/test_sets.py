"""The protocol's predictor sets, over the columns that the program really writes."""

import pytest
import tiny
from cleansteer.core.settings import SteeringSetting
from cleansteer.features.sweep import measure_features
from cleansteer.predictor.model.sets import BASELINES, predictor_sets, statistics_of

FAMILIES = {
    "geometry": {
        "decoder_norm",
        "encoder_norm",
        "encoder_decoder_cos",
        "crowding_max_abs_cos",
        "crowding_topk_mean_abs_cos",
    },
    "activation, final token": {
        f"final_act_{name}" for name in ("freq", "mean", "std", "max", "q95")
    },
    "activation, all tokens": {
        *(f"token_act_{name}" for name in ("freq", "mean", "std", "max", "kurtosis")),
        "token_binary_entropy",
        "token_activation_entropy_norm",
    },
    "co-activation": {"coact_entropy_norm", "coact_count_mean"},
    "direct logit": {
        *(f"direct_logit_{name}" for name in ("l2", "linf", "entropy", "effective_vocab")),
        *(f"direct_top{k}_abs_mass_frac" for k in (10, 50, 100, 500)),
    },
}
"""The table 'Feature statistics' of docs/protocol.md."""
ALL = set().union(*FAMILIES.values())
MAGNITUDE = {f"final_act_{name}" for name in ("mean", "std", "max", "q95")} | {
    f"token_act_{name}" for name in ("mean", "std", "max")
}
SETS = {
    "freq_only": {"final_act_freq", "token_act_freq"},
    "activation_magnitude_only": MAGNITUDE,
    "activation_shape_only": {
        "token_act_kurtosis",
        "token_binary_entropy",
        "token_activation_entropy_norm",
    },
    "crowding_only": {"crowding_max_abs_cos", "crowding_topk_mean_abs_cos"},
    "geometry_only": FAMILIES["geometry"],
    "direct_logit_only": FAMILIES["direct logit"],
    "coactivation_only": FAMILIES["co-activation"],
    "full_no_magnitude": ALL - MAGNITUDE,
    "full_all": ALL,
}
"""Predictor sets of docs/protocol.md."""


@pytest.fixture(scope="module")
def columns() -> list[str]:
    model = tiny.model()
    dictionaries = [
        tiny.dictionary("standard", model, hook, n_features=20)
        for hook in ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre")
    ]
    measured = measure_features(model, *dictionaries, tiny.contexts(12), SteeringSetting())
    return list(measured.table.columns)


@pytest.mark.parametrize("name", SETS)
def test_sets_are_the_protocols(name: str, columns: list[str]) -> None:
    found = predictor_sets(columns)[name]
    assert set(found) == SETS[name]
    assert found == [column for column in columns if column in SETS[name]], "in the table's order"


def test_there_are_no_others_and_the_baselines_are_among_them(columns: list[str]) -> None:
    assert predictor_sets(columns).keys() == SETS.keys()
    assert set(BASELINES) == {"freq_only", "activation_magnitude_only"}


def test_a_set_holds_what_is_there(columns: list[str]) -> None:
    whole = predictor_sets(columns)
    some = [column for column in columns if not column.startswith(("direct_top", "token"))]
    for name, found in predictor_sets(some).items():
        assert found == [column for column in whole[name] if column in some]


def test_what_is_no_statistic_is_in_no_set(columns: list[str]) -> None:
    assert {"feature", "direct_top_tokens"} <= set(columns)
    for found in predictor_sets(columns).values():
        assert not {"feature", "direct_top_tokens"} & set(found)


def test_statistics_are_all_but_what_names_or_filters_in_their_order(columns: list[str]) -> None:
    names = {"feature", "direct_top_tokens", "peak_top_tokens", "input_score"}
    assert statistics_of([*columns, "input_score", "my_own"]) == [
        *(column for column in columns if column not in names),
        "my_own",
    ]
    assert statistics_of(columns) == predictor_sets(columns)["full_all"]


@pytest.mark.parametrize(
    "name", ["final_binary_entropy", "final_activation_entropy", "final_act_kurtosis"]
)
def test_shapes_over_final_tokens_are_shapes(name: str, columns: list[str]) -> None:
    found = predictor_sets([*columns, name])
    assert name in found["activation_shape_only"]
    assert name not in found["activation_magnitude_only"]
