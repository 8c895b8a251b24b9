"""Doses of every feature, forecast where they are asked for."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..core.errors import InputError
from .dosing import check_labels, check_setting
from .parts import Parts
from .request import as_strengths


def forecast_doses(
    parts: Parts, alpha: float | Sequence[float] | None, kl_budget: float, labels: int
) -> pd.DataFrame:
    """What :meth:`~cleansteer.Study.dose_forecast` does, under the same names; what it recommends is
    kept.

    Raises:
        InputError: the setting asks for no linear response or steers by another mode than ``add``, or
            an argument is wrong.

    """
    setting = parts.setting
    strengths = as_strengths(alpha)
    check_setting(setting)
    check_labels(labels)
    sign = float(np.sign(setting.steering.alpha))
    wrong = [strength for strength in strengths if strength * sign < 0]
    if wrong:
        raise InputError(
            f"--alpha: {wrong[0]:g} has another sign than the setting's alpha = "
            f"{setting.steering.alpha:g}, and linear response is forecast for that; expected "
            f"{'positive' if sign > 0 else 'negative'} strengths; change it"
        )
    if not (kl_budget > 0 and np.isfinite(kl_budget)):
        raise InputError(
            f"--kl-budget {kl_budget:g} is no budget; expected nats above 0, such as 0.1; change it"
        )
    forecast = parts.dosing.forecast(labels, kl_budget)
    parts.dosing.write(forecast, kl_budget)
    return forecast.at(strengths or [sign * float(s) for s in forecast.strengths])
