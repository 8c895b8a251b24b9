import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import teaching
import world

Command = Callable[..., Any]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world, with data to train on."""
    return teaching.build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """What ``cleansteer audit ... --json`` prints."""

    def call(*given: object) -> Any:
        capfd.readouterr()
        assert world.run(monkeypatch, "audit", *given, "--json") == 0
        return json.loads(capfd.readouterr().out)

    return call


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """What it shows in a terminal."""

    def call(*given: object) -> str:
        capfd.readouterr()
        assert world.run(monkeypatch, "audit", *given) == 0
        out, err = capfd.readouterr()
        assert out == ""
        return err

    return call


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The line with which it is refused."""

    def call(*given: object) -> str:
        capfd.readouterr()
        assert world.run(monkeypatch, "audit", *given) == 2, given
        return capfd.readouterr().err.strip().splitlines()[-1]

    return call
