"""Transfer: fit on some settings, rank another in which no feature was steered."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.errors import InputError
from ...core.records.validation import Transfer, TransferCell
from ...core.threads import in_parallel
from ..model.blend import FOLDS, Blend, blended
from ..model.models import ModularityPredictor
from ..model.targets import CLEAN_SCORE
from ..model.transforms import NormalScores, rank_normalised
from .resampling import bootstrap, resampled_spearman
from .scores import RESAMPLES, out_of_fold, out_of_fold_interval, percentile_interval, spearman
from .tables import LabelledTable

Array = NDArray[np.float64]


def shared(tables: Sequence[LabelledTable]) -> tuple[list[str], list[str]]:
    """Statistics and targets that all tables have. Tables that count collateral in different ways share
    no clean score, which is made of other labels in each.

    Raises:
        InputError: there are none.

    """
    common = []
    first = tables[0].scheme
    alike = all(table.scheme == first for table in tables)
    targets = [target for target in first.targets if alike or target != CLEAN_SCORE]
    for what, wanted, held in (
        ("statistic", list(tables[0].statistics.columns), [t.statistics for t in tables]),
        ("label", targets, [t.labels for t in tables]),
    ):
        names = [name for name in wanted if all(name in columns for columns in held)]
        if not names:
            raise InputError(
                f"{' and '.join(table.name for table in tables)} share no {what}; give tables with "
                "columns named alike (--columns)"
            )
        common.append(names)
    return common[0], common[1]


def pooled(
    tables: Sequence[LabelledTable], columns: Sequence[str], target: str
) -> tuple[Array, Array]:
    """Rank-normalised statistics and normal scores of a label, all tables one below the other."""
    X = [rank_normalised(table.statistics[list(columns)]).to_numpy() for table in tables]
    y = [_normal(table.labels[target].to_numpy(dtype=np.float64)) for table in tables]
    return np.vstack(X), np.concatenate(y)


def _normal(y: Array) -> Array:
    return NormalScores().fit(y)(y)


def fit_pooled(
    tables: Sequence[LabelledTable], seed: int, tick: Callable[[], object] | None = None
) -> ModularityPredictor:
    """Fit a predictor of normal scores from ranks on all tables; its features are named
    ``table/feature``.

    Raises:
        InputError: the tables share no statistic or no target.

    """
    columns, targets = shared(tables)
    names = [f"{table.name}/{feature}" for table in tables for feature in table.statistics.index]
    data = {target: pooled(tables, columns, target) for target in targets}
    X = pd.DataFrame(data[targets[0]][0], columns=columns, index=names)
    Y = pd.DataFrame({target: y for target, (_, y) in data.items()}, index=names)
    return ModularityPredictor(targets, seed, scale="ranks").fit(X, Y, tick)


def from_others(
    tables: Sequence[LabelledTable], place: int, columns: Sequence[str], target: str, seed: int
) -> Array:
    """Normal scores of one table's label, predicted on ranks by a blend fitted on all other tables."""
    others = [other for i, other in enumerate(tables) if i != place]
    X = rank_normalised(tables[place].statistics[list(columns)]).to_numpy()
    return Blend(seed).fit(*pooled(others, columns, target)).predict_scores(X)


def n_fits(tables: Sequence[LabelledTable]) -> int:
    """How many ticks :func:`transfer` takes."""
    return len(tables) * len(shared(tables)[1])


def transfer(
    tables: Sequence[LabelledTable], seed: int, tick: Callable[[int], object] = lambda _: None
) -> Transfer:
    """For each table and target: Spearman of a blend fitted on all *other* tables, which has seen no
    label of this one; beside it the skill within the table (out-of-fold, same statistics, one
    repeat).

    ``transferred`` has a 95 % percentile bootstrap over features, ``within`` one that is widened for
    cross-validation (:func:`~cleansteer.predictor.evidence.scores.out_of_fold_interval`).

    Args:
        tables: two or more.
        seed: seeds models, folds and resampling.
        tick: called with 1 after each of :func:`n_fits`.

    Raises:
        InputError: the tables share no statistic or no target.

    """
    columns, targets = shared(tables)

    def score(job: tuple[int, str]) -> TransferCell:
        place, target = job
        table = tables[place]
        y = table.labels[target].to_numpy(dtype=np.float64)
        counts = bootstrap(len(y), RESAMPLES, seed)
        moved = from_others(tables, place, columns, target, seed)
        own = table.statistics[columns].to_numpy(dtype=np.float64)
        within = out_of_fold(blended(seed, target), np.ascontiguousarray(own), y, seed)
        tick(1)
        return TransferCell(
            table=table.name,
            target=target,
            transferred=percentile_interval(
                spearman(moved, y), resampled_spearman(moved, y, counts)
            ),
            within=out_of_fold_interval(spearman(within, y), resampled_spearman(within, y, counts)),
        )

    jobs = [(place, target) for place in range(len(tables)) for target in targets]
    return Transfer(statistics=columns, folds_within=FOLDS, cells=in_parallel(score, jobs))
