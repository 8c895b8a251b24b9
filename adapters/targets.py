"""Places that an adapter is asked to edit, ``HOOK=SAE[:ALLOWLIST]`` or as dictionaries; and their SAEs,
opened.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..core.checks import check_features, listed_features
from ..core.errors import InputError
from ..core.records import Allowlist
from ..core.records.training import TrainedSae, TrainedTarget
from ..core.saes import hook_of
from ..core.settings import SaeSetting
from ..core.sites import Site, parse_site
from ..naming.source import Described
from .allowlist import Allowed
from .config import Target
from .opening import open_shared

Targets: TypeAlias = Iterable[str | Mapping[str, Any]]
"""Each as the command line has it, or a dictionary of ``hook``, ``sae`` and, if not all features may be
edited, ``features`` or ``allowlist``."""
_SYNTAX = "HOOK=SAE[:ALLOWLIST]"
_KEYS = {"hook", "sae", "features", "allowlist"}
_FAR = 1 << 30
"""More layers than any model has: whether a hook exists, the model says."""
_PATH = re.compile(r"[.~/\\]|\w:[\\/]")
"""How what can only be a path begins."""


@dataclass(frozen=True)
class Wanted:
    """An SAE that is asked for, and which of its features may be edited."""

    source: SaeSetting
    """With the hook point, where one is asked for."""
    folder: Path
    """That a relative directory of it starts from."""
    allowed: Allowed
    asked: bool = False
    """True where it is asked for beside the setting, whose own SAE is another then."""


@dataclass(frozen=True)
class Opened:
    """The same with the SAE at hand."""

    target: Target
    """Place and SAE, with the features that may be edited."""
    n_features: int
    """Of the SAE."""
    allowed: Allowed
    source: SaeSetting
    """As it was asked for."""

    @property
    def n_allowed(self) -> int:
        """How many features may be edited."""
        return self.n_features if self.target.features is None else len(self.target.features)

    @property
    def described(self) -> Described:
        """The SAE as what its features are called is looked up by."""
        return Described(self.source, self.n_features, str(self.target.fingerprint))

    def record(self) -> TrainedTarget:
        """What a training records of it before it begins."""
        allowlist = self.allowed.allowlist
        return TrainedTarget(
            hook=self.target.hook,
            sae=TrainedSae(
                label=self.source.label,
                fingerprint=str(self.target.fingerprint),
                n_features=self.n_features,
            ),
            allowed=self.target.features,
            trust=None if allowlist is None else allowlist.trust,
            ranked_by=None if allowlist is None else allowlist.ranked_by,
        )


def open_wanted(wanted: Wanted) -> Opened:
    """Open an SAE that is asked for.

    Raises:
        InputError: it cannot be opened, was trained at another place than is asked for, lacks a feature,
            or is another than its allowlist was made for.

    """
    source, features = wanted.source, wanted.allowed.features
    sae, fingerprint = open_shared(source, wanted.folder)
    if wanted.asked:
        _check_own_hook(sae, source)
    hook, n_features = hook_of(sae, source), int(sae.cfg.d_sae)
    wanted.allowed.check_sae(fingerprint, hook)
    if features is not None and max(features) >= n_features:
        raise InputError(
            f"feature {max(features)} does not exist: SAE {source.label} has features 0 to "
            f"{n_features - 1}; remove it"
        )
    target = Target.of(source, wanted.folder, hook, features, fingerprint)
    return Opened(target, n_features, wanted.allowed, source)


def entries_of(opened: Sequence[Opened]) -> dict[str, Any]:
    """The entries of a training's record that say what is edited."""
    if len(opened) > 1:
        return {"targets": [each.record() for each in opened]}
    place = opened[0].record()
    return {name: getattr(place, name) for name in TrainedTarget.model_fields if name != "features"}


def _check_own_hook(sae: Any, source: SaeSetting) -> None:
    """Refuse an SAE at another place than it was trained at: it would fit there wherever the width is the
    same, and its features would mean nothing. A name that is not TransformerLens' says nothing.
    """
    own = sae.cfg.metadata.hook_name
    if not own:
        return
    try:
        there = parse_site(str(own), _FAR, reads_only=True)
    except InputError:
        return
    if there.order != _site(str(source.hook)).order:
        raise InputError(
            f"--target {source.hook}: SAE {source.label} was trained at {own}; expected an SAE of the "
            "place that is edited; name that hook, or give another SAE"
        )


def wanted_by(targets: Targets | None, allowlist: object, features: object) -> tuple[Wanted, ...]:
    """Targets as they are asked for beside features of the setting's SAE; none: that SAE is edited.

    Raises:
        InputError: both are given; or as :func:`read_targets`.

    """
    if targets is None:
        return ()
    for name, given in (("allowlist", allowlist), ("features", features)):
        if given is not None:
            raise InputError(
                f"--{name} is of the setting's SAE, which --target leaves as it is; expected it behind "
                "the target that it is of, HOOK=SAE:ALLOWLIST; give it there"
            )
    return read_targets(targets)


def read_targets(given: Targets) -> tuple[Wanted, ...]:
    """Targets as they are asked for.

    Raises:
        InputError: one is not understood, names a hook point at which nothing is edited, an SAE that is
            neither a directory nor of a release, features that are none, or a place that another names.
        TypeError: one is neither text nor a dictionary.

    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"targets are {given!r:.80}; expected a list of targets")
    found = [_read(one) for one in given]
    if not found:
        raise InputError(
            "targets are none; expected at least one; leave them out for the setting's SAE"
        )
    places: dict[tuple[int, int], str] = {}
    for wanted in found:
        hook = str(wanted.source.hook)
        order = _site(hook).order
        if order in places:
            same = places[order]
            told = "twice" if same == hook else f"beside {same}, which is the same place"
            raise InputError(
                f"--target {hook} is given {told}; expected each place once; put its features into one"
            )
        places[order] = hook
    return tuple(found)


def _read(given: Any) -> Wanted:
    if isinstance(given, str):
        hook, equals, rest = given.partition("=")
        if not equals or not hook or not rest:
            raise InputError(
                f"--target {given!r:.80} is not understood; expected {_SYNTAX}, such as "
                "blocks.2.hook_resid_pre=saes/mine:clean.json; correct it"
            )
        sae, features = _split(rest)
        return _wanted(hook, _named(hook, sae), _allowed(f"--target {hook}", features))
    if not isinstance(given, Mapping):
        raise TypeError(f"target {given!r:.80}; expected text {_SYNTAX}, or a dictionary")
    if not {"hook", "sae"} <= set(given) <= _KEYS or not isinstance(given["hook"], str):
        raise InputError(
            f"target {dict(given)!r:.120} is not understood; expected hook, sae and, if not all "
            "features may be edited, features or allowlist; correct it"
        )
    if given.get("features") is not None and given.get("allowlist") is not None:
        raise InputError(
            f"target {given['hook']} has features and an allowlist; expected one of them; leave one out"
        )
    hook, sae = given["hook"], given["sae"]
    features = given.get("allowlist") if given.get("features") is None else given["features"]
    allowed = _allowed(f"target {hook}", features)
    if isinstance(sae, str | Path):
        return _wanted(hook, _named(hook, str(sae)), allowed)
    # As in an adapter's configuration, which says what else an SAE may be given by.
    source = Target.parse({"hook": hook, "sae": sae}).sae
    return _wanted(hook, source, allowed)


def _wanted(hook: str, source: SaeSetting, allowed: Allowed) -> Wanted:
    _site(hook)
    return Wanted(source.model_copy(update={"hook": hook}), Path.cwd(), allowed, asked=True)


def _site(hook: str) -> Site:
    try:
        return parse_site(hook, _FAR)
    except InputError:
        raise InputError(
            f"--target: hook {hook!r:.80} is not known; expected blocks.L. followed by hook_resid_pre, "
            "hook_resid_post, hook_attn_out, hook_mlp_out or attn.hook_z; correct it"
        ) from None


def _split(text: str) -> tuple[str, str | None]:
    """An SAE, and the features behind the last colon, if it has one."""
    if Path(text).is_dir():
        return text, None
    sae, colon, features = text.rpartition(":")
    return (sae, features) if colon and sae else (text, None)


def _named(hook: str, text: str) -> SaeSetting:
    """An SAE by its directory; or by release and id, the release being one of SAELens' list, or a
    repository, OWNER/NAME.
    """
    if Path(text).expanduser().is_dir():
        return SaeSetting(path=str(Path(text).expanduser()))
    parts = text.split("/")
    if not _PATH.match(text) and len(parts) > 1 and all(parts):
        # Imported here: a directory needs no list.
        from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

        whole = 1 if parts[0] in get_pretrained_saes_directory() else 2
        if len(parts) > whole:
            return SaeSetting(release="/".join(parts[:whole]), id="/".join(parts[whole:]))
    raise InputError(
        f"--target {hook}: SAE {text!r:.120} is no directory, and no RELEASE/ID of SAELens' list; "
        "expected one of these; correct it (`cleansteer registry` lists the releases)"
    )


def _allowed(where: str, given: Any) -> Allowed:
    """The features behind a target: an allowlist or its .json file, indices, text of them or its file."""
    if given is None:
        return Allowed(None)
    if isinstance(given, Allowlist):
        return Allowed.by(given)
    if isinstance(given, str | Path):
        if Path(given).suffix == ".json":
            return Allowed.by(Path(given))
        return Allowed(check_features(listed_features(str(given), f"{where}: features"), where))
    if not isinstance(given, Sequence) and not hasattr(given, "__iter__"):
        raise TypeError(f"{where}: features are {given!r:.80}; expected a list, or an allowlist")
    return Allowed(check_features(given, where))
