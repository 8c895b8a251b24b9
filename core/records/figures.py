"""A figure with its uncertainty."""

from .record import Record


class Interval(Record):
    """A figure with the ends of its interval (95 %, percentile bootstrap, unless said otherwise)."""

    value: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """True where the whole interval lies above zero."""
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        """True where the whole interval lies below zero."""
        return self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
