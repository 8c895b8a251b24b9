"""The comparison across settings: families of models, kinds of SAE, widths."""

from .comparison import compare
from .table import Table

__all__ = ["Table", "compare"]
