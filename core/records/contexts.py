"""Places in texts."""

from .record import Record


class AuditedContext(Record):
    """A place in the data where a feature is active."""

    before: str
    """Text in front of the token."""
    token: str
    after: str
    activation: float
    """Of the feature, there."""
