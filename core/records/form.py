"""How much of an edit is on features of form, as an audit found it."""

from .figures import Interval
from .record import Record, SparseRecord


class FormShares(Record):
    """Shares of tokens of form, by kind."""

    form: float
    """All kinds together."""
    layout: float
    punctuation: float
    function_words: float


class FormRecord(SparseRecord):
    """The share of an edit that is on features of form, against content.

    Intervals are of 95 %, by resampling the texts in 32 groups; absent where there is but one text.
    """

    n_texts: int
    n_tokens: int
    """BOS at the start of a text is left out."""
    tokens: FormShares
    """Of the tokens themselves."""
    edit: FormShares
    """Of the edit."""
    dictionary: FormShares
    """Of all the dictionary's activity before the edit: what an edit would have that takes every feature
    as strongly as it is active."""
    covered: float
    """Share of the edit that is of features which fire on these texts; of others nothing is told."""
    edit_interval: Interval | None = None
    dictionary_interval: Interval | None = None
    difference: Interval | None = None
    """The edit's share of form less the dictionary's."""
