"""Plots of learning curves, as files."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ...core.tables import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Those of Okabe and Ito (2008), which colour-blind readers tell apart."""
_MARKERS = "os^Dv*"
_PANELS_A_ROW = 3
_PANEL_INCHES = (4.5, 3.4)
FORMATS = ("png", "svg")


def plot_curve(
    panels: Mapping[str, pd.DataFrame], path: Path, ceilings: Mapping[str, float] | None = None
) -> None:
    """Write the curves as ``.svg`` or ``.png``, whole or not at all; the same input, the same bytes.

    One panel a title: number of labels on a logarithmic axis, out-of-fold Spearman with its interval
    as a band, one line a method, in one colour throughout.

    Args:
        panels: by title, what :func:`~cleansteer.predictor.evidence.learning.summarise_curve` gives.
        path: where to write; its ending is the format.
        ceilings: by title, the skill that no model is expected to pass, dashed. A label's reliability
            r between halves of the contexts limits the Spearman with the whole label to about
            sqrt(2 r / (1 + r)).

    Raises:
        ValueError: there is no panel, a ceiling belongs to none, or the ending is another.

    """
    kind = path.suffix.lower().removeprefix(".")
    ceilings = ceilings or {}
    if not panels or ceilings.keys() - panels.keys() or kind not in FORMATS:
        raise ValueError(
            f"plot {path} of the panels {list(panels)} with ceilings for {list(ceilings)}, expected "
            f"one panel or more, ceilings for them alone, and an ending among {list(FORMATS)}"
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
        legend = {
            text: handle
            for axis in axes[: len(panels)]
            for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(legend.values(), legend, loc="outside upper center", ncols=2 * columns)
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
