"""The notebook runs as a person runs it, and what is committed of it came from such a run."""

import os
from pathlib import Path

import nbformat
import pages
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

TESTS = Path(pages.__file__).parent
QUICKSTART = pages.ROOT / "examples" / "quickstart.ipynb"
SECONDS = 900
"""For one cell: generous, since a busy machine is several times slower."""

CHEAP = """
import pytest, quick, walk
quick.cheapen(pytest.MonkeyPatch())
walk.cut_settings()
"""


@pytest.fixture(scope="module")
def committed() -> NotebookNode:
    return nbformat.read(QUICKSTART, as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[NotebookNode, Path]:
    """What comes of it in an IPython that starts with a cheap predictor and cut settings."""
    folder = tmp_path_factory.mktemp("quickstart")
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "cheap.py").write_text(CHEAP, "utf-8")
    changed = {"IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": str(TESTS)}
    notebook = nbformat.read(QUICKSTART, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=SECONDS, resources=place)
    client.execute(env={**os.environ, **changed})
    return notebook, folder


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def kinds(cell: NotebookNode) -> set[str]:
    return {kind for output in cell.outputs for kind in output.get("data", {})}


def test_it_runs_from_top_to_bottom(executed: tuple[NotebookNode, Path]) -> None:
    _, folder = executed
    assert (folder / "runs" / "quickstart" / "allowlist.json").is_file()


def test_only_the_public_face_is_imported(committed: NotebookNode) -> None:
    lines = [line for cell in code(committed) for line in cell.source.splitlines()]
    ours = [line for line in lines if "import" in line and "cleansteer" in line]
    assert ours == ["import cleansteer as cs"]


def test_committed_outputs_are_of_one_whole_run(
    committed: NotebookNode, executed: tuple[NotebookNode, Path]
) -> None:
    assert [c.execution_count for c in code(committed)] == list(range(1, len(code(committed)) + 1))
    for old, new in zip(code(committed), code(executed[0]), strict=True):
        assert kinds(old) == kinds(new), old.source


def test_committed_outputs_tell_nothing_of_a_machine(committed: NotebookNode) -> None:
    for cell in code(committed):
        told = printed(cell) + str(cell.outputs)
        assert "/home/" not in told
        assert "/tmp/" not in told
        assert str(Path.home()) + "/" not in told
