"""What Python can do besides studies: train, export, validate, compare, under the command's names."""

from collections.abc import Callable, Sequence
from functools import update_wrapper
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pandas as pd

from ..adapters import exports
from ..adapters import forecast as forecast_setting
from ..adapters import sweep as sweep_setting
from ..adapters import train as train_setting
from ..core.errors import InputError
from ..core.progress import Reporter
from ..core.records import ExportRecord
from ..core.records.validation import Validation
from ..core.settings import Setting
from ..predictor.evidence import validate_sources
from .catalogue import load_setting
from .entry import SettingLike
from .study import Study

P = ParamSpec("P")
Result = TypeVar("Result")
PathOrText = str | PathLike[str]


def _by_name(
    function: Callable[Concatenate[Setting, P], Result],
) -> Callable[Concatenate[SettingLike | Study, P], Result]:
    """The function, for a setting by its name, path or study."""

    def call(setting: SettingLike | Study, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return function(_resolve(setting), *args, **kwargs)

    update_wrapper(call, function)
    return call


def _resolve(setting: SettingLike | Study) -> Setting:
    """The setting whose model and SAE an adapter or a file is made of.

    Raises:
        InputError: they were given in memory: an adapter loads them again, from where they lie.

    """
    resolved = setting.setting if isinstance(setting, Study) else load_setting(setting)
    for name in ("model", "sae"):
        if getattr(resolved, name).in_memory is not None:
            raise InputError(
                f"the {name} of setting {resolved.name!r} was given in memory, and adapters load it from "
                "where it lies; save it and give a setting that names it"
            )
    return resolved


train = _by_name(train_setting)
forecast = _by_name(forecast_setting)
sweep = _by_name(sweep_setting)


def export(
    source: Any,
    format: str,
    out: PathOrText,
    *,
    setting: SettingLike | Study | None = None,
    coefficient: float | None = None,
    positions: str | None = None,
    edit_bos: bool | None = None,
    overwrite: bool = False,
) -> ExportRecord:
    """Write what a bias adapter or plain features add, for other programs.

    Args:
        source: directory of an adapter of component ``bias``; or features: indices, an allowlist, or
            the path of a file of either.
        format: ``safetensors``, ``gguf`` or ``lm-eval``.
        out: the file, with the format's ending.
        setting: names model and SAE of features; of an adapter the model, where it is not the one
            that the adapter names.
        coefficient: push of each feature, in units of its activation; features only.
        positions: ``all`` (where None), ``completion`` or ``last``: the tokens that features are
            added at; an adapter has its own.
        edit_bos: whether BOS at the start is among them; True where None.
        overwrite: True replaces files that lie there.

    Raises:
        InputError: anything given is wrong, or the format cannot hold the edit exactly.
        TypeError: an argument is of another type.

    """
    return exports.export(
        source,
        format,
        Path(out),
        setting=None if setting is None else _resolve(setting),
        coefficient=coefficient,
        positions=positions,
        edit_bos=edit_bos,
        overwrite=overwrite,
    )


def validate(
    sources: "PathOrText | Study | Sequence[PathOrText | Study]",
    *,
    columns: PathOrText | None = None,
    seed: int = 0,
    repeats: int = 3,
    shuffles: int = 20,
    curve: PathOrText | None = None,
    out: PathOrText | None = None,
    progress: bool = True,
) -> Validation:
    """Cross-validate the predictor on labels that are there, and judge how far to trust it.

    A run gets its examination as validation.json.

    Args:
        sources: a study, run directory, .csv or .parquet table, or several of them.
        columns: TOML file that maps a table's columns to ours.
        seed: seeds the first repeat's folds, and everything else that is drawn.
        repeats: divisions into five folds to average over.
        shuffles: shuffled labels for the floor; 0 leaves it out.
        curve: where to draw the learning curve of clean_score (.svg or .png).
        out: where to write the whole result, as JSON.
        progress: False shows nothing.

    Raises:
        InputError: a source or an option is wrong, or has fewer than 30 labelled features.

    """
    return validate_sources(
        _paths(sources),
        _path(columns),
        seed=seed,
        repeats=repeats,
        shuffles=shuffles,
        curve=_path(curve),
        out=_path(out),
        reporter=Reporter(quiet=not progress),
    )


def compare(
    runs: "Sequence[PathOrText | Study]", *, progress: bool = True
) -> dict[str, pd.DataFrame]:
    """Compare screened runs, with published figures beside them: tables by name.

    Args:
        runs: studies or run directories.
        progress: False shows nothing.

    Raises:
        InputError: one is no screened run, or is given twice.

    """
    from ..report.comparison import compare as compare_runs

    tables = compare_runs(_paths(runs), Reporter(quiet=not progress))
    return {table.name: table.frame for table in tables}


def write_report(
    runs: "PathOrText | Study | Sequence[PathOrText | Study]",
    out: PathOrText = "report.html",
    *,
    descriptions: PathOrText | None = None,
    progress: bool = True,
) -> Path:
    """Write a run, or several side by side, as one HTML file that needs no network; returns where.

    Args:
        runs: a study or run directory, or several.
        out: the HTML file.
        descriptions: descriptions of the features of one run: .csv with the columns index and
            description, .jsonl with these keys, a directory of Neuronpedia's export, or
            ``neuronpedia``: its API.
        progress: False shows nothing.

    Raises:
        InputError: a run or the descriptions cannot be read, or ``out`` is a directory.

    """
    from ..report import write_report as write_page

    target = Path(out)
    if target.is_dir():
        raise InputError(f"--out {target} is a directory, expected a file's name; change it")
    reporter = Reporter(quiet=not progress)
    given = None if descriptions is None else fspath(descriptions)
    write_page(_paths(runs), target, given, reporter=reporter)
    return target


def _path(path: PathOrText | None) -> Path | None:
    return None if path is None else Path(path)


def _paths(sources: "PathOrText | Study | Sequence[PathOrText | Study]") -> list[Path]:
    listed = [sources] if isinstance(sources, str | PathLike | Study) else list(sources)
    return [source.path if isinstance(source, Study) else Path(source) for source in listed]
