"""Descriptions of the features of several SAEs, by the hook points that these read."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from ..core.errors import InputError
from ..core.layout import MANIFEST
from ..core.progress import Reporter
from ..core.runs import RunDirectory
from ..core.settings import SaeSetting
from .source import NEURONPEDIA, Described, check_source, read_descriptions

Source: TypeAlias = str | Path | Mapping[str, str | Path]
"""One for all SAEs, or one for each hook point."""
_BY_HOOK = re.compile(r"(blocks\.\d+\.[\w.]+)=(.+)", re.DOTALL)


def read_source(given: Sequence[str] | None) -> "Source | None":
    """What ``--descriptions`` says, once, or for several hook points as ``HOOK=SOURCE``.

    Raises:
        InputError: it is given several times without hook points, or twice for one.

    """
    if not given:
        return None
    matches = [_BY_HOOK.fullmatch(text) for text in given]
    if len(given) == 1 and matches[0] is None:
        return given[0]
    found: dict[str, str] = {}
    for text, match in zip(given, matches, strict=True):
        if match is None or match[1] in found:
            raise InputError(
                f"--descriptions {text!r:.80}: several are given; expected HOOK=SOURCE, each hook point "
                "once; correct it"
            )
        found[match[1]] = match[2]
    return found


def check_sources(given: Source, saes: Sequence[SaeSetting]) -> None:
    """Refuse early what :func:`read_several` would refuse whatever is in it.

    Args:
        given: where the descriptions come from.
        saes: each with its hook point; of one alone it need not be known yet.

    Raises:
        InputError: as there.

    """
    if not isinstance(given, Mapping):
        for sae in saes:
            check_source(given, sae)
        return
    known = {str(sae.hook): sae for sae in saes}
    for hook, source in given.items():
        if hook not in known and (len(saes) > 1 or saes[0].hook is not None):
            raise _no_such_hook(hook, known)
        check_source(source, known.get(hook, saes[0]))


def read_several(
    given: Source,
    dictionaries: Mapping[str, Described],
    wanted: Mapping[str, Sequence[int]],
    out: Reporter,
) -> dict[str, dict[int, str]]:
    """Descriptions by hook point and feature (see :func:`.source.read_descriptions`).

    Without hook points a run names the features of its own SAE alone, Neuronpedia those of every SAE; a
    file or an export, of which nothing says which SAE it describes, is for one SAE.

    Args:
        given: where they come from.
        dictionaries: the SAEs by hook point.
        wanted: the features that matter, by the hook points that do.
        out: told what was skipped.

    Raises:
        InputError: as :func:`sources_of` and :func:`.source.read_descriptions`.

    """
    sources = sources_of(given, dictionaries)
    return {
        hook: read_descriptions(source, dictionaries[hook], wanted[hook], out)
        for hook, source in sources.items()
        if hook in wanted
    }


def sources_of(given: Source, dictionaries: Mapping[str, Described]) -> dict[str, str | Path]:
    """Which source describes the SAE of which hook point.

    Raises:
        InputError: a hook point that none of the SAEs reads, or a file for several SAEs.

    """
    if not isinstance(given, Mapping):
        return dict.fromkeys(_described_by(given, dictionaries), given)
    for hook in given:
        if hook not in dictionaries:
            raise _no_such_hook(hook, dictionaries)
    return dict(given)


def _described_by(given: str | Path, dictionaries: Mapping[str, Described]) -> list[str]:
    """The hook points whose SAEs one source describes."""
    fingerprints = {each.fingerprint for each in dictionaries.values()}
    if len(fingerprints) < 2 or str(given) == NEURONPEDIA:
        return list(dictionaries)
    if not (Path(given) / MANIFEST).is_file():
        raise InputError(
            f"--descriptions {given} does not say which of {len(fingerprints)} SAEs it describes; "
            f"expected HOOK={given}, HOOK being one of {', '.join(dictionaries)}; name it"
        )
    known = RunDirectory.existing(Path(given)).manifest.fingerprints
    of_run = None if known is None else known.sae
    found = [hook for hook, each in dictionaries.items() if each.fingerprint == of_run]
    # Of a run of another SAE, what reads it says so.
    return found or list(dictionaries)[:1]


def _no_such_hook(hook: str, known: Mapping[str, object]) -> InputError:
    return InputError(
        f"--descriptions for {hook!r:.80}: no SAE of that place is used; expected one of "
        f"{', '.join(known)}; correct it"
    )
