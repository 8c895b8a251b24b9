"""All evidence on how well one table's labels are predicted, and the verdict on it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from ...core.records import Interval
from ...core.records.skill import OURS
from ...core.records.validation import (
    Ceiling,
    Cell,
    Coverage,
    Covered,
    Examination,
    Floor,
    Overall,
    PartialCorrelation,
    Residualised,
    SetSkill,
)
from ...core.threads import in_parallel
from ..model.baselines import paper_ridge
from ..model.blend import FOLDS, blended
from ..model.models import ModularityPredictor
from ..model.sets import predictor_sets
from ..verdict import judge
from .controls import reliability, stepped_up
from .partial import partial_rank_correlations
from .residuals import residualised_interval, usable_controls
from .scores import out_of_fold, spearman
from .tables import LabelledTable
from .validation import validate

Array = NDArray[np.float64]
Tick = Callable[[int], object]

LEVELS = (0.8, 0.9)
FLOOR_QUANTILE = 0.95


def n_steps(table: LabelledTable, repeats: int, shuffles: int) -> int:
    """How many ticks an examination takes."""
    targets = len(targets_of(table))
    return targets * (FOLDS + 1) * (repeats + FOLDS) + shuffles + targets * len(sets_of(table))


def targets_of(table: LabelledTable) -> list[str]:
    """The targets that the table has."""
    return [target for target in table.scheme.targets if target in table.labels]


def sets_of(table: LabelledTable) -> dict[str, list[str]]:
    """The predictor sets that the table has any statistic of."""
    sets = predictor_sets(table.statistics.columns)
    return {name: columns for name, columns in sets.items() if columns}


def examine(
    table: LabelledTable,
    seed: int,
    repeats: int,
    shuffles: int,
    tick: Tick = lambda _: None,
    published: Mapping[str, float] | None = None,
) -> Examination:
    """Skill beside ridge, boosting and baselines; floor, ceiling, coverage; sets, residualised
    labels, partial rank correlations; verdict.

    Args:
        table: statistics and labels.
        seed: seeds the first repeat's folds, and everything else that is drawn.
        repeats: number of divisions into five folds that the skill is averaged over.
        shuffles: how often labels are shuffled for the floor; 0 for none.
        tick: called with how many of :func:`n_steps` were done.
        published: reliability of labels between halves by target, where the table has no halves.

    Raises:
        InputError: fewer than 30 features.

    """
    targets = targets_of(table)
    labels = table.labels[targets]
    predictions = {}
    for repeat in range(repeats):
        predictor = ModularityPredictor(targets, seed + repeat)
        predictor.fit(table.statistics, labels, tick=lambda: tick(1))
        predictions[seed + repeat] = predictor.out_of_fold_
    skills = validate(table.statistics, labels, predictions)
    scores = shuffled_scores(table, seed, shuffles, tick)
    limit = float(np.quantile(scores, FLOOR_QUANTILE)) if len(scores) else None
    return Examination(
        name=table.name,
        n_features=len(labels),
        n_statistics=table.statistics.shape[1],
        notes=table.notes,
        seed=seed,
        repeats=repeats,
        skill=skills,
        floor=Floor(shuffles=len(scores), scores=scores.tolist(), quantile_95=limit),
        reliability=reliability_of(table, seed, published),
        coverage=coverage(table, seed, tick),
        sets=side_by_side(table, seed, tick),
        residualised=residualised(table, seed),
        partial_rank_correlations=partial(table, seed),
        trust=judge(skills, floor=limit, scheme=table.scheme),
    )


def shuffled_scores(table: LabelledTable, seed: int, shuffles: int, tick: Tick) -> Array:
    """Out-of-fold Spearman of our model where labels were given to other features, ``[shuffle]``.

    One label does for all: they differ only in their values, and the blend sees normal scores.
    """
    X = table.statistics.to_numpy(dtype=np.float64)
    y = table.labels[targets_of(table)[0]].to_numpy(dtype=np.float64)

    def score(shuffle: int) -> float:
        order = np.random.default_rng([seed, shuffle]).permutation(len(y))
        skill = spearman(out_of_fold(blended(seed), X, y[order], seed + shuffle), y[order])
        tick(1)
        return skill

    return np.array(in_parallel(score, range(shuffles)))


def reliability_of(
    table: LabelledTable, seed: int, published: Mapping[str, float] | None
) -> dict[str, Ceiling]:
    """Per target, the reliability r of the labels, and the ceiling sqrt(r) that it sets.

    Source: Spearman 1904 (attenuation).
    """
    if table.halves is None:
        return {
            target: Ceiling(published=r, whole=stepped_up(r), ceiling=_root(stepped_up(r)))
            for target, r in (published or {}).items()
        }
    return {
        target: Ceiling(
            value=measured.value,
            low=measured.low,
            high=measured.high,
            whole=measured.whole,
            ceiling=_root(measured.whole),
        )
        for target, measured in reliability(*table.halves, seed, table.scheme).items()
    }


def _root(reliability: float) -> float:
    return float(np.sqrt(reliability))


def coverage(table: LabelledTable, seed: int, tick: Tick) -> dict[str, dict[str, Coverage]]:
    """How many labels lie within their intervals, for features that the predictor has not seen at
    all: it is fitted anew, folds, weights and intervals included, on every four fifths.
    """
    targets = targets_of(table)
    inside: dict[float, list[pd.DataFrame]] = {level: [] for level in LEVELS}
    widths: dict[float, list[pd.DataFrame]] = {level: [] for level in LEVELS}
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(table.statistics):
        predictor = ModularityPredictor(targets, seed, least_labelled=0)
        known, new = table.statistics.iloc[train], table.statistics.iloc[test]
        predictor.fit(known, table.labels.iloc[train], tick=lambda: tick(1))
        labels = table.labels.iloc[test]
        for level in LEVELS:
            ends = predictor.predict_interval(new, level)
            low, high = (
                pd.DataFrame({target: ends[target, end] for target in targets})
                for end in ("low", "high")
            )
            inside[level].append((labels[targets] >= low) & (labels[targets] <= high))
            widths[level].append(high - low)
    return {
        f"{level:.0%}": {
            target: Coverage(
                covered=int(pd.concat(inside[level])[target].sum()),
                n=len(table.labels),
                mean_width=float(pd.concat(widths[level])[target].mean()),
            )
            for target in targets
        }
        for level in LEVELS
    }


def side_by_side(table: LabelledTable, seed: int, tick: Tick) -> dict[str, dict[str, SetSkill]]:
    """Skill of ridge and ours on every predictor set, by target; one repeat."""
    targets, sets = targets_of(table), sets_of(table)

    def compare(job: tuple[str, str]) -> SetSkill:
        name, target = job
        X = np.ascontiguousarray(table.statistics[sets[name]].to_numpy(dtype=np.float64))
        y = table.labels[target].to_numpy(dtype=np.float64)
        methods = {"ridge": paper_ridge, OURS: blended(seed, target)}
        scores = {m: spearman(out_of_fold(f, X, y, seed), y) for m, f in methods.items()}
        tick(1)
        return SetSkill(ridge=scores["ridge"], ours=scores[OURS])

    jobs = [(name, target) for name in sets for target in targets]
    skills = dict(zip(jobs, in_parallel(compare, jobs), strict=True))
    return {name: {target: skills[name, target] for target in targets} for name in sets}


def residualised(
    table: LabelledTable, seed: int, targets: Sequence[str] | None = None
) -> dict[str, Residualised]:
    """Skill of the ridge at residualised labels (None: the table's targets), by control set, predictor
    set and target.
    """
    asked = targets_of(table) if targets is None else targets
    available = table.controls()
    by_controls = {}
    for name, controls in usable_controls(available).items():
        C = available[controls].to_numpy(dtype=np.float64)

        def score(job: tuple[str, str], C: Array = C) -> Interval:
            X = table.statistics[sets_of(table)[job[0]]].to_numpy(dtype=np.float64)
            y = table.labels[job[1]].to_numpy(dtype=np.float64)
            return residualised_interval(paper_ridge, X, y, C, seed)

        targets = [target for target in asked if target not in controls]
        jobs = [(set_name, target) for set_name in sets_of(table) for target in targets]
        scores = dict(zip(jobs, in_parallel(score, jobs), strict=True))
        by_set = {s: {target: scores[s, target] for target in targets} for s in sets_of(table)}
        by_controls[name] = Residualised(controls=controls, sets=by_set)
    return by_controls


def partial(
    table: LabelledTable, seed: int, targets: Sequence[str] | None = None
) -> dict[str, list[PartialCorrelation]]:
    """Partial rank correlations of every statistic with every target (None: the table's), given the
    replication's controls.
    """
    available = table.controls()
    controls = usable_controls(available)["replication"]
    targets = targets_of(table) if targets is None else targets

    def correlations(target: str) -> list[PartialCorrelation]:
        left = available[[c for c in controls if c != target]]
        rows = partial_rank_correlations(table.statistics, left, table.labels[target], seed)
        return [
            PartialCorrelation(**{str(key): value for key, value in row.items()})
            for row in rows.to_dict("records")
        ]

    return dict(zip(targets, in_parallel(correlations, targets), strict=True))


def mean_over_cells(examined: Sequence[Examination]) -> Overall:
    """Mean skill of each method over all tables and targets, the least lead of ours over the ridge,
    and the coverage of all intervals.
    """
    cells = [(one.name, target, skill) for one in examined for target, skill in one.skill.items()]
    methods = [m for m in (OURS, "ridge", "boosting") if all(m in s.scores for _, _, s in cells)]
    table, target, least = min(cells, key=lambda cell: cell[2].over_ridge.value)
    return Overall(
        n_cells=len(cells),
        means={
            m: float(np.mean([skill.scores[m].value for _, _, skill in cells])) for m in methods
        },
        least_lead_over_ridge=Cell(table=table, target=target, value=least.over_ridge.value),
        coverage={level: _covered(examined, level) for level in examined[0].coverage},
    )


def _covered(examined: Sequence[Examination], level: str) -> Covered:
    parts = [part for one in examined for part in one.coverage[level].values()]
    return Covered(covered=sum(p.covered for p in parts), n=sum(p.n for p in parts))
