"""Allowlists of a screened study."""

import pandas as pd

from ..core.choices import By
from ..core.errors import InputError
from ..core.records import Allowlist, Manifest, Screening
from ..core.settings import Setting
from ..predictor.verdict import choose_allowed

DEFAULT_TOP = 100
"""Features of an allowlist where nothing says how many."""


def allow(
    setting: Setting,
    manifest: Manifest,
    ranking: pd.DataFrame,
    screening: Screening,
    top: int | None,
    min_score: float | None,
    by: By,
    min_stability: float | None,
    max_collateral_per_effect: float | None,
) -> Allowlist:
    """Eligible features, as :func:`~cleansteer.predictor.verdict.choice.choose_allowed` chooses them;
    with what they were measured on, and the ranking's verdict.

    Where nothing says how many, it is the 100 cleanest, or all where there are fewer.

    Raises:
        InputError: too much is asked for, or no feature qualifies.

    """
    if screening.ranked_by == "linear response":
        _refuse_floors(min_stability, max_collateral_per_effect)
    if top is None and min_score is None and min_stability is max_collateral_per_effect is None:
        top = min(DEFAULT_TOP, int(ranking["eligible"].sum()))
    features, criterion = choose_allowed(
        ranking, top, min_score, by, min_stability, max_collateral_per_effect
    )
    return Allowlist.for_run(
        setting,
        manifest,
        features=features,
        criterion=criterion,
        trust=screening.trust,
        ranked_by=screening.ranked_by,
    )


def _refuse_floors(min_stability: float | None, max_collateral_per_effect: float | None) -> None:
    for name, floor in (
        ("--min-stability", min_stability),
        ("--max-collateral-per-effect", max_collateral_per_effect),
    ):
        if floor is not None:
            raise InputError(
                f"{name} {floor:g} is about 90 % intervals, and a ranking by linear response, without "
                "labels, has none; choose with --top and --by, or screen with labels (--labels)"
            )
