"""The predictor: a blend for every target, with intervals and reasons."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import KFold
from sklearn.utils.validation import check_is_fitted

from ...core.errors import InputError
from ...core.threads import in_parallel
from .blend import CANDIDATES, FOLDS, Blend, choose_weights
from .checks import LEAST_FITTED, aligned, distinct_features, finite_values
from .reasons import TOP, in_words
from .sets import statistics_of
from .targets import ABSOLUTE, bounds, keeps_tails

Array = NDArray[np.float64]

INTERVAL_LEVEL = 0.9
"""Coverage of the intervals of a ranking."""


class ModularityPredictor(BaseEstimator):  # type: ignore[misc]
    """Predicts steering labels of SAE features from their statistics, before any steering.

    Args:
        targets: label columns to predict, one model each; any numeric column.
        seed: seeds folds, landmarks and boosting.
        least_labelled: fewest labelled features that :meth:`fit` accepts.
        scale: ``values``, or ``ranks`` where statistics and labels are given as ranks and normal
            scores within their own setting, so that it may rank another setting
            (:func:`~cleansteer.predictor.evidence.pooling.fit_pooled`).

    Attributes:
        columns_: statistics that it was fitted on.
        out_of_fold_: labels predicted by models that have not seen them, ``[feature, target]``.
        models_: a :class:`~cleansteer.predictor.model.blend.Blend` for every target.
        constant_: statistics that are the same for all labelled features, and so say nothing.

    """

    def __init__(
        self,
        targets: Sequence[str] = ABSOLUTE.targets,
        seed: int = 0,
        least_labelled: int = LEAST_FITTED,
        scale: Literal["values", "ranks"] = "values",
    ) -> None:
        self.targets = targets
        self.seed = seed
        self.least_labelled = least_labelled
        self.scale = scale

    @property
    def n_fits(self) -> int:
        """How often :meth:`fit` calls its ``tick``."""
        return len(self.targets) * (FOLDS + 1)

    def fit(
        self, X: pd.DataFrame, Y: pd.DataFrame, tick: Callable[[], object] | None = None
    ) -> Self:
        """Fit a blend for each target: on every four fifths of the features, and on all.

        The models of the folds give :attr:`out_of_fold_`, the intervals, and the weights of the model
        of all features; each chooses its own weights within its own training rows.

        Args:
            X: statistics, ``[feature, statistic]``, indexed by feature; any of those in docs/protocol.md.
            Y: labels of the same features, with the targets among the columns. The prediction of a
                constant label is that constant.
            tick: called after every fitted model, 6 times a target.

        Raises:
            InputError: too few features, a feature twice, labels of other features, a target that
                is missing, or a value that is no finite number.

        """
        distinct_features(X, "statistics")
        distinct_features(Y, "labels")
        Y = aligned(X, Y)
        columns = statistics_of(X.columns)
        values = finite_values(X, columns, "statistics")
        labels = finite_values(Y, list(self.targets), "labels")
        least = max(self.least_labelled, FOLDS)
        if len(X) < least:
            raise InputError(
                f"{len(X)} labelled features are too few to fit a predictor, expected at least "
                f"{least}; label more (--labels)"
            )
        if not columns:
            raise InputError("the table holds no statistics; compute them (cleansteer features)")
        splits = list(KFold(FOLDS, shuffle=True, random_state=self.seed).split(values))
        self.columns_ = columns
        self.features_ = X.index.rename("feature")
        of_target = dict(zip(self.targets, labels.T, strict=True))
        folds = np.empty(len(X), dtype=np.int64)
        for fold, (_, test) in enumerate(splits):
            folds[test] = fold

        def fit_fold(job: tuple[str, int]) -> Blend:
            target, fold = job
            train = splits[fold][0]
            blend = self.new_blend(target).fit(values[train], of_target[target][train])
            if tick is not None:
                tick()
            return blend

        of_folds = in_parallel(
            fit_fold, [(target, fold) for target in self.targets for fold in range(FOLDS)]
        )
        parts = {t: of_folds[i * FOLDS : (i + 1) * FOLDS] for i, t in enumerate(self.targets)}

        def fit_whole(target: str) -> Blend:
            y = of_target[target]
            blend = self.new_blend(target)
            weights = choose_weights(_held_out(parts[target], values, folds), y, blend.tails)
            blend.fit(values, y, weights)
            if tick is not None:
                tick()
            return blend

        wholes = in_parallel(fit_whole, self.targets)
        blends = {t: [*parts[t], blend] for t, blend in zip(self.targets, wholes, strict=True)}
        return self.restore(values, of_target, folds, blends)

    def new_blend(self, target: str) -> Blend:
        """A model to be fitted; normal scores of other settings have no tails to keep."""
        return Blend(self.seed, keeps_tails(target) and self.scale == "values")

    def restore(
        self,
        statistics: Array,
        labels: Mapping[str, Array],
        folds: NDArray[np.int64],
        blends: Mapping[str, Sequence[Blend]],
    ) -> Self:
        """Take over a fit: training table, folds, and for every target the blends of the folds and,
        last, the one of all rows. :attr:`columns_` and :attr:`features_` are set before.
        """
        self.statistics_, self.labels_, self.folds_ = statistics, dict(labels), folds
        same = np.ptp(statistics, axis=0) == 0
        self.constant_ = [
            name for name, is_same in zip(self.columns_, same, strict=True) if is_same
        ]
        self.fold_models_ = {target: list(of_folds) for target, (*of_folds, _) in blends.items()}
        self.models_ = {target: whole for target, (*_, whole) in blends.items()}
        self._predict_held_out()
        return self

    def _predict_held_out(self) -> None:
        predictions = {}
        for target, blends in self.fold_models_.items():
            predictions[target] = np.empty(len(self.folds_))
            for fold, blend in enumerate(blends):
                rows = self.folds_ == fold
                predictions[target][rows] = self._within(
                    target, blend.predict(self.statistics_[rows])
                )
        self.out_of_fold_ = pd.DataFrame(predictions, index=self.features_)

    def predict(self, X: pd.DataFrame) -> pd.DataFrame:
        """Predicted labels, a column for each target, in the rows of ``X``: medians, where the label
        is fitted as normal scores.

        Raises:
            InputError: a statistic that it was fitted on is missing or not finite.

        """
        values = self._statistics(X)
        return pd.DataFrame(
            {t: self._within(t, model.predict(values)) for t, model in self.models_.items()},
            index=X.index,
        )

    def _statistics(self, X: pd.DataFrame) -> Array:
        check_is_fitted(self)
        return finite_values(X, self.columns_, "statistics")

    def _known(self, targets: Sequence[str] | None) -> Sequence[str]:
        for target in () if targets is None else targets:
            if target not in self.models_:
                raise InputError(
                    f"target {target!r} is not among those the predictor was fitted on, expected "
                    f"{', '.join(self.models_)}; name one of them"
                )
        return tuple(self.models_) if targets is None else targets

    def predict_interval(
        self,
        X: pd.DataFrame,
        level: float = INTERVAL_LEVEL,
        targets: Sequence[str] | None = None,
        held_out: bool = False,
    ) -> pd.DataFrame:
        """Conformal (CV+) intervals: columns ``(target, "low")``, ``(target, "high")``.

        They are computed in the scores that models are fitted to and mapped back to labels: with
        normal scores, whose errors are even, an interval is wide where labels lie far apart. They
        cover new features that are like the labelled ones, as
        :func:`~cleansteer.predictor.model.intervals.cross_conformal` says.

        Args:
            X: statistics, ``[feature, statistic]``.
            level: coverage.
            targets: which ones; by default all.
            held_out: True takes a labelled feature's interval from the model that has not seen its
                label, as in :attr:`out_of_fold_`.

        Raises:
            InputError: a target is unknown, the level does not lie between 0 and 1, or is too high
                for so few labels.

        """
        from .intervals import cross_conformal

        values = self._statistics(X)
        chosen = self._known(targets)
        n = len(self.folds_)
        if not n * min(level, 1 - level) > 1:
            raise InputError(
                f"level {level:g} is not possible with {n} labelled features, expected more than "
                f"{1 / n:.2g} and less than {1 - 1 / n:.3g}; change it or label more"
            )
        seen = self.features_.get_indexer(X.index) if held_out else np.full(len(X), -1)
        columns: dict[tuple[str, str], Array] = {}
        for target in chosen:
            blends, scores = self.fold_models_[target], self.models_[target].scores
            known = np.column_stack([blend.predict_scores(self.statistics_) for blend in blends])
            new = np.column_stack([blend.predict_scores(values) for blend in blends])
            new[seen >= 0] = known[seen[seen >= 0], self.folds_[seen[seen >= 0]]][:, None]
            z = scores(self.labels_[target])
            ends = cross_conformal(known, z, self.folds_, new, level)
            for name, end in zip(("low", "high"), ends, strict=True):
                columns[target, name] = self._within(target, scores.back(end))
        return pd.DataFrame(columns, index=X.index)

    def _within(self, target: str, values: Array) -> Array:
        """Values clipped to the bounds of the label; normal scores have none."""
        return values if self.scale == "ranks" else np.clip(values, *bounds(target))

    def explain(
        self,
        X: pd.DataFrame,
        targets: Sequence[str] | None = None,
        typical: pd.Series | None = None,
    ) -> pd.DataFrame:
        """What every statistic adds to a feature's predicted score (see :class:`Blend`).

        Columns ``(target, statistic)`` and ``(target, "base")``; a row's entries of a target sum to
        its predicted score (see :meth:`Blend.contributions`).

        Args:
            X: statistics, ``[feature, statistic]``.
            targets: which ones; by default all.
            typical: the feature that others are compared with; by default the median of each column
                of ``X``.

        Raises:
            InputError: a target is unknown, a statistic is missing or not finite, or ``X`` is empty
                and so has no median.

        """
        values = self._statistics(X)
        if typical is None and not len(X):
            raise InputError(
                "the table of statistics is empty, expected a feature or more to take medians of; give "
                "features, or a typical one"
            )
        start = np.median(values, axis=0) if typical is None else typical[self.columns_].to_numpy()
        tables = {}
        for target in self._known(targets):
            shares, base = self.models_[target].contributions(values, start)
            table = pd.DataFrame(shares, index=X.index, columns=self.columns_)
            tables[target] = table.assign(base=base)
        return pd.concat(tables, axis=1)

    def reasons(
        self, X: pd.DataFrame, target: str, top: int = TOP, typical: pd.Series | None = None
    ) -> pd.Series:
        """The statistics that move a feature's prediction most, in words; arguments as above."""
        contributions = pd.DataFrame(self.explain(X, (target,), typical)[target])
        if typical is None:
            typical = X[self.columns_].median()
        return in_words(contributions[self.columns_], X, typical, target, top)


def _held_out(blends: Sequence[Blend], X: Array, folds: NDArray[np.int64]) -> Array:
    candidates = np.empty((len(folds), len(CANDIDATES)))
    for fold, blend in enumerate(blends):
        candidates[folds == fold] = blend.candidates(X[folds == fold])
    return candidates
