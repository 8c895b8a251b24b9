"""Published figures of the bundled settings: a check that a setting is loaded as it was trained."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.settings import Setting
from .catalogue import bundled, find_setting

TOLERANCE = 0.1
"""Largest relative difference that needs no word: texts and contexts are drawn anew."""
_SECTIONS = ("model", "sae", "downstream_sae", "corpus")
_CAUSES = {
    "sae": "another hook, centring or activation normalisation than it was trained with, or other "
    "weights of the model",
    "downstream_sae": "another hook, centring or activation normalisation than it was trained with, "
    "or other weights of the model",
    "eligible": "another corpus, context length or first token, or an SAE loaded otherwise than it "
    "was trained",
}


@dataclass(frozen=True)
class Published:
    """What the replication reports of a setting, on its own contexts."""

    l0: float
    """Mean L0 of the steered SAE."""
    downstream_l0: float
    """Mean L0 of the downstream SAE."""
    n_eligible: int
    """Features with 0.002 <= final_act_freq <= 0.5."""


PUBLISHED = {
    "gpt2-small": Published(71.8, 60.0, 7532),
    "pythia-70m-deduped": Published(68.3, 118.6, 4375),
    "gemma-2-2b": Published(83.0, 79.3, 7517),
    "llama-3.1-8b": Published(32.2, 31.4, 2837),
}
"""Source: protocol.md, last section (Y. Bishnoi, 2026). The Llama figures are those of the 8x SAEs;
none are published for ``llama-3.1-8b-32x``."""

RELIABILITY = {
    "gpt2_small": (0.960, 0.938, 0.903, 0.895),
    "pythia_70m_deduped": (0.906, 0.759, 0.937, 0.946),
    "gemma_2_2b": (0.925, 0.788, 0.602, 0.800),
    "llama_3_1_8b": (0.946, 0.897, 0.520, 0.854),
}
"""Reliability, between two halves of the contexts, of collateral_count_0.05, collateral_per_effect,
stability_abs and effect_l2 in the replication's tables. Source: protocol.md, last section
(Y. Bishnoi, 2026)."""
_RELIABLE = ("collateral_count_0.05", "collateral_per_effect", "stability_abs", "effect_l2")


def reliability_for(table: str) -> dict[str, float]:
    """Published reliability of a table's labels, by target; empty where none is published."""
    return dict(zip(_RELIABLE, RELIABILITY.get(table, ()), strict=False))


def published_for(setting: Setting) -> Published | None:
    """The figures of a bundled setting whose model, SAEs and corpus are as they were bundled."""
    figures = PUBLISHED.get(setting.name)
    if figures is None or setting.name not in bundled():
        return None
    original = find_setting(setting.name)
    same = all(getattr(setting, name) == getattr(original, name) for name in _SECTIONS)
    return figures if same else None


def deviations(published: Published, mean_l0: Mapping[str, float], n_eligible: int) -> list[str]:
    """A warning for every measured figure that is more than 10 % off the published one.

    Args:
        published: what :func:`published_for` gives.
        mean_l0: Mean L0 by ``sae`` and ``downstream_sae``, as in a run's manifest.
        n_eligible: Number of features eligible for labelling.

    """
    figures = {
        "sae": ("mean L0 of the steered SAE", mean_l0["sae"], published.l0),
        "downstream_sae": (
            "mean L0 of the downstream SAE",
            mean_l0["downstream_sae"],
            published.downstream_l0,
        ),
        "eligible": ("number of eligible features", n_eligible, published.n_eligible),
    }
    return [
        f"{what} is {measured:.6g}, published {reported:.6g} ({measured / reported - 1:+.0%}); perhaps "
        f"{_CAUSES[key]}"
        for key, (what, measured, reported) in figures.items()
        if not abs(measured - reported) <= TOLERANCE * reported
    ]
