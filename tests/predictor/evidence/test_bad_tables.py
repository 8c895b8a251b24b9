"""Tables that cannot be read: the value, what was expected, what to do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.core.errors import InputError
from cleansteer.predictor.evidence.tables import read_all, read_columns, read_labelled
from exports import MEASURED, as_run, exported, write


def changed(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], Path]:
    return lambda folder: write(folder / "t.csv", change(exported()))


def with_value(column: str, value: object) -> Callable[[Path], Path]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table[column] = table[column].astype(object)
        table.loc[3, column] = value
        return table

    return changed(change)


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def run_with(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        run = as_run(folder / "run", exported())
        write(run / "labels.parquet", change(pd.read_parquet(run / "labels.parquet")))
        return run

    return make


def without(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        run = as_run(folder / "run", exported())
        (run / name).unlink()
        return run

    return make


def only(*names: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table[list(names)]


THIRD = str(exported()["feature"][3])
BAD: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "no feature column": (
        changed(lambda t: t.drop(columns="feature")),
        ("lacks the column 'feature'", "it holds final_act_freq", "--columns"),
    ),
    "no statistics": (
        changed(only("feature", *MEASURED)),
        ("holds no statistics", "decoder_, encoder_", "give --columns"),
    ),
    "no labels": (
        changed(only("feature", *synthetic.STATISTICS)),
        ("none of the labels clean_score", "no numbers beside the statistics", "give --columns"),
    ),
    "other labels": (
        changed(lambda t: t.drop(columns=list(MEASURED)).assign(kl=1.0)),
        ("none of the labels clean_score", "it holds kl", "give --columns"),
    ),
    "NaN": (
        with_value("decoder_norm", np.nan),
        ("'decoder_norm'", "nan", f"feature {THIRD}", "expected finite numbers", "compute it anew"),
    ),
    "infinite": (
        with_value("final_act_freq", np.inf),
        ("'final_act_freq'", "inf", f"feature {THIRD}", "expected finite", "leave the column out"),
    ),
    "label NaN": (with_value("effect_l2", np.nan), ("'effect_l2'", "nan", f"feature {THIRD}")),
    "label infinite": (with_value("stability_abs", -np.inf), ("'stability_abs'", "-inf")),
    "control NaN": (
        changed(lambda t: t.assign(context_act_mean=[np.nan, *range(39)])),
        ("'context_act_mean'", "nan"),
    ),
    "words": (
        changed(lambda t: t.assign(decoder_norm="big")),
        ("'decoder_norm'", "'big'", "expected numbers", "leave the column out"),
    ),
    "feature twice": (
        changed(lambda t: pd.concat([t, t.iloc[3:5]])),
        (f"feature {THIRD} is there more than once (2 rows too many)", "keep one row of each"),
    ),
    "no rows": (changed(lambda t: t.iloc[:0]), ("holds no feature", "one row a feature")),
    "no mixed contexts": (changed(lambda t: t.assign(context_type="top")), ("'mixed'",)),
    "missing": (lambda folder: folder / "t.csv", ("t.csv does not exist", "correct the path")),
    "missing parquet": (lambda folder: folder / "t.parquet", ("t.parquet does not exist",)),
    "no table": (raw("t.txt", b"a"), ("no run directory and no .csv or .parquet table",)),
    "ragged": (raw("t.csv", b"feature,a\n1,2\n1,2,3\n"), ("not readable CSV", "write it anew")),
    "empty": (raw("t.csv", b""), ("not readable CSV", "write it anew")),
    "not UTF-8": (raw("t.csv", b"feature,\xff\xfe\n1,2\n"), ("not readable CSV", "byte 0xff")),
    "broken parquet": (raw("t.parquet", b"PAR1..."), ("not readable Parquet", "write it anew")),
    "run without features": (without("features.parquet"), ("features.parquet does not exist",)),
    "run without labels": (without("labels.parquet"), ("labels.parquet does not exist",)),
    "labels of another setting": (
        run_with(lambda t: t.assign(feature=t["feature"] + 500_000)),
        ("is labelled but has no statistics (40 such", "another setting", "in this run"),
    ),
    "run NaN": (
        run_with(lambda t: t.assign(effect_l2=np.nan)),
        ("'effect_l2'", "nan", "expected finite"),
    ),
    "run without mixed": (
        run_with(lambda t: t[t["context_type"] == "top"]),
        ("'mixed'", "only top", "--contexts all"),
    ),
    "run without stability": (
        run_with(lambda t: t.drop(columns="stability_abs")),
        ("labels.parquet lacks the columns stability_abs", "write it anew"),
    ),
    "run without labels in its table": (
        run_with(lambda t: t.iloc[:0]),
        ("the label table is empty", "cleansteer evaluate"),
    ),
    "run labelled twice": (
        run_with(lambda t: pd.concat([t, t])),
        ("labelled more than once", "keep one mode"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused_with_value_expectation_and_remedy(
    case: str, tmp_path: Path
) -> None:
    make, expected = BAD[case]
    path = make(tmp_path)
    with pytest.raises(InputError) as refused:
        read_labelled(path)
    for part in expected:
        assert part in str(refused.value)
    assert path.name in str(refused.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[columns\n", ("cannot be read", "correct it")),
        (b"\xff\xfe", ("cannot be read",)),
        (b'norm = "decoder_norm"\n', ("no table [columns]", 'theirs = "ours"', "add it")),
        (b"[columns]\nnorm = 3\n", ("no table [columns]",)),
        (None, ("cannot be read",)),
    ],
)
def test_bad_mappings_are_refused(
    tmp_path: Path, content: bytes | None, expected: tuple[str, ...]
) -> None:
    path = tmp_path / "map.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_columns(path)
    for part in (*expected, "map.toml"):
        assert part in str(refused.value)


def test_a_mapping_names_columns_that_are_there_and_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", exported())
    with pytest.raises(InputError, match=r"no column 'norm' .* it holds feature, .* correct the"):
        read_labelled(path, {"norm": "decoder_norm"})
    with pytest.raises(InputError, match=r"two columns 'effect_l2'; remove or rename one"):
        read_labelled(path, {"decoder_norm": "effect_l2"})


def test_no_source_is_refused() -> None:
    with pytest.raises(InputError, match="expected at least one"):
        read_all([])
