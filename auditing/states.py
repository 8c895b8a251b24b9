"""What saved adapters have learnt, read from their directories alone, without a model."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..adapters.components.component import Component, build
from ..adapters.config import SaeAdapterConfig, Target
from ..adapters.loading import read_config
from ..adapters.places import layer_and_name
from ..core.errors import InputError
from ..core.sites import parse_site

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_CHECKPOINTS = "checkpoints"
_NAME = re.compile(r"\.(\d+)\.cleansteer_(\w+?)\.(\w+)")


@dataclass(frozen=True)
class State:
    """A saved adapter: what it has learnt, and what that began as."""

    folder: Path
    config: SaeAdapterConfig
    learnt: Mapping[str, Component]
    """By hook point."""
    begun: Mapping[str, Component]

    @property
    def step(self) -> int | None:
        """The step that a checkpoint is of, by its name."""
        return step_of(self.folder)

    @property
    def targets(self) -> list[Target]:
        """The places that it edits."""
        return [Target.parse(target) for target in self.config.targets]


def step_of(folder: Path) -> int | None:
    """The step of a checkpoint's directory, by its name; None: it is no checkpoint's."""
    found = _CHECKPOINT.fullmatch(folder.name)
    return None if found is None else int(found[1])


def find_adapters(paths: Iterable[Path]) -> list[Path]:
    """Directories of adapters. A directory that is none stands for the checkpoints in it, or in its
    ``checkpoints``; checkpoints of one directory follow each other by their steps.

    Raises:
        InputError: a directory holds neither, or an adapter is named twice.

    """
    found: list[Path] = []
    for path in paths:
        found += [path] if (path / _CONFIG).is_file() else _checkpoints(path)
    for path in found:
        if found.count(path) > 1:
            raise InputError(f"{path} is given twice; expected each adapter once; leave one out")
    places: dict[Path, list[int]] = {}
    for at, path in enumerate(found):
        if step_of(path) is not None:
            places.setdefault(path.parent, []).append(at)
    ordered = list(found)
    for some in places.values():
        by_step = sorted((found[at] for at in some), key=lambda path: step_of(path) or 0)
        for at, path in zip(some, by_step, strict=True):
            ordered[at] = path
    return ordered


def _checkpoints(folder: Path) -> list[Path]:
    for place in (folder, folder / _CHECKPOINTS):
        inside = sorted(place.iterdir()) if place.is_dir() else []
        some = [path for path in inside if step_of(path) is not None and (path / _CONFIG).is_file()]
        if some:
            return some
    raise InputError(
        f"{folder} holds no {_CONFIG}, and no checkpoints; expected the directory of an adapter, or of a "
        "training with checkpoint-N in it; correct the name"
    )


def read_states(folders: Sequence[Path]) -> list[State]:
    """Adapters of the same places, features and component.

    Raises:
        InputError: one cannot be read, or differs from the first.

    """
    states = [_read(folder) for folder in folders]
    for state in states[1:]:
        difference = _difference(states[0], state)
        if difference:
            raise InputError(
                f"{state.folder} differs from {states[0].folder} in {difference}; expected adapters of "
                "one training; leave it out, or audit it alone"
            )
    return states


def _difference(one: State, other: State) -> str:
    """What two adapters do not share; nothing: all that matters."""
    a, b = one.config, other.config
    if a.component != b.component:
        return f"its component, {b.component} in place of {a.component}"
    if a.component_options != b.component_options:
        return f"the options of {a.component}"
    hooks = [[target.hook for target in state.targets] for state in (one, other)]
    if hooks[0] != hooks[1]:
        return f"what it edits, {', '.join(hooks[1])} in place of {', '.join(hooks[0])}"
    for first, second in zip(one.targets, other.targets, strict=True):
        if first.fingerprint != second.fingerprint:
            return f"the SAE at {first.hook}"
        if first.features != second.features:
            return f"the features at {first.hook}"
    return ""


def _read(folder: Path) -> State:
    config, path = read_config(folder), folder / _WEIGHTS
    if not path.is_file():
        raise InputError(
            f"{folder} has no {_WEIGHTS}; expected what PEFT's save_pretrained writes; save it again"
        )
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"adapter weights {path} are broken ({error}); copy them again") from None
    places: dict[tuple[int, str], dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        found = _NAME.search(name)
        if found is not None:
            places.setdefault((int(found[1]), found[2]), {})[found[3]] = tensor
    learnt, begun = {}, {}
    for number, target in enumerate(map(Target.parse, config.targets)):
        place = layer_and_name(parse_site(target.hook, sys.maxsize))
        given = places.get(place, {})
        sizes = {size for tensor in given.values() for size in tensor.shape}
        choices = sorted(sizes) if target.features is None else [len(target.features)]
        learnt[target.hook], begun[target.hook] = (
            _made(config, choices, number, given, path) for _ in range(2)
        )
        learnt[target.hook].load_state_dict({name: each.float() for name, each in given.items()})
    return State(folder, config, learnt, begun)


def _made(
    config: SaeAdapterConfig,
    choices: Sequence[int],
    number: int,
    given: Mapping[str, Tensor],
    path: Path,
) -> Component:
    """A component that has these parameters' names and shapes, as it is made; how many features it has is
    one of some numbers.
    """
    shapes = {name: tensor.shape for name, tensor in given.items()}
    for n_features in choices:
        made = build(config.component, n_features, config.component_options, config.seed + number)
        if {name: value.shape for name, value in made.state_dict().items()} == shapes:
            return made
    raise InputError(
        f"adapter weights {path} are not those of a {config.component} on the features of {_CONFIG}; "
        "expected both from one save; save the adapter again"
    )
