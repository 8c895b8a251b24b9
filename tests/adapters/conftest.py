from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for SAEs, which every test may use and none may change."""
    return tmp_path_factory.mktemp("shelf")
