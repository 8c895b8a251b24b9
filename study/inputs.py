"""What a run works on: its model, its SAEs and its contexts."""

from functools import cached_property

from ..core.contexts import build_contexts
from ..core.errors import InputError
from ..core.models import LanguageModel, load_model
from ..core.progress import Reporter
from ..core.runs import RunDirectory
from ..core.saes import Dictionary, load_dictionary
from ..core.settings import Setting
from ..core.texts import read_texts

CONTEXTS = "contexts.safetensors"
FRESH_CONTEXTS = "fresh_contexts.safetensors"


class Loading:
    """Model, SAEs and contexts of a run, loaded when first needed."""

    def __init__(
        self, setting: Setting, run: RunDirectory, reporter: Reporter, device: str = "cpu"
    ) -> None:
        self.setting = setting
        self.run = run
        self._reporter = reporter
        self._device = device

    @cached_property
    def model(self) -> LanguageModel:
        """The language model, loaded when first needed."""
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
        return load_dictionary(self.setting, self.setting.sae, self.model, self._device)

    @cached_property
    def downstream(self) -> Dictionary:
        """The SAE in which collateral is read."""
        downstream = load_dictionary(
            self.setting, self.setting.downstream_sae, self.model, self._device
        )
        if downstream.site.order < self.primary.site.order:
            raise InputError(
                f"downstream SAE reads {downstream.site.hook}, which lies below the steered "
                f"{self.primary.site.hook}; expected the same place or a later one; change "
                "[downstream_sae]"
            )
        return downstream

    def prepare(self, *names: str) -> None:
        """Check all that the setting names, and build contexts (``CONTEXTS``, ``FRESH_CONTEXTS``).

        Nothing is written before everything is known to be right.
        """
        missing = [name for name in names if not self.run.has(name)]
        if not missing:
            return
        steering = self.setting.steering
        if self.setting.corpus.n_contexts < 3 * steering.contexts_per_type:
            raise InputError(
                f"n_contexts = {self.setting.corpus.n_contexts} is too few for contexts_per_type = "
                f"{steering.contexts_per_type}, expected at least {3 * steering.contexts_per_type}; "
                "raise one or lower the other"
            )
        _ = self.primary, self.downstream
        corpus, heldout = self.setting.corpus, self.setting.heldout_corpus
        tokenizer = self.model.tokenizer
        seed, texts = self.setting.seed, read_texts(self.setting, corpus)
        built = {}
        if CONTEXTS in missing:
            built[CONTEXTS] = build_contexts(texts, corpus, tokenizer, seed)
        if FRESH_CONTEXTS in missing:
            fresh = read_texts(self.setting, heldout, set(texts))
            built[FRESH_CONTEXTS] = build_contexts(fresh, heldout, tokenizer, seed)
        self._record_sources()
        for name, contexts in built.items():
            self.run.write_tokens(name, contexts)

    def _record_sources(self) -> None:
        model, primary, downstream = self.model, self.primary, self.downstream
        fingerprints = {
            "model": model.fingerprint,
            "sae": primary.fingerprint,
            "downstream_sae": downstream.fingerprint,
        }
        known = self.run.manifest.get("fingerprints", fingerprints)
        for name, value in fingerprints.items():
            if known.get(name) != value:
                raise InputError(
                    f"run {self.run.path} was made with another {name} (fingerprint "
                    f"{known.get(name)}, now {value}); give another --run, or --overwrite"
                )
        self.run.record(
            fingerprints=fingerprints,
            hooks={"sae": primary.site.hook, "downstream_sae": downstream.site.hook},
            centred={"sae": primary.centred, "downstream_sae": downstream.centred},
            architectures={"sae": primary.architecture, "downstream_sae": downstream.architecture},
        )
