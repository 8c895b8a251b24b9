"""``cleansteer export``: constant edits as files for other programs."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import JsonOption, check_packages, check_parents, listed_features

if TYPE_CHECKING:
    from ..adapters.exports import Edit, Host

    Made = tuple[Host, list[Edit], dict[str, Any]]


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER|FEATURES",
            help="Directory of an adapter of component bias; or features: 1,2,3, an allowlist.json, "
            "or a text file of indices.",
        ),
    ],
    file_format: Annotated[
        str,
        typer.Option("--format", metavar="safetensors|gguf|lm-eval", help="Format of the file."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where to write: .safetensors; .gguf; for lm-eval .csv, one feature of an SAE with "
            "release and id.",
        ),
    ],
    setting: Annotated[
        str | None,
        typer.Option(
            "--setting",
            metavar="SETTING",
            help="Names model and SAE of features; of an adapter the model, where it is not the one "
            "that the adapter names.",
        ),
    ] = None,
    coefficient: Annotated[
        float | None,
        typer.Option(
            "--coefficient",
            metavar="C",
            help="Push of each feature, in units of its activation; features only.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that lie there.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write what a bias adapter or plain features add, for other programs.

    One vector a hook, added at every token; a JSON file beside it says layer, site, operation and
    scale. What a format cannot hold exactly is refused.
    """
    from json import dumps

    from rich.console import Console

    from ..core.networks import quiet_libraries
    from ..core.words import counted

    check_packages("aenum", "peft")
    with quiet_libraries():
        from ..adapters import exports

    check_parents(out)
    exports.check_out(file_format, out, overwrite)
    if os.path.isdir(source):  # noqa: PTH112 - pathlib raises where a list is too long for a name
        host, edits, made_of = _of_adapter(Path(source), setting, coefficient)
    else:
        host, edits, made_of = _of_features(source, setting, coefficient)
    record = exports.export(file_format, host, edits, out, made_of, overwrite)
    if json:
        sys.stdout.write(dumps(record, indent=2) + "\n")
        return
    console = Console(stderr=True, highlight=False, markup=False)
    for edit in record["edits"]:
        console.print(
            f"{edit['hook']}: {counted(len(edit['features']), 'feature')}, norm {edit['norm']:.4g}, "
            f"stored as {edit['stored_as'] or 'nothing'}"
        )
    for note in record["notes"]:
        console.print(f"note: {note}")
    console.print(f"{out}, described in {out}.json")


def _of_adapter(folder: Path, setting: str | None, coefficient: float | None) -> "Made":
    from ..adapters.exports import adapter_edits, open_host
    from ..adapters.exports.edits import adapter_model_name
    from ..core.errors import InputError
    from ..study.catalogue import find_setting

    if coefficient is not None:
        raise InputError(
            f"--coefficient {coefficient:g} with an adapter, whose biases are its coefficients; expected "
            "none; leave it out"
        )
    named = adapter_model_name(folder)
    if setting is not None:
        found = find_setting(setting)
        host = open_host(found.model.name, found.folder)
    elif named is not None:
        host = open_host(named, Path.cwd())
    else:
        raise InputError(
            f"adapter {folder} does not name its base model; expected --setting SETTING, which does; "
            "give it"
        )
    return host, adapter_edits(folder, host), {"adapter": str(folder.resolve())}


def _of_features(text: str, setting: str | None, coefficient: float | None) -> "Made":
    from ..adapters.allowlist import check_hook, read_allowlist
    from ..adapters.exports import feature_edits, open_host
    from ..core.errors import InputError
    from ..study.catalogue import find_setting

    if Path(text).suffix != ".json":
        listed_features(text, "features")
    if setting is None or coefficient is None:
        missing = "--setting SETTING" if setting is None else "--coefficient C"
        raise InputError(
            f"features without {missing}; expected both --setting and --coefficient, which say of which "
            "SAE they are and how far they are pushed; give it"
        )
    found = find_setting(setting)
    allowlist = read_allowlist(Path(text), found) if Path(text).suffix == ".json" else None
    features = listed_features(text, "features") if allowlist is None else allowlist.features
    host = open_host(found.model.name, found.folder)
    fingerprint = None if allowlist is None else allowlist.sae_fingerprint
    edits = feature_edits(features, coefficient, found.sae, found.folder, host, fingerprint)
    if allowlist is not None:
        check_hook(allowlist, edits[0].hook)
    return host, edits, {"features": text, "setting": found.name, "coefficient": coefficient}
