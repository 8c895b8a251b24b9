"""Typed records of a validation: what ``validation.json`` and ``validate --out`` hold."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from .figures import Interval
from .record import Record, SparseRecord, Versioned
from .skill import Skill
from .verdict import Verdict


class Floor(Record):
    """Out-of-fold Spearman of our model where labels were given to other features."""

    shuffles: int
    """How often labels were shuffled."""
    scores: list[float]
    """Of every shuffle."""
    quantile_95: float | None
    """Their 95 % quantile; None without shuffles."""


class Ceiling(SparseRecord):
    """Reliability r of a label, and the ceiling sqrt(r) that it sets for any prediction."""

    value: float | None = None
    """Spearman between two halves of the contexts, with its 95 % interval, where both were
    measured."""
    low: float | None = None
    high: float | None = None
    published: float | None = None
    """The same as published, where the halves were not measured."""
    whole: float
    """Reliability of all contexts, 2 r / (1 + r) (Spearman-Brown)."""
    ceiling: float
    """sqrt(whole): as far as ranks behave like values, no prediction correlates with the label more
    (Spearman 1904, attenuation)."""


class Covered(Record):
    """How many labels lie within their intervals."""

    covered: int
    n: int


class Coverage(Record):
    """How many labels of unseen features lie within their intervals, and how wide these are."""

    covered: int
    n: int
    mean_width: float


class SetSkill(Record):
    """Out-of-fold Spearman on one predictor set, one repeat."""

    ridge: float
    ours: float


class Residualised(Record):
    """The ridge's skill at labels residualised on a control set."""

    controls: list[str]
    """The set's columns that the table has and that are not constant."""
    sets: Mapping[str, Mapping[str, Interval]]
    """By predictor set and label."""


class PartialCorrelation(Record):
    """Partial rank correlation of a statistic with a label, given controls."""

    statistic: str
    rho: float
    low: float
    """Ends of the 95 % bootstrap interval."""
    high: float
    p: float
    """Two-sided."""
    p_holm: float
    """Corrected by Holm over the statistics of the label."""
    p_bh: float
    """Corrected by Benjamini and Hochberg over the statistics of the label."""


class Examination(Versioned):
    """``validation.json``: how well one table's labels are predicted, and how far to trust it."""

    FORMAT: ClassVar[str] = "cleansteer-validation/1"
    REMEDY: ClassVar[str] = "validate anew (cleansteer validate)"

    format: Literal["cleansteer-validation/1"] = "cleansteer-validation/1"
    name: str
    """The run's or table's name."""
    n_features: int
    """Labelled features."""
    n_statistics: int
    notes: list[str]
    """Columns renamed, constant or left out."""
    seed: int
    repeats: int
    """Divisions into five folds that the skill is averaged over."""
    skill: Mapping[str, Skill]
    """By label, as all that follows unless said otherwise."""
    floor: Floor
    reliability: Mapping[str, Ceiling]
    coverage: Mapping[str, Mapping[str, Coverage]]
    """By level (``80%``) and label."""
    sets: Mapping[str, Mapping[str, SetSkill]]
    """By predictor set and label."""
    residualised: Mapping[str, Residualised]
    """By control set."""
    partial_rank_correlations: Mapping[str, list[PartialCorrelation]]
    trust: Verdict
    """By these labels alone, without a fresh check."""


class Cell(Record):
    """A figure of one label of one table."""

    table: str
    target: str
    value: float


class Overall(Record):
    """All tables together."""

    n_cells: int
    """Tables times labels."""
    means: Mapping[str, float]
    """Mean skill by method."""
    least_lead_over_ridge: Cell
    coverage: Mapping[str, Covered]
    """By level."""


class TransferCell(Record):
    """Spearman with one label of one table, of a fit to the other tables and within the table."""

    table: str
    target: str
    transferred: Interval
    within: Interval


class Transfer(Record):
    """How well tables are ranked by a fit to the others."""

    statistics: list[str]
    """Those that all tables have."""
    folds_within: int
    cells: list[TransferCell]


class CurvePoint(Record):
    """Mean out-of-fold Spearman of a method fitted to n labels, with its 95 % interval."""

    method: str
    n: int
    value: float
    low: float
    high: float
    table: str


class CurveLead(Record):
    """Our model with all labels minus the ridge with few."""

    ours: int
    """Number of labels that ours was fitted to."""
    ridge: int
    """Number of labels that the ridge was fitted to."""
    value: float
    low: float
    high: float


class TableCurve(Record):
    """The learning curve of one table."""

    points: list[CurvePoint]
    lead: CurveLead


class Curves(Record):
    """The learning curves of all tables."""

    target: str
    points: list[CurvePoint]
    ours_with_all_minus_ridge_with_few: Mapping[str, CurveLead]
    """By table."""


class Validation(SparseRecord):
    """What ``cleansteer validate`` found: an examination for every table, and all of them together."""

    tables: list[Examination]
    overall: Overall
    transfer: Transfer | None = None
    """None for a single table."""
    learning_curve: Curves | None = None
    """None where it was not asked for."""

    @property
    def trusted(self) -> bool:
        """True where no table's verdict is ``not trusted``."""
        return all(table.trust.overall != "not trusted" for table in self.tables)
