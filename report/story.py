"""What a report tells of one run, gathered for the page."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..core.choices import RankedBy
from ..core.errors import InputError
from ..core.layout import DOSES, FRESH_LABELS, RANDOM_DIRECTIONS
from ..core.progress import Reporter
from ..core.records import Allowlist, Criterion
from ..core.tables import Json
from ..naming.neuronpedia import address_of
from ..naming.source import dictionary_of, read_descriptions
from ..predictor.model.sets import RESPONSE
from ..steering_eval.choice import eligible_features
from .columns import STATISTICS, FeatureColumns, feature_columns
from .doses import dose_section
from .examples import FeatureExamples, feature_examples
from .forecasts import forecast_section
from .missing import Missing, find_missing
from .provenance import FactGroup, provenance
from .records import ReportSection
from .run import Run
from .sections import (
    describe_controls,
    fresh_section,
    random_section,
    reliability_section,
    skill_section,
)
from .verdict import VerdictCard, verdict_card

PRIMARY_CONTEXTS = "mixed"
_LOOKED_UP = 100
"""Of how many features, the cleanest ones, Neuronpedia's API is asked."""
BY_HAND = "chosen by hand in the report"
"""Criterion of an allowlist that is made on the page."""


@dataclass(frozen=True)
class Subject:
    """What is steered."""

    model: str
    sae: str
    hook: str | None
    """None until the SAE has been loaded."""


@dataclass(frozen=True)
class Counts:
    """How many features there are of each kind."""

    features: int
    eligible: int
    labelled: int
    ranked_by: RankedBy | None
    """What they are ranked by; None where nothing ranks them."""


@dataclass(frozen=True)
class Story:
    """All that is shown of one run."""

    name: str
    """The setting's."""
    title: str
    """What the run is called among others."""
    subject: Subject
    provenance: list[FactGroup]
    missing: list[Missing]
    warnings: list[str]
    verdict: VerdictCard | None
    counts: Counts
    sections: list[ReportSection]
    controls: list[str]
    features: FeatureColumns | None
    examples: FeatureExamples | None
    """Where features fire, in the order of the rows of ``features``."""
    neuronpedia: str | None
    """Address that a feature's index is added to."""
    allowlist: Json | None
    """An allowlist that lacks its features and its date, for those that are chosen on the page; None
    where the run has no verdict that it could carry."""


def gather(
    run: Run,
    descriptions: str | Path | None = None,
    title: str | None = None,
    reporter: Reporter | None = None,
) -> Story:
    """The story of a run.

    Args:
        run: its pieces.
        descriptions: where descriptions of its features are (see
            :func:`naming.source.read_descriptions`).
        title: what to call the run; None: by its setting.
        reporter: told what of the descriptions is of no use; None: warnings of Python's.

    Raises:
        InputError: a piece is damaged, or the descriptions are of another SAE.

    """
    setting, manifest, screening = run.setting, run.directory.manifest, run.screening
    features = _features(run, descriptions, reporter or Reporter(quiet=True))
    return Story(
        name=setting.name,
        title=setting.name if title is None else title,
        subject=Subject(
            model=setting.model.name,
            sae=setting.sae.label,
            hook=None if manifest.hooks is None else manifest.hooks.sae,
        ),
        provenance=provenance(setting, manifest, screening),
        missing=find_missing(run),
        warnings=manifest.warnings,
        verdict=None if screening is None else verdict_card(screening),
        counts=_counts(run),
        sections=_sections(run),
        controls=[] if screening is None else describe_controls(screening),
        features=features,
        examples=None if features is None else feature_examples(run, features.feature),
        neuronpedia=address_of(setting.sae),
        allowlist=_allowlist(run),
    )


def _sections(run: Run) -> list[ReportSection]:
    seed, screening = run.setting.seed, run.screening
    sections = []
    if screening is not None and screening.controls is None:
        sections = [
            forecast_section(screening),
            fresh_section(screening, run.read_indexed(FRESH_LABELS), seed),
        ]
    elif screening is not None:
        judged_by = skill_section if screening.forecasts is None else forecast_section
        sections = [
            judged_by(screening),
            fresh_section(screening, run.read_indexed(FRESH_LABELS), seed),
            reliability_section(screening),
            random_section(screening, run.measured, run.read_indexed(RANDOM_DIRECTIONS), seed),
        ]
    if run.labels is not None:
        recommended = run.read_table(DOSES, "feature", "recommended_alpha", "kl_budget")
        doses = dose_section(run.labels, recommended, PRIMARY_CONTEXTS, seed)
        sections += [] if doses is None else [doses]
    return sections


def _features(
    run: Run, descriptions: str | Path | None, reporter: Reporter
) -> FeatureColumns | None:
    if run.features is None:
        if descriptions is not None:
            raise InputError(
                f"--descriptions {descriptions}: run {run.directory.path} has no features to describe "
                "yet; screen it first, or leave --descriptions out"
            )
        return None
    table = run.ranking if run.ranking is not None else _unranked(run)
    described = None
    if descriptions is not None:
        wanted = [int(feature) for feature in table["feature"].head(_LOOKED_UP)]
        described = read_descriptions(descriptions, dictionary_of(run.directory), wanted, reporter)
    statistics = run.features
    if run.by_response and run.ranking is not None:
        # Its forecasts are the ranking's predictions already.
        statistics = statistics.drop(
            columns=[n for n in STATISTICS if n.startswith(RESPONSE)], errors="ignore"
        )
    return feature_columns(table, statistics, run.scheme, run.allowed(), described)


def _unranked(run: Run) -> pd.DataFrame:
    """The feature table in a ranking's columns, as far as they are known."""
    features, measured = run.features, run.measured
    assert features is not None
    known = features.copy(deep=False)
    known["eligible"] = known["feature"].isin(eligible_features(features))
    if measured is not None:
        for target in run.scheme.targets:
            if target in measured:
                known[f"measured_{target}"] = known["feature"].map(measured[target])
    return known


def _counts(run: Run) -> Counts:
    table, measured = run.features, run.measured
    return Counts(
        features=0 if table is None else len(table),
        eligible=0 if table is None else len(eligible_features(table)),
        labelled=0 if measured is None else len(measured),
        ranked_by=None if run.ranking is None else run.setting.steering.ranked_by,
    )


def _allowlist(run: Run) -> Json | None:
    if run.screening is None:
        return None
    allowlist = Allowlist.for_run(
        run.setting,
        run.directory.manifest,
        features=[0],  # the page puts in those that are chosen
        criterion=Criterion(rule=BY_HAND),
        trust=run.screening.trust,
        ranked_by=run.screening.ranked_by,
    )
    return allowlist.model_dump(mode="json", exclude={"features", "created"})
