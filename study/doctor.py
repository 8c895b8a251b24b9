"""What this machine can screen, and what is in the way."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..core import machine
from ..core.cache import is_local, present
from ..core.hub import ask_access, is_offline, licence_remedy
from ..core.machine import Device, HubState, LibraryVersion, Processor
from ..core.records import Record
from ..core.settings import Setting
from .catalogue import bundled, load_setting
from .memory import HEADROOM, memory_need

_ASKING_SECONDS = 3.0


class SettingState(Record):
    """Whether a setting can be screened here."""

    model: str
    here: dict[str, bool]
    """Which of its parts are on this machine."""
    access: str
    """What the hub says of its model."""
    gated: bool | None
    memory_need: int | None
    """Bytes of its weights, roughly; None where a size is not known."""
    fits: dict[str, bool | None]
    """By device: whether it finds that memory there."""


class Diagnosis(Record):
    """Versions, devices, the hub's cache, and every bundled setting."""

    versions: dict[str, LibraryVersion]
    processor: Processor
    devices: list[Device]
    hub: HubState
    settings: dict[str, SettingState]

    def advice(self) -> Iterator[str]:
        """What to do about what is in the way, a line each."""
        other = [name for name, version in self.versions.items() if not version.same]
        if other:
            yield (
                f"Other versions than the tested ones: {', '.join(other)}; if something fails, "
                "`pip install -c constraints.txt -e .`"
            )
        for model in sorted({s.model for s in self.settings.values() if s.access == "no"}):
            yield f"{model} is gated and not open to you: {licence_remedy(model)}"
        if any(s.access == "could not ask" for s in self.settings.values()):
            yield f"The hub at {self.hub.endpoint} could not be asked; what is here still works."


def doctor() -> Diagnosis:
    """Check versions, memory, devices, the hub's cache, and every bundled setting.

    The network is only used to ask whether models may be downloaded; not with HF_HUB_OFFLINE=1.
    """
    settings = {name: load_setting(name) for name in bundled()}
    devices = machine.devices()
    models = {s.model.name for s in settings.values() if not is_local(s)}
    access = {} if is_offline() else _ask(models)
    return Diagnosis(
        versions=machine.versions(),
        processor=machine.processor(),
        devices=devices,
        hub=machine.hub(),
        settings={name: judge(setting, devices, access) for name, setting in settings.items()},
    )


def _ask(models: set[str]) -> dict[str, tuple[str, bool | None]]:
    """Whether the hub would give each model, all asked at once."""
    names = sorted(models)
    with ThreadPoolExecutor(len(names) or 1) as pool:
        answers = pool.map(lambda name: ask_access(name, _ASKING_SECONDS), names)
        return dict(zip(names, answers, strict=True))


def judge(
    setting: Setting,
    devices: Sequence[Device],
    access: Mapping[str, tuple[str, bool | None]],
) -> SettingState:
    """Whether a setting can be screened, on these devices and with this access to models."""
    local = ("local", False) if is_local(setting) else ("not asked", None)
    answer, gated = access.get(setting.model.name, local)
    need = memory_need(setting)
    return SettingState(
        model=setting.model.name,
        here=present(setting),
        access=answer,
        gated=gated,
        memory_need=need,
        fits={
            device.device: None if need is None else HEADROOM * need <= device.memory
            for device in devices
            if setting.model.dtype in device.formats
        },
    )
