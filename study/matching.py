"""Steering every feature by the coefficient that moves predictions as much as the others do."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.layout import UNFINISHED
from ..core.progress import Reporter
from ..core.records.manifest import Unmatched
from ..core.runs import RunDirectory
from ..core.settings import SteeringSetting
from ..core.tables import write_table
from ..steering_eval.choice import Plan
from ..steering_eval.evaluation import Evaluator
from ..steering_eval.matching import LARGEST_PUSH, StrengthSearch

FIRST_PUSH = 0.1
"""Where a search begins that nothing was forecast for, in median norms of the residual stream."""
_NAMED = 8


@dataclass(frozen=True)
class Matching:
    """Finds the coefficients of a plan, step by step; finished steps survive a kill."""

    evaluator: Evaluator
    run: RunDirectory
    reporter: Reporter
    residual_units: NDArray[np.float64]
    """Of each feature of the plan, the coefficient of a push as long as the residual stream."""

    def match(
        self,
        plan: Plan,
        contexts: torch.Tensor,
        steering: SteeringSetting,
        stage: str,
        description: str,
        first: NDArray[np.float64],
        directions: torch.Tensor | None,
    ) -> tuple[Plan, NDArray[np.float64], torch.Tensor | None]:
        """The plan of the features that reach the setting's KL over their contexts, with each one's
        coefficient and direction. The others are named, in a warning and in the manifest.

        Raises:
            InputError: no feature reaches it.

        """
        target = steering.strength
        search = StrengthSearch(first, LARGEST_PUSH * self.residual_units, target)
        work = self.evaluator.work_id(plan, contexts, first, directions)
        kept = self.run.path / UNFINISHED / f"matching-{work}.parquet"
        steps = [] if not kept.is_file() else [*pd.read_parquet(kept).groupby("step")]
        for _, told in steps:
            search.tell(told["kl"].to_numpy())
        tables = [table for _, table in steps]
        with self.run.timed(f"{stage}, matching"):
            while search.open.any():
                some = plan.among(search.open)
                told = (
                    directions if directions is None else directions[torch.as_tensor(search.open)]
                )
                bar = self.reporter.bar(f"{description}: matching {len(tables) + 1}", some.n_pairs)
                with bar as progress:
                    divergences = self.evaluator.divergences(
                        some, contexts, search.values[search.open], told, progress
                    )
                search.tell(divergences)
                tables.append(pd.DataFrame({"step": len(tables), "kl": divergences}))
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_table(kept, pd.concat(tables, ignore_index=True))
        self._tell(plan, search, stage, target)
        kept.unlink(missing_ok=True)
        reached = search.reached
        if directions is not None:
            directions = directions[torch.as_tensor(reached)]
        return plan.among(reached), search.values[reached], directions

    def _tell(self, plan: Plan, search: StrengthSearch, stage: str, target: float) -> None:
        missed = np.flatnonzero(~search.reached)
        if not len(missed):
            return
        pushes = search.values / self.residual_units
        names = ", ".join(str(feature) for feature in plan.features[missed[:_NAMED]])
        more = f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else ""
        told = (
            f"{stage}: {len(missed)} of {len(plan.features)} features ({names}{more}) do not reach a KL "
            f"of {target:g} by any push up to {LARGEST_PUSH:g} times the residual stream's length"
        )
        if len(missed) == len(plan.features):
            raise InputError(f"{told}; aim lower (target_kl, --target-kl)")
        self.reporter.warn(f"{told}; they are left out (manifest.json names them)")
        new = [
            Unmatched(
                stage=stage,
                feature=int(plan.features[i]),
                target_kl=target,
                kl=float(search.divergences[i]),
                push=float(pushes[i]),
            )
            for i in missed
        ]
        self.run.update(unmatched=[*self.run.manifest.unmatched, *new])
