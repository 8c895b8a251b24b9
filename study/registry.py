"""SAELens' list of dictionaries, and which of them can be screened: fast, exactly but slowly, or not.

The list says neither a dictionary's architecture nor where it reads; both follow from the loader it
names and from ids and paths. Nothing is downloaded.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..core.cache import listed_releases, plain_yaml
from ..core.errors import InputError

Support = Literal["fast", "slow", "no"]
"""``fast``: the fast pass knows the model's layers. ``slow``: by full passes, exact, much slower."""

MODEL_TYPES = (
    (r"gpt2", "gpt2"),
    (r"pythia", "gpt_neox"),
    (r"gemma-3", "gemma3_text"),
    (r"gemma-2-", "gemma2"),
    (r"gemma-2b", "gemma"),
    (r"llama", "llama"),
    (r"mistral", "mistral"),
    (r"qwen2\.5", "qwen2"),
    (r"qwen3\.5.*-a\d+b", "qwen3_5_moe"),
    (r"qwen3\.5", "qwen3_5"),
    (r"qwen3.*-a\d+b", "qwen3_moe"),
    (r"qwen3", "qwen3"),
    (r"gpt-oss", "gpt_oss"),
)
"""Hugging Face's type of the part that reads text, by a pattern in the model's name; the first holds."""
FAST = {
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
}
"""Types whose layers the fast pass knows; those of :mod:`steering_eval.families`, which loads torch."""
SLOW = {"qwen3_moe", "gpt_oss"}
"""Types that ``python -m cleansteer.benchmarks.models`` finds right by full passes."""
_LOADERS = {
    None,
    "sae_lens",
    "connor_rob_hook_z",
    "deepseek_r1",
    "dictionary_learning_1",
    "gemma_2",
    "gemma_2_transcoder",
    "gemma_3",
    "goodfire",
    "llama_scope",
    "llama_scope_r1_distill",
    "mntss_clt_layer_transcoder",
    "mwhanna_transcoder",
    "qwen_scope",
}
"""Loaders of SAELens whose dictionaries are SAEs or transcoders of the kinds that are supported."""
_EMBEDDING = re.compile(r"hook_embed|(^|/)embedding")


@dataclass(frozen=True)
class Judgement:
    """Whether a dictionary can be screened."""

    support: Support
    reason: str
    """Why not, or why slowly; empty for ``fast``."""


@dataclass(frozen=True)
class Release:
    """A release of SAELens' list."""

    name: str
    model: str
    model_type: str | None
    """None where the model is not known."""
    judgements: Mapping[str, Judgement]
    """Of each dictionary, by its id."""

    def count(self, support: Support) -> int:
        """How many of its dictionaries are supported so."""
        return sum(each.support == support for each in self.judgements.values())

    @property
    def reasons(self) -> list[str]:
        """The different reasons, the most frequent first."""
        told = Counter(each.reason for each in self.judgements.values() if each.reason)
        return [reason for reason, _ in told.most_common()]


def model_type_of(model: str) -> str | None:
    """Hugging Face's type of a model by its name in the list, None where it is not known."""
    name = model.lower()
    return next((kind for pattern, kind in MODEL_TYPES if re.search(pattern, name)), None)


def releases() -> Iterator[Release]:
    """Every release of the list, as it is installed.

    Raises:
        InputError: SAELens or its list is not there.

    """
    for name, entry in _read_list().items():
        model = str(entry.get("model", "?"))
        kind = model_type_of(model)
        judgements = {
            str(sae["id"]): judge(kind, model, entry.get("conversion_func"), sae)
            for sae in entry["saes"]
        }
        yield Release(str(name), model, kind, judgements)


def judge(
    model_type: str | None, model: str, loader: str | None, sae: Mapping[str, Any]
) -> Judgement:
    """Whether a dictionary of the list can be screened.

    Args:
        model_type: of its model.
        model: its name.
        loader: of SAELens; None: SAELens' own format.
        sae: its entry.

    """
    if model_type is None:
        return Judgement("no", f"the type of model {model!r} is not known")
    if loader not in _LOADERS:
        return Judgement("no", f"architecture of SAELens' loader {loader!r}")
    if _EMBEDDING.search(f"{sae['id']} {sae['path']}"):
        return Judgement("no", "reads the embedding, where steering has no hook")
    if model_type in FAST:
        return Judgement("fast", "")
    if model_type in SLOW:
        return Judgement("slow", f"full forward passes for models of type {model_type}")
    return Judgement("no", f"TransformerLens' bridge does not run models of type {model_type}")


def _read_list() -> dict[str, Any]:
    listed = listed_releases()
    if listed is None:
        raise InputError(
            "SAELens' list of releases is not installed; expected sae_lens; install it"
        )
    found: dict[str, Any] = plain_yaml(listed)
    return found
