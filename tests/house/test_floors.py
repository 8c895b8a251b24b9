"""Which room may import which, and what may be imported when a module is loaded."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import rooms

FLOORS = {
    "core": 1,
    "naming": 2,
    "steering_eval": 2,
    "features": 3,
    "predictor": 3,
    "adapters": 3,
    "report": 4,
    "study": 4,
    "auditing": 5,
    "benchmarks": 5,
    "cli": 6,
}
"""A room imports rooms of lower floors, and itself."""
ASIDE = "miniatures"
"""It stands beside the floors: it imports core alone, and serves these rooms alone."""
SERVED_BY_ASIDE = {"benchmarks", "cli"}
BENCHMARKS_DOOR = "cli/benchmark.py"
"""The only module outside benchmarks that imports them."""
UPWARD = {
    ("study/study.py", "report"),  # Study.report
    ("study/actions.py", "report"),  # compare and write_report
}
"""(module, room): imports that go up or across, allowed inside functions."""
OF_THE_PACKAGE = {"__version__"}
"""What rooms may take from the package itself, which stands above them all."""

EVERYWHERE_LAZY: set[str] = set()
LOADED_BY = {
    "torch": {
        "core",
        "auditing",
        "features",
        "steering_eval",
        "adapters",
        "study",
        "benchmarks",
        "miniatures",
    },
    "transformers": {
        "core",
        "adapters",
        "miniatures",
        "benchmarks/adapters",
        "benchmarks/shapes.py",
        "benchmarks/speed",
    },
    "peft": {"adapters", "auditing", "benchmarks/adapters", "benchmarks/speed"},
    "trl": {"adapters/trainers.py", "adapters/arguments.py"},
    "datasets": {"adapters/trainers.py"},
    "sae_lens": {"miniatures", "benchmarks/shapes.py", "benchmarks/speed"},
    "transformer_lens": EVERYWHERE_LAZY,
    "sklearn": {"predictor"},
    "lightgbm": {"predictor"},
    "mapie": EVERYWHERE_LAZY,
    "statsmodels": EVERYWHERE_LAZY,
    "numba": {"steering_eval/compiled.py"},
    "plotly": EVERYWHERE_LAZY,
    "matplotlib": {"predictor/plots.py"},
    "pyarrow": EVERYWHERE_LAZY,
    "huggingface_hub": EVERYWHERE_LAZY,
    "gguf": EVERYWHERE_LAZY,
    "httpx": EVERYWHERE_LAZY,
    "optuna": EVERYWHERE_LAZY,
}
"""Where a heavy library is imported as a module is loaded; anywhere else, inside a function."""


@dataclass(frozen=True)
class Import:
    """One name that a module imports."""

    module: str
    line: int
    target: str
    """``core.tables``, ``numpy``; of our own, without the package's name."""
    ours: bool
    deferred: bool
    """Whether it stands inside a function, or is for the type checker alone."""

    @property
    def room(self) -> str:
        return self.module.partition("/")[0]

    @property
    def target_room(self) -> str:
        return self.target.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def imports_of(module: str, source: str) -> Iterator[Import]:
    parts = module.removesuffix(".py").split("/")
    yield from _imports(ast.parse(source), module, parts[:-1], deferred=False)


def _imports(node: ast.AST, module: str, package: list[str], *, deferred: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield _one(module, child.lineno, alias.name, deferred)
        elif isinstance(child, ast.ImportFrom):
            yield from _from(child, module, package, deferred)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _imports(child, module, package, deferred=deferred or function or typing)


def _from(
    node: ast.ImportFrom, module: str, package: list[str], deferred: bool
) -> Iterator[Import]:
    if node.level:
        base = package[: len(package) - (node.level - 1)]
        assert node.level <= len(package) + 1, f"{module}:{node.lineno} leaves the package"
        start = ".".join(["cleansteer", *base, *([node.module] if node.module else [])])
    else:
        start = node.module or ""
    if start == "cleansteer":
        for alias in node.names:
            yield _one(module, node.lineno, f"cleansteer.{alias.name}", deferred)
    else:
        yield _one(module, node.lineno, start, deferred)


def _one(module: str, line: int, name: str, deferred: bool) -> Import:
    root, _, rest = name.partition(".")
    ours = root == "cleansteer"
    return Import(module, line, rest if ours else name, ours, deferred)


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return [
        found
        for path in rooms.modules()
        for found in imports_of(rooms.name_of(path), path.read_text("utf-8"))
    ]


def goes_up(found: Import) -> bool:
    """Whether an import of ours leaves the floors below its room."""
    here, there = found.room, found.target_room
    if "/" not in found.module:
        # The package itself loads its rooms when they are asked for.
        return not found.deferred and there in {*FLOORS, ASIDE}
    if there == here or found.target in OF_THE_PACKAGE:
        return False
    if ASIDE in (here, there):
        return there != "core" and not (there == ASIDE and here in SERVED_BY_ASIDE)
    return there not in FLOORS or FLOORS[there] >= FLOORS[here]


def test_every_room_has_a_floor() -> None:
    assert rooms.rooms() == {*FLOORS, ASIDE}


def test_imports_go_down(imports: list[Import]) -> None:
    wrong = [
        str(found)
        for found in imports
        if found.ours
        and goes_up(found)
        and not (found.deferred and (found.module, found.target_room) in UPWARD)
    ]
    assert not wrong, "\n".join(wrong)


def test_upward_imports_are_there(imports: list[Import]) -> None:
    used = {(found.module, found.target_room) for found in imports if found.ours and found.deferred}
    assert used >= UPWARD


def test_one_door_to_the_benchmarks(imports: list[Import]) -> None:
    wrong = [
        str(found)
        for found in imports
        if found.ours
        and found.target_room == "benchmarks"
        and found.room != "benchmarks"
        and found.module != BENCHMARKS_DOOR
    ]
    assert not wrong, "\n".join(wrong)


def test_heavy_libraries_are_loaded_where_they_are_used(imports: list[Import]) -> None:
    wrong = []
    for found in imports:
        allowed = LOADED_BY.get(found.target_room)
        if found.ours or found.deferred or allowed is None:
            continue
        if not any(
            found.module == place or found.module.startswith(f"{place}/") for place in allowed
        ):
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "line", "targets"),
    [
        ("core/a.py", "from .tables import x", {"core.tables"}),
        ("core/deep/a.py", "from ..tables import x", {"core.tables"}),
        ("core/deep/a.py", "from ... import study", {"study"}),
        ("study/a.py", "from ..report.page import x", {"report.page"}),
        ("study/a.py", "from .. import report, cli", {"report", "cli"}),
        ("cli/a.py", "import cleansteer.core.tables", {"core.tables"}),
        ("__init__.py", "from . import adapters", {"adapters"}),
        ("cli/__init__.py", "from .app import x", {"cli.app"}),
    ],
)
def test_the_checker_resolves(module: str, line: str, targets: set[str]) -> None:
    assert {found.target for found in imports_of(module, line)} == targets
    assert all(found.ours and not found.deferred for found in imports_of(module, line))
    inside = f"def f():\n    if True:\n        {line}"
    assert all(found.deferred for found in imports_of(module, inside))


@pytest.mark.parametrize(
    ("module", "line", "up"),
    [
        ("predictor/a.py", "from ..core.tables import x", False),
        ("core/a.py", "from ..predictor.model.sets import x", True),
        ("steering_eval/a.py", "from ..features.sweep import x", True),
        ("cli/a.py", "from ..miniatures.text import x", False),
        ("report/a.py", "from ..miniatures.text import x", True),
        ("miniatures/a.py", "from ..study.study import x", True),
        ("core/a.py", "from .. import __version__", False),
        ("core/a.py", "from .. import screen", True),
        ("__init__.py", "from . import study", True),
        ("__init__.py", "from . import moved", False),
    ],
)
def test_the_checker_knows_the_floors(module: str, line: str, up: bool) -> None:
    (found,) = imports_of(module, line)
    assert goes_up(found) is up
