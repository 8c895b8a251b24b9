"""Watching every feature of an adapter while it is trained."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import TrainerCallback

from ..core.tables import read_table, write_table
from ..core.tracked import COLUMNS, TRACKING
from .components.component import Component
from .config import SaeAdapterConfig, Target
from .layer import component_at, fresh_component

MOST = 50
"""Features of which series are kept, where there are more: those that moved most."""
_LOGS = "runs"
_STEP = "train/global_step"
"""What transformers calls the step in W&B and trackio."""
_LONGEST_NAME = 40
_NO_TAG = re.compile(r"[^\w.\-]+", re.ASCII)


@dataclass(frozen=True)
class Series:
    """One parameter of one feature, at one step."""

    adapter: str
    hook: str
    feature: int
    """Its index in the SAE."""
    description: str
    parameter: str
    """As :meth:`~.components.component.Component.by_feature` names it."""
    value: float
    moved: float
    """Value less the value that training begins with."""

    def name(self, several: bool) -> str:
        """What loggers call it: ``features/FEATURE_DESCRIPTION/PARAMETER``, with the hook in between
        where there are several.
        """
        called = f"{self.feature}_{self.description[:_LONGEST_NAME]}" if self.description else ""
        parts = [self.hook] if several else []
        parts += [called or str(self.feature), self.parameter]
        return "/".join(["features", *(_NO_TAG.sub("_", part).strip("_") for part in parts)])


class TrackFeatures(TrainerCallback):  # type: ignore[misc]
    """A callback for any trainer of transformers or TRL: whenever that logs, every parameter of the
    adapters on SAE latents goes by feature, as named series, to where the trainer reports
    (``report_to``: TensorBoard, W&B, trackio), and into a Parquet file.

    Of an adapter with more features than ``most`` those are logged whose parameters moved most since
    training began.

    Args:
        names: what features are called, by index; of several places by hook point, and then by index.
        most: of how many features there are series.
        file: the Parquet file, with the columns of docs/files.md; None: ``tracking.parquet`` in the
            trainer's ``output_dir``.

    """

    def __init__(
        self,
        names: Mapping[int, str] | Mapping[str, Mapping[int, str]] | None = None,
        *,
        most: int = MOST,
        file: str | Path | None = None,
    ) -> None:
        self._names: dict[Any, Any] = dict(names or {})
        self._most = most
        self._file = None if file is None else Path(file)
        self._rows: list[dict[str, object]] = []
        self._begun: dict[tuple[str, str], dict[str, Tensor]] = {}
        self._senders: list[_Sender] = []

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **others: Any
    ) -> None:
        """Begin, or go on behind the step of a checkpoint."""
        if not state.is_world_process_zero:
            return
        if self._file is None:
            self._file = Path(args.output_dir) / TRACKING
        kept = state.global_step > 0 and self._file.is_file()
        before = read_table(self._file, COLUMNS) if kept else pd.DataFrame(columns=list(COLUMNS))
        self._rows = before[before["step"] <= state.global_step].to_dict("records")
        # A resumed training began with what is made anew; any other with what is there, which may have
        # been trained before.
        began = component_at if state.global_step == 0 else fresh_component
        self._begun = {
            (adapter, hook): {
                name: value.clone()
                for name, value in _by_feature(began(model, hook, adapter)).items()
            }
            for adapter, hook in _places(model)
        }
        self._senders = [_SENDERS[name](args) for name in _reports(args) if name in _SENDERS]
        if not self._rows:
            self._log(model, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Take the values of this step."""
        if state.is_world_process_zero and (
            not self._rows or self._rows[-1]["step"] != state.global_step
        ):
            self._log(model, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Close what was opened."""
        for sender in self._senders:
            sender.close()
        self._senders = []

    def _log(self, model: Any, step: int) -> None:
        series = list(self._series(model))
        several = len(self._begun) > 1
        for sender in self._senders:
            sender.send({each.name(several): each.value for each in series}, step)
        self._rows += [{"step": step, **vars(each)} for each in series]
        if self._rows:
            assert self._file is not None
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_table(self._file, pd.DataFrame(self._rows, columns=list(COLUMNS)))

    def _series(self, model: Any) -> Iterator[Series]:
        for (adapter, hook), begun in self._begun.items():
            target = _target(model, adapter, hook)
            found = _by_feature(component_at(model, hook, adapter))
            moved = {name: value - begun[name].to(value.device) for name, value in found.items()}
            indices = _most_moved(moved, self._most)
            features = indices if target.features is None else [target.features[i] for i in indices]
            for name, value in found.items():
                values, moves = value[indices].tolist(), moved[name][indices].tolist()
                for feature, now, move in zip(features, values, moves, strict=True):
                    called = self._called(hook, feature)
                    yield Series(adapter, hook, feature, called, name, now, move)

    def _called(self, hook: str, feature: int) -> str:
        found = self._names.get(hook)
        return str((self._names if found is None else found).get(feature, ""))


def _most_moved(moved: Mapping[str, Tensor], most: int) -> list[int]:
    """Indices within the adapter, rising, of the features whose parameters moved most: by the largest
    move of any of them.
    """
    if not moved:
        return []
    size = torch.stack([move.abs() for move in moved.values()]).amax(dim=0)
    if len(size) <= most:
        return list(range(len(size)))
    order = torch.sort(size, descending=True, stable=True).indices[:most]
    return sorted(order.tolist())


def _places(model: Any) -> Iterator[tuple[str, str]]:
    """Adapters on SAE latents and the hooks that they edit."""
    for name, config in getattr(model, "peft_config", {}).items():
        if isinstance(config, SaeAdapterConfig):
            for target in config.targets:
                yield name, str(target["hook"])


def _target(model: Any, adapter: str, hook: str) -> Target:
    targets = map(Target.parse, model.peft_config[adapter].targets)
    return next(target for target in targets if target.hook == hook)


@torch.no_grad()
def _by_feature(component: Component) -> dict[str, Tensor]:
    return {name: value.detach().float() for name, value in component.by_feature().items()}


def _reports(args: Any) -> Sequence[str]:
    given = args.report_to
    return [given] if isinstance(given, str) else list(given or [])


class _Sender:
    """Sends series to a logger."""

    def send(self, values: Mapping[str, float], step: int) -> None:
        """Those of one step."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing more will come."""


class _TensorBoard(_Sender):
    def __init__(self, args: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or str(Path(args.output_dir) / _LOGS)
        self._writer: Any = SummaryWriter(str(Path(folder).expanduser() / "features"))

    def send(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb(_Sender):
    def __init__(self, args: Any) -> None:
        import wandb

        self._wandb: Any = wandb

    def send(self, values: Mapping[str, float], step: int) -> None:
        if self._wandb.run is not None:
            self._wandb.log({**values, _STEP: step})


class _Trackio(_Sender):
    def __init__(self, args: Any) -> None:
        import trackio

        self._trackio: Any = trackio

    def send(self, values: Mapping[str, float], step: int) -> None:
        if self._trackio.context_vars.current_run.get() is not None:
            self._trackio.log({**values, _STEP: step})


_SENDERS: Mapping[str, Callable[[Any], _Sender]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "trackio": _Trackio,
}
