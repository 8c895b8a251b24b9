"""What the comparison estimates anew from a table of statistics and labels."""

import hashlib
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.errors import InputError
from ...core.runs import RunDirectory
from ...predictor.examination import partial, residualised, targets_of
from ...predictor.resampling import bootstrap, resampled_spearman
from ...predictor.scores import RESAMPLES, percentile_interval, spearman
from ...predictor.tables import LabelledTable
from ...predictor.validation import validate_sets
from ...core.layout import FEATURES, LABELS, RANDOM_DIRECTIONS
from .screened import COUNT, Screened

CROWDING = "crowding_topk_mean_abs_cos"
"""The crowding that the replication reports; screening.json has that of the nearest direction alone."""
SIGNIFICANT = 0.05
KEPT = "estimates.json"
_FORMAT = "cleansteer-estimates/1"


def estimates_of(screened: Screened) -> dict[str, Any]:
    """:func:`estimate` of a run, kept in it as long as its tables stay what they are."""
    run, digest = screened.run, hashlib.sha256()
    for name in (FEATURES, LABELS, RANDOM_DIRECTIONS):
        digest.update((run.path / name).read_bytes())
    key = {"format": _FORMAT, "tables": digest.hexdigest()[:16]}
    kept = _kept(run)
    if kept.get("key") == key:
        return dict(kept["estimates"])
    found = estimate(screened.table, screened.setting.seed, screened.random)
    with suppress(OSError):  # a run that cannot be written to is compared all the same
        run.write_json(KEPT, {"key": key, "estimates": found})
    return found


def _kept(run: RunDirectory) -> dict[str, Any]:
    """What was kept in a run; nothing where it is missing or damaged."""
    try:
        return run.json(KEPT)
    except InputError:
        return {}


def estimate(table: LabelledTable, seed: int, random: pd.DataFrame | None = None) -> dict[str, Any]:
    """Skill by predictor set, residualised skill, strongest statistic under control, crowding.

    As plain data: ``sets`` (set, target), ``residualised`` (control set, set, target) and
    ``crowding`` (features, random) hold figures with 95 % intervals; ``strongest`` holds for every
    target the statistic with the largest partial rank correlation, None where the controls leave
    nothing.

    Args:
        table: of one setting.
        seed: of folds and resampling.
        random: labels of random directions, indexed by the feature whose place they take.

    Source: protocol.md, Predictor sets (arXiv:2606.08365; Bishnoi 2026).

    """
    sets = validate_sets(table.statistics, table.labels[targets_of(table)], seed)
    by_controls = residualised(table, seed)
    crowding = {"features": _crowding(table, table.labels, seed)}
    if random is not None:
        crowding["random"] = _crowding(table, random, seed)
    return {
        "sets": {
            name: {target: asdict(interval) for target, interval in by_target.items()}
            for name, by_target in sets.items()
        },
        "residualised": {name: found["sets"] for name, found in by_controls.items()},
        "strongest": {t: _strongest(records) for t, records in partial(table, seed).items()},
        "crowding": crowding,
    }


def _strongest(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not records:
        return None
    strongest = max(records, key=lambda record: abs(record["rho"]))
    return strongest | {
        "n_significant": sum(record["p_holm"] < SIGNIFICANT for record in records),
        "n_statistics": len(records),
    }


def _crowding(table: LabelledTable, labels: pd.DataFrame, seed: int) -> dict[str, float] | None:
    """Spearman of decoder crowding with the collateral count of features, or of what stands in
    their places.
    """
    if CROWDING not in table.statistics:
        return None
    a: NDArray[np.float64] = table.statistics.loc[labels.index, CROWDING].to_numpy(np.float64)
    b = labels[COUNT].to_numpy(dtype=np.float64)
    counts = bootstrap(len(a), RESAMPLES, seed)
    return asdict(percentile_interval(spearman(a, b), resampled_spearman(a, b, counts)))
