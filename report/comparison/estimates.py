"""What the comparison estimates anew from a table of statistics and labels."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import ValidationError

from ...core.errors import InputError
from ...core.layout import ESTIMATES, FEATURES, LABELS, RANDOM_DIRECTIONS
from ...core.records import Interval, Record
from ...core.records.validation import PartialCorrelation
from ...core.tables import read_json, write_text
from ...predictor.evidence.examination import partial, residualised, targets_of
from ...predictor.evidence.resampling import bootstrap, resampled_spearman
from ...predictor.evidence.scores import RESAMPLES, percentile_interval, spearman
from ...predictor.evidence.tables import LabelledTable
from ...predictor.evidence.validation import validate_sets
from ...predictor.model.targets import ABSOLUTE
from .screened import COUNT, ScreenedRun

CROWDING = "crowding_topk_mean_abs_cos"
"""The crowding that the replication reports; screening.json has that of the nearest direction alone."""
SIGNIFICANT = 0.05


class StrongestStatistic(Record):
    """The statistic with the largest partial rank correlation with a label."""

    statistic: str
    rho: float
    low: float
    high: float
    p: float
    p_holm: float
    p_bh: float
    n_significant: int
    """Statistics with p_holm < 0.05."""
    n_statistics: int

    @property
    def interval(self) -> Interval:
        """The correlation with its 95 % interval."""
        return Interval(value=self.rho, low=self.low, high=self.high)


class Estimates(Record):
    """Estimates from one table, with 95 % intervals."""

    sets: Mapping[str, Mapping[str, Interval]]
    """Ridge's out-of-fold Spearman, by predictor set and target."""
    residualised: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    """Ridge's skill at residualised targets, by control set, predictor set and target."""
    strongest: Mapping[str, StrongestStatistic | None]
    """By target; None where the controls leave nothing of it."""
    crowding: Mapping[str, Interval | None]
    """Spearman of decoder crowding with the collateral count, for ``features`` and for the
    ``random`` directions in their places; None where crowding was not measured."""


class EstimatesKey(Record):
    """What estimates depend on."""

    format: Literal["cleansteer-estimates/3"] = "cleansteer-estimates/3"
    tables: str
    """Start of the SHA-256 of the run's tables."""


class KeptEstimates(Record):
    """``estimates.json``: estimates that are kept in a run."""

    key: EstimatesKey
    estimates: Estimates


def estimates_of(screened: ScreenedRun) -> Estimates:
    """:func:`estimate` of a run, kept in it as long as its tables stay what they are."""
    folder, digest = screened.run.path, hashlib.sha256()
    for name in (FEATURES, LABELS, RANDOM_DIRECTIONS):
        digest.update((folder / name).read_bytes())
    key = EstimatesKey(tables=digest.hexdigest()[:16])
    kept = _read_kept(folder / ESTIMATES)
    if kept is not None and kept.key == key:
        return kept.estimates
    estimates = estimate(screened.table, screened.setting.seed, screened.random)
    with suppress(OSError):  # a run that cannot be written to is compared all the same
        kept = KeptEstimates(key=key, estimates=estimates)
        write_text(folder / ESTIMATES, kept.to_json() + "\n")
    return estimates


def _read_kept(path: Path) -> KeptEstimates | None:
    """What was kept in a run; None where it is missing, damaged or of another format."""
    try:
        return KeptEstimates.model_validate(read_json(path))
    except (InputError, ValidationError):
        return None


def estimate(table: LabelledTable, seed: int, random: pd.DataFrame | None = None) -> Estimates:
    """Skill by predictor set, residualised skill, strongest statistic under control, crowding; of the
    table's targets and of the paper's, to be set beside published ones.

    Args:
        table: of one setting.
        seed: of folds and resampling.
        random: labels of random directions, indexed by the feature whose place they take.

    Source: docs/protocol.md, Predictor sets (arXiv:2606.08365; Bishnoi 2026).

    """
    papers = [target for target in ABSOLUTE.targets if target in table.labels]
    targets = list(dict.fromkeys((*targets_of(table), *papers)))
    sets = validate_sets(table.statistics, table.labels[targets], seed)
    by_controls = residualised(table, seed, targets)
    crowding = {"features": _crowding(table, table.labels, seed)}
    if random is not None:
        crowding["random"] = _crowding(table, random, seed)
    return Estimates(
        sets=sets,
        residualised={name: by_set.sets for name, by_set in by_controls.items()},
        strongest={t: _strongest(found) for t, found in partial(table, seed, targets).items()},
        crowding=crowding,
    )


def _strongest(correlations: Sequence[PartialCorrelation]) -> StrongestStatistic | None:
    if not correlations:
        return None
    strongest = max(correlations, key=lambda correlation: abs(correlation.rho))
    return StrongestStatistic(
        **strongest.model_dump(),
        n_significant=sum(correlation.p_holm < SIGNIFICANT for correlation in correlations),
        n_statistics=len(correlations),
    )


def _crowding(table: LabelledTable, labels: pd.DataFrame, seed: int) -> Interval | None:
    """Spearman of decoder crowding with the collateral count of features, or of what stands in
    their places.
    """
    if CROWDING not in table.statistics:
        return None
    crowding = table.statistics.loc[labels.index, CROWDING].to_numpy(dtype="float64")
    counted = labels[COUNT].to_numpy(dtype="float64")
    counts = bootstrap(len(counted), RESAMPLES, seed)
    resampled = resampled_spearman(crowding, counted, counts)
    return percentile_interval(spearman(crowding, counted), resampled)
