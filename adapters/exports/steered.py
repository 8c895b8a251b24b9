"""Steering tables of lm-eval's model ``steered``."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import InputError
from .edits import Edit
from .formats import Prepared, register
from .host import Host

_NOTE = (
    "lm-eval 0.4.8 to 0.4.9.1 read and apply this row; 0.4.9.2 to 0.4.13 stop at every row that adds, "
    'with an AssertionError of their own ("Bias is not supported for the `add` action"); there, give an '
    "adapter of component bias by --model hf --model_args peft=DIR (docs/export.md)"
)
_REMEDY = "use --format safetensors, or an adapter through PEFT"


def prepare(host: Host, edits: Sequence[Edit]) -> Prepared:
    """A table of one row: a feature of a published SAE, which lm-eval loads itself.

    lm-eval adds ``steering_coefficient * W_dec[feature_index]``, W_dec as SAELens'
    ``SAE.from_pretrained(sparse_model, sae_id)`` gives it, to the output of the module ``hookpoint``
    (the first one of a tuple), at every token. The coefficient is therefore s_f, divided by |W_dec[f]|
    where latents are rescaled so. In float32 that is the adapter's edit; in a bfloat16 model the row of
    W_dec is rounded before it is multiplied, and an adapter's vector after.

    Modules are named from ``model.base_model`` on: ``h.2`` in GPT-2, ``layers.2`` in others. So
    ``blocks.L.hook_resid_post`` is ``layers.L``, ``blocks.L.hook_resid_pre`` is ``layers.{L-1}`` for
    L >= 1, and what attention and MLP add are the modules that return it.

    Tried with the source of every release from 0.4.8 to 0.4.13, on what is written here: 0.4.8 to
    0.4.9.1 read and apply the row, but of several rows they add the last one's vector alone, at all
    hookpoints; 0.4.9.2 and later stop at every row that adds, with an AssertionError, since they take
    the SAE's b_dec along and support no bias there. lm-eval's other format, ``.pt``, is a pickle, which
    is not written.

    Source: https://github.com/EleutherAI/lm-evaluation-harness, lm_eval/models/hf_steered.py of
    versions 0.4.8 to 0.4.13, and its README, section "Steered Hugging Face transformers models"; pull
    request 2749.

    Raises:
        InputError: not exactly one feature is pushed, or lm-eval cannot reach its SAE or its place.

    """
    pushed = [(edit, index) for edit in edits for index in edit.scale.nonzero()[:, 0].tolist()]
    if len(pushed) != 1:
        raise InputError(
            f"{len(pushed)} features are pushed; expected exactly one, since lm-eval adds the last of "
            f"several rows alone; export one feature, {_REMEDY}"
        )
    edit, index = pushed[0]
    sae = edit.target.sae
    if sae.release is None:
        raise InputError(
            f"SAE {sae.path} is a local directory; expected one of a release and id, by which "
            f"lm-eval loads it; {_REMEDY}"
        )
    hookpoint = _hookpoint(host, edit)
    row = {
        "loader": "sae_lens",
        "action": "add",
        "sparse_model": sae.release,
        "hookpoint": hookpoint,
        "feature_index": edit.features[index],
        "steering_coefficient": float(
            edit.scale[index] * edit.row_scale[index] / edit.place.factor
        ),
        "head_index": "",
        "sae_id": sae.id,
        "description": "",
    }
    stored_as = tuple(hookpoint if each is edit else None for each in edits)
    return Prepared(lambda path: _write(path, row), stored_as, (_NOTE,))


def _hookpoint(host: Host, edit: Edit) -> str:
    layer, place = edit.output_of, edit.place.name
    number = edit.layer_number if layer is None else layer
    if layer == -1 or place == "heads":
        what = "what enters layer 0" if layer == -1 else "attention heads"
        raise InputError(
            f"hook {edit.hook} cannot be steered by lm-eval: it adds to what a layer, its attention or "
            f"its MLP returns, and not to {what}; expected hook_resid_pre above layer 0, "
            f"hook_resid_post, hook_attn_out or hook_mlp_out; {_REMEDY}"
        )
    module = host.layers[number]
    if layer is None:
        module = edit.place.module_in(module)
    base: Any = host.network.base_model
    path: str = next(name for name, other in base.named_modules() if other is module)
    return path


def _write(path: Path, row: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([row.keys(), row.values()])


register("lm-eval", ".csv", prepare)
