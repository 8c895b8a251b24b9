"""The width comparison: dictionaries of one model that differ in their number of features."""

from collections.abc import Iterator, Sequence
from itertools import permutations

from ...core.records import Interval, PerSae
from ..concluded import FEATURES
from .rows import ComparedRun, Row, frame, interval
from .steering import fresh_comparison
from .table import ORIGIN, OURS, ComparisonTable


def width_pairs(runs: Sequence[ComparedRun]) -> list[tuple[ComparedRun, ComparedRun]]:
    """Pairs of a narrower and a wider dictionary that read the same places of the same model and are
    of the same kind, in the order of the narrower's and the wider's place.
    """
    return [
        (narrow, wide)
        for narrow, wide in permutations(runs, 2)
        if narrow.screening.n_features < wide.screening.n_features
        and _places(narrow) == _places(wide)
        and (None in (kinds := (_kind(narrow), _kind(wide))) or kinds[0] == kinds[1])
    ]


def _places(run: ComparedRun) -> tuple[str | None, PerSae[str] | None, PerSae[bool] | None]:
    """Model and places that the dictionaries of a run read."""
    manifest = run.screened.run.manifest
    prints = manifest.fingerprints
    return None if prints is None else prints.model, manifest.hooks, manifest.centred


def _kind(run: ComparedRun) -> PerSae[str] | None:
    """Kinds of the dictionaries; None for a run that was made before they were recorded."""
    return run.screened.run.manifest.architectures


def widths(runs: Sequence[ComparedRun]) -> ComparisonTable:
    """Every pair's figures side by side."""
    rows: list[Row] = []
    for narrow, wide in width_pairs(runs):
        of_wide = dict(_figures(wide))
        for figure, value in _figures(narrow):
            other = of_wide.get(figure)
            if other is None:
                continue
            rows.append(
                {
                    "narrow": narrow.name,
                    "wide": wide.name,
                    ORIGIN: OURS,
                    "figure": figure,
                    **interval("in_narrow", value),
                    **interval("in_wide", other),
                    "wide_minus_narrow": other.value - value.value,
                }
            )
    return ComparisonTable(
        "widths",
        "Width comparison",
        "Dictionaries of the same model, places and kind. skill: out-of-fold Spearman of our "
        "predictor; residualised: ridge on full_no_magnitude, controls of the replication; "
        "reliability: Spearman between halves of the contexts; fresh: predicted-clean minus "
        "predicted-messy on fresh contexts; 95 % bootstrap intervals. The paper compares Llama 3.1 8B's "
        "dictionaries of 32,768 and 131,072 features; its figures are not at hand, so no row is "
        "published here.",
        frame(
            rows,
            ["narrow", "wide", ORIGIN, "figure", "in_narrow", "in_wide", "wide_minus_narrow"],
        ),
    )


def _figures(run: ComparedRun) -> Iterator[tuple[str, Interval]]:
    """The figures that are compared, by name."""
    screening, estimates, scheme = run.screening, run.estimates, run.scheme
    for target in scheme.targets:
        yield f"skill {target}", screening.skill[target].ours
    for target in dict.fromkeys((scheme.spread, scheme.collateral)):
        by_set = estimates.residualised["replication"]
        yield f"residualised {target}", by_set["full_no_magnitude"][target]
    for target in scheme.axes.values():
        yield f"reliability {target}", run.screened.controls.reliability[target]
    for target in scheme.axes.values():
        yield f"fresh {target}", fresh_comparison(run, target).difference
    crowding = estimates.crowding[FEATURES]
    if crowding is not None:
        yield "crowding and count", crowding
