"""What linear response says of labels: by itself, and beside the paper's statistics.

For screened runs, linear response is measured in contexts that no label uses. Label-free is Spearman's
correlation of a column ``response_X`` with the label X over the run's labelled features, in all
contexts and in those of one type; fitted is the skill of our predictor out of fold, on the paper's
statistics and on these with linear response: ``python -m cleansteer.benchmarks.response RUN...``.
"""

import argparse
import sys
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.layout import LABELS
from ..core.records import Interval
from ..core.runs import RunDirectory
from ..core.tables import read_table, write_table
from ..predictor.evidence import read_run
from ..predictor.evidence.resampling import bootstrap, resampled_spearman
from ..predictor.evidence.scores import (
    RESAMPLES,
    out_of_fold,
    out_of_fold_interval,
    percentile_interval,
    spearman,
)
from ..predictor.model import CLEAN_SCORE, Scheme, predictor_sets, primary_labels, scheme_for
from ..predictor.model.blend import blended
from ..study.entry import open_study

Array = NDArray[np.float64]
TYPES = ("mixed", "top", "random", "low")
PARTS = ("without", "with", "lead")


def label_free(
    response: pd.DataFrame, labels: Mapping[str, pd.DataFrame], seed: int, scheme: Scheme
) -> pd.DataFrame:
    """Spearman of each forecast with its label, by context type; columns target, contexts, value,
    low, high (95 % bootstrap over features).
    """
    rows = []
    for name, table in labels.items():
        counts = bootstrap(len(table), RESAMPLES, seed)
        for target in (*scheme.targets, "kl_clean_steered"):
            x = response.loc[table.index, f"response_{target}"].to_numpy(dtype=np.float64)
            y = table[target].to_numpy(dtype=np.float64)
            found = percentile_interval(spearman(x, y), resampled_spearman(x, y, counts))
            rows.append((target, name, found.value, found.low, found.high))
    return pd.DataFrame(rows, columns=["target", "contexts", "value", "low", "high"])


def fitted(
    statistics: pd.DataFrame, labels: pd.DataFrame, seed: int, scheme: Scheme
) -> pd.DataFrame:
    """Skill out of fold without and with linear response, and the difference, with 95 % intervals:
    columns target, and value, low, high of ``without_``, ``with_``, ``lead_``.
    """
    sets = predictor_sets(statistics.columns)
    chosen = {"without": sets["full_all"], "with": sets["full_with_response"]}
    counts = bootstrap(len(labels), RESAMPLES, seed)
    rows = []
    for target in scheme.targets:
        y = labels[target].to_numpy(dtype=np.float64)
        scores, resampled = {}, {}
        for name, columns in chosen.items():
            X = np.ascontiguousarray(statistics[columns].to_numpy(dtype=np.float64))
            predicted = out_of_fold(blended(seed, target), X, y, seed)
            scores[name] = spearman(predicted, y)
            resampled[name] = resampled_spearman(predicted, y, counts)
        intervals = {name: out_of_fold_interval(scores[name], resampled[name]) for name in chosen}
        intervals["lead"] = out_of_fold_interval(
            scores["with"] - scores["without"], resampled["with"] - resampled["without"], bound=2.0
        )
        rows.append({"target": target, **_flat(intervals)})
    return pd.DataFrame(rows)


def _flat(intervals: Mapping[str, Interval]) -> dict[str, float]:
    return {
        f"{name}_{part}": getattr(interval, part)
        for name, interval in intervals.items()
        for part in ("value", "low", "high")
    }


def compare(run: Path, contexts: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables of one run."""
    directory = RunDirectory.existing(run)
    setting = directory.setting()
    known = read_run(run)
    labels = read_table(run / LABELS)
    labels = labels[labels["feature"].isin(known.labels.index)]
    steering = setting.steering
    labels = labels[(labels["mode"] == steering.mode) & (labels["alpha"] == steering.strength)]
    scheme = scheme_for(steering.collateral, steering.mode)
    by_type = {name: primary_labels(labels, name, scheme) for name in TYPES}
    asked = setting.replace("steering", response=True, response_contexts=contexts)
    with TemporaryDirectory() as folder:
        study = open_study(asked, run=Path(folder) / "run", progress=True)
        features = study.features.set_index("feature")
    free = label_free(features, by_type, setting.seed, scheme)
    names = predictor_sets(features.columns)["full_with_response"]
    rows = features.loc[known.labels.index, names]
    skills = fitted(rows, known.labels, setting.seed, scheme)
    return free.assign(setting=setting.name), skills.assign(setting=setting.name)


def _cell(row: Mapping[Hashable, Any], prefix: str = "") -> str:
    value, low, high = (row[f"{prefix}{part}"] for part in ("value", "low", "high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _markdown(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(headings)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tell(free: pd.DataFrame, skills: pd.DataFrame) -> str:
    """Both tables as Markdown."""
    mixed = free[free["contexts"] == "mixed"]
    settings, targets = list(free["setting"].unique()), list(free["target"].unique())

    def cell(setting: str, target: str) -> str:
        chosen = mixed[(mixed["setting"] == setting) & (mixed["target"] == target)]
        return _cell(chosen.to_dict("records")[0]) if len(chosen) else "-"

    by_type = free[free["target"] == CLEAN_SCORE]
    parts = [
        "Label-free, mixed contexts:",
        _markdown(["setting", *targets], ([s, *(cell(s, t) for t in targets)] for s in settings)),
        "Label-free clean_score, by type of the label's contexts:",
        _markdown(
            ["setting", *TYPES],
            (
                [s, *(_cell(row) for row in by_type[by_type["setting"] == s].to_dict("records"))]
                for s in settings
            ),
        ),
        "Fitted, out of fold:",
        _markdown(
            ["setting", "label", "paper's statistics", "with linear response", "difference"],
            (
                [row["setting"], row["target"], *(_cell(row, f"{n}_") for n in PARTS)]
                for row in skills.to_dict("records")
            ),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Compare the runs that were given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--contexts", type=int, default=64)
    parser.add_argument("--out", type=Path, help="Directory for both tables as Parquet.")
    arguments = parser.parse_args()
    found = [compare(run, arguments.contexts) for run in arguments.runs]
    free, skills = (pd.concat(tables, ignore_index=True) for tables in zip(*found, strict=True))
    if arguments.out is not None:
        write_table(arguments.out / "label_free.parquet", free)
        write_table(arguments.out / "fitted.parquet", skills)
    sys.stdout.write(tell(free, skills))


if __name__ == "__main__":
    main()
