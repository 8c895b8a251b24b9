"""Tables of statistics and labels: from runs, from our tables, and from others' by a mapping of
columns.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ...core.errors import InputError
from ...core.layout import FEATURES, HALVES_LABELS, LABELS, MANIFEST, SAMPLE
from ...core.runs import SETTING_MARK, RunDirectory
from ...core.tables import read_table
from ..model.checks import aligned, distinct_features, finite_values
from ..model.sets import statistics_of
from ..model.targets import (
    ABSOLUTE,
    CLEAN_SCORE,
    EPS,
    Scheme,
    clean_score,
    primary_labels,
    scheme_for,
)
from .residuals import CONTROL_SETS

STATISTIC_PREFIXES = ("decoder_", "encoder_", "crowding_", "final_", "token_", "coact_", "direct_")
"""How the names of statistics begin (docs/protocol.md, Feature statistics)."""
REPLICATION = {
    "crowding": "crowding_topk_mean_abs_cos",
    "crowd_max": "crowding_max_abs_cos",
    "dec_norm": "decoder_norm",
    "enc_norm": "encoder_norm",
    "enc_dec_cos": "encoder_decoder_cos",
    "frequency": "final_act_freq",
    "act_mag": "final_act_mean",
    "act_mean_firing": "final_act_firing_mean",
    "act_std": "final_act_std",
    "act_max": "final_act_max",
    "act_kurtosis": "final_act_kurtosis",
    "bin_entropy": "final_binary_entropy",
    "act_entropy": "final_activation_entropy",
    "coact_entropy": "coact_entropy",
    "coact_count": "coact_count",
    "logit_l2": "direct_logit_l2",
    "logit_linf": "direct_logit_linf",
    "logit_entropy": "direct_logit_entropy",
    "logit_top10_mass": "direct_top10_abs_mass_frac",
    "collateral_raw": "collateral_count_0.05",
    "stab_signed": "stability_signed",
    "stab_abs": "stability_abs",
    "kl_mean": "kl_clean_steered",
}
"""Columns of the replication's tables (Y. Bishnoi, sae-steering-collateral-residualization), and
ours. What it takes over final tokens and we over all tokens has a name of its own."""
_LABEL_COLUMNS = ("feature", "context_type", "stability_abs", ABSOLUTE.spread, "effect_l2")


@dataclass(frozen=True)
class LabelledTable:
    """Statistics and labels of the same features, row by row, indexed by feature."""

    name: str
    statistics: pd.DataFrame
    labels: pd.DataFrame
    halves: tuple[pd.DataFrame, pd.DataFrame] | None = None
    """Labels on two disjoint halves of the contexts, where they were kept."""
    notes: list[str] = field(default_factory=list)
    """Columns that were renamed, are constant or were left out."""
    scheme: Scheme = ABSOLUTE
    """Which labels make up the clean score and stand for the axes."""

    def controls(self) -> pd.DataFrame:
        """Statistics and labels side by side, for columns that serve as controls."""
        own = self.labels.columns.difference(self.statistics.columns)
        return pd.concat([self.statistics, self.labels[own]], axis=1)


def read_labelled(path: Path, columns: Mapping[str, str] | None = None) -> LabelledTable:
    """A run directory, or a .csv or .parquet table with a row a feature.

    A table needs a column ``feature`` and columns named as in docs/protocol.md: those that begin like
    statistics (:data:`STATISTIC_PREFIXES`) are statistics, other numbers are labels. ``clean_score``
    and ``collateral_per_effect`` are computed where they are missing and can be. The replication's
    tables are recognised by their columns (:data:`REPLICATION`); for others give ``columns``, from
    their names to ours.

    Raises:
        InputError: the path is neither, a column is missing or wrong, or a feature is there twice.

    """
    if path.is_dir():
        return read_run(path)
    table = _read(path)
    notes = []
    if columns is not None:
        unknown = [name for name in columns if name not in table.columns]
        if unknown:
            raise InputError(
                f"table {path} has no column {unknown[0]!r} that the mapping names; it holds "
                f"{', '.join(map(str, table.columns))}; correct the mapping"
            )
        table = table.rename(columns=dict(columns))
    elif "final_act_freq" not in table and {"frequency", "crowding"} <= set(table.columns):
        table = table.rename(columns=REPLICATION)
        notes.append("columns are the replication's, renamed to ours")
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise InputError(f"table {path} has two columns {twice!r}; remove or rename one")
    if "feature" not in table.columns:
        raise InputError(
            f"table {path} lacks the column 'feature', expected one row a feature, with its id; it "
            f"holds {', '.join(map(str, table.columns))}; add it, or give --columns"
        )
    if "context_type" in table.columns:
        table = table[table["context_type"] == "mixed"]
    if table.empty:
        raise InputError(
            f"table {path} holds no feature (of context type 'mixed', where it says of which), "
            "expected one row a feature; write it anew"
        )
    table = table.set_index("feature")
    distinct_features(table, f"table {path}")
    names = statistics_of(n for n in table.columns if str(n).startswith(STATISTIC_PREFIXES))
    if not names:
        raise InputError(
            f"table {path} holds no statistics, expected columns that begin with "
            f"{', '.join(STATISTIC_PREFIXES)}; it holds {', '.join(map(str, table.columns))}; give "
            "--columns"
        )
    others = table.drop(columns=names)
    numbers = others.select_dtypes("number").columns
    labels = others[[name for name in others if name in numbers or name in ABSOLUTE.targets]]
    return _checked(path.stem, table[names], labels, None, notes, str(path))


def read_all(
    paths: Sequence[Path], columns: Mapping[str, str] | None = None
) -> list[LabelledTable]:
    """Read several runs or tables; those of the same name are named by their whole paths.

    Raises:
        InputError: as :func:`read_labelled`; none is given, or one is given twice.

    """
    if not paths:
        raise InputError("no run or table is given, expected at least one; name a run's directory")
    refuse_repeated(paths)
    if columns is not None and all(path.is_dir() for path in paths):
        raise InputError(
            "--columns maps the columns of tables, and only run directories are given, which have our "
            "own; leave it out"
        )
    tables = [read_labelled(path, columns) for path in paths]
    names = [table.name for table in tables]
    return [
        replace(table, name=str(path)) if names.count(table.name) > 1 else table
        for path, table in zip(paths, tables, strict=True)
    ]


def refuse_repeated(paths: Sequence[Path]) -> None:
    """Refuse a run or table that is given twice.

    Raises:
        InputError: naming it.

    """
    resolved = [path.resolve() for path in paths]
    twice = next((p for p, r in zip(paths, resolved, strict=True) if resolved.count(r) > 1), None)
    if twice is not None:
        raise InputError(
            f"{twice} is given twice, expected different runs or tables; leave one out"
        )


def read_columns(path: Path) -> dict[str, str]:
    """Read a mapping of columns from a TOML file: ``[columns]`` with ``theirs = "ours"`` lines.

    Raises:
        InputError: the file is missing, no TOML, or holds something else.

    """
    try:
        data = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"column mapping {path} cannot be read ({error}); correct it") from None
    columns = data.get("columns")
    if not isinstance(columns, dict) or not all(isinstance(v, str) for v in columns.values()):
        raise InputError(
            f'column mapping {path} has no table [columns] of lines `theirs = "ours"`; add it'
        )
    return columns


def _read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return read_table(path)
    if path.suffix != ".csv":
        raise InputError(
            f"{path} is no run directory and no .csv or .parquet table; give one of these"
        )
    try:
        return pd.read_csv(path)
    except FileNotFoundError:
        raise InputError(f"table {path} does not exist; correct the path") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"table {path} is not readable CSV ({error}); write it anew") from None


def read_run(path: Path, features: Iterable[int] | None = None) -> LabelledTable:
    """The labelled features of a run directory: those of its sample (``sample.parquet``), in the mode
    and strength of its setting.

    Features that were steered by hand beside the sample do not count. A run without a file of its
    sample, as earlier versions left it, gives all that are labelled in the setting's mode and
    strength.

    Args:
        path: the run's directory.
        features: takes these alone, as if no others were labelled.

    Raises:
        InputError: as :func:`read_labelled`, or no feature remains.

    """
    _refuse_unlabelled(path)
    statistics = read_table(path / FEATURES, ("feature",))
    measured = read_table(path / LABELS, _LABEL_COLUMNS)
    settings = [table.attrs.get(SETTING_MARK) for table in (statistics, measured)]
    if None not in settings and settings[0] != settings[1]:
        raise InputError(
            f"run {path}: {LABELS} was measured in another setting than {FEATURES} "
            f"(fingerprints {settings[1]} and {settings[0]}); label this run (cleansteer evaluate)"
        )
    scheme = _scheme(path)
    statistics = statistics.set_index("feature")
    distinct_features(statistics, f"table {path / FEATURES}")
    try:
        labels = primary_labels(_of_the_sample(path, measured), scheme=scheme)
        labels = labels.drop(columns=CLEAN_SCORE)
    except InputError as error:
        raise InputError(f"run {path}: {error}") from None
    lacking = labels.index.difference(statistics.index)
    if len(lacking):
        raise InputError(
            f"run {path}: feature {lacking[0]} is labelled but has no statistics ({len(lacking)} "
            "such features); the labels belong to another setting; measure them in this run"
        )
    if features is not None:
        labels = labels.loc[labels.index.intersection(list(features))]
        if labels.empty:
            raise InputError(f"run {path}: none of the features asked for is labelled; label them")
    halves = None
    if (path / HALVES_LABELS).is_file():
        table = _of_the_sample(path, read_table(path / HALVES_LABELS, _LABEL_COLUMNS))
        one, two = (
            table[table["context_type"] == half].set_index("feature")
            for half in ("half-1", "half-2")
        )
        both = labels.index.intersection(one.index).intersection(two.index)
        halves = (one.loc[both], two.loc[both]) if len(both) else None
    names = statistics_of(statistics.columns, scheme)
    rows, what = statistics.loc[labels.index, names], f"run {path}"
    return _checked(path.resolve().name, rows, labels, halves, [], what, scheme)


def _scheme(path: Path) -> Scheme:
    """That of a run's setting; the paper's of a directory that only holds tables."""
    if not (path / MANIFEST).is_file():
        return ABSOLUTE
    steering = RunDirectory.existing(path).setting().steering
    return scheme_for(steering.collateral, steering.mode)


def _refuse_unlabelled(path: Path) -> None:
    if not (path / MANIFEST).is_file():
        return
    if RunDirectory.existing(path).setting().steering.n_features == 0:
        raise InputError(
            f"run {path} labels no feature (n_features = 0) and is ranked by linear response, expected a "
            "run with labels; screen in another --run with --labels N"
        )


def _of_the_sample(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """A run's labels of its sample, in the mode and strength of its setting."""
    if (path / SAMPLE).is_file():
        sample = read_table(path / SAMPLE, ("feature",))["feature"]
        table = table[table["feature"].isin(sample)]
    if not (path / MANIFEST).is_file() or not {"mode", "alpha"} <= set(table.columns):
        return table
    steering = RunDirectory.existing(path).setting().steering
    return table[(table["mode"] == steering.mode) & (table["alpha"] == steering.strength)]


def _checked(
    name: str,
    statistics: pd.DataFrame,
    labels: pd.DataFrame,
    halves: tuple[pd.DataFrame, pd.DataFrame] | None,
    notes: list[str],
    what: str,
    scheme: Scheme = ABSOLUTE,
) -> LabelledTable:
    values = finite_values(statistics, list(statistics.columns), what)
    labels = aligned(statistics, labels)
    targets = scheme.targets
    needed = dict.fromkeys([*targets, *(c for names in CONTROL_SETS.values() for c in names)])
    finite_values(labels, [name for name in needed if name in labels.columns], what)
    for label in {"collateral_count_0.05", "effect_l2"} & set(labels.columns):
        negative = labels[label][labels[label] < 0]
        if len(negative):
            raise InputError(
                f"{what}: column {label!r} holds {negative.iloc[0]:g} for feature {negative.index[0]}, "
                "expected 0 or more; correct it, or check --columns"
            )
    if {"collateral_count_0.05", "effect_l2"} <= set(labels.columns):
        per_effect = labels["collateral_count_0.05"] / (labels["effect_l2"] + EPS)
        labels = labels.assign(
            collateral_per_effect=labels.get("collateral_per_effect", per_effect)
        )
    components = {"stability_abs", scheme.spread, "effect_l2"}
    if CLEAN_SCORE not in labels and components <= set(labels.columns):
        labels = labels.assign(**{CLEAN_SCORE: clean_score(labels, scheme=scheme)})
    missing = [target for target in targets if target not in labels.columns]
    if len(missing) == len(targets):
        raise InputError(
            f"{what} holds none of the labels {', '.join(targets)}; it holds "
            f"{', '.join(map(str, labels.columns)) or 'no numbers beside the statistics'}; give --columns"
        )
    if missing:
        notes = [*notes, f"without the labels {', '.join(missing)}"]
    same = [n for n, spread in zip(statistics, np.ptp(values, axis=0), strict=True) if spread == 0]
    if len(same) == values.shape[1]:
        raise InputError(
            f"{what}: every statistic is the same for all features, so nothing can be predicted from "
            "them; give statistics that differ"
        )
    if same:
        notes = [*notes, f"the same for all features, so left out: {', '.join(map(str, same))}"]
    return LabelledTable(name, statistics.drop(columns=same), labels, halves, notes, scheme)
