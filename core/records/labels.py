"""What a label is worth, before anything is fitted to it."""

from .record import Record


class LabelJudgement(Record):
    """Whether a label can be ranked by."""

    usable: bool
    reasons: list[str]
    """A sentence for every rule that it breaks, with the figure and what to change; empty where it is
    usable."""
    caveats: list[str]
    """What it does not say, a sentence each."""


class Push(Record):
    """How hard the labelled features were pushed."""

    share: float
    """Length of the push, in median norms of the residual stream; median over features."""
    kl: float | None = None
    """KL(clean || steered) in nats, median over features; None where it was not measured."""

    def __str__(self) -> str:
        made = "" if self.kl is None else f", KL {self.kl:.2g} nats"
        return f"{self.share:.2g} of the residual stream's length{made} (medians over features)"
