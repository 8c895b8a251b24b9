"""Learning curves: out-of-fold skill by the number of labels that a model was fitted to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from ..core.tables import write_atomically
from .blend import FOLDS
from .resampling import bootstrap, resampled_spearman
from .scores import RESAMPLES, FitPredict, Interval, percentile_interval, spearman

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
Cell = tuple[str, int]
"""A method and the number of labels it was fitted to."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Those of Okabe and Ito (2008), which colour-blind readers tell apart."""
_MARKERS = "os^Dv*"
_PANELS_A_ROW = 3
_PANEL_INCHES = (4.5, 3.4)
_FORMATS = ("png", "svg")


@dataclass(frozen=True)
class LearningCurve:
    """Scores, and the predictions that they are of."""

    scores: pd.DataFrame
    """Columns method, n, repeat, score: Spearman of the out-of-fold predictions over all rows."""
    predictions: Mapping[Cell, Array]
    """Out-of-fold predictions of each method and n, ``[repeat, feature]``."""
    label: Array
    """What is predicted, ``[feature]``."""

    @property
    def sizes(self) -> list[int]:
        """Numbers of labels, rising; the last is all that five folds leave for training."""
        return sorted({n for _, n in self.predictions})


def learning_curve(
    methods: Mapping[str, FitPredict],
    X: Array,
    y: Array,
    sizes: Sequence[int],
    seed: int,
    repeats: int = 5,
) -> LearningCurve:
    """Repeated 5-fold cross-validation of every method on growing parts of the training rows.

    In every fold the training rows are put in one seeded random order; a model of n labels is fitted
    to the first n of them and predicts the held-out fold. So the rows of a smaller n are among those
    of a larger, and all methods see the same. The folds of repeat r are those of ``out_of_fold`` with
    the seed ``seed + r``.

    Args:
        methods: by name, each a function of training statistics, training labels and new statistics.
        X: statistics, ``[feature, statistic]``.
        y: label, ``[feature]``.
        sizes: numbers of labels. Those above the smallest training fold become it; what then occurs
            twice is done once.
        seed: of folds and orders.
        repeats: number of divisions into folds.

    Raises:
        ValueError: a size or ``repeats`` is less than 1, no size is given, or ``X`` and ``y`` differ
            in their number of rows.

    """
    if len(X) != len(y):
        raise ValueError(f"{len(X)} rows of statistics, {len(y)} labels")
    if min(sizes, default=0) < 1 or repeats < 1:
        raise ValueError(f"sizes {list(sizes)} and {repeats} repeats, expected some of at least 1")
    largest = len(y) - -(-len(y) // FOLDS)
    cut = sorted({min(n, largest) for n in sizes})
    predictions = {(name, n): np.empty((repeats, len(y))) for name in methods for n in cut}
    for repeat in range(repeats):
        folds = KFold(FOLDS, shuffle=True, random_state=seed + repeat).split(X)
        for fold, (train, test) in enumerate(folds):
            order = np.random.default_rng([seed, repeat, fold]).permutation(train)
            for (name, n), predicted in predictions.items():
                # Sorted, so that with all rows a model that heeds their order is out_of_fold's.
                rows = np.sort(order[:n])
                predicted[repeat, test] = methods[name](X[rows], y[rows], X[test])
    scores = [
        (name, n, repeat, spearman(predicted[repeat], y))
        for (name, n), predicted in predictions.items()
        for repeat in range(repeats)
    ]
    table = pd.DataFrame(scores, columns=["method", "n", "repeat", "score"])
    return LearningCurve(table, predictions, y)


def summarise_curve(curve: LearningCurve, seed: int) -> pd.DataFrame:
    """Mean score over the repeats with its interval: columns method, n, value, low, high.

    The interval is a 95 % percentile bootstrap over features: in each of 2,000 resamples, the same
    for all rows and methods, the predictions of every repeat are scored again and averaged. It takes
    the predictions as given: how they would differ had other features been labelled shows only in
    the scatter of the scores over repeats.

    Args:
        curve: as found by :func:`learning_curve`.
        seed: of the resampling.

    """
    counts = bootstrap(len(curve.label), RESAMPLES, seed)
    rows = []
    for (name, n), predicted in curve.predictions.items():
        interval = percentile_interval(
            _score(predicted, curve.label), _resampled_score(predicted, curve.label, counts)
        )
        rows.append((name, n, interval.value, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["method", "n", "value", "low", "high"])


def curve_difference(curve: LearningCurve, cell: Cell, other: Cell, seed: int) -> Interval:
    """Mean score of one method and n minus that of another, on the same resampled features.

    Its interval is that of :func:`summarise_curve`, with the same resamples for the same seed.

    Raises:
        KeyError: the curve has no such method and n.

    """
    counts = bootstrap(len(curve.label), RESAMPLES, seed)
    both = [curve.predictions[of] for of in (cell, other)]
    values = [_score(predicted, curve.label) for predicted in both]
    resampled = [_resampled_score(predicted, curve.label, counts) for predicted in both]
    return percentile_interval(values[0] - values[1], resampled[0] - resampled[1])


def _score(predicted: Array, label: Array) -> float:
    return float(np.mean([spearman(repeat, label) for repeat in predicted]))


def _resampled_score(predicted: Array, label: Array, counts: Array) -> Array:
    return np.asarray(
        np.mean([resampled_spearman(repeat, label, counts) for repeat in predicted], axis=0)
    )


def plot_curve(
    panels: Mapping[str, pd.DataFrame], path: Path, ceilings: Mapping[str, float] | None = None
) -> None:
    """Write the curves as ``.svg`` or ``.png``, whole or not at all; the same input, the same bytes.

    One panel a title: number of labels on a logarithmic axis, out-of-fold Spearman with its interval
    as a band, one line a method, in one colour throughout.

    Args:
        panels: by title, what :func:`summarise_curve` gives.
        path: where to write; its ending is the format.
        ceilings: by title, the skill that nothing is expected to pass, dashed. A label's reliability
            r between halves of the contexts limits the Spearman with the whole label to about
            sqrt(2 r / (1 + r)).

    Raises:
        ValueError: there is no panel, a ceiling belongs to none, or the ending is another.

    """
    kind = path.suffix.lower().removeprefix(".")
    ceilings = ceilings or {}
    if not panels or ceilings.keys() - panels.keys() or kind not in _FORMATS:
        raise ValueError(
            f"plot {path} of the panels {list(panels)} with ceilings for {list(ceilings)}, expected "
            f"one panel or more, ceilings for them alone, and an ending among {list(_FORMATS)}"
        )
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # svg.hashsalt: else ids are random; fonttype none: text stays text, to be read and searched.
    with mpl.rc_context({"svg.hashsalt": "cleansteer", "svg.fonttype": "none"}):
        columns = min(len(panels), _PANELS_A_ROW)
        rows = -(-len(panels) // columns)
        width, height = _PANEL_INCHES
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        methods = list(dict.fromkeys(m for table in panels.values() for m in table["method"]))
        for axis, (title, table) in zip(axes, panels.items(), strict=False):
            _draw(axis, table, methods, ceilings.get(title))
            axis.set_title(title)
        for axis in axes[len(panels) :]:
            axis.remove()
        figure.supxlabel("labelled features")
        figure.supylabel("out-of-fold Spearman")
        found = {
            text: handle
            for axis in axes[: len(panels)]
            for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(found.values(), found, loc="outside upper center", ncols=2 * columns)
        metadata = {"Date": None} if kind == "svg" else None
        write_atomically(path, lambda to: figure.savefig(to, format=kind, metadata=metadata))


def _draw(axis: "Axes", table: pd.DataFrame, methods: list[str], ceiling: float | None) -> None:
    for number, method in enumerate(methods):
        line = table[table["method"] == method].sort_values("n")
        colour = COLOURS[number % len(COLOURS)]
        marker = _MARKERS[number % len(_MARKERS)]
        axis.fill_between(line["n"], line["low"], line["high"], color=colour, alpha=0.15, lw=0)
        axis.plot(line["n"], line["value"], color=colour, marker=marker, ms=4, label=method)
    if ceiling is not None:
        axis.axhline(ceiling, color="0.4", ls="--", lw=1, label="ceiling")
    axis.set_xscale("log")
    sizes = sorted(set(table["n"]))
    axis.set_xticks(sizes, labels=[str(n) for n in sizes])
    axis.set_xticks([], minor=True)
    axis.grid(alpha=0.3)
