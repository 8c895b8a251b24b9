"""Model families that the fast evaluator knows: one module each, registered by model type."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from ...core.models import LanguageModel
from .shapes import JoinedHeads, KeyHeads, QueryHeads, Stream


@runtime_checkable
class Blocks(Protocol):
    """A family's layers, cut open at attention."""

    parallel: bool
    """Whether the MLP reads the stream entering the layer, beside attention, not after it."""

    def project(
        self, layer: int, residual: Stream, positions: Int[Tensor, " _place"]
    ) -> tuple[QueryHeads, KeyHeads, KeyHeads]:
        """Query, key and value (there may be fewer heads of them) from the stream entering a layer.

        ``positions`` are the places in the sequence: one for each position, or one that all share.
        """
        ...

    def attention(self, layer: int, attended: JoinedHeads) -> Stream:
        """What attention adds to the stream, from its heads' joined outputs."""
        ...

    def mlp(self, layer: int, residual: Stream) -> Stream:
        """What the MLP adds to the stream."""
        ...

    def normalise(self, residual: Stream) -> Stream:
        """The final norm, its weight and bias included."""
        ...

    def scale(self, layer: int) -> float:
        """What attention scores are multiplied by."""
        ...

    def window(self, layer: int) -> int | None:
        """How many positions attention sees, its own included; None: all."""
        ...

    def soft_cap(self) -> float | None:
        """Bound b of the attention scores s, which become b tanh(s / b); None: none."""
        ...


_FAMILIES: dict[str, Callable[[LanguageModel], Blocks | None]] = {}


def register(model_type: str, build: Callable[[LanguageModel], Blocks | None]) -> None:
    """Register a family under a Hugging Face ``model_type``; ``build`` gives None for a model that it
    does not know.

    Raises:
        ValueError: the type is registered already.

    """
    if model_type in _FAMILIES:
        raise ValueError(f"family {model_type!r} is registered already")
    _FAMILIES[model_type] = build


def find_blocks(model: LanguageModel) -> Blocks | None:
    """The registered family of a model, or of its part that reads text; None where it is not known."""
    build = _FAMILIES.get(model.text_config.model_type)
    return None if build is None else build(model)


def known_families() -> frozenset[str]:
    """The registered model types."""
    return frozenset(_FAMILIES)


def _register_all() -> None:
    from . import gemma, gemma2, gemma3, gpt2, gpt_neox, llama, olmo2, phi3, qwen3

    register("gpt2", gpt2.Gpt2Blocks)
    register("gpt_neox", gpt_neox.GptNeoXBlocks)
    register("gemma", gemma.GemmaBlocks)
    register("gemma2", gemma2.Gemma2Blocks)
    register("gemma3_text", gemma3.Gemma3Blocks)
    register("olmo2", olmo2.Olmo2Blocks)
    register("phi3", phi3.phi3_blocks)
    register("qwen3", qwen3.Qwen3Blocks)
    for model_type in ("llama", "mistral", "qwen2"):
        register(model_type, llama.LlamaBlocks)


_register_all()
