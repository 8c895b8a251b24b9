"""Which features may be edited."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.settings import Setting
from ..core.tables import read_json
from .config import check_features

FORMAT = "cleansteer-allowlist/1"


@dataclass(frozen=True)
class Allowlist:
    """Features of one SAE that may be edited, and how far their choice is to be trusted."""

    features: list[int]
    sae_fingerprint: str
    model_fingerprint: str
    hook: str
    trust: Mapping[str, Any]
    source: str


def read_allowlist(path: Path, setting: Setting) -> Allowlist:
    """Read an allowlist that ``cleansteer allowlist`` wrote, for a setting's model and SAE.

    Raises:
        InputError: no such file, no allowlist, one for another model or SAE, or features that are
            empty, repeated or no indices.

    """
    found = read_json(path)
    if found.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {found.get('format')!r}, expected {FORMAT!r}; give a file that "
            "`cleansteer allowlist` wrote"
        )
    try:
        model, sae = dict(found["model"]), dict(found["sae"])
        fingerprints = str(sae.pop("fingerprint")), str(model["fingerprint"])
        name, hook, features = str(model["name"]), str(found["hook"]), found["features"]
        trust = dict(found["trust"])
        verdicts = [trust["overall"], *(axis["verdict"] for axis in trust["axes"].values())]
        if not all(isinstance(verdict, str) for verdict in verdicts):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"allowlist {path} lacks model, sae, hook, features or trust; make it anew (cleansteer "
            "allowlist)"
        ) from None
    ours = setting.sae.model_dump(include={"release", "id", "path"}, exclude_none=True)
    if name != setting.model.name:
        raise InputError(
            f"allowlist {path} is for model {name!r}, the setting's is "
            f"{setting.model.name!r}; expected the same; give the allowlist of this setting"
        )
    if sae != ours and "path" not in sae:
        raise InputError(
            f"allowlist {path} is for SAE {_label(sae)}, the setting's is {setting.sae.label}; expected "
            "the same; give the allowlist of this setting"
        )
    return Allowlist(
        check_features(features, f"allowlist {path}"),
        *fingerprints,
        hook,
        trust,
        str(path),
    )


def check_hook(allowlist: Allowlist, hook: str) -> None:
    """Refuse another hook point than an allowlist was made for.

    Raises:
        InputError: it is another.

    """
    if hook != allowlist.hook:
        raise InputError(
            f"allowlist {allowlist.source} is for {allowlist.hook}, the setting's SAE reads {hook}; "
            "expected the same; give the allowlist of this setting"
        )


def check_fingerprint(allowlist: Allowlist, kind: str, found: str) -> None:
    """Refuse another model or SAE than an allowlist was made for.

    Raises:
        InputError: it is another.

    """
    known = allowlist.sae_fingerprint if kind == "SAE" else allowlist.model_fingerprint
    if found != known:
        raise InputError(
            f"allowlist {allowlist.source} was made for the {kind} of fingerprint {known}, the setting's "
            f"has {found}; expected the same; give the allowlist of this setting, or make it anew"
        )


def _label(sae: Mapping[str, Any]) -> str:
    return "/".join(map(str, sae.values()))
