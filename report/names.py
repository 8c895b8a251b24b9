"""What columns are called on the page, and what they mean, in a line."""

NAMES = {
    "clean_score": "Clean score",
    "stability_abs": "Stability",
    "collateral_per_effect": "Collateral per effect",
    "collateral_count_0.05": "Collateral count",
    "collateral_count_0.05_sparse": "Collateral count, sparse panel",
    "collateral_relative_per_effect": "Relative collateral per effect",
    "collateral_relative_mass": "Relative collateral mass",
    "effect_l2": "Effect on logits, L2",
    "kl_clean_steered": "KL(clean || steered), nats",
    "resid_delta_norm": "Residual change downstream",
    "both_axes": "Percentile on both axes, the worse",
    "final_act_freq": "Firing rate",
    "crowding_max_abs_cos": "Nearest decoder, |cosine|",
    "encoder_decoder_cos": "Encoder-decoder cosine",
    "direct_logit_l2": "Direct logit footprint, L2",
    "response_clean_score": "Clean score, by linear response",
    "response_stability_abs": "Stability, by linear response",
    "response_collateral_per_effect": "Collateral per effect, by linear response",
    "response_collateral_relative_per_effect": "Relative collateral per effect, by linear response",
    "ours": "cleansteer",
    "ridge": "ridge (the paper's)",
    "boosting": "boosting alone",
    "freq_only": "firing rate alone",
    "activation_magnitude_only": "activation magnitude alone",
    "predicted_clean": "predicted clean",
    "predicted_messy": "predicted messy",
    "random": "random",
}
MEANINGS = {
    "clean_score": "z(stability) - z(spread), the spread being log(1 + collateral) over the effect; "
    "higher is cleaner",
    "both_axes": "the worse of the percentiles on stability and collateral among the eligible features; "
    "a mark names the axis that a feature is clean by alone",
    "stability_abs": "mean |cosine| of a context's logit change with the mean change; 1: the same "
    "push everywhere",
    "collateral_per_effect": "panel features moved by more than 0.05, over the L2 norm of the logit "
    "change; lower is cleaner",
    "collateral_count_0.05": "downstream panel features moved by more than 0.05",
    "collateral_relative_per_effect": "relative collateral mass over the L2 norm of the logit change; "
    "lower is cleaner",
    "collateral_relative_mass": "sum over the panel of the change of a feature's activation, in units of "
    "its usual one; lower is cleaner",
    "effect_l2": "L2 norm of the change of the logits",
    "final_act_freq": "share of contexts at whose final token the feature fires",
    "crowding_max_abs_cos": "largest |cosine| with another decoder direction",
    "encoder_decoder_cos": "cosine of encoder column and decoder row",
    "direct_logit_l2": "L2 norm of the decoder direction through the unembedding",
    "response_clean_score": "clean score forecast to first order, without steering",
    "response_stability_abs": "stability forecast to first order, without steering",
    "response_collateral_per_effect": "collateral per effect forecast to first order, without steering",
    "response_collateral_relative_per_effect": "relative collateral per effect forecast to first order, "
    "without steering",
}


def name_of(column: str) -> str:
    """A column's name for people; the column itself where it has none."""
    return NAMES.get(column, column)
