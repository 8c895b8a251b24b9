"""Plain safetensors."""

from collections.abc import Sequence

from safetensors.torch import save_file

from ...core.records import ExportRecord
from .edits import Edit
from .formats import Prepared, register
from .host import Host


def prepare(host: Host, edits: Sequence[Edit]) -> Prepared:
    """One tensor a hook, named like it: v, float32, ``[d]`` (``[head * d_head]`` at ``attn.hook_z``).

    The header's metadata repeat the model, the operation and the tokens that are edited. Format:
    https://github.com/huggingface/safetensors, section "Format".
    """
    stored = {edit.hook: edit.vector.contiguous() for edit in edits}
    metadata = {
        "format": ExportRecord.FORMAT,
        "model": host.name,
        "operation": "add",
        "positions": edits[0].which.positions,
        "edit_bos": str(edits[0].which.bos).lower(),
    }
    return Prepared(lambda path: save_file(stored, path, metadata), tuple(stored))


register("safetensors", ".safetensors", prepare, holds_positions=True)
