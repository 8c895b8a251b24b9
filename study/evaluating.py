"""Steering of features that somebody asks for, in one mode and strength or in several."""

from collections.abc import Sequence

import pandas as pd

from ..core.choices import ContextType, Mode
from ..core.errors import InputError
from ..steering_eval.doses import DEFAULT_BUDGET
from .parts import Parts
from .request import as_indices, as_strengths, check_contexts, first_of, steering_for


def evaluate(
    parts: Parts,
    features: Sequence[int] | None,
    sample: int | None,
    everything: bool,
    mode: Mode | None,
    alpha: float | Sequence[float] | None,
    kl_budget: float | None,
    target_kl: float | None,
    contexts: ContextType,
) -> pd.DataFrame:
    """What :meth:`~cleansteer.Study.evaluate` does, under the same names.

    Raises:
        InputError: a feature is not in the dictionary, or arguments do not go together.

    """
    check_contexts(contexts)
    if sum([features is not None, sample is not None, everything]) > 1:
        raise InputError("--features, --sample and --all exclude each other; give one of them")
    wanted = None if features is None else as_indices(features)
    alphas = as_strengths(alpha)
    steering = steering_for(parts.setting, mode, alphas, kl_budget, target_kl)
    if everything:
        wanted = parts.response.table()["feature"].tolist()
    elif sample is not None:
        wanted = first_of(parts.labelling.sample().tolist(), sample)
    if len(alphas) > 1:
        budget = DEFAULT_BUDGET if kl_budget is None else kl_budget
        table = parts.labelling.doses(wanted, steering, alphas, budget)
    else:
        table = parts.labelling.labels_of(wanted, steering)
    if contexts != "all":
        table = table[table["context_type"] == contexts]
    return table.reset_index(drop=True)
