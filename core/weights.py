"""What weight files hold, against what a model needs: anything else than the same is refused."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from .errors import InputError
from .words import counted

_WRAPPERS = {
    "_orig_mod.": "torch.compile's, so save model._orig_mod",
    "module.": "a parallel wrapper's, so save model.module",
    "base_model.model.": "PEFT's, so save model.merge_and_unload()",
    "model._orig_mod.": "torch.compile's, so save what was compiled (_orig_mod)",
}
_COMPUTED = re.compile(
    r"(^|\.)(attn|attention|self_attn|self_attention)\.(bias|masked_bias|causal_mask)$"
    r"|(^|\.)(inv_freq|position_ids)$"
)
"""Buffers that older versions of transformers saved, and that models compute themselves: masks of
GPT-2, GPT-Neo, GPT-J and Pythia, rotary frequencies, positions."""
_NAMED = 3


def check_report(report: Mapping[str, Any], label: str) -> None:
    """Refuse a model whose weights do not fit its configuration.

    Args:
        report: transformers' of the loading (``output_loading_info``). Tied weights are not missing
            in it.
        label: what messages call the model.

    Raises:
        InputError: a tensor is missing, which the library draws at random then, has another shape,
            or is not known to the model, so that the library leaves it out.

    """
    unexpected = {name for name in report["unexpected_keys"] if not _COMPUTED.search(name)}
    missing = set(report["missing_keys"])
    mismatched = {
        f"{name} is {list(found)}, expected {list(wanted)}"
        for name, found, wanted in report["mismatched_keys"]
    }
    check_tensors(label, missing, unexpected, mismatched, _remedy(missing, unexpected, mismatched))


def _remedy(
    missing: Collection[str], unexpected: Collection[str], mismatched: Collection[str]
) -> str:
    for prefix, whose in _WRAPPERS.items():
        if unexpected and all(name.startswith(prefix) for name in unexpected):
            return f"the names begin with {prefix!r}, which is {whose}"
    if missing and not unexpected and not mismatched:
        return "save the whole model, head included (model.save_pretrained), or download it again"
    return "give the weights that belong to its config.json, or the config.json that fits"


def check_tensors(
    label: str,
    missing: Collection[str],
    unexpected: Collection[str],
    mismatched: Collection[str],
    remedy: str,
) -> None:
    """Refuse tensors that are not those expected; the line names a few of each and their number.

    Raises:
        InputError: a collection is not empty.

    """
    found = [
        f"{counted(len(names), 'tensor')} {what} ({_some(names)})"
        for what, names in (
            ("missing", missing),
            ("not known to it", unexpected),
            ("of another shape", mismatched),
        )
        if names
    ]
    if found:
        raise InputError(
            f"{label}: its weights have {', '.join(found)}; expected exactly those that it is made of, "
            f"as what is missing would be drawn at random; {remedy}"
        )


def _some(names: Collection[str]) -> str:
    listed = sorted(names)
    more = ", ..." if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
