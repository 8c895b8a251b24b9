"""Objects that a caller holds already: a Hugging Face model, SAELens SAEs, lists of texts.

They are taken as they are and stay as they were: cleansteer works on copies that share their weights.
"""

import copy
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from sae_lens import SAE
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MODEL_DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Given:
    """What a caller handed over; None: as the setting names it."""

    model: "PreTrainedModel | None" = None
    tokenizer: "PreTrainedTokenizerBase | None" = None
    sae: "SAE[Any] | None" = None
    downstream_sae: "SAE[Any] | None" = None
    texts: Sequence[str] | None = None
    heldout_texts: Sequence[str] | None = None

    @property
    def names(self) -> list[str]:
        """Names of what was handed over."""
        return [name for name, value in vars(self).items() if value is not None]

    def check(self) -> None:
        """Refuse objects of another kind than cleansteer works with.

        Raises:
            TypeError: an object is of another type.
            InputError: a model without its tokenizer, quantised, with a PEFT adapter on it, or in
                another number format than float32 or bfloat16.

        """
        if (self.model is None) != (self.tokenizer is None):
            given, missing = (
                ("tokenizer", "model") if self.model is None else ("model", "tokenizer")
            )
            raise InputError(f"{given}= was given without {missing}=; expected both; give both")
        for name in ("texts", "heldout_texts"):
            _check_texts(name, getattr(self, name))
        for name in ("sae", "downstream_sae"):
            if getattr(self, name) is not None:
                _check_sae(name, getattr(self, name))
        if self.model is not None:
            _check_model(self.model, self.tokenizer)


def _check_texts(name: str, texts: object) -> None:
    if texts is None:
        return
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise TypeError(f"{name}= is a {type(texts).__name__}, expected a list of str")
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise TypeError(f"{name}= holds a {type(wrong).__name__}, expected str only")


def _check_sae(name: str, sae: object) -> None:
    from sae_lens import SAE

    if not isinstance(sae, SAE):
        raise TypeError(
            f"{name}= is a {type(sae).__name__}, expected an SAE of SAELens (sae_lens.SAE, as "
            "SAE.from_pretrained or SAE.load_from_disk gives it)"
        )


def _check_model(model: object, tokenizer: object) -> None:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .networks import check_unquantised

    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"model= is a {type(model).__name__}, expected a Hugging Face PreTrainedModel with a "
            "language modelling head (AutoModelForCausalLM; of a PEFT model, its merge_and_unload())"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TypeError(
            f"tokenizer= is a {type(tokenizer).__name__}, expected the model's tokenizer"
        )
    check_unquantised(model.config, "model=")
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InputError(
            "model= carries a PEFT adapter; expected a whole model; load its base model without the "
            "adapter, or give PeftModel's merge_and_unload()"
        )
    dtype = dtype_name(model)
    if dtype not in _MODEL_DTYPES:
        raise InputError(
            f"model= is in {dtype}, expected {' or '.join(_MODEL_DTYPES)}; load it with "
            'dtype="float32", or convert it: model.float()'
        )


def dtype_name(model: "nn.Module") -> str:
    """Number format of a model's parameters, such as ``float32``."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def share_weights(module: "nn.Module") -> Any:
    """A copy of a module that shares its parameters' and buffers' memory.

    What is done to the copy's structure, hooks, mode or gradients does not reach the original; only
    changing weights in place would.
    """
    from torch import nn

    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.detach()
    return copy.deepcopy(module, memo)


def fingerprint_texts(texts: Iterable[str]) -> str:
    """SHA-256 over the texts and their lengths, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(raw)}:".encode() + raw)
    return digest.hexdigest()[:16]
