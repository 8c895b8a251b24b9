"""How many contexts a label needs to repeat itself: measured on a pilot, step by step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.records import PilotReport, PilotStep
from ..core.settings import SteeringSetting

PILOT_SIZE = 100
BUDGET = 4
"""Most contexts, in contexts_per_type, where the setting names no budget."""
LEAST_GROWTH = 1.25


@dataclass(frozen=True)
class Goal:
    """What reliability is asked for, and within which numbers of contexts of each type."""

    reliability: float
    fewest: int
    most: int

    @classmethod
    def of(cls, steering: SteeringSetting, n_contexts: int) -> "Goal | None":
        """The setting's; None where it asks for no reliability.

        The budget is the setting's, or 4 contexts_per_type; and no more than a third of all
        contexts, as a feature is steered in three types of them.
        """
        if steering.reliability is None:
            return None
        fewest = steering.contexts_per_type
        most = steering.most_contexts_per_type or BUDGET * fewest
        return cls(steering.reliability, fewest, max(fewest, min(most, n_contexts // 3)))

    def reached(self, steps: Sequence[PilotStep]) -> bool:
        """True where every label repeated itself as well as asked for in the last step."""
        return bool(steps) and steps[-1].worst >= self.reliability

    def next_number(self, steps: Sequence[PilotStep]) -> int | None:
        """Contexts of each type to measure the pilot with after these steps; None: no more.

        It starts with ``fewest``. After n of them with reliability r < R of the label that repeats
        itself worst, it is the least multiple of ``fewest`` that is at least n R (1 - r) /
        (r (1 - R)) and at least 1.25 n; ``most``, where that is more or r is not positive.

        Source: Spearman-Brown (W. Brown, British Journal of Psychology 3, 1910; C. Spearman, the
        same): what n contexts measure with r, m n of them measure with m r / (1 + (m - 1) r).
        """
        if not steps:
            return self.fewest
        n, r, asked = steps[-1].contexts_per_type, steps[-1].worst, self.reliability
        if self.reached(steps) or n >= self.most:
            return None
        factor = asked * (1 - r) / (r * (1 - asked)) if r > 0 else math.inf
        wanted = n * max(factor, LEAST_GROWTH)
        if wanted >= self.most:
            return self.most
        return min(self.most, self.fewest * math.ceil(wanted / self.fewest))

    def report(self, steps: Sequence[PilotStep]) -> PilotReport:
        """The record for manifest.json and screening.json."""
        return PilotReport(
            asked=self.reliability,
            most_contexts_per_type=self.most,
            contexts_per_type=steps[-1].contexts_per_type,
            reached=self.reached(steps),
            steps=list(steps),
        )
