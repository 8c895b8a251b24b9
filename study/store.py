"""The one store of a study: its run directory, in which pieces are found again."""

from collections.abc import Callable

import pandas as pd
from jaxtyping import Int
from torch import Tensor

from ..core.errors import InputError
from ..core.layout import CONTEXTS, FRESH_CONTEXTS, RESPONSE_CONTEXTS
from ..core.networks import fingerprint_contents
from ..core.records import Fingerprints, PerSae
from ..core.runs import RunDirectory
from ..core.settings import SteeringSetting
from .inputs import Inputs

LABEL_KEYS = ("feature", "mode", "alpha", "context_type")
"""What identifies a row of labels within a run."""


class Store:
    """Pieces of one run: read where they are there and fit, made and written where not.

    Every piece depends on the setting, whose fingerprint the run holds, and on the tensors of model
    and SAEs (:meth:`check_inputs`); ``fits`` says what it depends on besides.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run

    def check_inputs(self, inputs: Inputs) -> None:
        """Record which model and SAEs a run is measured with, or check that they are the same.

        Raises:
            InputError: they are others than before.

        """
        model, primary, downstream = inputs.model, inputs.primary, inputs.downstream
        fingerprints = Fingerprints(
            model=model.fingerprint,
            model_contents=fingerprint_contents(model.parameters),
            sae=primary.fingerprint,
            downstream_sae=downstream.fingerprint,
        )
        known = self.run.manifest.fingerprints or fingerprints
        for name in ("model", "sae", "downstream_sae"):
            before, now = getattr(known, name), getattr(fingerprints, name)
            if before != now:
                raise InputError(
                    f"run {self.run.path} was made with another {name} (fingerprint {before}, now "
                    f"{now}); give another --run, or --overwrite"
                )
        self.run.update(
            fingerprints=fingerprints,
            hooks=PerSae[str](sae=primary.site.hook, downstream_sae=downstream.site.hook),
            centred=PerSae[bool](sae=primary.centred, downstream_sae=downstream.centred),
            architectures=PerSae[str](
                sae=primary.architecture, downstream_sae=downstream.architecture
            ),
        )

    def prepare(self, inputs: Inputs, fresh: bool = False) -> None:
        """Check all that the setting names, and build the contexts that are missing.

        Nothing is written before everything is known to be right.

        Raises:
            InputError: something that the setting names cannot be used.

        """
        setting = inputs.setting
        wanted = [CONTEXTS]
        wanted += [RESPONSE_CONTEXTS] if setting.steering.response else []
        wanted += [FRESH_CONTEXTS] if fresh else []
        missing = [name for name in wanted if not self.run.has(name)]
        if not missing:
            return
        per_type = setting.steering.contexts_per_type
        if setting.corpus.n_contexts < 3 * per_type:
            raise InputError(
                f"n_contexts = {setting.corpus.n_contexts} is too few for contexts_per_type = "
                f"{per_type}, expected at least {3 * per_type}; raise one or lower the other"
            )
        _ = inputs.primary, inputs.downstream
        built = inputs.build_contexts(missing)
        self.check_inputs(inputs)
        for name, contexts in built.items():
            self.run.write_tokens(name, contexts)

    def contexts(self, inputs: Inputs) -> Int[Tensor, "context token"]:
        """The contexts of statistics and labels."""
        self.prepare(inputs)
        return self.run.tokens(CONTEXTS)

    def response_contexts(self, inputs: Inputs) -> Int[Tensor, "context token"]:
        """The contexts of linear response."""
        self.prepare(inputs)
        return self.run.tokens(RESPONSE_CONTEXTS)

    def fresh_contexts(self, inputs: Inputs) -> Int[Tensor, "fresh token"]:
        """The fresh contexts that the setting evaluates."""
        self.prepare(inputs, fresh=True)
        return self.run.tokens(FRESH_CONTEXTS)[: inputs.setting.heldout_corpus.n_evaluated]

    def table(
        self,
        name: str,
        make: Callable[[], pd.DataFrame],
        columns: tuple[str, ...] = (),
        fits: Callable[[pd.DataFrame], bool] = lambda table: True,
    ) -> pd.DataFrame:
        """A table that is there and fits, or else one that is made now."""
        if self.run.has(name):
            table = self.run.table(name, columns)
            if fits(table):
                return table
        self.run.write_table(name, make())
        return self.run.table(name, columns)

    def labels(self, name: str, steering: SteeringSetting) -> pd.DataFrame | None:
        """The rows of a table of labels that were measured in one mode and strength, of whichever
        features; None where there is no such table.
        """
        if not self.run.has(name):
            return None
        table = self.run.table(name, LABEL_KEYS)
        return table[(table["mode"] == steering.mode) & (table["alpha"] == steering.strength)]

    def add_labels(self, name: str, new: pd.DataFrame) -> None:
        """Add rows to a table of labels; a row that is there already is replaced."""
        if self.run.has(name):
            new = pd.concat([self.run.table(name), new], ignore_index=True)
        keys = list(LABEL_KEYS)
        new = new.drop_duplicates(keys, keep="last")
        self.run.write_table(name, new.sort_values(keys, kind="stable", ignore_index=True))
