"""Pools of features: halves of the eligible ones, by rankings of one dictionary."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ...core.progress import Reporter
from ...core.settings import Setting
from ...predictor.verdict.choice import choose_allowed
from ...study.entry import open_study
from .design import UNCHOSEN

PAPER, OWN, MATCHED = "paper", "own", "matched"
_CHANGES: Mapping[str, Mapping[str, object]] = {
    PAPER: {"steering.response": False, "steering.collateral": "absolute"},
    OWN: {},
    MATCHED: {"steering.mode": "matched"},
}
"""What the rankings change of the setting: the paper's statistics and collateral; nothing; strengths
matched at equal KL."""
_RANKINGS = {"clean": PAPER, "messy": PAPER, "random": PAPER, "both": OWN, "matched": MATCHED}
"""The ranking that each pool is of."""


def rankings_for(pools: tuple[str, ...]) -> list[str]:
    """The rankings that pools need."""
    return list(dict.fromkeys(_RANKINGS[pool] for pool in pools if pool in _RANKINGS))


def rank(
    setting: Setting, wanted: list[str], folder: Path, device: str, reporter: Reporter
) -> dict[str, pd.DataFrame]:
    """Rankings by name, each of a screening of its own under ``folder``; finished ones are read."""
    found = {}
    for name in wanted:
        study = open_study(
            setting,
            changes=dict(_CHANGES[name]),
            run=folder / name,
            device=device,
            progress=reporter.shows,
        )
        if not study.screened:
            study.screen()
        found[name] = study.ranking
    return found


def pool_of(
    name: str, rankings: Mapping[str, pd.DataFrame], n_features: int, seed: int
) -> list[int]:
    """Features of a pool, rising.

    ``clean`` and ``messy`` are the halves of the eligible features that the paper's score predicts
    cleanest and messiest, ``both`` and ``matched`` those that are cleanest on the worse of both axes in
    the setting's own mode and at matched strength, ``random`` a half drawn with the seed; ``all`` and
    ``unchosen`` the whole dictionary.
    """
    if name in ("all", UNCHOSEN):
        return list(range(n_features))
    ranking = rankings[_RANKINGS[name]]
    eligible = ranking[ranking["eligible"]]
    half = len(eligible) // 2
    choices: dict[str, Callable[[], list[int]]] = {
        "clean": lambda: choose_allowed(ranking, half)[0],
        "messy": lambda: _but(eligible, choose_allowed(ranking, len(eligible) - half)[0]),
        "both": lambda: choose_allowed(ranking, half, by="both")[0],
        "matched": lambda: choose_allowed(ranking, half, by="both")[0],
        "random": lambda: (
            np.random.default_rng(seed)
            .choice(np.sort(eligible["feature"].to_numpy()), half, replace=False)
            .tolist()
        ),
    }
    return sorted(int(feature) for feature in choices[name]())


def _but(eligible: pd.DataFrame, others: list[int]) -> list[int]:
    return [int(feature) for feature in eligible["feature"] if feature not in set(others)]
