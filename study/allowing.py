"""Allowlists of a screened study."""

import pandas as pd

from ..core.errors import InputError
from ..core.records import Allowlist, Manifest, Verdict
from ..core.settings import Setting
from ..predictor.verdict import choose_allowed


def allow(
    setting: Setting,
    manifest: Manifest,
    ranking: pd.DataFrame,
    trust: Verdict,
    top: int | None,
    min_score: float | None,
) -> Allowlist:
    """The eligible features with the highest predicted clean scores: ``top`` of them, or all with at
    least ``min_score``; with what they were measured on, and the ranking's verdict.

    Raises:
        InputError: both or neither are given, or no feature qualifies.

    """
    if (top is None) == (min_score is None):
        raise InputError("give either --top K or --min-score S")
    features, criterion = choose_allowed(ranking, top=top, min_score=min_score)
    return Allowlist.for_run(setting, manifest, features=features, criterion=criterion, trust=trust)
