"""A check that a bundled setting is loaded as it was trained: its figures against published ones."""

from ..core.published import PUBLISHED, Published
from ..core.records import PerSae
from ..core.settings import Setting
from .catalogue import bundled, load_setting

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


def published_for(setting: Setting) -> Published | None:
    """The figures of a bundled setting whose model, SAEs and corpus are as they were bundled."""
    figures = PUBLISHED.get(setting.name)
    if figures is None or setting.name not in bundled():
        return None
    original = load_setting(setting.name)
    same = all(getattr(setting, name) == getattr(original, name) for name in _SECTIONS)
    return figures if same else None


def deviations(published: Published, mean_l0: PerSae[float], n_eligible: int) -> list[str]:
    """A warning for every measured figure that is more than 10 % off the published one.

    Args:
        published: what :func:`published_for` gives.
        mean_l0: mean L0 of both SAEs, as in a run's manifest.
        n_eligible: number of features eligible for labelling.

    """
    figures = {
        "sae": ("mean L0 of the steered SAE", mean_l0.sae, published.l0),
        "downstream_sae": (
            "mean L0 of the downstream SAE",
            mean_l0.downstream_sae,
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
