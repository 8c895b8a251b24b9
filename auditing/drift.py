"""What is told of features' meaning: groups of them, and those that drifted most."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..core.records.contexts import AuditedContext
from ..core.records.meaning import DriftedFeature, MeaningGroup, MeaningRecord
from ..naming.measured import told_tokens
from .contexts import SHOWN, told_context
from .meaning import CONTEXTS, Meanings
from .peaks import Peaks


def most_drifted(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Rows of the features that lost most of their contexts, of those that the adapter may not edit where
    there are any; of equal overlap that with the larger change of its mean first.

    Args:
        table: as :meth:`.meaning.Meanings.table` gives it.
        count: how many at most.

    """
    others = table if table["allowed"].all() else table[~table["allowed"]]
    moved = others[others["overlap"] < 1]
    order = moved.assign(change=(moved["before"] - moved["after"]).abs()).sort_values(
        ["overlap", "change"], ascending=[True, False], kind="stable"
    )
    return order.head(count)


def told_meaning(
    found: Meanings,
    table: pd.DataFrame,
    drifted: pd.DataFrame,
    rows: Sequence[Sequence[int]],
    tokenizer: Any,
    names: Mapping[tuple[str, int], str],
) -> MeaningRecord:
    """The record of one SAE.

    Args:
        found: what was measured.
        table: all features of it.
        drifted: those that are told one by one.
        rows: the texts that it was measured on.
        tokenizer: of them.
        names: descriptions by hook and feature.

    """
    target, allowed = found.sae.target, table["allowed"]
    features = []
    for row in drifted.to_dict("records"):
        feature = int(row["feature"])
        before, after = (
            _contexts(found, peaks, feature, rows, tokenizer)
            for peaks in (found.before, found.after)
        )
        named = None if found.sae.downstream else names.get((target.hook, feature))
        features.append(
            DriftedFeature(
                feature=feature,
                description=named or told_tokens([each.token for each in before]) or None,
                strongest=before,
                strongest_after=after,
                **{
                    name: float(row[name])
                    for name in ("overlap", "before", "after", "fires_before", "fires_after")
                },
            )
        )
    return MeaningRecord(
        hook=target.hook,
        sae=target.sae.label,
        fingerprint=str(target.fingerprint),
        downstream=found.sae.downstream,
        n_texts=len(rows),
        n_tokens=found.n_tokens,
        contexts=CONTEXTS,
        edited=_group(table[allowed]),
        others=_group(table[~allowed]),
        drifted=features,
    )


def _group(table: pd.DataFrame) -> MeaningGroup | None:
    if not len(table):
        return None
    judged = table["overlap"].dropna()
    kept = (judged * CONTEXTS).round().astype(int).value_counts()
    fired = float(table["before"].sum())
    moved = float((table["after"] - table["before"]).abs().sum())
    return MeaningGroup(
        n=len(table),
        n_judged=len(judged),
        overlap=float(judged.mean()) if len(judged) else None,
        shift=moved / fired if fired > 0 else None,
        kept=[int(kept.get(common, 0)) for common in range(CONTEXTS + 1)],
    )


def _contexts(
    found: Meanings, peaks: Peaks, feature: int, rows: Sequence[Sequence[int]], tokenizer: Any
) -> list[AuditedContext]:
    told = []
    for activation, place in peaks.strongest(feature)[:SHOWN]:
        text = bisect_right(found.starts, place) - 1
        told.append(told_context(tokenizer, rows[text], place - found.starts[text], activation))
    return told
