"""The wheel holds every module and every file of data, and nothing else."""

import shutil
import subprocess
import sys
import zipfile

import pytest
import rooms

DATA = (
    "py.typed",
    "constraints.txt",
    "settings/*.toml",
    "report/comparison/*.json",
    "report/assets/*",
    "miniatures/weights/**/*",
)
SCRIPTS = "benchmarks/speed/"
"""Run from a clone, with what they measure; not installed."""
BUILD = "from setuptools.build_meta import build_wheel; build_wheel('dist')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in the wheel, without the package's own folder."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    hidden = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "runs", "build", "site")
    shutil.copytree(rooms.ROOT, source, ignore=hidden)
    built = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (path,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    return {name for name in names if ".dist-info/" not in name}


def expected() -> set[str]:
    modules = {rooms.name_of(path) for path in rooms.modules()}
    data = {rooms.name_of(path) for pattern in DATA for path in rooms.ROOT.glob(pattern)}
    files = {name for name in modules | data if (rooms.ROOT / name).is_file()}
    return {f"cleansteer/{name}" for name in files if not name.startswith(SCRIPTS)}


def test_there_is_data_of_every_kind() -> None:
    assert all(any(rooms.ROOT.glob(pattern)) for pattern in DATA)


def test_nothing_is_missing(wheel: set[str]) -> None:
    assert sorted(expected() - wheel) == []


def test_nothing_is_there_that_nobody_wants(wheel: set[str]) -> None:
    assert sorted(wheel - expected()) == []
