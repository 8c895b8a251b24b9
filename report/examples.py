"""Where each feature fires, as the page shows it: contexts as tokens, one of them marked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..core.layout import EXAMPLES, TOKENS
from ..features.examples import KINDS
from .columns import NumberColumn, WordColumn, code_words, scale_numbers
from .run import Run


@dataclass(frozen=True)
class ExampleColumn:
    """One example of every feature, in the order of the features' rows."""

    kind: str
    """``strongest``, ``middling`` or ``random``."""
    context: Sequence[int]
    """Number of the context; -1 where the feature has none."""
    position: Sequence[int]
    """Of the token at which it fires most there."""
    activation: NumberColumn


@dataclass(frozen=True)
class FeatureExamples:
    """Contexts that show where features fire."""

    contexts: WordColumn
    """The text that each token adds to its context."""
    examples: Sequence[ExampleColumn]


def feature_examples(run: Run, features: Sequence[int]) -> FeatureExamples | None:
    """The examples of a run's features, in the order given; None where an earlier version kept none.

    Raises:
        InputError: the run's tables of examples are damaged.

    """
    found = run.read_table(EXAMPLES, "feature", "kind", "context", "position", "activation")
    texts = run.read_table(TOKENS, "context", "tokens")
    if found is None or texts is None:
        return None
    used = np.sort(found["context"].unique())
    place = pd.Series(np.arange(len(used)), index=used)
    columns = []
    for kind in KINDS:
        rows = found[found["kind"] == kind].set_index("feature").reindex(np.asarray(features))
        context = place.reindex(rows["context"]).fillna(-1).astype(int)
        columns.append(
            ExampleColumn(
                kind,
                context.tolist(),
                rows["position"].fillna(-1).astype(int).tolist(),
                scale_numbers(rows["activation"].to_numpy(dtype=np.float64)),
            )
        )
    tokens = texts.set_index("context")["tokens"].reindex(used)
    return FeatureExamples(code_words(tokens), columns)
