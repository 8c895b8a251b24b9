"""What an adapter edits, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, cast

from peft.config import PeftConfig
from peft.utils import PeftType, TaskType
from pydantic import ValidationError

from ..core.checks import check_features
from ..core.choices import TOKENS, Tokens
from ..core.errors import InputError
from ..core.settings import SaeSetting
from .components.component import check_options
from .positions import Which

_TARGET_KEYS = ("hook", "sae", "features")
_SAE_KEYS = ("path", "release", "id", "centred", "first", "fingerprint")
_BELOW = "subfolder"
"""Key of an SAE that lies below the directory that an adapter is saved in, in place of ``path``."""


@dataclass(frozen=True)
class Target:
    """Where an adapter edits: a hook point, the SAE that reads there, and the features allowed."""

    hook: str
    """TransformerLens' name of the hook point."""
    sae: SaeSetting
    """The SAE; a directory is given by its whole path."""
    features: list[int] | None
    """Indices, rising; None: all."""
    fingerprint: str | None = None
    """The SAE's, where it is known; another SAE is refused then."""

    @classmethod
    def of(
        cls,
        sae: SaeSetting,
        folder: Path,
        hook: str,
        features: list[int] | None,
        fingerprint: str | None = None,
    ) -> Self:
        """The target of a setting's SAE; ``folder`` is what a relative directory of it starts from."""
        path = None if sae.path is None else str((folder / sae.path).resolve())
        placed = sae.model_copy(update={"hook": hook, "path": path, "centred": sae.centred})
        return cls(hook, placed, features, fingerprint)

    @classmethod
    def parse(cls, given: Any) -> Self:
        """A target from a dictionary as :class:`SaeAdapterConfig` takes and PEFT saves it.

        Raises:
            InputError: it is not one, or its features are empty, repeated or negative.

        """
        if not isinstance(given, Mapping) or not {"hook", "sae"} <= set(given) <= set(_TARGET_KEYS):
            raise InputError(
                f"target {given!r} is not understood; expected a dictionary of "
                f"{', '.join(_TARGET_KEYS)} (features may be left out: all); correct it"
            )
        hook, sae, features = given["hook"], given["sae"], given.get("features")
        if not isinstance(hook, str):
            raise InputError(
                f"hook is {hook!r}; expected TransformerLens' name of a hook point, such as "
                "'blocks.2.hook_resid_pre'; change it"
            )
        where = f"target {hook}"
        if isinstance(sae, Mapping) and _BELOW in sae:
            raise InputError(
                f"{where}: sae {dict(sae)!r} lies below the adapter's directory, which is not known "
                "here; expected a directory that was given to SaeAdapterConfig.from_pretrained or "
                "PeftModel.from_pretrained; load it so"
            )
        if not isinstance(sae, Mapping) or not set(sae) <= set(_SAE_KEYS):
            raise InputError(
                f"{where}: sae is {sae!r}; expected {{'path': ...}}, or {{'release': ..., 'id': ...}}; "
                "correct it"
            )
        source = {key: value for key, value in sae.items() if value is not None}
        fingerprint = source.pop("fingerprint", None)
        if isinstance(source.get("path"), str | Path):
            # The place does not depend on where a process is started.
            source["path"] = str(Path(source["path"]).expanduser().resolve())
        try:
            setting = SaeSetting(**source, hook=hook)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise InputError(f"{where}: sae {dict(sae)!r}: {message}; correct it") from None
        checked = None if features is None else check_features(features, where)
        return cls(hook, setting, checked, fingerprint)

    def to_dict(self) -> dict[str, Any]:
        """The target as PEFT saves it."""
        sae = self.sae.model_dump(exclude_none=True, exclude_unset=True, exclude={"hook"})
        if self.fingerprint is not None:
            sae["fingerprint"] = self.fingerprint
        return {"hook": self.hook, "sae": sae, "features": self.features}

    def reading(self, sae: str | Path) -> Self:
        """The same with the SAE in another directory."""
        path = str(Path(sae).expanduser().resolve())
        # Built anew: whoever names a directory names no release.
        source = self.sae.model_dump(include={"hook", "centred", "first"})
        return replace(self, sae=SaeSetting(path=path, **source))

    def with_features(self, features: list[int] | None) -> Self:
        """The same place and SAE with other features."""
        return replace(self, features=features)


@dataclass
class SaeAdapterConfig(PeftConfig):  # type: ignore[misc]
    """Configuration of an adapter on SAE latents, for ``peft.get_peft_model``.

    Raises:
        InputError: no target, a target without hook or SAE, one hook twice, features that are empty,
            repeated or negative, an unknown component, an option that does not apply, a seed that is no
            whole number, unknown positions, a task other than causal language modelling, or modules to
            save beside the adapter.

    """

    targets: list[dict[str, Any]] = field(
        default_factory=list,
        metadata={
            "help": "What is edited: a list of {'hook': TransformerLens' name of a hook point, 'sae': "
            "{'path': directory in SAELens format} or {'release': ..., 'id': ...}, 'features': "
            "indices of the features that may be edited, or None for all}. 'sae' may say 'centred' "
            "(True, False, 'auto'), as in a setting's file; its 'fingerprint' is filled in at first "
            "use, and later another SAE is refused."
        },
    )
    component: str = field(
        default="scale",
        metadata={"help": "What is done to latents: see cleansteer.adapters.components."},
    )
    component_options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Numbers that the component takes."}
    )
    seed: int = field(
        default=0, metadata={"help": "Of what a component draws at the start (mlp, lowrank)."}
    )
    positions: str = field(
        default="all",
        metadata={
            "help": "Which tokens are edited: 'all'; 'completion': those with a label while training, "
            "those behind the prompt while generating; 'last': those from which the next is drawn while "
            "generating, or learned while training; without labels the last of each row."
        },
    )
    edit_bos: bool = field(
        default=True, metadata={"help": "Whether BOS at the start of a row is edited too."}
    )
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Set by the method: the layers that the hooks lie in."}
    )
    base_fingerprint: str | None = field(
        default=None,
        metadata={
            "help": "Of the base model's weights, in whatever number format; filled in at first use, and "
            "later a model with others is refused. None: any is taken."
        },
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Not supported: only latents are edited."}
    )

    def __post_init__(self) -> None:
        task: Any = getattr(self, "task_type")  # noqa: B009 - PEFT's, which has no types
        if task not in (None, TaskType.CAUSAL_LM):
            raise InputError(
                f"task_type is {task!r}; expected 'CAUSAL_LM': only causal language models are "
                "edited, with no head of another task trained beside them; leave it out"
            )
        if self.modules_to_save:
            raise InputError(
                f"modules_to_save is {self.modules_to_save!r}; expected none: an adapter edits latents "
                "and nothing else; leave it out"
            )
        super().__post_init__()
        self.peft_type = PeftType.CLEANSTEER
        self.task_type = TaskType.CAUSAL_LM
        if not isinstance(self.targets, list | tuple):
            raise InputError(
                f"targets are {self.targets!r}; expected a list of targets; change them"
            )
        self.targets = [Target.parse(target).to_dict() for target in self.targets]
        if not self.targets:
            raise InputError("an adapter has no target; expected at least one; add it to `targets`")
        hooks = [target["hook"] for target in self.targets]
        for hook in hooks:
            if hooks.count(hook) > 1:
                raise InputError(
                    f"hook {hook} is a target twice; expected each once; put its features into one"
                )
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise InputError(f"seed is {self.seed!r}; expected a whole number from 0; change it")
        if self.positions not in TOKENS:
            raise InputError(
                f"positions is {self.positions!r}; expected one of {', '.join(TOKENS)}; change it"
            )
        if not isinstance(self.edit_bos, bool):
            raise InputError(f"edit_bos is {self.edit_bos!r}; expected True or False; change it")
        self.component_options = check_options(self.component, self.component_options)

    @property
    def which(self) -> Which:
        """The tokens that are edited."""
        return Which(cast(Tokens, self.positions), self.edit_bos)

    def save_pretrained(self, save_directory: str | Path, **others: Any) -> None:
        """Write ``adapter_config.json``, as PEFT does, and a model card where there is none that says how
        to load the adapter.

        An SAE that lies below the directory is named from there, so that both can be moved together.
        """
        from .card import write_card

        whole, folder = self.targets, Path(save_directory).resolve()
        self.targets = [_named_from(folder, target) for target in whole]
        try:
            super().save_pretrained(str(save_directory), **others)
        finally:
            self.targets = whole
        write_card(folder, self)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        subfolder: str | None = None,
        *,
        sae: str | Path | Mapping[str, str | Path] | None = None,
        **others: Any,
    ) -> "SaeAdapterConfig":
        """Read the configuration of a saved adapter.

        Args:
            pretrained_model_name_or_path: its directory, or its repository on the Hugging Face Hub.
            subfolder: of that.
            sae: directory of the SAE, where it lies elsewhere now; of several targets, directories by
                hook point.
            others: as PEFT's.

        Raises:
            InputError: ``sae`` names a hook point that is no target, or not which of several.

        """
        config: SaeAdapterConfig = super().from_pretrained(
            str(pretrained_model_name_or_path), subfolder=subfolder, **others
        )
        if sae is None:
            return config
        for hook, path in by_hook(config, sae).items():
            config.targets = [
                Target.parse(target).reading(path).to_dict() if target["hook"] == hook else target
                for target in config.targets
            ]
        return config

    @classmethod
    def from_json_file(cls, path_json_file: str | Path, **others: Any) -> dict[str, Any]:
        """The entries of ``adapter_config.json``, with whole paths."""
        entries: dict[str, Any] = super().from_json_file(str(path_json_file), **others)
        return resolve_paths(entries, Path(path_json_file).resolve().parent)


def by_hook(config: SaeAdapterConfig, given: Any) -> dict[str, Any]:
    """What is given in place of the targets' SAEs, by hook point.

    Raises:
        InputError: it names a hook point that is no target, or not which of several.

    """
    hooks = [target["hook"] for target in config.targets]
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if len(hooks) > 1:
            raise InputError(
                f"sae is given once, and the adapter has targets {', '.join(hooks)}; expected a "
                "dictionary of SAEs by hook point; give that"
            )
        return {hooks[0]: given}
    for hook in given:
        if hook not in hooks:
            raise InputError(
                f"sae is given for {hook!r}; expected one of the targets {', '.join(hooks)}; correct it"
            )
    return dict(given)


def resolve_paths(entries: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Entries of ``adapter_config.json`` with whole paths in place of those from its directory."""
    targets = entries.get("targets")
    for target in targets if isinstance(targets, list) else ():
        sae = target.get("sae") if isinstance(target, dict) else None
        if isinstance(sae, dict) and isinstance(sae.get(_BELOW), str):
            sae["path"] = str(folder / sae.pop(_BELOW))
    return entries


def _named_from(folder: Path, target: dict[str, Any]) -> dict[str, Any]:
    sae = dict(target["sae"])
    path = Path(sae["path"]) if "path" in sae else None
    if path is None or not path.is_relative_to(folder):
        return target
    del sae["path"]
    return target | {"sae": sae | {_BELOW: path.relative_to(folder).as_posix()}}
