"""What is asked of a study, checked before anything is measured."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..core.choices import BYS, CONTEXT_TYPES, Mode
from ..core.errors import InputError
from ..core.settings import Setting, SteeringSetting


def check_top(top: int) -> None:
    """Refuse a number of features below 1."""
    if top < 1:
        raise InputError(f"--top {top} is no number of features; expected at least 1; change it")


def check_contexts(contexts: str) -> None:
    """Refuse what is no context type."""
    if contexts not in CONTEXT_TYPES:
        raise InputError(
            f"--contexts {contexts!r} is not one of {', '.join(CONTEXT_TYPES)}; correct it"
        )


def check_by(by: str) -> None:
    """Refuse what features cannot be chosen by."""
    if by not in BYS:
        raise InputError(f"--by {by!r} is not one of {', '.join(BYS)}; correct it")


def as_indices(features: Iterable[int]) -> list[int]:
    """Indices of features, each once and rising.

    Raises:
        TypeError: something else than whole numbers.

    """
    if isinstance(features, str | bytes) or not hasattr(features, "__iter__"):
        raise TypeError(f"features are {features!r}, expected a sequence of indices")
    indices = set()
    for feature in features:
        if isinstance(feature, bool | np.bool_) or not hasattr(feature, "__index__"):
            raise TypeError(f"feature {feature!r} is no index, expected whole numbers")
        indices.add(int(feature))
    if not indices:
        raise InputError("--features: no feature is listed; expected at least one; list some")
    return sorted(indices)


def as_strengths(alpha: float | Sequence[float] | None) -> list[float]:
    """Strengths, each once and rising; none where none is given.

    Raises:
        InputError: one is 0, infinite or NaN.
        TypeError: one is no number.

    """
    if alpha is None:
        return []
    given = list(alpha) if isinstance(alpha, Iterable) else [alpha]
    for strength in given:
        if isinstance(strength, bool | np.bool_ | str) or not hasattr(strength, "__float__"):
            raise TypeError(f"alpha holds {strength!r}, expected numbers")
        if not np.isfinite(strength) or strength == 0:
            raise InputError(
                f"--alpha: {strength!r} is not a strength; expected numbers other than 0, such as 0.5 or "
                "2"
            )
    return sorted({float(strength) for strength in given})


def first_of(sample: Sequence[int], n: int) -> list[int]:
    """The first n features of a setting's sample."""
    if not sample:
        raise InputError(
            f"--sample {n}: the setting labels no feature (n_features = 0) and has no sample; name "
            "features (--features)"
        )
    if not 1 <= n <= len(sample):
        raise InputError(
            f"--sample {n} does not lie between 1 and the {len(sample)} features of the setting's "
            "sample; correct it"
        )
    return list(sample[:n])


def steering_changes(
    setting: Setting, mode: Mode | None, alpha: float | None = None, target_kl: float | None = None
) -> dict[str, object]:
    """Keys of [steering] that another mode or strength changes; a ``target_kl`` without a mode means
    ``matched``. What only other modes have goes.
    """
    if mode is None and alpha is target_kl is None:
        return {}
    own = setting.steering
    chosen = mode or ("matched" if target_kl is not None else own.mode)
    changes: dict[str, object] = {"mode": chosen}
    if chosen != "add":
        changes |= {"alpha": 1.0, "alpha_units": "global"}
    elif alpha is not None:
        changes["alpha"] = alpha
    if target_kl is not None:
        changes["target_kl"] = target_kl
    elif chosen != "matched":
        changes["target_kl"] = None
    return changes


def steering_for(
    setting: Setting,
    mode: Mode | None,
    alphas: Sequence[float],
    kl_budget: float | None,
    target_kl: float | None = None,
) -> SteeringSetting:
    """The setting's steering in another mode or strength.

    Raises:
        InputError: mode, strengths and budget do not go together.

    """
    own = setting.steering
    chosen = mode or ("matched" if target_kl is not None else own.mode)
    if alphas and chosen != "add":
        raise InputError(
            f"--alpha {','.join(f'{a:g}' for a in alphas)}: mode {chosen} takes no strength; leave "
            "--alpha out, or use --mode add"
        )
    if kl_budget is not None and (len(alphas) < 2 or not kl_budget > 0):
        raise InputError(
            f"--kl-budget {kl_budget:g} needs several strengths and to be above 0; give --alpha "
            "0.5,1,2,4 for example"
        )
    if len(alphas) > 1 and not own.vocabulary_labels:
        raise InputError(
            "several strengths need the KL to recommend one, and the setting has vocabulary_labels = "
            "false; set it to true"
        )
    alpha = alphas[0] if len(alphas) == 1 else None
    changes = steering_changes(setting, chosen, alpha, target_kl)
    return setting.replace("steering", **changes).steering
