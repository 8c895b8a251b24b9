"""Gains at equal cost, pool against pool, and how well trainings were foreseen."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from ...predictor.evidence.resampling import bootstrap, resampled_spearman
from ...predictor.evidence.scores import RESAMPLES, percentile_interval, spearman
from .frontier import COSTS, gain_at

LEVEL = 0.95
_JOB = ["topic", "seed", "objective", "method", "pool", "count"]
_CELL = _JOB[2:]


def levels(points: pd.DataFrame, cost: str, budgets: Sequence[float]) -> list[float]:
    """What cost goes with each budget of KL: the median over adapters of that at which they reach it, by
    interpolation in the square roots.

    Args:
        points: of :meth:`.experiment.Experiment.points`.
        cost: a column of :data:`.frontier.COSTS`.
        budgets: of KL.

    """
    if cost == "kl":
        return list(budgets)
    found: list[list[float]] = [[] for _ in budgets]
    for _, way in points[points["objective"] == "sft"].groupby([*_JOB, "step"]):
        ordered = way.sort_values("kl")
        roots, values = (
            np.sqrt(np.concatenate([[0.0], ordered[name].to_numpy(dtype=np.float64)]))
            for name in ("kl", cost)
        )
        for at, budget in zip(found, budgets, strict=True):
            if roots[-1] >= np.sqrt(budget):
                at.append(float(np.interp(np.sqrt(budget), roots, values)) ** 2)
    return [float(np.median(each)) if each else float("nan") for each in found]


def gains(points: pd.DataFrame, cost: str, budgets: Sequence[float]) -> pd.DataFrame:
    """The gain of each adapter at each budget of a cost: the columns of a job, ``cost``, ``budget`` and
    ``gain``.
    """
    rows = [
        dict(zip(_JOB, key, strict=True))
        | {"cost": cost, "budget": budget, "gain": gain_at(own, cost, budget)}
        for key, own in points.groupby(_JOB, sort=False)
        for budget in budgets
    ]
    return pd.DataFrame(rows)


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t; of one value no interval (NaN)."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    half = float(student.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return mean, mean - half, mean + half


def means(read: pd.DataFrame) -> pd.DataFrame:
    """Mean gains over blocks (topics with seeds), with intervals: ``mean``, ``low``, ``high``, ``n``."""
    rows = []
    for key, own in read.groupby([*_CELL, "cost", "budget"], sort=False):
        mean, low, high = interval(own["gain"].to_numpy(dtype=np.float64))
        names = [*_CELL, "cost", "budget"]
        rows.append(
            dict(zip(names, key, strict=True))
            | {"mean": mean, "low": low, "high": high, "n": len(own)}
        )
    return pd.DataFrame(rows)


def differences(read: pd.DataFrame, against: str = "random") -> pd.DataFrame:
    """Gains of each pool less those of another in the same block, as :func:`means` has them."""
    keys = [name for name in [*_JOB, "cost", "budget"] if name != "pool"]
    other = read[read["pool"] == against].set_index(keys)["gain"]
    rows = read[(read["pool"] != "") & (read["pool"] != against)]
    index = pd.MultiIndex.from_frame(rows[keys])
    paired = rows.assign(gain=rows["gain"].to_numpy() - other.reindex(index).to_numpy())
    return means(paired.dropna(subset=["gain"]))


def foreseen(points: pd.DataFrame, steps: int, seed: int = 0) -> pd.DataFrame:
    """Rank agreement of forecasts with what was measured of the same adapters as they were learnt:
    ``method`` (``all`` for both together), ``of`` (``kl``, ``gain``), ``rho`` with its 95 % bootstrap
    interval over adapters, ``n``, and ``ratio``, the median of forecast over measured.
    """
    ends = points[
        (points["step"] == steps) & (points["strength"] == 1.0) & points["forecast_kl"].notna()
    ]
    rows = []
    groups = [("all", ends), *ends.groupby("method", sort=False)]
    for method, own in groups:
        counts = bootstrap(len(own), RESAMPLES, seed) if len(own) > 2 else None
        for of in ("kl", "gain"):
            if counts is None:
                continue
            a, b = (own[name].to_numpy(dtype=np.float64) for name in (f"forecast_{of}", of))
            found = percentile_interval(spearman(a, b), resampled_spearman(a, b, counts))
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = float(np.nanmedian(a / b))
            rows.append(
                {"method": method, "of": of, "rho": found.value, "low": found.low}
                | {"high": found.high, "n": len(own), "ratio": ratio}
            )
    return pd.DataFrame(rows)


def read_all(points: pd.DataFrame, budgets: Sequence[float]) -> pd.DataFrame:
    """Gains at equal KL, and at what goes with it downstream."""
    return pd.concat(
        [gains(points, cost, levels(points, cost, budgets)) for cost in COSTS], ignore_index=True
    )
