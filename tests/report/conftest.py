"""A report in a browser, which all tests of the page share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import chromium, visit
from cleansteer.report import write_report


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("browser")
    with chromium(folder) as found:
        found.downloads = folder / "downloads"
        yield found


@pytest.fixture(scope="session")
def described(screened_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that holds descriptions of every other feature."""
    folder = tmp_path_factory.mktemp("report")
    lines = [f'{{"index": {i}, "description": "about thing {i}"}}' for i in range(0, 96, 2)]
    (folder / "descriptions.jsonl").write_text("\n".join(lines), "utf-8")
    write_report([screened_world / "run"], folder / "report.html", folder / "descriptions.jsonl")
    return folder / "report.html"


@pytest.fixture(scope="session")
def ranking(screened_world: Path) -> pd.DataFrame:
    return pd.read_parquet(screened_world / "run" / "ranking.parquet")


@pytest.fixture
def page(browser: Any, described: Path) -> Any:
    """The browser, with the report opened anew."""
    visit(browser, described)
    return browser
