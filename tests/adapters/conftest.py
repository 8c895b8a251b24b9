from pathlib import Path
from typing import Any

import pytest
from cleansteer.adapters import layer
from torch import Tensor


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for SAEs, which every test may use and none may change."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """What stood at each edited place before and after, in the order of edits."""
    seen: list[tuple[Tensor, Tensor]] = []
    edited = layer.edited

    def watching(values: Tensor, part: Any, component: Any) -> Tensor:
        result = edited(values, part, component)
        seen.append((values.detach().clone(), result.detach().clone()))
        return result

    monkeypatch.setattr(layer, "edited", watching)
    return seen
