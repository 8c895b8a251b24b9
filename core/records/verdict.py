"""How far a ranking can be trusted."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from .record import Record

Judgement = Literal["not trusted", "partly", "trusted"]


class AxisVerdict(Record):
    """The verdict on one axis, with the rules that failed."""

    verdict: Literal["not trusted", "trusted"]
    reasons: list[str]
    """A sentence for every rule that failed; empty where the axis is trusted."""
    caveats: list[str] = Field(default_factory=list)
    """What limits the meaning of the axis, trusted or not, a sentence each."""

    @property
    def told(self) -> list[str]:
        """Reasons and caveats: all that is to be said beside the verdict."""
        return [*self.reasons, *self.caveats]

    @property
    def trusted(self) -> bool:
        """True where every rule holds."""
        return self.verdict == "trusted"

    def __str__(self) -> str:
        told = f"{self.verdict} ({'; '.join(self.reasons)})" if self.reasons else self.verdict
        return "; ".join([told, *self.caveats])


class Verdict(Record):
    """The verdict on a ranking: ``trusted`` where both axes are, ``partly`` where one is."""

    overall: Judgement
    axes: Mapping[str, AxisVerdict]
    """By axis: ``stability`` and ``collateral``."""
    fresh_check: bool
    """True where the rule about fresh contexts was checked."""

    @property
    def trusted(self) -> bool:
        """True where both axes are trusted."""
        return self.overall == "trusted"

    @property
    def stability(self) -> AxisVerdict:
        """The axis of effect stability (label ``stability_abs``)."""
        return self.axes["stability"]

    @property
    def collateral(self) -> AxisVerdict:
        """The axis of collateral spread (label ``collateral_per_effect``)."""
        return self.axes["collateral"]

    def __str__(self) -> str:
        lines = [f"Ranking: {self.overall}"]
        lines += [f"  {axis}: {judged}" for axis, judged in self.axes.items()]
        if not self.fresh_check:
            lines.append("  (not checked on fresh contexts)")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from ..notebook import verdict_html

        return verdict_html(self)
