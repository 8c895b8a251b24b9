"""Whether features still mean what they meant, as an audit found it on reference text."""

from collections.abc import Sequence

from .contexts import AuditedContext
from .record import SparseRecord


class MeaningGroup(SparseRecord):
    """Of some features of an SAE together."""

    n: int
    n_judged: int
    """Those of which an overlap is told: that fire in as many texts as contexts are compared."""
    overlap: float | None = None
    """Mean over the judged ones of the share of their strongest contexts that is the same before and
    after; absent where none is judged."""
    shift: float | None = None
    """Sum over all of them of abs(mean activation after - before), in units of the sum of the means
    before; absent where none fires."""
    kept: Sequence[int]
    """How many of the judged ones keep 0, 1, ... up to all of their contexts."""

    @property
    def n_drifted(self) -> int:
        """Judged features that keep less than half of their contexts."""
        most = len(self.kept) - 1
        return sum(n for common, n in enumerate(self.kept) if 2 * common < most)


class DriftedFeature(SparseRecord):
    """A feature whose strongest contexts are others after the edit."""

    feature: int
    description: str | None = None
    overlap: float
    before: float
    """Mean activation over the tokens of the reference, in the model without the adapter."""
    after: float
    """And with it."""
    fires_before: float
    """Share of tokens at which it fires."""
    fires_after: float
    strongest: Sequence[AuditedContext]
    """Its strongest contexts before."""
    strongest_after: Sequence[AuditedContext]


class MeaningRecord(SparseRecord):
    """The features of one SAE, before the edit and after it."""

    hook: str
    sae: str
    fingerprint: str
    downstream: bool
    """True of an SAE behind the edit, none of whose features is edited."""
    n_texts: int
    n_tokens: int
    """BOS at the start of a text is left out."""
    contexts: int
    """How many of a feature's strongest contexts are compared, one a text at most."""
    edited: MeaningGroup | None = None
    """Of the features that the adapter may edit."""
    others: MeaningGroup | None = None
    """Of all other ones; absent where the adapter may edit all."""
    drifted: Sequence[DriftedFeature]
    """Of the others (of all, where there are none) those with the least overlap, below 1; of equal ones
    that with the larger change of its mean first."""
