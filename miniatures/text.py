"""What the miniature models read: docstrings, and which packages they never see."""

from collections.abc import Sequence

from ..core.docstrings import Split, iterate_docstrings

TRAINED_PACKAGES = (
    "stdlib",
    "numpy",
    "scipy",
    "pandas",
    "sklearn",
    "torch",
    "transformers",
    "datasets",
    "pyarrow",
    "lightgbm",
    "huggingface_hub",
    "transformer_lens",
    "sae_lens",
    "pydantic",
    "rich",
    "accelerate",
)
"""Packages whose ``train`` files the models and SAEs are trained on."""

HELD_OUT_PACKAGES = ("networkx", "nltk", "statsmodels", "sympy")
"""Whole packages kept from models and SAEs alike: the topics that adapters learn later."""

MIN_CHARS = 40


def normalise(text: str) -> str:
    """Every run of white space becomes one space, as docs/protocol.md, Settings, has it."""
    return " ".join(text.split())


def gather(packages: Sequence[str], split: Split, seed: int) -> list[str]:
    """The distinct, whitespace-normalised docstrings of a split that have ``MIN_CHARS``."""
    texts = (normalise(text) for text in iterate_docstrings(packages, split, seed))
    return list(dict.fromkeys(text for text in texts if len(text) >= MIN_CHARS))
