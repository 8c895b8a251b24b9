"""Names of features by what was measured of them: the tokens at which they fire."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..core.errors import InputError
from ..core.layout import FEATURES
from ..core.runs import RunDirectory
from .files import in_a_line

_COLUMNS = ("peak_top_tokens", "direct_top_tokens")
"""Tokens at which a feature is most active; of runs that lack them, those that it promotes."""
_TOKENS = 5


def read_run(folder: Path, fingerprint: str) -> dict[int, str]:
    """Names of the features of a run, by its tables: tokens, the most frequent first.

    Args:
        folder: the run.
        fingerprint: of the SAE whose features they are.

    Raises:
        InputError: it has no statistics yet, or is of another SAE.

    """
    run = RunDirectory.existing(folder)
    if not run.has(FEATURES):
        raise InputError(
            f"--descriptions {folder}: the run has no statistics of features yet; expected a screened "
            "one; screen it"
        )
    table = run.table(FEATURES, ("feature",))
    known = run.manifest.fingerprints
    if known is None or known.sae != fingerprint:
        raise InputError(
            f"--descriptions {folder}: the run is of SAE {run.setting().sae.label}, fingerprint "
            f"{None if known is None else known.sae}, expected {fingerprint}; give a run of that SAE"
        )
    return name_by_tokens(table)


def name_by_tokens(table: pd.DataFrame) -> dict[int, str]:
    """Names by feature, from a table of statistics; none of a feature that fires nowhere."""
    column = next((name for name in _COLUMNS if name in table), None)
    if column is None:
        return {}
    pairs = zip(table["feature"], table[column], strict=True)
    named = {int(feature): told_tokens(tokens) for feature, tokens in pairs}
    return {feature: name for feature, name in named.items() if name}


def told_tokens(tokens: Sequence[str]) -> str:
    """Tokens in a line, without the blanks around them, each once."""
    words = (in_a_line(token) for token in tokens)
    return " ".join(list(dict.fromkeys(word for word in words if word))[:_TOKENS])
