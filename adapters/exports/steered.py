"""Steering files of lm-eval's model ``steered``."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ...core.errors import InputError
from ..places import inner_module
from .edits import Edit
from .formats import Prepared, register
from .host import Host

COLUMNS = (
    "loader",
    "action",
    "sparse_model",
    "hookpoint",
    "feature_index",
    "steering_coefficient",
    "head_index",
    "sae_id",
    "description",
)
_TABLE = (
    "lm-eval 0.4.8 and 0.4.9 read this table; 0.4.10 to 0.4.13 stop at every row that adds, with an "
    'AssertionError of their own ("Bias is not supported for the `add` action"); --out with the ending '
    ".pt gives a file that all of them read"
)
_SEVERAL = (
    "several hookpoints need lm-eval 0.4.10: 0.4.8 and 0.4.9 add the last one's vector at all"
)


def prepare(host: Host, edits: Sequence[Edit], ending: str) -> Prepared:
    """``.csv``: a feature of a published SAE, which lm-eval loads itself; ``.pt``: any vectors.

    lm-eval adds ``steering_coefficient * steering_vector``, both brought to the model's number format,
    to the output of the module ``hookpoint`` (the first one of a tuple), at every token. Modules are
    named from ``model.base_model`` on: ``h.2`` in GPT-2, ``layers.2`` in others. So
    ``blocks.L.hook_resid_post`` is ``layers.L``, ``blocks.L.hook_resid_pre`` is ``layers.{L-1}`` for
    L >= 1, and what attention and MLP add are the modules that return it; attention heads, which are
    no module's output, and what enters layer 0 are refused.

    Of a table lm-eval keeps one row for a hookpoint, the last, and takes W_dec[feature_index] as
    SAELens' ``SAE.from_pretrained(sparse_model, sae_id)`` gives it, not normalised. So a table holds
    exactly one feature, of an SAE named by release and id. Its coefficient is s_f, divided by
    |W_dec[f]| where latents are rescaled so. In float32 both files are the same edit; in a bfloat16
    model the table's vector is rounded before it is multiplied, and ours after.

    Tried with the source of every release from 0.4.8 to 0.4.13, on what is written here: 0.4.10 and
    later stop at every row of a table that adds, since the SAE's b_dec comes with it; 0.4.8 and 0.4.9
    take it, and add the last vector of a file at all of its hookpoints. The notes say so.

    Source: https://github.com/EleutherAI/lm-evaluation-harness, lm_eval/models/hf_steered.py of
    versions 0.4.8 to 0.4.13, and its README, section "Steered Hugging Face transformers models"; pull
    request 2749.

    Raises:
        InputError: a place or an SAE that lm-eval cannot reach, or more features than a table holds.

    """
    hookpoints = tuple(_hookpoint(host, edit) for edit in edits)
    if ending == ".csv":
        row = _row(edits, hookpoints)
        return Prepared(lambda path: _write_table(path, row), hookpoints, (_TABLE,))
    vectors: dict[str, dict[str, Any]] = {}
    for edit, hookpoint in zip(edits, hookpoints, strict=True):
        before = vectors.get(hookpoint, {"steering_vector": 0.0})["steering_vector"]
        vectors[hookpoint] = {
            "steering_vector": edit.vector + before,
            "steering_coefficient": 1.0,
            "action": "add",
            "bias": None,
            "head_index": None,
        }
    notes = (_SEVERAL,) if len(vectors) > 1 else ()
    return Prepared(lambda path: torch.save(vectors, path), hookpoints, notes)


def _hookpoint(host: Host, edit: Edit) -> str:
    name = edit.place.name
    if name == "heads" or edit.output_of == -1:
        what = "attention heads" if name == "heads" else "what enters layer 0"
        raise InputError(
            f"hook {edit.hook} cannot be steered by lm-eval: it adds to the outputs of modules, and "
            f"{what} is none's; expected a hook_resid_pre above layer 0, hook_resid_post, "
            "hook_attn_out or hook_mlp_out; use --format safetensors"
        )
    if edit.output_of is not None:
        module = host.layers[edit.output_of]
    else:
        module = inner_module(host.layers[edit.layer_number], name, edit.hook)
    base = cast(nn.Module, host.network.base_model)
    found: str = next(name for name, other in base.named_modules() if other is module)
    return found


def _row(edits: Sequence[Edit], hookpoints: Sequence[str]) -> dict[str, Any]:
    pushed = [
        (edit, hookpoint, index)
        for edit, hookpoint in zip(edits, hookpoints, strict=True)
        for index, scale in enumerate(edit.scale.tolist())
        if scale != 0
    ]
    if len(pushed) != 1:
        raise InputError(
            f"{len(pushed)} features are pushed; expected exactly one, since lm-eval keeps one row of a "
            "table; export one feature, or give --out the ending .pt"
        )
    edit, hookpoint, index = pushed[0]
    if "release" not in edit.sae:
        raise InputError(
            f"SAE {edit.sae['path']} is a local directory; expected one of a release and id, by which "
            "lm-eval loads it; give --out the ending .pt"
        )
    return {
        "loader": "sae_lens",
        "action": "add",
        "sparse_model": edit.sae["release"],
        "hookpoint": hookpoint,
        "feature_index": edit.features[index],
        "steering_coefficient": float(edit.scale[index] * edit.row_scale[index]),
        "sae_id": edit.sae["id"],
    }


def _write_table(path: Path, row: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerow(row)


register("lm-eval", (".csv", ".pt"), prepare)
