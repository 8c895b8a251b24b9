"""From an adapter or from features to a file for another program."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, SupportsIndex, TypeAlias

from pydantic import JsonValue

from ...core.checks import check_features, check_parents, check_type, listed_features
from ...core.choices import TOKENS
from ...core.errors import InputError
from ...core.networks import load_network, model_source
from ...core.records import Allowlist, ExportRecord
from ...core.settings import Setting
from ..allowlist import Allowed
from ..positions import EVERY, Which
from .edits import Edit, adapter_edits, adapter_model_name, feature_edits
from .formats import check_out, write_edits
from .host import Host, open_host

Source: TypeAlias = str | Path | Allowlist | Iterable[SupportsIndex]
_EXPECTED = (
    "an adapter's directory, features (a list of indices, or text such as '1,2,3'), an allowlist, or "
    "the path of a file of either"
)


def export(
    source: Source,
    format: str,
    out: str | Path,
    *,
    setting: Setting | None = None,
    coefficient: float | None = None,
    positions: str | None = None,
    edit_bos: bool | None = None,
    overwrite: bool = False,
) -> ExportRecord:
    """Write what a bias adapter or plain features add, for other programs.

    One vector a hook, added at every token or at some; a JSON file beside it says layer, site,
    operation, scale and tokens.

    Args:
        source: directory of an adapter of component ``bias``; or features: indices, text such as
            ``1,2,3``, an allowlist, its ``.json`` file, or a text file of indices.
        format: name of a format: see :func:`names`.
        out: the file, with the format's ending.
        setting: names model and SAE of features; of an adapter the model, where it is not the one
            that the adapter names.
        coefficient: push of each feature, in units of its activation; features only.
        positions: ``all`` (where None), ``completion`` or ``last``: the tokens that features are
            added at; an adapter has its own.
        edit_bos: whether BOS at the start is among them; True where None.
        overwrite: whether files that lie there are replaced.

    Returns:
        What the JSON file holds.

    Raises:
        InputError: anything given is wrong, or the format cannot hold the edit exactly; nothing is
            written then.
        TypeError: an argument is of another type.

    """
    check_type("format", format, str, "the name of a format")
    check_type("out", out, (str, Path), "a path")
    check_type("setting", setting, (Setting, type(None)), "a setting")
    check_type("coefficient", coefficient, (int, float, type(None)), "a number")
    check_type("edit_bos", edit_bos, (bool, type(None)), "True or False")
    which = _which(positions, edit_bos)
    out = Path(out)
    check_parents(out)
    check_out(format, out, overwrite)
    # os.path: pathlib raises where a list of features is too long for a file's name.
    if isinstance(source, str | Path) and os.path.isdir(source):  # noqa: PTH112
        host, edits, made_of = _of_adapter(Path(source), setting, coefficient)
        if which is not None:
            raise InputError(
                f"{which.told} with an adapter, which edits {edits[0].which.told}; expected none; leave "
                "--positions and --no-edit-bos out"
            )
    else:
        host, edits, made_of = _of_features(source, setting, coefficient)
        edits = [replace(edit, which=which or EVERY) for edit in edits]
    return write_edits(format, host, edits, out, made_of, overwrite)


def _which(positions: str | None, edit_bos: bool | None) -> Which | None:
    """The tokens that are asked for; None: nothing is said of them."""
    if positions is None and edit_bos is None:
        return None
    known = next((each for each in TOKENS if each == (positions or EVERY.positions)), None)
    if known is None:
        raise InputError(
            f"--positions {positions!r} is not known; expected one of {', '.join(TOKENS)}; choose one"
        )
    return Which(known, edit_bos is not False)


Made: TypeAlias = tuple[Host, list[Edit], dict[str, JsonValue]]


def _of_adapter(folder: Path, setting: Setting | None, coefficient: float | None) -> Made:
    if coefficient is not None:
        raise InputError(
            f"--coefficient {coefficient:g} with an adapter, whose biases are its coefficients; expected "
            "none; leave it out"
        )
    named = adapter_model_name(folder)
    if setting is not None:
        host = open_host(model_source(setting)[0], setting.folder)
    elif named is not None:
        host = open_host(named, Path.cwd())
    else:
        raise InputError(
            f"adapter {folder} does not name its base model; expected --setting SETTING, which does; "
            "give it"
        )
    return host, adapter_edits(folder, host), {"adapter": str(folder.resolve())}


def _of_features(source: Any, setting: Setting | None, coefficient: float | None) -> Made:
    is_file = isinstance(source, str | Path) and Path(source).suffix == ".json"
    features: list[int] | None = None
    if not is_file and not isinstance(source, Allowlist):
        features = _features(source)
    if setting is None or coefficient is None:
        missing = "--setting SETTING" if setting is None else "--coefficient C"
        raise InputError(
            f"features without {missing}; expected both --setting and --coefficient, which say of which "
            "SAE they are and how far they are pushed; give it"
        )
    if isinstance(source, Allowlist):
        allowed = Allowed.by(source)
    elif is_file:
        allowed = Allowed.by(Path(str(source)))
    else:
        allowed = Allowed(features)
    if allowed.allowlist is not None and allowed.allowlist.model.name != setting.model.name:
        network, _ = load_network(setting, attention=None)
        allowed.check_model(dict(network.named_parameters()))
    host = open_host(model_source(setting)[0], setting.folder)
    fingerprint = None if allowed.allowlist is None else allowed.allowlist.sae.fingerprint
    chosen = allowed.features or []
    edits = feature_edits(chosen, coefficient, setting.sae, setting.folder, host, fingerprint)
    if fingerprint is not None:
        allowed.check_sae(fingerprint, edits[0].hook)
    text = str(source) if isinstance(source, str | Path) else ",".join(map(str, chosen))
    return host, edits, {"features": text, "setting": setting.name, "coefficient": coefficient}


def _features(source: Any) -> list[int]:
    if isinstance(source, str | Path):
        return listed_features(str(source), "features")
    if isinstance(source, bytes | dict) or not isinstance(source, Iterable):
        raise TypeError(f"source is {source!r:.80}; expected {_EXPECTED}")
    return check_features(source, "features")
