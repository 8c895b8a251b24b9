"""Reasons for a prediction, in words."""

import numpy as np
import pandas as pd

TOP = 3
_LEAST = 0.02  # of a standard deviation of the label: less is not worth a word
_GROUPS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("crowding", ("crowding",), "crowded", "apart from others"),
    ("decoder norm", ("decoder_norm",), "long decoder direction", "short decoder direction"),
    ("encoder norm", ("encoder_norm",), "long encoder direction", "short encoder direction"),
    (
        "encoder-decoder cosine",
        ("encoder_decoder_cos",),
        "encoder along decoder",
        "encoder off decoder",
    ),
    (
        "firing rate",
        ("final_act_freq", "token_act_freq", "token_binary_entropy", "final_binary_entropy"),
        "fires often",
        "fires rarely",
    ),
    (
        "activation shape",
        (
            "token_act_kurtosis",
            "token_activation_entropy_norm",
            "final_act_kurtosis",
            "final_activation_entropy",
        ),
        "high {}",
        "low {}",
    ),
    ("activation size", ("final_act", "token_act"), "activates strongly", "activates weakly"),
    ("co-activation", ("coact",), "fires with many", "fires with few"),
    (
        "direct logits",
        ("direct_logit_l2", "direct_logit_linf"),
        "moves logits strongly",
        "moves logits weakly",
    ),
    (
        "promoted tokens",
        ("direct_logit_entropy", "direct_logit_effective_vocab"),
        "spread over many tokens",
        "aimed at few tokens",
    ),
    ("promoted tokens", ("direct_top",), "aimed at few tokens", "spread over many tokens"),
    (
        "linear response",
        ("response_clean_score",),
        "clean in linear response",
        "messy in linear response",
    ),
    (
        "stability of linear response",
        ("response_stability", "response_effect_pc1_ratio"),
        "stable in linear response",
        "unstable in linear response",
    ),
    (
        "evenness of linear response",
        ("response_effect_cv",),
        "uneven linear response",
        "even linear response",
    ),
    (
        "spread of linear response",
        ("response_collateral",),
        "spreads in linear response",
        "spreads little in linear response",
    ),
    (
        "spread for the effect in linear response",
        ("response_spread_for_effect",),
        "spreads much for its effect in linear response",
        "spreads little for its effect in linear response",
    ),
    ("stability", ("stability_abs",), "stable", "unstable"),
    (
        "spread for the effect",
        ("spread_for_effect",),
        "spreads much for its effect",
        "spreads little for its effect",
    ),
    (
        "size of linear response",
        ("response_effect", "response_kl", "response_curvature", "response_resid"),
        "strong linear response",
        "weak linear response",
    ),
)
"""Statistics that say nearly the same, what they say, and how high and low values are called, ``{}``
being the statistic's name."""
_OPINIONS = {"clean_score": ("cleaner", "messier")}


def _group(statistic: str) -> tuple[str, str, str]:
    for name, prefixes, high, low in _GROUPS:
        if statistic.startswith(prefixes):
            return name, high.format(statistic), low.format(statistic)
    return statistic, f"high {statistic}", f"low {statistic}"


def in_words(
    contributions: pd.DataFrame,
    statistics: pd.DataFrame,
    typical: pd.Series,
    target: str,
    top: int = TOP,
) -> pd.Series:
    """The strongest reasons of every feature, such as ``messier: crowded: 0.61, dictionary median
    0.38``, joined by semicolons.

    Contributions of statistics that say nearly the same are added up, since a model may lean on any
    of them; the one that adds most speaks for its group.

    Args:
        contributions: ``[feature, statistic]``, in scores of the target.
        statistics: their values, in the same rows.
        typical: the dictionary's medians.
        target: what is predicted.
        top: most reasons a feature.

    """
    names = list(contributions.columns)
    groups = [_group(name) for name in names]
    labels = list(dict.fromkeys(name for name, _, _ in groups))
    of_group = np.array([labels.index(name) for name, _, _ in groups])
    added = contributions.to_numpy(dtype=np.float64)
    values = statistics[names].to_numpy(dtype=np.float64)
    medians = typical[names].to_numpy(dtype=np.float64)
    sums = np.column_stack([added[:, of_group == g].sum(axis=1) for g in range(len(labels))])
    rises, falls = _OPINIONS.get(target, ("higher", "lower"))
    order = np.argsort(-np.abs(sums), axis=1, kind="stable")[:, :top]
    told = []
    for row, strongest in enumerate(order):
        words = []
        for g in strongest:
            if abs(sums[row, g]) < _LEAST:
                continue
            inside = np.flatnonzero(of_group == g)
            speaker = inside[np.argmax(added[row, inside] * np.sign(sums[row, g]))]
            value, median = values[row, speaker], medians[speaker]
            _, high, low = groups[speaker]
            words.append(
                f"{rises if sums[row, g] > 0 else falls}: {high if value >= median else low}: "
                + "{}, dictionary median {}".format(*_told_apart(value, median))
            )
        told.append("; ".join(words))
    return pd.Series(told, index=contributions.index, name="reasons", dtype=object)


def _told_apart(a: float, b: float) -> tuple[str, str]:
    for digits in range(2, 6):
        told = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if told[0] != told[1]:
            break
    return told
