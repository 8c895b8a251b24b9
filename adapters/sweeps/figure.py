"""The picture of a sweep."""

from pathlib import Path

from ...core.records.sweep import SweepRecord
from ...core.tables import write_atomically

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of Okabe and Ito (2008), which colour-blind readers tell apart."""
_INCHES = (6.0, 3.8)
_LOWEST = -2.0
"""In units of the best gain: trials that lie lower are drawn there, as triangles."""


def draw(record: SweepRecord, path: Path) -> None:
    """Write the gain of every trial over its learning rate as ``.svg``; the same record, the same bytes.

    A colour for each component; filled: by the examples that trials are chosen by, hollow: by the others.
    Failed trials are crosses at the bottom; there too, as triangles, are those that lie far below the
    others. The best one has a ring.
    """
    best = record.best
    top = 0.0 if best is None else best.gain or 0.0
    floor = _LOWEST * top if top > 0 else float("-inf")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # svg.hashsalt: else ids are random; fonttype none: text stays text, to be read and searched.
    with mpl.rc_context({"svg.hashsalt": "cleansteer", "svg.fonttype": "none"}):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axis = figure.subplots()
        for number, component in enumerate(record.space.components):
            colour = _COLOURS[number % len(_COLOURS)]
            some = [t for t in record.ranked if t.point.component == component]
            axis.scatter([], [], color=colour, s=28, label=component)
            for trial in some:
                rate = trial.point.learning_rate
                for gain, face in ((trial.gain, colour), (trial.fresh_gain, "none")):
                    low = (gain or 0.0) < floor
                    axis.scatter(
                        [rate],
                        [max(gain or 0.0, floor)],
                        facecolors=face,
                        edgecolors=colour,
                        s=28,
                        marker="v" if low else "o",
                    )
        failed = [trial.point.learning_rate for trial in record.trials if trial.state == "failed"]
        if failed:
            bottom = [axis.get_ylim()[0]] * len(failed)
            axis.scatter(failed, bottom, color="0.4", marker="x", label="failed")
        if best is not None:
            rate = best.point.learning_rate
            axis.scatter([rate], [top], facecolors="none", edgecolors="0.2", s=140)
        axis.axhline(0.0, color="0.4", ls="--", lw=1)
        axis.set_xscale("log")
        axis.set_xlabel("learning rate")
        axis.set_ylabel("fall of the held-out loss")
        axis.set_title("filled: chosen by; hollow: the other half", fontsize="small")
        axis.grid(alpha=0.3)
        axis.legend()
        write_atomically(path, lambda to: figure.savefig(to, format="svg", metadata={"Date": None}))
