"""What a run directory holds, gathered for the page."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from ...core.errors import InputError
from ...core.runs import RunDirectory
from ...core.settings import Setting
from ...predictor.ranking import ALLOWLIST_FORMAT
from ...predictor.targets import TARGETS, primary_labels
from ...steering_eval.choice import eligible_features
from ..catalogue import bundled
from ..files import (
    ALLOWLIST,
    DOSES,
    FEATURES,
    FRESH_LABELS,
    LABELS,
    RANDOM_DIRECTIONS,
    RANKING,
    SCREENING,
    SCREENING_FORMAT,
)
from ..source import allowlist_source
from .columns import feature_columns
from .descriptions import read_descriptions
from .doses import dose_section
from .neuronpedia import address_of
from .provenance import Facts, provenance
from .records import Section
from .sections import (
    fresh_section,
    other_controls,
    random_section,
    reliability_section,
    skill_section,
)
from .verdict import verdict

PRIMARY_CONTEXTS = "mixed"
T = TypeVar("T")


@dataclass(frozen=True)
class Missing:
    """What a run does not hold yet, and the command that makes it."""

    what: str
    command: str


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


class Run:
    """The pieces of a run directory that a report reads, each read once, where it is there."""

    def __init__(self, path: Path) -> None:
        self.directory = RunDirectory.existing(path)
        self.setting: Setting = self.directory.setting()
        self.screening = self._screening()
        self.features = self._table(FEATURES, ("feature", "final_act_freq"))
        needed = ("feature", "eligible", "final_act_freq", "predicted_clean_score")
        self.ranking = self._table(RANKING, needed)
        self.labels = self._table(LABELS, ("feature", "mode", "alpha", "context_type"))

    @property
    def manifest(self) -> dict[str, Any]:
        return self.directory.manifest

    def _table(self, name: str, columns: tuple[str, ...] = ()) -> pd.DataFrame | None:
        return self.directory.table(name, columns) if self.directory.has(name) else None

    def _screening(self) -> dict[str, Any] | None:
        if not self.directory.has(SCREENING):
            return None
        found, path = self.directory.json(SCREENING), self.directory.path / SCREENING
        if found.get("format") != SCREENING_FORMAT:
            raise InputError(
                f"{path} has format {found.get('format')!r}, expected {SCREENING_FORMAT!r}; screen "
                "anew, or report with the version that wrote it"
            )
        if found.get("setting_fingerprint") != self.manifest["setting_fingerprint"]:
            raise InputError(
                f"{path} is of another setting (fingerprint {found.get('setting_fingerprint')!r}, this "
                f"run's is {self.manifest['setting_fingerprint']!r}); delete it and screen anew"
            )
        return found

    def from_screening(self, what: Callable[[dict[str, Any]], T]) -> T:
        """What ``what`` makes of screening.json.

        Raises:
            InputError: an entry is missing there, or is of another kind.

        """
        assert self.screening is not None
        try:
            return what(self.screening)
        except (LookupError, TypeError, AttributeError, StopIteration) as error:
            raise InputError(
                f"{self.directory.path / SCREENING} lacks an entry that every screening has "
                f"({type(error).__name__}: {error}); screen anew"
            ) from None

    def measured(self) -> pd.DataFrame | None:
        """The labels in the setting's own mode and strength, indexed by feature."""
        if self.labels is None:
            return None
        steering = self.setting.steering
        same = self.labels["mode"] == steering.mode
        rows = self.labels[same & (self.labels["alpha"] == steering.alpha)]
        return None if rows.empty else primary_labels(rows)

    def table(self, name: str) -> pd.DataFrame | None:
        """A table indexed by feature."""
        found = self._table(name, ("feature",))
        return None if found is None else found.set_index("feature")

    def doses(self) -> Section | None:
        """The dose-response, where several strengths were tried."""
        if self.labels is None:
            return None
        recommended = self._table(DOSES, ("recommended_alpha", "kl_budget"))
        return dose_section(self.labels, recommended, PRIMARY_CONTEXTS, self.setting.seed)

    def allowed(self) -> list[int]:
        """The features of the run's allowlist."""
        if not self.directory.has(ALLOWLIST):
            return []
        listed = self.directory.json(ALLOWLIST).get("features", [])
        return [f for f in listed if isinstance(f, int)] if isinstance(listed, list) else []

    def missing(self) -> list[Missing]:
        """What there is not, with the command that goes on with the run."""
        name = self.setting.name if self.setting.name in bundled() else f"{self.setting.name}.toml"
        where = f"--run {shlex.quote(str(self.directory.path))}"
        screen = f"cleansteer screen {shlex.quote(name)} {where}"
        if self.features is None:
            text = "This run holds no statistics yet: there is nothing to show of its features."
        elif self.labels is None and self.ranking is not None:
            text = (
                "No feature of this run was steered: the ranking comes from a predictor that was fitted "
                "on other settings, there is nothing measured to check it with, and no verdict."
            )
        elif self.labels is None:
            text = (
                "No feature of this run was steered yet: there are statistics, but no labels, no "
                "ranking and no verdict."
            )
        elif self.screening is None:
            text = (
                "This run is not screened to its end: there are labels, but no fresh check, no verdict "
                "and no allowlist."
            )
        else:
            return []
        return [Missing(text, screen)]


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
        fresh, measured = run.table(FRESH_LABELS), run.measured()
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
    table = run.ranking if run.ranking is not None else _unranked(run.features, run.measured())
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
    measured = run.measured()
    return {
        "features": 0 if table is None else len(table),
        "eligible": 0 if table is None else len(eligible_features(table)),
        "labelled": 0 if measured is None else len(measured),
    }
