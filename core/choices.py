"""Closed lists of words that settings, the command line and Python share."""

from typing import Literal, get_args

Mode = Literal["add", "clamp_global", "clamp_q95"]
"""How features are steered."""
ContextType = Literal["mixed", "top", "random", "low", "all"]
"""Which contexts of a feature labels are shown for."""
Sampling = Literal["frequency-spread", "uniform", "uncertain"]
"""Which features are labelled."""
MODES: tuple[Mode, ...] = get_args(Mode)
CONTEXT_TYPES: tuple[ContextType, ...] = get_args(ContextType)
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
