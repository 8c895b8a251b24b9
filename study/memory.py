"""What a setting needs of a machine's memory, roughly, without loading anything."""

import json
from pathlib import Path

from ..core.cache import is_local, model_folder, model_weights
from ..core.settings import SaeSetting, Setting
from .sizes import SAE_SHAPES, model_size

WEIGHT_BYTES = {"float32": 4, "bfloat16": 2}
SAE_BYTES = 4
HEADROOM = 1.2
"""Memory that a setting must find, in units of its weights: roughly, for what is computed."""


def memory_need(setting: Setting) -> int | None:
    """Bytes of the model's parameters and of both SAEs (float32); None where a size is not known.

    What is computed on the way comes on top; it is bounded by batches.
    """
    in_a_place = is_local(setting) and setting.model.package is None
    size = None if in_a_place else model_size(setting.model.name)
    parameters = _model_elements(setting) if size is None else int(size.parameters)
    saes = [_sae_elements(setting, which) for which in (setting.sae, setting.downstream_sae)]
    if parameters is None or any(elements is None for elements in saes):
        return None
    weights = WEIGHT_BYTES[setting.model.dtype] * parameters
    return weights + SAE_BYTES * sum(elements or 0 for elements in saes)


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
