"""What a study forecasts of doses that nobody measured."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..core.caller import called_as, spell_call
from ..core.errors import InputError
from ..core.layout import DOSE_FORECAST
from ..core.runs import RunDirectory
from ..core.settings import Setting
from ..steering_eval.doses import DEFAULT_BUDGET
from .dosing import DEFAULT_LABELS, check_labels, check_setting
from .parts import Parts
from .request import as_strengths


class Forecasting:
    """The part of a :class:`~cleansteer.Study` that forecasts doses."""

    setting: Setting
    _run: RunDirectory
    _parts: Parts

    def dose_forecast(
        self,
        alpha: float | Sequence[float] | None = None,
        *,
        kl_budget: float = DEFAULT_BUDGET,
        labels: int = DEFAULT_LABELS,
    ) -> pd.DataFrame:
        """Forecast KL, stability and collateral of every feature at any strength, with 90 % intervals.

        Linear response, corrected on the measured doses of a few features; forecasts that do not hold
        are NaN. How far each holds, and the largest coefficient whose KL stays within the budget, is
        kept in dose_forecast.parquet: :attr:`recommended_doses`. Formulas: docs/protocol.md, Dose
        forecast.

        Args:
            alpha: strengths in units of the global value c, with the sign of the setting's; None: those
                at which doses are measured.
            kl_budget: of KL from the clean predictions, in nats.
            labels: how many features of the setting's sample are steered at every dose; those that were
                are not steered again.

        Returns:
            a row for every feature and strength.

        Raises:
            InputError: the setting asks for no linear response or steers by another mode than ``add``,
                or an argument is wrong.

        """
        strengths = as_strengths(alpha)
        check_setting(self.setting)
        check_labels(labels)
        sign = float(np.sign(self.setting.steering.alpha))
        wrong = [strength for strength in strengths if strength * sign < 0]
        if wrong:
            raise InputError(
                f"--alpha: {wrong[0]:g} has another sign than the setting's alpha = "
                f"{self.setting.steering.alpha:g}, and linear response is forecast for that; expected "
                f"{'positive' if sign > 0 else 'negative'} strengths; change it"
            )
        if not (kl_budget > 0 and np.isfinite(kl_budget)):
            raise InputError(
                f"--kl-budget {kl_budget:g} is no budget; expected nats above 0, such as 0.1; change it"
            )
        forecast = self._parts.dosing.forecast(labels, kl_budget)
        self._parts.dosing.write(forecast, kl_budget)
        with called_as(spell_call("Study.dose_forecast", alpha=alpha)):
            self._run.record_call()
        return forecast.at(strengths or [sign * float(s) for s in forecast.strengths])

    @property
    def recommended_doses(self) -> pd.DataFrame:
        """The last dose forecast's row for every feature: how far it holds, and the largest coefficient
        whose KL stays within the budget, or the reason why there is none.

        Raises:
            InputError: no dose was forecast yet.

        """
        if not self._run.has(DOSE_FORECAST):
            raise InputError(
                f"study {self.setting.name!r} in {self._run.path} has no dose forecast yet; call its "
                "dose_forecast() (cleansteer doses)"
            )
        return self._run.table(DOSE_FORECAST, ("feature", "recommended_coefficient", "reason"))
