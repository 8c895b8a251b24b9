"""What a study works on: a model, its SAEs, and contexts cut from texts."""

from collections.abc import Collection
from copy import deepcopy
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from ..core.contexts import build_contexts
from ..core.errors import InputError
from ..core.given import Given, share_weights
from ..core.layout import CONTEXTS, FRESH_CONTEXTS, RESPONSE_CONTEXTS
from ..core.models import LanguageModel, load_model, wrap_model
from ..core.saes import Dictionary, load_dictionary, wrap_sae
from ..core.settings import SaeSetting, Setting
from ..core.texts import read_texts


class Inputs:
    """Model, SAEs and contexts, loaded when first needed or taken from what a caller gave.

    Args:
        setting: names what is not given, and says how contexts are cut.
        device: where tensors are put; None: the given model's own device, or the CPU.
        given: objects in memory. They stay as they are: copies that share their weights are used.

    """

    def __init__(
        self, setting: Setting, device: str | None = None, given: Given | None = None
    ) -> None:
        self.setting = setting
        self._given = given or Given()
        own = self._given.model
        self._device = device or ("cpu" if own is None else str(next(own.parameters()).device))

    @cached_property
    def model(self) -> LanguageModel:
        """The language model.

        Raises:
            InputError: it cannot be loaded, or takes fewer positions than contexts have.

        """
        network, tokenizer = self._given.model, self._given.tokenizer
        if network is not None and tokenizer is not None:
            copy = share_weights(network)
            copy.set_attn_implementation("eager")
            model = wrap_model(
                copy, deepcopy(tokenizer), self.setting.model.processing, self._device
            )
        elif self.setting.model.in_memory is not None:
            raise InputError(
                f"the model of setting {self.setting.name!r} was given in memory; give it again (model=, "
                "tokenizer=)"
            )
        else:
            model = load_model(self.setting, self._device)
        for name in ("corpus", "heldout_corpus"):
            length = getattr(self.setting, name).context_length
            if model.n_positions is not None and length > model.n_positions:
                raise InputError(
                    f"[{name}] context_length = {length} is more than the model's "
                    f"{model.n_positions} positions; lower it"
                )
        return model

    @cached_property
    def primary(self) -> Dictionary:
        """The SAE whose features are steered."""
        return self._dictionary("sae", self.setting.sae)

    @cached_property
    def downstream(self) -> Dictionary:
        """The SAE in which collateral is read.

        Raises:
            InputError: it reads the model below the steered SAE, or is a transcoder.

        """
        downstream = self._dictionary("downstream_sae", self.setting.downstream_sae)
        if not downstream.reconstructs:
            raise InputError(
                f"downstream SAE {self.setting.downstream_sae.label} is a transcoder, which writes "
                "elsewhere than it reads; expected an SAE, in whose features collateral is counted; "
                "change [downstream_sae]"
            )
        if downstream.site.order < self.primary.site.order:
            raise InputError(
                f"downstream SAE reads {downstream.site.hook}, which lies below the steered "
                f"{self.primary.site.hook}; expected the same place or a later one; change "
                "[downstream_sae]"
            )
        return downstream

    def _dictionary(self, name: str, which: SaeSetting) -> Dictionary:
        sae = getattr(self._given, name)
        if sae is not None:
            copy = share_weights(sae).to(device=self._device, dtype=torch.float32)
            return wrap_sae(copy, which, self.model)
        if which.in_memory is not None:
            raise InputError(
                f"the {name} of setting {self.setting.name!r} was given in memory; give it again "
                f"({name}=)"
            )
        return load_dictionary(self.setting, which, self.model, self._device)

    def build_contexts(self, wanted: Collection[str]) -> dict[str, Int[Tensor, "_context _token"]]:
        """Contexts by the names of their files: those for statistics and labels, those for linear
        response, which follow them in the corpus, and fresh ones, from texts that these do not hold.

        Raises:
            InputError: the texts cannot be read, or give too few contexts.

        """
        setting, tokenizer = self.setting, self.model.tokenizer
        texts = read_texts(setting, setting.corpus, given=self._given.texts)
        built: dict[str, Tensor] = {}
        if not {CONTEXTS, RESPONSE_CONTEXTS}.isdisjoint(wanted):
            more = setting.steering.response_contexts if setting.steering.response else 0
            both = build_contexts(texts, setting.corpus, tokenizer, setting.seed, more)
            built[CONTEXTS], built[RESPONSE_CONTEXTS] = both.tensor_split(
                [setting.corpus.n_contexts]
            )
        if FRESH_CONTEXTS in wanted:
            given = self._given.heldout_texts
            others = read_texts(setting, setting.heldout_corpus, set(texts), given)
            built[FRESH_CONTEXTS] = build_contexts(
                others, setting.heldout_corpus, tokenizer, setting.seed
            )
        return {name: built[name] for name in wanted}
