"""Which features may be edited."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, JsonValue, field_validator

from ..choices import RankedBy
from ..errors import InputError
from ..settings import Setting
from ..words import counted
from .manifest import Manifest
from .record import SparseRecord, Versioned
from .verdict import Verdict

FORMAT = "cleansteer-allowlist/1"


class ModelSource(SparseRecord):
    """The model that an allowlist was made for."""

    name: str
    fingerprint: str
    contents: str | None = None
    """Fingerprint of its values rounded to bfloat16: the same in every number format."""


class SaeSource(SparseRecord):
    """The SAE that an allowlist was made for: release and id, a directory, or one given in memory."""

    release: str | None = None
    id: str | None = None
    path: str | None = None
    in_memory: str | None = None
    fingerprint: str

    @property
    def label(self) -> str:
        """Where the SAE comes from, for people."""
        if self.in_memory is not None:
            return "given in memory"
        return self.path if self.path is not None else f"{self.release}/{self.id}"


class Criterion(SparseRecord):
    """How the features of an allowlist were chosen."""

    rule: str
    """``top``, ``min_score``, ``floors``, or ``chosen by hand in the report``."""
    k: int | None = None
    min_score: float | None = None
    score: str | None = None
    """Column of the ranking that ``top`` and ``min_score`` go by; for ``both`` two, of which the worse
    percentile counts."""
    min_stability: float | None = None
    """Least lower end of a feature's 90 % interval of stability_abs."""
    max_collateral_per_effect: float | None = None
    """Greatest upper end of a feature's 90 % interval of collateral_per_effect."""
    how: JsonValue = None
    """What was chosen by hand, in the report's own words."""


class Allowlist(Versioned):
    """``allowlist.json``: features of one SAE that may be edited, and how far to trust the choice."""

    FORMAT: ClassVar[str] = FORMAT
    REMEDY: ClassVar[str] = "make the allowlist anew (cleansteer allowlist)"

    format: Literal["cleansteer-allowlist/1"] = "cleansteer-allowlist/1"
    setting: str
    """Name of the setting that was screened."""
    model: ModelSource
    hook: str
    sae: SaeSource
    features: list[int] = Field(min_length=1)
    """Indices, in rising order."""
    criterion: Criterion
    ranked_by: RankedBy = "labels"
    """What the ranking goes by that the features were chosen from."""
    trust: Verdict
    created: str
    """When, in UTC, ISO 8601."""

    @field_validator("features", mode="before")
    @classmethod
    def _are_indices(cls, features: object) -> object:
        if not isinstance(features, list | tuple):
            return features
        for feature in features:
            if isinstance(feature, bool) or not isinstance(feature, int) or feature < 0:
                raise ValueError(
                    f"{feature!r} is no index of a feature, expected whole numbers from 0"
                )
        if len(set(features)) < len(features):
            twice = next(f for f in features if features.count(f) > 1)
            raise ValueError(f"feature {twice} is repeated, expected every feature once")
        return features

    @classmethod
    def for_run(
        cls,
        setting: Setting,
        manifest: Manifest,
        *,
        features: Sequence[int],
        criterion: Criterion,
        trust: Verdict,
        ranked_by: RankedBy = "labels",
    ) -> Self:
        """An allowlist of features of a run's SAE, made now.

        Args:
            setting: the run's.
            manifest: the run's, once its model and SAEs have been loaded.
            features: indices, in rising order.
            criterion: how they were chosen.
            trust: the run's verdict.
            ranked_by: what the run's ranking goes by.

        Raises:
            InputError: the manifest does not say which model and SAE it was.

        """
        prints, hooks = manifest.fingerprints, manifest.hooks
        if prints is None or hooks is None:
            raise InputError(
                f"the manifest of the run of {setting.name!r} lacks the fingerprints or hooks of its "
                "model and SAE, expected those of a screened run; screen anew (--overwrite)"
            )
        return cls(
            setting=setting.name,
            model=ModelSource(
                name=setting.model.name,
                fingerprint=prints.model,
                contents=prints.model_contents,
            ),
            hook=hooks.sae,
            sae=SaeSource(
                release=setting.sae.release,
                id=setting.sae.id,
                path=setting.sae.path,
                in_memory=setting.sae.in_memory,
                fingerprint=prints.sae,
            ),
            features=list(features),
            criterion=criterion,
            ranked_by=ranked_by,
            trust=trust,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @classmethod
    def load(cls, path: "str | Path") -> Self:
        """Read an allowlist.

        Raises:
            InputError: no such file, or no allowlist.

        """
        return cls.read(Path(path))

    def save(self, path: "str | Path") -> Path:
        """Write the allowlist as JSON, atomically; returns where."""
        target = Path(path)
        if target.is_dir():
            raise InputError(f"{target} is a directory, expected a file's name; change it")
        self.write(target)
        return target

    def __len__(self) -> int:
        return len(self.features)

    def __str__(self) -> str:
        return (
            f"Allowlist of {counted(len(self.features), 'feature')} of {self.sae.label} at {self.hook} "
            f"({self.trust.overall}{told_ranking(self.ranked_by)})"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from ..notebook import allowlist_html

        return allowlist_html(self)


def told_ranking(ranked_by: RankedBy) -> str:
    """What a ranking goes by, after a comma; nothing where that is a predictor fitted on labels."""
    words = {
        "labels": "",
        "linear response": ", ranked by linear response without labels",
        "measurement": ", every feature measured",
    }
    return words[ranked_by]
