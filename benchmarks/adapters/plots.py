"""The frontier: what is gained against what changes elsewhere."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.tables import write_atomically
from ...predictor.evidence.plots import COLOURS
from .design import BASELINES, LINEAR, Design
from .frontier import gain_at

_GRID = 24
_INCHES = (4.6, 3.6)
_KEYS = ["topic", "seed", "objective", "method", "pool", "count"]


def plot_frontiers(design: Design, points: pd.DataFrame, path: Path) -> None:
    """Write the mean frontiers of the main comparison as ``.svg``: a panel a component, a line a pool,
    LoRA and IA3 dashed; the same input, the same bytes.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    budgets = np.geomspace(min(design.budgets) / 2, max(design.budgets), _GRID)
    own = points[(points["objective"] == "sft") & points["count"].isin([0, design.count])]
    with mpl.rc_context({"svg.hashsalt": "cleansteer", "svg.fonttype": "none"}):
        width, height = _INCHES
        figure = Figure(figsize=(width * len(LINEAR), height), layout="constrained")
        axes = figure.subplots(1, len(LINEAR), squeeze=False)[0]
        for axis, component in zip(axes, LINEAR, strict=True):
            lines = [(component, pool) for pool in design.pools] + [(b, "") for b in BASELINES]
            for number, (method, pool) in enumerate(lines):
                mine = own[(own["method"] == method) & (own["pool"] == pool)]
                if len(mine):
                    axis.plot(
                        budgets,
                        _mean_frontier(mine, budgets),
                        color=COLOURS[number % len(COLOURS)] if pool else "0.4",
                        ls="-" if number < len(COLOURS) else ("--", ":", "-.", "--")[number % 4],
                        label=pool or method,
                    )
            axis.set_title(component)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel("KL elsewhere, nats a token")
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("gain on the topic, nats a token")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=5)
        write_atomically(path, lambda to: figure.savefig(to, format="svg", metadata={"Date": None}))


def _mean_frontier(points: pd.DataFrame, budgets: NDArray[np.float64]) -> NDArray[np.float64]:
    each = [
        [gain_at(own, "kl", float(budget)) for budget in budgets]
        for _, own in points.groupby(_KEYS, sort=False)
    ]
    mean: NDArray[np.float64] = np.array(each, dtype=np.float64).mean(axis=0)
    return mean
