"""A sweep as a table and as a page."""

import pandas as pd

from ...core.records.sweep import SweepRecord, Trial
from ...core.words import counted

COLUMNS = (
    "trial",
    "state",
    "learning_rate",
    "component",
    "beta2",
    "select",
    "used_beta2",
    "n_features",
    "n_parameters",
    "n_steps",
    "loss_before",
    "loss_after",
    "gain",
    "fresh_before",
    "fresh_after",
    "fresh_gain",
    "kl",
    "seconds",
    "reason",
)
_WHOLE = ("trial", "n_features", "n_parameters", "n_steps")
_TEXT = ("state", "component", "beta2", "select", "reason")
_SHOWN = 10


def tabulate(record: SweepRecord) -> pd.DataFrame:
    """A row for every trial, in the order in which they were done; the columns are told in
    docs/files.md.
    """
    table = pd.DataFrame([_row(trial) for trial in record.trials], columns=list(COLUMNS))
    numbers = [name for name in COLUMNS if name not in (*_WHOLE, *_TEXT)]
    table[numbers] = table[numbers].astype("float64")  # also where all are missing
    return table.astype(dict.fromkeys(_WHOLE, "Int64") | dict.fromkeys(_TEXT, "string"))


def _row(trial: Trial) -> dict[str, object]:
    point, chosen, fresh = trial.point, trial.chosen_by, trial.fresh
    return {
        "trial": trial.number,
        "state": trial.state,
        "learning_rate": point.learning_rate,
        "component": point.component,
        "beta2": str(point.beta2),
        "select": str(point.select),
        "used_beta2": trial.used_beta2,
        "n_features": trial.n_features,
        "n_parameters": trial.n_parameters,
        "n_steps": trial.n_steps,
        "loss_before": None if chosen is None else chosen.before,
        "loss_after": None if chosen is None else chosen.after,
        "gain": trial.gain,
        "fresh_before": None if fresh is None else fresh.before,
        "fresh_after": None if fresh is None else fresh.after,
        "fresh_gain": trial.fresh_gain,
        "kl": trial.kl,
        "seconds": trial.seconds,
        "reason": trial.reason,
    }


def rows(record: SweepRecord, whole: bool = True) -> tuple[list[str], list[list[str]]]:
    """Headings, and the best trials as rows for people.

    Args:
        record: the sweep.
        whole: False leaves out what is the same in all trials.

    """
    space = record.space
    several = {
        "rate": len(space.learning_rates) > 1,
        "component": len(space.components) > 1,
        "beta2": len(space.beta2) > 1,
        "select": len(space.select) > 1,
        "parameters": False,
        "KL": record.reference is not None,
    }
    shown = [_cells(trial) for trial in record.ranked[:_SHOWN]]
    heads = [
        head
        for head in _cells(record.ranked[0])
        if several.get(head, True) or (whole and head != "KL")
    ]
    return heads, [[cells[head] for head in heads] for cells in shown]


def _cells(trial: Trial) -> dict[str, str]:
    point, used, chosen = trial.point, trial.used_beta2, trial.chosen_by
    assert chosen is not None
    return {
        "trial": str(trial.number),
        "rate": f"{point.learning_rate:.3g}",
        "component": point.component,
        "beta2": f"auto ({used:.4g})" if point.beta2 == "auto" and used else str(point.beta2),
        "select": str(point.select),
        "features": str(trial.n_features),
        "parameters": str(trial.n_parameters),
        "loss": f"{chosen.after:.4f}",
        "gain": f"{trial.gain:.4f}",
        "fresh gain": f"{trial.fresh_gain:.4f}",
        "KL": "" if trial.kl is None else f"{trial.kl:.4g}",
    }


def shown_point(trial: Trial) -> str:
    """A trial in a line."""
    point = trial.point
    told = (
        f"trial {trial.number}: {point.component}, learning rate {point.learning_rate:.3g}, beta2 "
        f"{point.beta2}, select {point.select}: "
    )
    if trial.chosen_by is None:
        return f"{told}failed, {trial.reason}"
    return f"{told}{trial.chosen_by.after:.4f}"


def verdict(record: SweepRecord) -> list[str]:
    """What came of it, in sentences."""
    best, n_failed = record.best, len(record.trials) - len(record.ranked)
    done = f"{counted(len(record.trials), 'trial')}" + f", {n_failed} of them failed" * bool(
        n_failed
    )
    if best is None or best.chosen_by is None or best.fresh is None:
        return [f"{done}: there is no best one; lower the learning rates"]
    chosen = (
        f"{done}. The best is trial {best.number}: held-out loss {best.chosen_by.before:.4f} before, "
        f"{best.chosen_by.after:.4f} after, on the {counted(record.evaluated.n, 'example')} that it was "
        "chosen by."
    )
    elsewhere = (
        "A loss that was chosen for being the lowest is lower than it will be elsewhere. On the other "
        f"{counted(record.fresh.n, 'held-out example')}, by which nothing was chosen: "
        f"{best.fresh.before:.4f} before, {best.fresh.after:.4f} after."
    )
    told = [chosen, elsewhere]
    if not best.fresh.improved:
        told.append("There it is no better than none.")
    return told


def markdown(record: SweepRecord) -> str:
    """The page: what came of it, and the best trials."""
    table = ""
    if record.ranked:
        heads, found = rows(record)
        lines = [heads, ["---"] * len(heads), *found]
        table = "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
    budget = record.options.kl_budget
    within = "" if budget is None else f" Every edit is held to a KL of {budget:g} nats a token."
    edited = "; ".join(f"{place.sae.label} at {place.hook}" for place in record.places)
    figure = "\n![Gain of every trial](sweep.svg)\n" if record.best is not None else ""
    return (
        f"# Sweep of {record.setting.name}\n\n"
        f"Trained on {counted(record.data.n, 'example')} of {record.data.name}, fingerprint "
        f"{record.data.fingerprint}; edited: {edited}.{within}\n\n"
        + "\n\n".join(verdict(record))
        + f"{table}\n"
        + figure
        + "\nLoss and gain are of the examples that trials are chosen by, fresh gain of the others. "
        "`sweep.parquet` has every trial, `sweep.json` what was asked for as well, `best/` the best "
        f"trial's adapter.\n\nMade by cleansteer {record.versions['cleansteer']}.\n"
    )
