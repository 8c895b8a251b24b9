"""The adapter that is looked at, over its model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel

from ..adapters.config import Target
from ..adapters.loading import load
from ..adapters.objective import ADAPTER
from ..core.errors import InputError
from ..core.networks import load_source, model_source, quiet_libraries
from ..core.records import TrainingRecord
from ..core.settings import Setting
from ..core.training import TrainingOptions

_CONFIG = "adapter_config.json"
_RECORD = "training.json"


@dataclass(frozen=True)
class Subject:
    """An adapter on SAE latents, loaded."""

    folder: Path
    model: PeftModel
    tokenizer: Any
    source: str
    """What the model was loaded from."""
    record: TrainingRecord | None
    """What ``cleansteer train`` wrote of it; None: it was trained by others."""

    @property
    def config(self) -> Any:
        """PEFT's configuration of the adapter."""
        return self.model.peft_config[ADAPTER]

    @property
    def targets(self) -> list[Target]:
        """The places that it edits."""
        return [Target.parse(target) for target in self.config.targets]

    @property
    def component(self) -> str:
        """Its component's name."""
        return str(self.config.component)


def options_of(subject: Subject) -> TrainingOptions:
    """How the adapter's examples were read, as far as it is known."""
    return TrainingOptions() if subject.record is None else subject.record.options


def open_adapter(folder: Path, setting: Setting | None = None, device: str = "cpu") -> Subject:
    """Load an adapter over its base model.

    Args:
        folder: as PEFT saves adapters.
        setting: names the model, where the adapter's directory does not, or it lies elsewhere now.
        device: where to.

    Raises:
        InputError: it holds no adapter on SAE latents, or one of another SAE or model than is at hand.

    """
    if not (folder / _CONFIG).is_file():
        raise InputError(
            f"{folder} holds no {_CONFIG}; expected the directory of an adapter; correct the name"
        )
    record = None
    if (folder / _RECORD).is_file():
        record = TrainingRecord.read(folder / _RECORD)
        if not record.finished:
            raise InputError(
                f"the training in {folder} is not finished; expected an adapter; go on with it by "
                "`cleansteer train ... --resume`"
            )
    source, here, dtype, attention = _source(folder, setting, record)
    network, tokenizer = load_source(source, here, dtype, attention)
    network.to(device).requires_grad_(False)
    with quiet_libraries():
        model = load(network.eval(), folder, is_trainable=True).eval()
    return Subject(folder, model.requires_grad_(False), tokenizer, source, record)


def _source(
    folder: Path, setting: Setting | None, record: TrainingRecord | None
) -> tuple[str, bool, str, str | None]:
    """What to load the model from, whether that is a directory, number format, and attention."""
    attention = None if record is None else record.model.attention
    if setting is not None:
        return *model_source(setting), setting.model.dtype, attention
    from ..core.tables import read_json

    named = read_json(folder / _CONFIG).get("base_model_name_or_path")
    source = record.model.source if record is not None and record.model.source else named
    if not source:
        raise InputError(
            f"{folder} does not name its base model; expected a setting that does; give --setting"
        )
    here = Path(str(source)).is_dir()
    if not here and str(source).startswith((".", "/")):
        raise InputError(
            f"{folder}: its base model {source} is not there; expected a setting that names it; give "
            "--setting"
        )
    return str(source), here, "float32" if record is None else record.model.dtype, attention
