"""Features are watched while they are trained, by any trainer, and where it reports."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import coaching
import lessons
import numpy as np
import pandas as pd
import pytest
import torch
from cleansteer.adapters import TrackFeatures
from cleansteer.adapters.layer import component_at
from cleansteer.adapters.tracking import Series
from cleansteer.core.errors import InputError
from cleansteer.core.tracked import COLUMNS, TRACKING, movers, read_tracking

STEPS = [0, 4, 8, 12]
"""The start, and those at which a plain trainer logs."""
NAMES = {3: "dates, mostly", 8: 'quotes " and <b>tags</b> and more than forty characters'}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("saes") / "sae")


def track(
    path: Path, folder: Path, component: str = "scale", tracker: Any = None, **more: Any
) -> tuple[Any, pd.DataFrame]:
    """A trained model, and what was tracked."""
    tracker = tracker or TrackFeatures(NAMES)
    trainer = coaching.plain("sft", folder, path, component, callbacks=[tracker], **more)
    return coaching.trained(trainer), read_tracking(folder)


def component_of(model: Any) -> Any:
    return component_at(model, lessons.HOOK, "default")


@pytest.mark.parametrize(
    "component", ["scale", "bias", "lerp", "switch", "lowrank", "mlp", "sparse"]
)
def test_every_parameter_by_feature_at_every_log(
    component: str, path: Path, tmp_path: Path
) -> None:
    model, table = track(path, tmp_path, component)
    assert list(table) == list(COLUMNS)
    assert sorted(set(table["step"])) == STEPS
    final = table[table["step"] == STEPS[-1]]
    for name, values in component_of(model).by_feature().items():
        rows = final[final["parameter"] == name]
        assert list(rows["feature"]) == lessons.ACTIVE
        np.testing.assert_allclose(rows["value"], values.detach(), rtol=1e-6)
    assert set(final["parameter"]) == set(component_of(model).by_feature())
    begun = table[table["step"] == 0]["value"].to_numpy()
    assert (table[table["step"] == 0]["moved"] == 0).all()
    np.testing.assert_allclose(final["moved"], final["value"].to_numpy() - begun, atol=1e-6)
    assert final["moved"].abs().max() > 0.01


def test_features_are_called_by_their_names(path: Path, tmp_path: Path) -> None:
    _, table = track(path, tmp_path)
    called = dict(zip(table["feature"], table["description"], strict=True))
    assert called == dict.fromkeys(lessons.ACTIVE, "") | {3: NAMES[3], 8: NAMES[8]}


def test_of_many_features_those_that_moved_most(path: Path, tmp_path: Path) -> None:
    model, table = track(path, tmp_path, "lerp", TrackFeatures(most=3, file=tmp_path / TRACKING))
    values = component_of(model).by_feature()
    size = torch.stack([value.detach().abs() for value in values.values()]).amax(dim=0)
    expected = sorted(lessons.ACTIVE[i] for i in size.argsort(descending=True)[:3])
    final = table[table["step"] == STEPS[-1]]
    assert sorted(set(final["feature"])) == expected


def test_movers_are_in_order_of_their_largest_move(path: Path, tmp_path: Path) -> None:
    _, table = track(path, tmp_path, "lerp")
    found = movers(table, 4)
    assert len(found) == 4
    largest = found[["weight_moved", "target_moved"]].abs().max(axis=1)
    assert largest.is_monotonic_decreasing
    final = table[table["step"] == STEPS[-1]]
    assert largest.iloc[0] == final["moved"].abs().max()
    assert set(found["feature"]) <= set(lessons.ACTIVE)


def test_tensorboard_has_them_as_named_series(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model, _ = track(path, tmp_path, arguments={"report_to": ["tensorboard"]})
    (folder,) = (tmp_path / "runs").glob("features")
    read = EventAccumulator(str(folder))
    read.Reload()
    tags = read.Tags()["scalars"]
    assert "features/3_dates_mostly/scale" in tags
    assert "features/8_quotes_and_b_tags_b_and_more_than_f/scale" in tags
    assert "features/55/scale" in tags
    assert len(tags) == len(lessons.ACTIVE)
    series = read.Scalars("features/3_dates_mostly/scale")
    assert [event.step for event in series] == STEPS
    value = component_of(model).scale[lessons.ACTIVE.index(3)]
    assert series[-1].value == pytest.approx(float(value), rel=1e-6)


@pytest.mark.parametrize("logger", ["wandb", "trackio"])
def test_other_loggers_are_sent_the_same(
    logger: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, float]] = []
    stand_in: Any = ModuleType(logger)
    stand_in.log, stand_in.run = sent.append, object()
    stand_in.context_vars = SimpleNamespace(current_run=SimpleNamespace(get=object))
    monkeypatch.setitem(sys.modules, logger, stand_in)
    tracker = TrackFeatures(NAMES)
    trainer = coaching.plain("sft", tmp_path, path, "scale", callbacks=[tracker])
    trainer.args.report_to = [logger]
    coaching.trained(trainer)
    assert [values["train/global_step"] for values in sent] == STEPS
    assert set(sent[-1]) >= {"features/3_dates_mostly/scale", "features/0/scale"}


def test_series_name_their_hook_where_there_are_several(path: Path, tmp_path: Path) -> None:
    below = {"hook": lessons.HOOK, "sae": {"path": str(path)}, "features": [3]}
    above = below | {"hook": "blocks.2.hook_resid_pre", "features": [5, 8]}
    config = lessons.config(path)
    config.targets = [below, above]
    callbacks = [TrackFeatures()]
    coaching.trained(coaching.plain("sft", tmp_path, path, callbacks=callbacks, config=config))
    table = read_tracking(tmp_path)
    by_hook = table.groupby("hook")["feature"].agg(lambda f: sorted(set(f))).to_dict()
    assert by_hook == {lessons.HOOK: [3], "blocks.2.hook_resid_pre": [5, 8]}
    series = Series("default", lessons.HOOK, 3, "dates", "scale", 0.5, 0.5)
    assert series.name(several=True) == f"features/{lessons.HOOK}/3_dates/scale"


def test_an_adapter_that_is_trained_on_moves_from_where_it_was(path: Path, tmp_path: Path) -> None:
    trainer = coaching.plain("sft", tmp_path, path, "bias", callbacks=[TrackFeatures()])
    component_of(trainer.model).bias.data += 3.0
    coaching.trained(trainer)
    table = read_tracking(tmp_path)
    assert (table[table["step"] == 0]["value"] == 3.0).all()
    assert (table[table["step"] == 0]["moved"] == 0.0).all()
    final = table[table["step"] == STEPS[-1]]
    np.testing.assert_allclose(final["moved"], final["value"] - 3.0, atol=1e-6)


def test_a_model_without_such_adapters_has_nothing_to_track(path: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    trainer = coaching.plain(
        "sft", tmp_path, path, callbacks=[TrackFeatures()], config=LoraConfig(r=2)
    )
    coaching.trained(trainer)
    with pytest.raises(InputError, match=r"holds no tracking\.parquet"):
        read_tracking(tmp_path)
