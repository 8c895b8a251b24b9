"""Control vectors of llama.cpp, in GGUF."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.errors import InputError
from .edits import Edit
from .formats import Prepared, register
from .host import Host

ARCHITECTURES = {
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
"""llama.cpp's architecture by Hugging Face's model type, for those whose graph was read: each calls
``build_cvec`` behind the layer's last sum and before the next layer (src/models/*.cpp)."""
_KIND = "controlvector"


def prepare(host: Host, edits: Sequence[Edit]) -> Prepared:
    """``direction.i``, float32 ``[n_embd]``, for every layer i whose output is edited.

    llama.cpp adds ``direction.i`` to the output of layer i, layers counted from 0, at every token,
    times the strength given with the file (``--control-vector``: 1). Layers without a tensor are not
    edited. A layer 0 is refused when the file is read, so the output of layer 0 cannot be edited,
    nor can what enters it or stands inside a layer. ``blocks.L.hook_resid_post`` is therefore
    ``direction.L``, and ``blocks.L.hook_resid_pre``, the output of layer L - 1, ``direction.{L-1}``,
    both for an index of 1 and more; two edits at one place are summed.

    Keys: ``general.architecture`` = "controlvector", ``controlvector.model_hint`` = llama.cpp's name
    of the architecture, ``controlvector.layer_count`` = how many tensors there are (int32); llama.cpp
    reads none of them.

    Sources: https://github.com/ggml-org/llama.cpp, common/common.cpp
    (``common_control_vector_load_one``), src/llama-adapter.cpp (``llama_adapter_cvec``), src/models/
    (``build_cvec``), tools/cvector-generator/cvector-generator.cpp (``export_gguf``); pull request
    5970.

    Raises:
        InputError: a place that llama.cpp does not edit, or an architecture of which it is not known
            whether it edits where we do.

    """
    if host.model_type not in ARCHITECTURES:
        raise InputError(
            f"model type {host.model_type!r}: it is not known where llama.cpp adds a control vector "
            f"there; expected one of {', '.join(ARCHITECTURES)}; use --format safetensors"
        )
    directions: dict[str, NDArray[np.float32]] = {}
    stored = []
    for edit in edits:
        name = f"direction.{_layer(edit)}"
        directions[name] = edit.vector.numpy() + directions.get(name, np.float32(0))
        stored.append(name)
    hint = ARCHITECTURES[host.model_type]
    return Prepared(lambda path: _write(path, hint, directions), tuple(stored))


def _layer(edit: Edit) -> int:
    layer = edit.output_of
    if layer is None:
        reason = "it adds to the output of whole layers, and not inside them"
    elif layer < 1:
        what = "layer 0's output" if layer == 0 else "what enters layer 0"
        reason = f"it has no direction for {what}, only for the outputs of layers from 1"
    else:
        return layer
    raise InputError(
        f"hook {edit.hook} cannot be a control vector of llama.cpp: {reason}; expected "
        "blocks.L.hook_resid_post with L >= 1 or blocks.L.hook_resid_pre with L >= 2; use --format "
        "safetensors"
    )


def _write(path: Path, hint: str, directions: Mapping[str, NDArray[np.float32]]) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, _KIND)
    try:
        writer.add_string(f"{_KIND}.model_hint", hint)
        writer.add_int32(f"{_KIND}.layer_count", len(directions))
        for name, vector in directions.items():
            writer.add_tensor(name, vector)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


register("gguf", ".gguf", prepare)
