"""A fitted predictor on disk: JSON, Parquet and LightGBM's text, nothing that runs when read."""

import hashlib
import re
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import JsonValue

from ...core.errors import InputError
from ...core.tables import Json, read_json, read_table, write_atomically, write_json, write_text
from .blend import CANDIDATES, FOLDS, STAGES, Blend, Kernel, Line, fitted_scores
from .checks import finite_values
from .models import ModularityPredictor
from .transforms import LogTransform

Array = NDArray[np.float64]

_KIND, VERSION = "cleansteer-predictor", 2
FORMAT = f"{_KIND}/{VERSION}"
PREDICTOR_FILE = "predictor.json"
_FOLD, _LABEL = ":fold", ":label:"  # no statistic is called so


def save(predictor: ModularityPredictor, folder: Path) -> None:
    """Write a fitted predictor.

    The training table lies in Parquet, trees in LightGBM's text format, the rest in JSON. Files are
    named by their checksums and the JSON, which names them, is written last, so that a save that
    was cut short leaves what was there before, and a damaged file never reaches a parser.
    """
    models: Json = {}
    kept = set()
    for target, whole in predictor.models_.items():
        saved: list[JsonValue] = []
        for blend in (*predictor.fold_models_[target], whole):
            text = blend.booster.model_to_string()
            name = _trees(_checksum(text.encode()))
            write_text(folder / name, text)
            kept.add(name)
            saved.append({**_plain(blend), "trees": _checksum(text.encode())})
        models[target] = saved
    training = pd.DataFrame(predictor.statistics_, columns=predictor.columns_)
    training.insert(0, "feature", predictor.features_)
    training[_FOLD] = predictor.folds_
    for target, y in predictor.labels_.items():
        training[_LABEL + target] = y
    table = training.to_parquet(None, index=False)
    write_atomically(folder / _training(_checksum(table)), lambda path: path.write_bytes(table))
    write_json(
        folder / PREDICTOR_FILE,
        {
            "format": FORMAT,
            "seed": predictor.seed,
            "least_labelled": predictor.least_labelled,
            "scale": predictor.scale,
            "columns": list[JsonValue](predictor.columns_),
            "training": _checksum(table),
            "models": models,
        },
    )
    kept.add(_training(_checksum(table)))
    for pattern in (_trees("*"), _training("*")):
        for path in folder.glob(pattern):
            if path.name not in kept:
                path.unlink()


def load(folder: Path) -> ModularityPredictor:
    """Read what :func:`save` wrote.

    Raises:
        InputError: files are missing, damaged, or of another version.

    """
    data = read_json(folder / PREDICTOR_FILE)
    _check_version(data.get("format"), folder)
    try:
        return _built(data, folder)
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(
            f"predictor {folder / PREDICTOR_FILE} is damaged ({error!r}); fit it anew"
        ) from None


def _check_version(stated: object, folder: Path) -> None:
    known = re.fullmatch(rf"{_KIND}/(\d+)", str(stated))
    if known is not None and int(known[1]) > VERSION:
        raise InputError(
            f"predictor {folder} has format {stated!r}, which is newer than {FORMAT!r}, the newest that "
            "this version of cleansteer reads; upgrade cleansteer, or fit it anew"
        )
    if stated != FORMAT:
        raise InputError(
            f"predictor {folder} has format {stated!r}, expected {FORMAT!r}; fit it anew with this "
            "version"
        )


def _built(data: dict[str, Any], folder: Path) -> ModularityPredictor:
    for key in ("seed", "least_labelled"):
        if type(data[key]) is not int:
            raise ValueError(f"{key} {data[key]!r}, expected a whole number")
    targets = tuple(data["models"])
    if not targets:
        raise ValueError("there are no models")
    if data["scale"] not in ("values", "ranks"):
        raise ValueError(f"scale {data['scale']!r}, expected values or ranks")
    predictor = ModularityPredictor(targets, data["seed"], data["least_labelled"], data["scale"])
    path = folder / _training(data["training"])
    if not path.is_file() or _checksum(path.read_bytes()) != data["training"]:
        raise InputError(
            f"predictor file {path} is missing or damaged (its checksum differs); fit it anew"
        )
    columns = [*data["columns"], _FOLD, *(_LABEL + target for target in targets)]
    training = read_table(path, ("feature", *columns))
    predictor.columns_ = data["columns"]
    values = finite_values(training, predictor.columns_, f"predictor file {path}")
    folds = training[_FOLD].to_numpy(dtype=np.int64)
    labels = {t: training[_LABEL + t].to_numpy(dtype=np.float64) for t in targets}
    predictor.features_ = pd.Index(training["feature"])
    blends = {
        target: [
            _restored(
                saved, predictor.new_blend(target), values[rows], labels[target][rows], folder
            )
            for saved, rows in zip(
                data["models"][target],
                [*(folds != fold for fold in range(FOLDS)), np.full(len(folds), True)],
                strict=True,
            )
        ]
        for target in targets
    }
    predictor.restore(values, labels, folds, blends)
    return predictor


def _plain(blend: Blend) -> Json:
    return {
        "weights": blend.weights.tolist(),
        "ridge": _plain_line(blend.ridge),
        "kernel": {
            "line": _plain_line(blend.kernel.line),
            "gamma": blend.kernel.gamma,
            "landmarks": blend.kernel.landmarks.tolist(),
            "weights": blend.kernel.weights.tolist(),
        },
    }


def _plain_line(line: Line) -> Json:
    return {"coefficients": line.coefficients.tolist(), "intercept": line.intercept}


def _restored(saved: dict[str, Any], blend: Blend, X: Array, y: Array, folder: Path) -> Blend:
    blend.weights = _numbers(saved["weights"], len(CANDIDATES))
    blend.transform = LogTransform().fit(X)
    blend.scores = fitted_scores(y, blend.tails)
    blend.ridge = _line(saved["ridge"], X.shape[1])
    kernel = saved["kernel"]
    landmarks = _rows(kernel["landmarks"], len(X))
    blend.kernel = Kernel(
        line=_line(kernel["line"], X.shape[1]),
        gamma=_number(kernel["gamma"]),
        landmarks=landmarks,
        points=blend.transform(X)[landmarks],
        weights=_numbers(kernel["weights"], len(landmarks)),
    )
    path = folder / _trees(saved["trees"])
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"predictor file {path} cannot be read ({error}); fit it anew") from None
    if _checksum(raw) != saved["trees"]:
        raise InputError(f"predictor file {path} is damaged (its checksum differs); fit it anew")
    blend.booster = lightgbm.Booster(model_str=raw.decode())
    if blend.booster.num_trees() > STAGES[-1] or blend.booster.num_feature() != X.shape[1]:
        raise ValueError(f"{path} holds other trees")
    return blend


def _line(saved: dict[str, Any], n: int) -> Line:
    return Line(_numbers(saved["coefficients"], n), _number(saved["intercept"]))


def _numbers(values: Any, n: int) -> Array:
    numbers = np.array(values, dtype=np.float64)
    if numbers.shape != (n,) or not np.isfinite(numbers).all():
        raise ValueError(f"{numbers.shape} numbers, expected {n} finite ones")
    return numbers


def _number(value: Any) -> float:
    return float(_numbers([value], 1)[0])


def _rows(values: Any, n: int) -> NDArray[np.int64]:
    rows = np.array(values)
    if rows.ndim != 1 or rows.dtype != np.int64 or rows.min() < 0 or rows.max() >= n:
        raise ValueError(f"landmarks are not some of {n} rows")
    return rows


def _trees(checksum: str) -> str:
    return f"trees-{checksum}.txt"


def _training(checksum: str) -> str:
    return f"training-{checksum}.parquet"


def _checksum(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]
