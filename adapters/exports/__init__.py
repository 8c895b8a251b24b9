"""Constant edits written for other programs: one module a format, registered by name."""

from . import control_vector, steered, tensors
from .edits import Edit, adapter_edits, feature_edits
from .formats import check_out, names, write_edits
from .host import Host, open_host
from .sources import export

__all__ = [
    "Edit",
    "Host",
    "adapter_edits",
    "check_out",
    "control_vector",
    "export",
    "feature_edits",
    "names",
    "open_host",
    "steered",
    "tensors",
    "write_edits",
]
