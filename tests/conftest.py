import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


ONE_WALK = {
    "tests/docs/test_commands.py",
    "tests/docs/test_isaerft.py",
    "tests/docs/test_pages.py",
    "tests/docs/test_protocol.py",
}
"""Tests of the documentation that share what is done once for all its pages."""


LONGEST = (
    "tests/docs/",
    "tests/cli/test_hub.py",
    "tests/cli/test_validate.py",
    "tests/cli/test_screen.py",
    "tests/cli/test_train_resume.py",
    "tests/cli/test_spending.py",
    "tests/study/",
    "tests/report/",
    "tests/benchmarks/",
    "tests/cli/",
    "tests/predictor/",
    "tests/miniatures/",
)
"""What takes long in few files, in this order: begun last, it would leave other processes idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        found = (n for n, start in enumerate(LONGEST) if item.nodeid.startswith(start))
        return next(found, len(LONGEST))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Processes take whole files, and the files of one walk together."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "documentation" if file in ONE_WALK else file

    return Scheduling(config, log)


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
