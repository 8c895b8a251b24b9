"""The width comparison: dictionaries of one model that differ in their number of features."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

from ...predictor.targets import AXES, TARGETS
from ...predictor.validation import OURS as OUR_MODEL
from .figures import Compared, Row, frame, interval
from .screened import COUNT
from .steering import fresh_difference
from .table import OURS, Table

_RESIDUALISED = (COUNT, AXES["collateral"])


def width_pairs(runs: Sequence[Compared]) -> list[tuple[Compared, Compared]]:
    """Pairs of a narrower and a wider dictionary that read the same places of the same model and are
    of the same kind, in the order of the narrower's and the wider's place.
    """
    return [
        (narrow, wide)
        for narrow, wide in permutations(runs, 2)
        if narrow.screening["n_features"] < wide.screening["n_features"]
        and _places(narrow) == _places(wide)
        and (None in (kinds := (_kind(narrow), _kind(wide))) or kinds[0] == kinds[1])
    ]


def _places(run: Compared) -> tuple[Any, ...]:
    """Model and places that the dictionaries of a run read."""
    manifest = run.screened.run.manifest
    return manifest["fingerprints"]["model"], manifest["hooks"], manifest["centred"]


def _kind(run: Compared) -> Any:
    """Kinds of the dictionaries; None for a run that was made before they were recorded."""
    return run.screened.run.manifest.get("architectures")


def widths(runs: Sequence[Compared]) -> Table:
    """Every pair's figures side by side."""
    rows: list[Row] = []
    for narrow, wide in width_pairs(runs):
        there = dict(_figures(wide))
        for figure, value in _figures(narrow):
            rows.append(
                {"narrow": narrow.screened.name, "wide": wide.screened.name, "origin": OURS}
                | {"figure": figure}
                | interval("in_narrow", value)
                | interval("in_wide", there[figure])
                | {"wide_minus_narrow": there[figure]["value"] - value["value"]}
            )
    return Table(
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
            ["narrow", "wide", "origin", "figure", "in_narrow", "in_wide", "wide_minus_narrow"],
        ),
    )


def _figures(run: Compared) -> Iterator[tuple[str, Mapping[str, float]]]:
    screening, estimates = run.screening, run.estimates
    for target in TARGETS:
        yield f"skill {target}", screening["skill"][target]["scores"][OUR_MODEL]
    for target in _RESIDUALISED:
        found = estimates["residualised"]["replication"]["full_no_magnitude"][target]
        yield f"residualised {target}", found
    for target in AXES.values():
        yield f"reliability {target}", screening["controls"]["reliability"][target]
    for target in AXES.values():
        yield f"fresh {target}", fresh_difference(run, target)
    yield "crowding and count", estimates["crowding"]["features"]
