"""What an adapter edits, and how."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft.config import PeftConfig
from peft.utils import PeftType, TaskType
from pydantic import ValidationError

from ..core.errors import InputError
from ..core.settings import SaeSetting
from .components.component import check_options

_TARGET_KEYS = ("hook", "sae", "features")
_SAE_KEYS = ("path", "release", "id", "centred", "fingerprint")


@dataclass
class SaeAdapterConfig(PeftConfig):  # type: ignore[misc]
    """Configuration of an adapter on SAE latents, for ``peft.get_peft_model``.

    Raises:
        InputError: no target, a target without hook or SAE, one hook twice, features that are empty,
            repeated or negative, an unknown component, an option that does not apply, or a seed that
            is no whole number.

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
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Set by the method: the layers that the hooks lie in."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.CLEANSTEER
        self.task_type = TaskType.CAUSAL_LM
        if not isinstance(self.targets, list | tuple):
            raise InputError(
                f"targets are {self.targets!r}; expected a list of targets; change them"
            )
        self.targets = [_target(target) for target in self.targets]
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
        self.component_options = check_options(self.component, self.component_options)


def target_of(
    which: SaeSetting,
    folder: Path,
    hook: str,
    features: list[int] | None,
    fingerprint: str | None = None,
) -> dict[str, Any]:
    """The target of a setting's SAE; ``folder`` is what a relative directory of it starts from."""
    source = which.model_dump(exclude_none=True, exclude={"hook"})
    if which.path is not None:
        source["path"] = str((folder / which.path).resolve())
    if fingerprint is not None:
        source["fingerprint"] = fingerprint
    return {"hook": hook, "sae": source, "features": features}


def sae_setting(target: Mapping[str, Any]) -> SaeSetting:
    """The SAE of a checked target."""
    source = {key: value for key, value in target["sae"].items() if key != "fingerprint"}
    return SaeSetting(**source, hook=target["hook"])


def check_features(features: Any, where: str) -> list[int]:
    """Indices of features, rising.

    Raises:
        InputError: not a list of indices, empty, with a negative one or one twice.

    """
    if isinstance(features, str | bytes) or not hasattr(features, "__iter__"):
        raise InputError(
            f"{where}: features are {features!r}; expected a list of indices; change it"
        )
    found: list[int] = []
    for feature in features:
        whole = hasattr(feature, "__index__") and not isinstance(feature, bool)
        if not whole or int(feature) < 0:
            raise InputError(
                f"{where}: feature {feature!r} is no index; expected whole numbers from 0; remove it"
            )
        found.append(int(feature))
    if not found:
        raise InputError(f"{where}: no feature is listed; expected at least one; list some")
    twice = sorted(feature for feature, count in Counter(found).items() if count > 1)
    if twice:
        raise InputError(
            f"{where}: feature {twice[0]} is listed twice; expected each once; remove it"
        )
    return sorted(found)


def _target(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping) or not {"hook", "sae"} <= set(given) <= set(_TARGET_KEYS):
        raise InputError(
            f"target {given!r} is not understood; expected a dictionary of {', '.join(_TARGET_KEYS)} "
            "(features may be left out: all); correct it"
        )
    hook, sae = given["hook"], given["sae"]
    if not isinstance(hook, str):
        raise InputError(
            f"hook is {hook!r}; expected TransformerLens' name of a hook point, such as "
            "'blocks.2.hook_resid_pre'; change it"
        )
    where = f"target {hook}"
    if not isinstance(sae, Mapping) or not set(sae) <= set(_SAE_KEYS):
        raise InputError(
            f"{where}: sae is {sae!r}; expected {{'path': ...}}, or {{'release': ..., 'id': ...}}; "
            "correct it"
        )
    source = {key: value for key, value in sae.items() if value is not None}
    if isinstance(source.get("path"), str | Path):
        # The place does not depend on where a process is started.
        source["path"] = str(Path(source["path"]).expanduser().resolve())
    checked = {"hook": hook, "sae": source}
    try:
        sae_setting(checked)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: sae {dict(sae)!r}: {message}; correct it") from None
    features = given.get("features")
    return checked | {"features": None if features is None else check_features(features, where)}
