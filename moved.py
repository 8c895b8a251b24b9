"""Names that have moved keep working for one release, with a DeprecationWarning."""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

PACKAGE = __name__.rpartition(".")[0]
MOVED = {
    "adapters.options": "core.training",
    "benchmarks.catalogue": "study.catalogue",
    "benchmarks.evaluating": "study.statistics",
    "benchmarks.families.comparison": "report.comparison.tables",
    "benchmarks.families.estimates": "report.comparison.estimates",
    "benchmarks.families.figures": "report.comparison.rows",
    "benchmarks.families.recomputed": "report.comparison.recomputed",
    "benchmarks.families.screened": "report.comparison.screened",
    "benchmarks.families.skill": "report.comparison.skill",
    "benchmarks.families.steering": "report.comparison.steering",
    "benchmarks.families.table": "report.comparison.table",
    "benchmarks.families.widths": "report.comparison.widths",
    "benchmarks.files": "core.layout",
    "benchmarks.loading": "study.inputs",
    "benchmarks.measurements": "study.labelling",
    "benchmarks.miniatures": "miniatures",
    "benchmarks.needs": "study.memory",
    "benchmarks.pilot": "study.pilot",
    "benchmarks.pipeline": "study.pipeline",
    "benchmarks.published": "study.published",
    "benchmarks.report": "report",
    "predictor.baselines": "predictor.model.baselines",
    "predictor.blend": "predictor.model.blend",
    "predictor.checks": "predictor.model.checks",
    "predictor.controls": "predictor.evidence.controls",
    "predictor.examination": "predictor.evidence.examination",
    "predictor.files": "predictor.model.files",
    "predictor.intervals": "predictor.model.intervals",
    "predictor.learning": "predictor.evidence.learning",
    "predictor.models": "predictor.model.models",
    "predictor.partial": "predictor.evidence.partial",
    "predictor.plots": "predictor.evidence.plots",
    "predictor.ranking": "predictor.model.ranking",
    "predictor.reasons": "predictor.model.reasons",
    "predictor.resampling": "predictor.evidence.resampling",
    "predictor.residuals": "predictor.evidence.residuals",
    "predictor.scores": "predictor.evidence.scores",
    "predictor.screening": "predictor.evidence.fresh",
    "predictor.sets": "predictor.model.sets",
    "predictor.tables": "predictor.evidence.tables",
    "predictor.targets": "predictor.model.targets",
    "predictor.transfer": "predictor.evidence.pooling",
    "predictor.transforms": "predictor.model.transforms",
    "predictor.trust": "predictor.verdict.judgement",
    "predictor.uncertainty": "predictor.model.committee",
    "predictor.validation": "predictor.evidence.validation",
}
"""Old module, new module, below the package."""
RENAMED = {
    "predictor.verdict.judgement": {"trust": "judge"},
    "study.catalogue": {"find_setting": "load_setting"},
}
"""New module, and what its functions were called in the old one."""


class MovedFinder(MetaPathFinder):
    """Finds modules under their old names: the new module itself, with a warning."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a moved module; None for any other."""
        new = new_name(name)
        if new is None or importlib.util.find_spec(new) is None:
            return None
        warnings.warn(
            f"{name} has moved to {new}; the old name goes in the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return ModuleSpec(name, MovedLoader(new), is_package=True)


class MovedLoader(Loader):
    """Loads a module under another name: the same object, so that classes stay the same."""

    def __init__(self, new: str) -> None:
        self._new = new
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module under its new name."""
        module = importlib.import_module(self._new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Undo what the import system wrote over; the module has run under its new name."""
        module.__spec__ = self._spec
        inside = self._new.partition(".")[2]
        for old, new in RENAMED.get(inside, {}).items():
            vars(module).setdefault(old, getattr(module, new))

    def get_code(self, name: str) -> CodeType | None:
        """Code of the new module, for ``python -m`` with the old name."""
        spec = importlib.util.find_spec(self._new)
        loader = None if spec is None else spec.loader
        return getattr(loader, "get_code", lambda _: None)(self._new)


def new_name(name: str) -> str | None:
    """The full new name of a module, or of one inside a moved package; None where it has not moved."""
    package, dot, inner = name.partition(".")
    if package != PACKAGE or not dot:
        return None
    parts = inner.split(".")
    for length in range(len(parts), 0, -1):
        new = MOVED.get(".".join(parts[:length]))
        if new is not None:
            return ".".join([PACKAGE, new, *parts[length:]])
    return None


def install() -> None:
    """Let old names be found."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        # First: a moved package's modules would also be found in its folder, as other modules.
        sys.meta_path.insert(0, MovedFinder())
