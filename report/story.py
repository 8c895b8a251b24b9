"""What a report tells of one run, gathered for the page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.errors import InputError
from ..predictor.ranking import ALLOWLIST_FORMAT
from ..predictor.targets import TARGETS
from ..steering_eval.choice import eligible_features
from ..core.layout import FRESH_LABELS, RANDOM_DIRECTIONS
from ..study.source import allowlist_source
from .columns import feature_columns
from .descriptions import read_descriptions
from .neuronpedia import address_of
from .provenance import Facts, provenance
from .records import Section
from .run import Missing, Run
from .sections import (
    fresh_section,
    other_controls,
    random_section,
    reliability_section,
    skill_section,
)
from .verdict import verdict


@dataclass(frozen=True)
class Story:
    """All that is shown of one run."""

    name: str
    subject: dict[str, str | None]
    """What is steered: ``model``, ``sae`` and ``hook``, the last once the SAE has been loaded."""
    provenance: list[Facts]
    missing: list[Missing]
    warnings: list[str]
    verdict: dict[str, Any] | None
    counts: dict[str, int]
    sections: list[Section]
    controls: list[str]
    features: dict[str, Any] | None
    neuronpedia: str | None
    allowlist: dict[str, Any] | None
    """An allowlist that lacks its features, for those that are chosen on the page; None where the
    run has no verdict that it could carry."""


def gather(run: Run, labels: Path | None = None) -> Story:
    """The story of a run.

    Args:
        run: its pieces.
        labels: a file of descriptions of its features.

    Raises:
        InputError: a piece is damaged, or the descriptions are of another SAE.

    """
    manifest = run.manifest
    try:
        facts = provenance(run.setting, manifest, run.screening)
        source = allowlist_source(run.setting, manifest) if run.screening is not None else None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the manifest of run {run.directory.path} lacks an entry or has one of another kind "
            f"({type(error).__name__}: {error}); screen anew"
        ) from None
    return Story(
        name=run.setting.name,
        subject={
            "model": run.setting.model.name,
            "sae": run.setting.sae.label,
            "hook": manifest.get("hooks", {}).get("sae"),
        },
        provenance=facts,
        missing=run.missing(),
        warnings=[str(warning) for warning in manifest.get("warnings", [])],
        verdict=None if run.screening is None else run.from_screening(verdict),
        counts=_counts(run),
        sections=_sections(run),
        controls=[] if run.screening is None else run.from_screening(other_controls),
        features=_features(run, labels),
        neuronpedia=address_of(run.setting.sae),
        allowlist=None
        if source is None
        else {"format": ALLOWLIST_FORMAT}
        | source
        | {"trust": run.from_screening(lambda screening: dict(screening["trust"]))},
    )


def _sections(run: Run) -> list[Section]:
    seed = run.setting.seed
    found = []
    if run.screening is not None:
        fresh, measured = run.table(FRESH_LABELS), run.measured
        random = run.table(RANDOM_DIRECTIONS)
        found = [
            run.from_screening(skill_section),
            run.from_screening(lambda s: fresh_section(s, fresh, seed)),
            run.from_screening(reliability_section),
            run.from_screening(lambda s: random_section(s, measured, random, seed)),
        ]
    doses = run.doses()
    return found if doses is None else [*found, doses]


def _features(run: Run, labels: Path | None) -> dict[str, Any] | None:
    if run.features is None:
        if labels is not None:
            raise InputError(
                f"--labels {labels}: run {run.directory.path} has no features to describe yet; screen it "
                "first, or leave --labels out"
            )
        return None
    described = None if labels is None else read_descriptions(labels, len(run.features))
    table = run.ranking if run.ranking is not None else _unranked(run.features, run.measured)
    return feature_columns(table, run.features, run.allowed(), described)


def _unranked(features: pd.DataFrame, measured: pd.DataFrame | None) -> pd.DataFrame:
    """The feature table in a ranking's columns, as far as they are known."""
    known = features.copy(deep=False)
    known["eligible"] = known["feature"].isin(eligible_features(features))
    if measured is not None:
        for target in TARGETS:
            if target in measured:
                known[f"measured_{target}"] = known["feature"].map(measured[target])
    return known


def _counts(run: Run) -> dict[str, int]:
    table = run.features
    measured = run.measured
    return {
        "features": 0 if table is None else len(table),
        "eligible": 0 if table is None else len(eligible_features(table)),
        "labelled": 0 if measured is None else len(measured),
    }
