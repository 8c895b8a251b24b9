"""A setting for a dictionary of SAELens' list: model, hook, a downstream SAE, number format, memory."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.cache import release_entry
from ..core.errors import InputError
from .memory import SAE_BYTES, WEIGHT_BYTES
from .registry import judge, model_type_of
from .sizes import SAE_SHAPES, ModelSize, hub_name, model_size

_LARGE = 1e9
"""Parameters from which weights are taken in bfloat16."""
_DISTANCE = 0.15
"""Of the model's layers, between what is steered and where collateral is read: 2 of GPT-2's 12, 4 of
Gemma-2 2B's 26, as in arXiv:2606.08365.
"""
_LAYER = re.compile(r"(?<![a-z0-9])(blocks\.|layer_?|l)(\d+)(?![0-9])", re.IGNORECASE)
_L0 = re.compile(r"l0_\d+")
_WIDTHS = (
    (re.compile(r"(?<![a-z0-9])w(?:idth_)?(\d+)(k|m)(?![a-z])", re.IGNORECASE), None),
    (re.compile(r"width-2pow(\d+)"), "power"),
    (re.compile(r"(?<![a-z0-9])(\d+)x(?![a-z0-9])"), "times"),
    (re.compile(r"(?<![a-z0-9])(\d+)k(?![a-z0-9])"), "thousand"),
)


@dataclass(frozen=True)
class Listed:
    """A dictionary of the list."""

    release: str
    id: str
    model: str
    loader: str | None
    path: str

    @property
    def layer(self) -> int | None:
        """The layer that its id or path names, None where neither does."""
        found = _LAYER.search(self.id) or _LAYER.search(self.path)
        return None if found is None else int(found[2])

    @property
    def signature(self) -> str:
        """Its id without the layer and without its mean L0, which differs between layers."""
        return _LAYER.sub(r"\g<1>", _L0.sub("", self.id))

    @property
    def n_features(self) -> int | None:
        """How many features it has, as far as id or path tell."""
        if self.release in SAE_SHAPES:
            return SAE_SHAPES[self.release][1]
        known = model_size(self.model)
        for pattern, how in _WIDTHS:
            found = pattern.search(self.id) or pattern.search(f"{self.release} {self.path}")
            if found is None:
                continue
            number = int(found[1])
            if how == "power":
                return 1 << number
            if how == "times":
                return None if known is None else number * known.width
            large = how is None and found[2].lower() == "m"
            return number << (20 if large else 10)
        return None


@dataclass(frozen=True)
class Proposal:
    """A setting that is ready to be screened."""

    name: str
    text: str
    """The TOML file."""
    notes: Sequence[str]
    """What to know before it is screened, a line each."""
    memory: float | None
    """Bytes of the model's and both SAEs' weights, None where a size is not known."""


def propose(
    release: str, sae_id: str, downstream: str | None = None, first: int | None = None
) -> Proposal:
    """A setting that steers a dictionary of SAELens' list.

    Args:
        release: its release.
        sae_id: its id there.
        downstream: id of the SAE in which collateral is read, in the same release, or as RELEASE:ID in
            another; None: of the same kind, a seventh of the model's layers further up.
        first: how many features are steered, the first ones, of a Matryoshka dictionary; None: all.

    Raises:
        InputError: they are not listed or cannot be screened, no downstream SAE is found, or the
            dictionary has fewer features.

    """
    steered = find(release, sae_id)
    _check(steered)
    if first is not None and steered.n_features is not None and first > steered.n_features:
        raise InputError(
            f"--first {first}: {release} {sae_id} has {steered.n_features} features; expected at most "
            "as many; correct it"
        )
    below = _named(steered, downstream) if downstream else _further_up(steered)
    _check(below, reconstructs=True)
    known = model_size(steered.model)
    hub = hub_name(steered.model)
    dtype = "bfloat16" if known is not None and known.parameters >= _LARGE else "float32"
    level = "" if first is None else f"-first-{first}"
    name = re.sub(r"[^\w.-]+", "-", f"{release}-{sae_id}{level}").strip("-").lower()
    return Proposal(
        name,
        _text(name, hub, dtype, steered, below, first),
        _notes(known, hub),
        _memory(known, dtype, (steered, below)),
    )


def find(release: str, sae_id: str) -> Listed:
    """A dictionary of the list.

    Raises:
        InputError: there is none such.

    """
    entry = release_entry(release)
    if entry is None:
        raise InputError(
            f"release {release!r} is not in SAELens' list; expected one of those that `cleansteer "
            "registry` shows; correct it"
        )
    for sae in entry["saes"]:
        if str(sae["id"]) == sae_id:
            return _listed(release, entry, sae)
    ids = [str(sae["id"]) for sae in entry["saes"]]
    near = difflib.get_close_matches(sae_id, ids, 3, 0.3) or ids[:3]
    raise InputError(
        f"release {release!r} has no dictionary {sae_id!r}; expected one of its {len(ids)}, such as "
        f"{', '.join(near)}; correct it"
    )


def _listed(release: str, entry: Mapping[str, Any], sae: Mapping[str, Any]) -> Listed:
    return Listed(
        release,
        str(sae["id"]),
        str(entry["model"]),
        entry.get("conversion_func"),
        str(sae["path"]),
    )


def _check(listed: Listed, reconstructs: bool = False) -> None:
    found = judge(
        model_type_of(listed.model),
        listed.model,
        listed.loader,
        {"id": listed.id, "path": listed.path},
    )
    if found.support == "no":
        raise InputError(
            f"{listed.release} {listed.id} cannot be screened: {found.reason}; use another dictionary"
        )
    if reconstructs and is_transcoder(listed):
        raise InputError(
            f"{listed.release} {listed.id} is a transcoder, and collateral is read in an SAE; name one: "
            "--downstream RELEASE:ID"
        )


def is_transcoder(listed: Listed) -> bool:
    """Whether its features write elsewhere than they read."""
    return "transcoder" in f"{listed.loader} {listed.release} {listed.path}"


def _named(steered: Listed, downstream: str) -> Listed:
    release, colon, sae_id = downstream.rpartition(":")
    below = find(release if colon else steered.release, sae_id)
    if below.model != steered.model:
        raise InputError(
            f"downstream SAE {below.id} is of model {below.model!r}, the steered one of "
            f"{steered.model!r}; expected the same model; name another"
        )
    return below


def _further_up(steered: Listed) -> Listed:
    """The SAE of the same kind that is nearest to 0.15 of the layers further up; for transcoders, of
    the release of the residual stream that is named like theirs.
    """
    release = steered.release
    if is_transcoder(steered):
        release = release.replace("transcoders", "res")
    entry = release_entry(release)
    others = [] if entry is None else [_listed(release, entry, sae) for sae in entry["saes"]]
    wanted = _signature_without_kind(steered)
    known = model_size(steered.model)
    alike = [each for each in others if _signature_without_kind(each) == wanted]
    layers = {each.layer for each in alike if each.layer is not None}
    if (known is None and not layers) or steered.layer is None:
        raise InputError(_NO_DOWNSTREAM.format(steered.release, steered.id))
    n_layers = known.n_layers if known is not None else max(layers) + 1
    target = steered.layer + max(1, round(_DISTANCE * n_layers))
    above = [
        each for each in alike if (each.layer or 0) > steered.layer and not is_transcoder(each)
    ]
    if not above:
        raise InputError(_NO_DOWNSTREAM.format(steered.release, steered.id))
    return min(above, key=lambda each: (abs((each.layer or 0) - target), each.id))


_NO_DOWNSTREAM = (
    "{} {}: no SAE of the same kind is listed further up in the model; expected one in which "
    "collateral is read; name it: --downstream ID, or RELEASE:ID of another release"
)


def _signature_without_kind(listed: Listed) -> str:
    return re.sub(r"^(transcoder|resid_post)(_all)?/", "", listed.signature)


def _notes(known: ModelSize | None, hub: str) -> list[str]:
    notes = []
    if known is None:
        notes.append(f"nothing is known of the size of {hub} without asking the hub")
    elif known.gated:
        notes.append(f"{hub} is gated: accept its licence on the hub, then `hf auth login`")
    return notes


def _memory(known: ModelSize | None, dtype: str, dictionaries: Sequence[Listed]) -> float | None:
    counts = [each.n_features for each in dictionaries]
    if known is None or None in counts:
        return None
    features = sum(count for count in counts if count is not None)
    return WEIGHT_BYTES[dtype] * known.parameters + SAE_BYTES * 2 * known.width * features


def _text(
    name: str, hub: str, dtype: str, steered: Listed, below: Listed, first: int | None
) -> str:
    asked, level = ("", "") if first is None else (f" --first {first}", f"\nfirst = {first}")
    return f"""# Written by cleansteer: `cleansteer setting new {steered.release} {steered.id}{asked}`.
name = "{name}"

[model]
name = "{hub}"
dtype = "{dtype}"

[sae]
release = "{steered.release}"
id = "{steered.id}"{level}

[downstream_sae]
release = "{below.release}"
id = "{below.id}"

[corpus]
dataset = "Salesforce/wikitext"
config = "wikitext-103-raw-v1"
split = "train[:2%]"
contexts = "stream"
n_texts = 8000
min_chars = 100
n_contexts = 2048
context_length = 48

[heldout_corpus]
split = "validation"
n_contexts = 1024

[steering]
mode = "matched" # every feature at one KL: no strength has to be known beforehand
"""
