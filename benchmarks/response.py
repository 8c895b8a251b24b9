"""What linear response says of labels: by itself, and beside the paper's statistics.

For screened runs, linear response is measured in contexts that no label uses. Label-free is Spearman's
correlation of a column ``response_X`` with the label X over the run's labelled features, in all
contexts and in those of one type; fitted is the skill of our predictor out of fold, on the paper's
statistics and on these with linear response; few labels is its skill for the clean score, fitted on 100
labels with linear response and on all of them without it; transfer is the same of a predictor that was
fitted on the other runs: ``python -m cleansteer.benchmarks.response RUN...``.
"""

import argparse
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.choices import CollateralKind
from ..core.layout import FEATURES, LABELS
from ..core.runs import RunDirectory
from ..core.tables import read_table, write_table
from ..predictor.evidence import LabelledTable, read_run
from ..predictor.evidence.learning import (
    curve_difference,
    learning_curve,
    on_columns,
    summarise_curve,
)
from ..predictor.evidence.pooling import from_others, shared
from ..predictor.evidence.resampling import bootstrap, resampled_spearman
from ..predictor.evidence.scores import (
    RESAMPLES,
    out_of_fold,
    out_of_fold_interval,
    percentile_interval,
    spearman,
)
from ..predictor.model import (
    CLEAN_SCORE,
    Scheme,
    clean_score,
    forecasts_of,
    predictor_sets,
    primary_labels,
    scheme_for,
    statistics_of,
)
from ..predictor.model.blend import blended
from ..predictor.model.sets import RESPONSE
from ..steering_eval.choice import eligible_features
from ..study.entry import open_study

Array = NDArray[np.float64]
TYPES = ("mixed", "top", "random", "low")
PARTS = ("without", "with", "lead")
TABLES = ("label-free", "fitted", "few", "transfer")
FEW, REPEATS = 100, 3


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
    chosen = _columns(statistics, scheme)
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


def _columns(statistics: pd.DataFrame, scheme: Scheme) -> dict[str, list[str]]:
    """The paper's statistics, and these with linear response."""
    sets = predictor_sets(statistics_of(statistics.columns, scheme))
    return {"without": sets["full_all"], "with": sets["full_with_response"]}


def _flat(intervals: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"{name}_{part}": getattr(interval, part)
        for name, interval in intervals.items()
        for part in ("value", "low", "high")
    }


def few_labels(
    statistics: pd.DataFrame,
    labels: pd.DataFrame,
    seed: int,
    scheme: Scheme,
    few: int = FEW,
    repeats: int = REPEATS,
) -> pd.DataFrame:
    """Skill out of fold for the clean score, mean over repeats of five folds: with linear response from
    ``few`` labels, without it from all that the folds leave, and the difference, with 95 % intervals;
    the columns of :func:`fitted`, and the numbers of labels.
    """
    chosen = _columns(statistics, scheme)
    every, ours = [str(name) for name in statistics.columns], blended(seed, CLEAN_SCORE)
    curve = learning_curve(
        {name: on_columns(ours, every, seen) for name, seen in chosen.items()},
        statistics.to_numpy(dtype=np.float64),
        labels[CLEAN_SCORE].to_numpy(dtype=np.float64),
        (few, sys.maxsize),
        seed,
        repeats,
    )
    few, most = curve.sizes[0], curve.sizes[-1]
    points = summarise_curve(curve, seed).set_index(["method", "n"])
    lead = curve_difference(curve, ("with", few), ("without", most), seed)
    ends = {
        "without": points.loc[("without", most)],
        "with": points.loc[("with", few)],
        "lead": lead,
    }
    return pd.DataFrame([{"few": few, "all": most, **_flat(ends)}])


def transferred(tables: Sequence[LabelledTable], seed: int) -> pd.DataFrame:
    """Of each table's clean score Spearman with what a predictor says that was fitted on the others, on
    ranks, without linear response and with it; columns setting, and those of :func:`fitted`.
    """
    rows = []
    columns = {
        name: shared(
            [
                replace(t, statistics=t.statistics[_columns(t.statistics, t.scheme)[name]])
                for t in tables
            ]
        )[0]
        for name in PARTS[:2]
    }
    for place, table in enumerate(tables):
        y = table.labels[CLEAN_SCORE].to_numpy(dtype=np.float64)
        counts = bootstrap(len(y), RESAMPLES, seed)
        scores, resampled = {}, {}
        for name, seen in columns.items():
            predicted = from_others(tables, place, seen, CLEAN_SCORE, seed)
            scores[name] = spearman(predicted, y)
            resampled[name] = resampled_spearman(predicted, y, counts)
        intervals = {name: percentile_interval(scores[name], resampled[name]) for name in columns}
        intervals["lead"] = percentile_interval(
            scores["with"] - scores["without"], resampled["with"] - resampled["without"]
        )
        rows.append({"setting": table.name, **_flat(intervals)})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Subject:
    """A screened run, with linear response in as many contexts as are asked for."""

    table: LabelledTable
    """Statistics, linear response among them, and labels of the labelled features."""
    response: pd.DataFrame
    """Linear response of every feature."""
    by_type: Mapping[str, pd.DataFrame]
    """Labels by type of context."""
    seed: int

    @classmethod
    def of(cls, run: Path, contexts: int, collateral: CollateralKind | None = None) -> Self:
        """A run, with the collateral of its setting or of the kind asked for."""
        directory = RunDirectory.existing(run)
        setting, index = directory.setting(), read_run(run).labels.index
        labels = read_table(run / LABELS)
        labels = labels[labels["feature"].isin(index)]
        steering = setting.steering
        labels = labels[(labels["mode"] == steering.mode) & (labels["alpha"] == steering.strength)]
        scheme = scheme_for(collateral or steering.collateral, steering.mode)
        by_type = {name: primary_labels(labels, name, scheme) for name in TYPES}
        asked = setting.replace("steering", response=True, response_contexts=contexts)
        if asked == setting:
            features = directory.table(FEATURES).set_index("feature")
        else:
            with TemporaryDirectory() as folder:
                study = open_study(asked, run=Path(folder) / "run", progress=True)
                features = study.features.set_index("feature")
        among = np.flatnonzero(features.index.isin(eligible_features(features.reset_index())))
        features[f"{RESPONSE}{CLEAN_SCORE}"] = clean_score(forecasts_of(features), among, scheme)
        rows = features.loc[index, statistics_of(features.columns, scheme)]
        mixed = by_type["mixed"].loc[index]
        table = LabelledTable(setting.name, rows, mixed, scheme=scheme)
        return cls(table, features, by_type, setting.seed)


def compare(subjects: Sequence[Subject], parts: Sequence[str] = TABLES) -> dict[str, pd.DataFrame]:
    """The tables that are asked for, of all runs, by name."""
    made: dict[str, Callable[[Subject], pd.DataFrame]] = {
        "label-free": lambda s: label_free(s.response, s.by_type, s.seed, s.table.scheme),
        "fitted": lambda s: fitted(s.table.statistics, s.table.labels, s.seed, s.table.scheme),
        "few": lambda s: few_labels(s.table.statistics, s.table.labels, s.seed, s.table.scheme),
    }
    tables = {
        name: pd.concat(
            [make(subject).assign(setting=subject.table.name) for subject in subjects],
            ignore_index=True,
        )
        for name, make in made.items()
        if name in parts
    }
    if "transfer" in parts and len(subjects) > 1:
        tables["transfer"] = transferred([s.table for s in subjects], subjects[0].seed)
    return tables


def _cell(row: Mapping[Hashable, Any], prefix: str = "") -> str:
    value, low, high = (row[f"{prefix}{part}"] for part in ("value", "low", "high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _markdown(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(headings)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _tell_free(free: pd.DataFrame) -> Iterator[str]:
    mixed = free[free["contexts"] == "mixed"]
    settings, targets = list(free["setting"].unique()), list(free["target"].unique())

    def cell(setting: str, target: str) -> str:
        chosen = mixed[(mixed["setting"] == setting) & (mixed["target"] == target)]
        return _cell(chosen.to_dict("records")[0]) if len(chosen) else "-"

    def by_type(setting: str, target: str) -> list[str]:
        rows = free[(free["setting"] == setting) & (free["target"] == target)]
        return [setting, *(_cell(row) for row in rows.to_dict("records"))]

    yield "Label-free, mixed contexts:"
    yield _markdown(["setting", *targets], ([s, *(cell(s, t) for t in targets)] for s in settings))
    for target in targets:
        yield f"Label-free {target}, by type of the label's contexts:"
        yield _markdown(["setting", *TYPES], (by_type(s, target) for s in settings))


_WITHOUT, _WITH, _LEAD = "paper's statistics", "with linear response", "difference"


def _tell_fitted(table: pd.DataFrame) -> Iterator[str]:
    yield "Fitted, out of fold:"
    yield _markdown(
        ["setting", "label", _WITHOUT, _WITH, _LEAD],
        (
            [row["setting"], row["target"], *(_cell(row, f"{n}_") for n in PARTS)]
            for row in table.to_dict("records")
        ),
    )


def _tell_few(table: pd.DataFrame) -> Iterator[str]:
    yield "Few labels: clean_score, fitted out of fold:"
    yield _markdown(
        ["setting", "labels", _WITHOUT, "labels", _WITH, _LEAD],
        (
            [
                row["setting"],
                f"{row['all']}",
                _cell(row, "without_"),
                f"{row['few']}",
                _cell(row, "with_"),
                _cell(row, "lead_"),
            ]
            for row in table.to_dict("records")
        ),
    )


def _tell_transfer(table: pd.DataFrame) -> Iterator[str]:
    yield "No labels of its own: clean_score, fitted on the other settings:"
    rows = table.to_dict("records")
    cells = ([row["setting"], *(_cell(row, f"{n}_") for n in PARTS)] for row in rows)
    yield _markdown(["setting", _WITHOUT, _WITH, _LEAD], cells)


_TELL: dict[str, Callable[[pd.DataFrame], Iterator[str]]] = {
    "label-free": _tell_free,
    "fitted": _tell_fitted,
    "few": _tell_few,
    "transfer": _tell_transfer,
}


def tell(tables: Mapping[str, pd.DataFrame]) -> str:
    """Tables as Markdown; that of forecasts has a part for each label, by type of its contexts."""
    return "\n\n".join(part for name, table in tables.items() for part in _TELL[name](table)) + "\n"


def main() -> None:
    """Compare the runs that were given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--contexts", type=int, default=64)
    parser.add_argument(
        "--collateral", choices=get_args(CollateralKind), help="[default: the runs' own]"
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--out", type=Path, help="Directory for the tables as Parquet.")
    arguments = parser.parse_args()
    subjects = [Subject.of(run, arguments.contexts, arguments.collateral) for run in arguments.runs]
    tables = compare(subjects, arguments.tables)
    if arguments.out is not None:
        for name, table in tables.items():
            write_table(arguments.out / f"{name}.parquet", table)
    sys.stdout.write(tell(tables))


if __name__ == "__main__":
    main()
