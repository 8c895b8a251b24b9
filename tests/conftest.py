import os
from collections.abc import Iterator
from pathlib import Path

# One thread each: as many test processes as cores, and sums in one order in all of them.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"

import checking
import jaxtyping
import pytest
import torch

checking.install()
torch.set_num_threads(1)


ONE_WALK = ("test_commands.py", "test_pages.py", "test_protocol.py")
"""Tests of the documentation that share what is done once for all its pages."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes take whole files, and the files of one walk together."""
    for item in items:
        walk = item.path.parent.name == "docs" and item.path.name in ONE_WALK
        item.add_marker(pytest.mark.xdist_group("docs" if walk else item.path.as_posix()))


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def screened_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world with a screened run in ``run``; not to be changed."""
    import world

    folder = tmp_path_factory.mktemp("screened")
    setting = world.build(folder, "jumprelu")
    with pytest.MonkeyPatch.context() as patch:
        assert world.run(patch, "screen", setting, "--run", folder / "run") == 0
    return folder


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Signatures are not checked, as outside of tests: what is refused is refused by cleansteer."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
