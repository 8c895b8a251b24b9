"""Predictor sets: which statistics a model may see."""

from collections.abc import Iterable

from .targets import ABSOLUTE, Scheme

MAGNITUDES = ("act_mean", "act_std", "act_max", "act_q95", "act_firing_mean")
RESPONSE = "response_"
"""How statistics of linear response are named."""
_NOT_STATISTICS = {
    "feature",
    "direct_top_tokens",
    "input_score",
    "peak_top_tokens",
    "response_top_tokens",
    "response_bottom_tokens",
}
"""Columns that are no statistic of docs/protocol.md; others filter features by input_score."""
_COUNTED = {
    f"{RESPONSE}collateral_{name}"
    for name in ("count_0.01", "count_0.05", "count_0.1", "count_0.05_sparse", "per_effect")
}
_SHAPES = {
    "token_binary_entropy",
    "token_activation_entropy_norm",
    "token_act_kurtosis",
    "final_binary_entropy",
    "final_activation_entropy",
    "final_act_kurtosis",
}
"""Over all tokens, or over final tokens in the tables of the replication.

Source: docs/protocol.md, Feature statistics.
"""


def _is_geometry(name: str) -> bool:
    return name.startswith(("crowding", "decoder_norm", "encoder_"))


def _is_shape(name: str) -> bool:
    return name in _SHAPES


def statistics_of(columns: Iterable[str], scheme: Scheme = ABSOLUTE) -> list[str]:
    """The columns that are statistics, in their order; with relative collateral without the forecasts
    that count changes above a fixed size, which another scale of the activations would change.
    """
    left_out = _NOT_STATISTICS if scheme == ABSOLUTE else _NOT_STATISTICS | _COUNTED
    return [str(name) for name in columns if name not in left_out]


def predictor_sets(columns: Iterable[str]) -> dict[str, list[str]]:
    """Every predictor set with those of its statistics that are among the columns, in their order;
    those with linear response only where there is any.

    Source: docs/protocol.md, Predictor sets (arXiv:2606.08365).
    """
    every = statistics_of(columns)
    response = [name for name in every if name.startswith(RESPONSE)]
    names = [name for name in every if name not in response]
    magnitude = [name for name in names if name.endswith(MAGNITUDES)]
    sets = {
        "freq_only": [name for name in names if "freq" in name],
        "activation_magnitude_only": magnitude,
        "activation_shape_only": [name for name in names if _is_shape(name)],
        "crowding_only": [name for name in names if name.startswith("crowding")],
        "geometry_only": [name for name in names if _is_geometry(name)],
        "direct_logit_only": [name for name in names if name.startswith("direct_")],
        "coactivation_only": [name for name in names if name.startswith("coact_")],
        "full_no_magnitude": [name for name in names if name not in magnitude],
        "full_all": names,
    }
    return sets | ({"response_only": response, "full_with_response": every} if response else {})


BASELINES = ("freq_only", "activation_magnitude_only")
"""Sets that a ranking has to beat to be worth anything."""
