"""A predictor on disk: the same afterwards, refused where it is not whole, and never code."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cleansteer.predictor
import numpy as np
import pandas as pd
import pytest
import synthetic
from cleansteer.core.errors import InputError
from cleansteer.predictor.model import files
from cleansteer.predictor.model.files import PREDICTOR_FILE, VERSION, load, save
from cleansteer.predictor.model.models import ModularityPredictor

TARGETS = ("clean_score", "stability_abs")
N = 50


def table() -> pd.DataFrame:
    return synthetic.statistics(N, seed=1)


def fitted(seed: int = 0, labels: int = 1) -> ModularityPredictor:
    known = synthetic.labels(table(), 0.3, labels)
    return ModularityPredictor(TARGETS, seed, 40).fit(table(), known)


@pytest.fixture(scope="module")
def predictor() -> ModularityPredictor:
    return fitted()


@pytest.fixture(scope="module")
def other() -> ModularityPredictor:
    return fitted(5, 8)


@pytest.fixture(scope="module")
def saved(predictor: ModularityPredictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save(predictor, folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that may be spoiled."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def said(predictor: ModularityPredictor) -> Iterator[pd.DataFrame]:
    """All that it says of rows that it knows, of others and of strange ones."""
    yield predictor.out_of_fold_
    for rows in (table(), synthetic.statistics(40, 2), 1000 * synthetic.statistics(10, 3)):
        yield predictor.predict(rows)
        yield predictor.predict_interval(rows, 0.8)
        yield predictor.predict_interval(rows, 0.8, held_out=True)
        yield predictor.explain(rows)
        yield predictor.reasons(rows, TARGETS[0]).to_frame()


def assert_same(one: ModularityPredictor, two: ModularityPredictor) -> None:
    for a, b in zip(said(one), said(two), strict=True):
        pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert one.get_params() == two.get_params()
    assert (one.columns_, one.constant_) == (two.columns_, two.constant_)


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_saved_and_loaded_it_says_the_same(predictor: ModularityPredictor, tmp_path: Path) -> None:
    save(predictor, tmp_path / "deep" / "predictor")
    assert_same(load(tmp_path / "deep" / "predictor"), predictor)


def test_saved_again_it_is_the_same_files(saved: Path, tmp_path: Path) -> None:
    save(load(saved), tmp_path)
    assert contents(tmp_path) == contents(saved)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["fold", "label:clean_score", "base"])
def test_a_statistic_may_be_called_anything(name: str, tmp_path: Path) -> None:
    X = table().rename(columns={"decoder_norm": name})
    one = ModularityPredictor(TARGETS[:1]).fit(X, synthetic.labels(table(), 0.3, 1))
    save(one, tmp_path)
    pd.testing.assert_frame_equal(load(tmp_path).predict(X), one.predict(X), check_exact=True)


def test_constant_labels_and_statistics_are_kept(tmp_path: Path) -> None:
    X = table().assign(decoder_norm=0.1)
    labels = synthetic.labels(table(), 0.3, 1).assign(clean_score=2.5)
    one = ModularityPredictor(TARGETS).fit(X, labels)
    save(one, tmp_path)
    loaded = load(tmp_path)
    assert loaded.constant_ == ["decoder_norm"]
    pd.testing.assert_frame_equal(loaded.predict(X), one.predict(X), check_exact=True)


def test_files_are_data_that_name_everything(saved: Path) -> None:
    names = sorted(path.name for path in saved.iterdir())
    assert all(
        re.fullmatch(r"predictor\.json|(trees|training)-[0-9a-f]{16}\.(txt|parquet)", name)
        for name in names
    )
    text = "".join(path.read_text("utf-8") for path in saved.iterdir() if path.suffix != ".parquet")
    assert text.replace("\n", " ").isprintable()
    data = json.loads((saved / PREDICTOR_FILE).read_text("utf-8"))
    assert data["format"] == f"cleansteer-predictor/{VERSION}"
    assert data["columns"] == list(synthetic.STATISTICS)
    assert tuple(data["models"]) == TARGETS
    assert all(len(blends) == 6 for blends in data["models"].values())


def test_nothing_is_pickled(
    predictor: ModularityPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was read or written")

    for name in ("load", "loads", "dump", "dumps", "Unpickler", "Pickler"):
        monkeypatch.setattr(pickle, name, refuse)
    save(predictor, tmp_path)
    assert_same(load(tmp_path), predictor)
    assert not {path.suffix for path in tmp_path.iterdir()} & {".pkl", ".pickle", ".joblib"}
    for path in Path(next(iter(cleansteer.predictor.__path__))).glob("*.py"):
        assert not re.search(
            r"import (c?loud)?(pickle|joblib|dill|shelve|marshal)\b|from (pickle|joblib|dill)\b"
            r"|\beval\(|\bexec\(",
            path.read_text("utf-8"),
        ), path


def test_a_second_save_leaves_nothing_of_the_first(
    folder: Path, other: ModularityPredictor, tmp_path: Path
) -> None:
    (folder / "notes.txt").write_text("mine", "utf-8")
    save(other, folder)
    save(other, tmp_path / "alone")
    found = contents(folder)
    assert found.pop("notes.txt") == b"mine"
    assert found == contents(tmp_path / "alone")
    assert_same(load(folder), other)


class Cut(BaseException):
    """The process is stopped."""


@pytest.mark.parametrize("writes", range(14))
def test_a_save_that_is_cut_short_leaves_the_old_predictor(
    writes: int,
    folder: Path,
    predictor: ModularityPredictor,
    other: ModularityPredictor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """12 trees, the training table and the JSON: cut before each of them."""
    replace = Path.replace
    done = 0

    def dying(path: Path, target: Path) -> Path:
        nonlocal done
        if done == writes:
            raise Cut
        done += 1
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dying)
        with pytest.raises(Cut):
            save(other, folder)
    pd.testing.assert_frame_equal(
        load(folder).predict(table()), predictor.predict(table()), check_exact=True
    )
    if writes in (0, 13):
        save(other, folder)
        assert_same(load(folder), other)


def test_a_folder_without_a_predictor_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / PREDICTOR_FILE} does not exist" in refused(tmp_path)


def changed(folder: Path, change: dict[str, Any]) -> None:
    path = folder / PREDICTOR_FILE
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")


@pytest.mark.parametrize("version", [VERSION + 1, 10 * VERSION])
def test_a_newer_version_is_refused_naming_both(version: int, folder: Path) -> None:
    changed(folder, {"format": f"cleansteer-predictor/{version}"})
    message = refused(folder)
    assert f"has format 'cleansteer-predictor/{version}', which is newer than" in message
    assert f"'cleansteer-predictor/{VERSION}'" in message
    assert "upgrade cleansteer" in message


@pytest.mark.parametrize(
    "name", ["cleansteer-predictor/1", "cleansteer-predictor/x", "cleansteer-allowlist/2", None, 2]
)
def test_an_older_or_other_format_is_refused(name: object, folder: Path) -> None:
    changed(folder, {"format": name})
    message = refused(folder)
    assert f"has format {name!r}, expected 'cleansteer-predictor/{VERSION}'; fit it anew" in message


@pytest.mark.parametrize("pattern", ["trees-*.txt", "training-*.parquet"])
def test_files_that_are_missing_or_damaged_are_named(pattern: str, folder: Path) -> None:
    """LightGBM's parser would crash on some of them."""
    path = sorted(folder.glob(pattern))[-1]
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (b"", whole[:400], whole[:-1], whole + b" ", flipped):
        path.write_bytes(damaged)
        message = refused(folder)
        assert message.startswith(f"predictor file {path} is ")
        assert "damaged (its checksum differs); fit it anew" in message
    path.unlink()
    message = refused(folder)
    assert message.startswith(f"predictor file {path} ")
    assert "fit it anew" in message
    path.write_bytes(whole)
    load(folder)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where JSON holds values, of the first target's first blend and outside of blends."""
    if path[:1] == ("models",) and (path[1:2] > (TARGETS[0],) or path[2:3] > (0,)):
        return
    yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from places(value, (*path, key))
    elif isinstance(data, list) and data:
        yield from places(data[0], (*path, 0))


def with_value(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = with_value(data[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize(
    "value", [None, "x", {}, [], [[]], float("nan"), float("inf"), 10**30, -7.5]
)
def test_json_values_that_cannot_be_are_refused(value: object, folder: Path) -> None:
    path = folder / PREDICTOR_FILE
    whole = json.loads(path.read_text("utf-8"))
    numbers = ("weights", "coefficients", "intercept", "gamma")
    for place in places(whole):
        if value == -7.5 and set(place) & set(numbers):
            continue  # a number may be any
        if value == 10**30 and (
            set(place) & set(numbers) or place in [("seed",), ("least_labelled",)]
        ):
            continue
        path.write_text(json.dumps(with_value(whole, place, value)), "utf-8")
        with pytest.raises(InputError, match=r"\A[^\n]+\Z"):
            pytest.fail(f"{place} may hold {value!r}: {load(folder)}")


def test_json_without_a_key_is_damaged(folder: Path) -> None:
    path = folder / PREDICTOR_FILE
    whole = json.loads(path.read_text("utf-8"))
    for place in places(whole):
        if place and isinstance(place[-1], str) and place != ("format",):
            parent = whole
            for key in place[:-1]:
                parent = parent[key]
            less = {key: value for key, value in parent.items() if key != place[-1]}
            path.write_text(json.dumps(with_value(whole, place[:-1], less)), "utf-8")
            if place == ("models", TARGETS[0]):
                continue  # a predictor of the other targets
            message = refused(folder)
            assert f"predictor {path} is damaged" in message, place
            assert "fit it anew" in message
    path.write_text("{" + path.read_text("utf-8"), "utf-8")
    assert "is not JSON" in refused(folder)


def test_trees_of_other_statistics_are_refused(folder: Path, tmp_path: Path) -> None:
    X = table().drop(columns="decoder_norm")
    narrow = ModularityPredictor(TARGETS[:1]).fit(X, synthetic.labels(table(), 0.3, 1))
    save(narrow, tmp_path / "narrow")
    stolen = sorted((tmp_path / "narrow").glob("trees-*.txt"))[0]
    shutil.copy(stolen, folder)
    whole = json.loads((folder / PREDICTOR_FILE).read_text("utf-8"))
    checksum = stolen.stem.removeprefix("trees-")
    models = with_value(whole["models"], (TARGETS[0], 0, "trees"), checksum)
    changed(folder, {"models": models})
    assert "holds other trees" in refused(folder)


def test_checksums_see_every_bit() -> None:
    raw = bytes(np.random.default_rng(0).integers(0, 256, 40, dtype=np.uint8))
    others = {files._checksum(raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :]) for i in range(40)}
    assert len(others | {files._checksum(raw)}) == 41
