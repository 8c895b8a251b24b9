"""What the screening of a run concluded, with all that a report tells of it."""

from collections.abc import Container, Iterable, Iterator

from ..core.errors import InputError
from ..core.layout import SCREENING
from ..core.records import Screening
from ..core.records.skill import OURS
from ..core.runs import RunDirectory
from ..predictor.evidence.fresh import GROUPS
from ..predictor.model.targets import scheme_for

CLEAN, MESSY = GROUPS[:2]
"""The groups of the fresh check that are compared."""
FEATURES, RANDOM = "features", "random"
"""What the control of random directions compares."""


def read_screening(run: RunDirectory) -> Screening | None:
    """The screening of a run; None where the run is not screened.

    Raises:
        InputError: it is damaged, of another format or of another setting than the run, or lacks an
            entry that every screening has.

    """
    if not run.has(SCREENING):
        return None
    screening = run.screening()
    missing = next(_missing(screening), None)
    if missing is not None:
        raise InputError(
            f"{run.path / SCREENING} lacks the entry {missing!r} that every screening has; screen anew "
            "(--overwrite)"
        )
    return screening


def _missing(screening: Screening) -> Iterator[str]:
    """Entries by name that are not there; those that the record's class requires always are."""
    check = screening.fresh_check
    compared = {c.measure for c in check.comparisons if c.other == MESSY}
    scheme = scheme_for(screening.collateral, screening.mode)
    measures = {*scheme.axes.values(), *check.means.get(CLEAN, ())}
    needed: dict[str, tuple[Container[str], Iterable[str]]] = {
        "trust.axes": (screening.trust.axes, scheme.axes),
        "fresh_check.features": (check.features, GROUPS),
        **{
            f"fresh_check.means.{group}": (check.means.get(group, ()), measures) for group in GROUPS
        },
        "fresh_check.comparisons": (compared, measures),
        **({} if screening.ranked_by == "linear response" else _about_labels(screening)),
        **({} if screening.ranked_by == "labels" else _forecast(screening)),
    }
    for where, (known, names) in needed.items():
        yield from (f"{where}.{name}" for name in names if name not in known)


def _about_labels(screening: Screening) -> dict[str, tuple[Container[str], Iterable[str]]]:
    """What a run with labels has beside: known names and needed ones, by entry."""
    skilled = [target for target, skill in screening.skill.items() if OURS in skill.scores]
    scheme = scheme_for(screening.collateral, screening.mode)
    needed: dict[str, tuple[Container[str], Iterable[str]]] = {"skill": (skilled, scheme.targets)}
    controls = screening.controls
    if controls is None:
        return needed | {"screening": ((), ("controls",))}
    crowding = controls.random_directions.crowding_and_collateral_count
    return needed | {
        "controls.reliability": (controls.reliability, scheme.axes.values()),
        "controls.random_directions.crowding_and_collateral_count": (crowding, (FEATURES, RANDOM)),
    }


def _forecast(screening: Screening) -> dict[str, tuple[Container[str], Iterable[str]]]:
    """The same of a ranking that nothing was fitted for."""
    known = () if screening.forecasts is None else screening.forecasts.spearman
    scheme = scheme_for(screening.collateral, screening.mode)
    return {"forecasts.spearman": (known, scheme.axes.values())}
