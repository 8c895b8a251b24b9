"""The page: assets and data put into one HTML file."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..core.tables import write_text
from .comparison import compare, verdict_table
from .names import MEANINGS, NAMES
from .run import Run
from .story import Story, gather
from .tables import Table, as_grid

SCRIPTS = (
    "text.js",
    "data.js",
    "tables.js",
    "charts.js",
    "selection.js",
    "points.js",
    "scatter.js",
    "grid.js",
    "filters.js",
    "features.js",
    "story.js",
    "main.js",
)
"""In the order in which they are joined."""
BROWSABLE = 300_000
"""Most features of all runs together whose tables one page holds; runs beyond are only compared."""
_LEVEL = 6
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def write_report(
    runs: Sequence[Path],
    out: Path,
    labels: Path | None = None,
    tables: Callable[[], Sequence[Table]] = tuple,
) -> None:
    """Write the report of one run, or of several.

    Args:
        runs: run directories.
        out: the HTML file.
        labels: descriptions of the features of the one run.
        tables: makes what else to show beside several runs; called once all is known to be right.

    Raises:
        InputError: a run, or the descriptions, cannot be read.

    """
    if labels is not None and len(runs) > 1:
        raise InputError(
            f"--labels {labels} describes the features of one SAE, and {len(runs)} runs are given; give "
            "one run, or leave --labels out"
        )
    opened = [Run(path) for path in runs]
    names = distinct_names(opened)
    n_browsable = browsable(opened)
    stories = [
        (name, gather(run, labels))
        for name, run in zip(names[:n_browsable], opened[:n_browsable], strict=True)
    ]
    about = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "names": NAMES,
        "meanings": MEANINGS,
        "runs": names[:n_browsable],
        "left_out": names[n_browsable:],
        "comparison": _comparison(names, opened, tables()) if len(opened) > 1 else None,
    }
    write_text(out, assemble(about, stories))


def browsable(runs: Sequence[Run]) -> int:
    """How many of the runs, from the first, a page holds whole: one at least."""
    sizes = np.cumsum([0 if run.features is None else len(run.features) for run in runs])
    return max(1, int((sizes <= BROWSABLE).sum()))


def _comparison(
    names: Sequence[str], runs: Sequence[Run], tables: Sequence[Table]
) -> dict[str, Any]:
    return {
        "verdicts": verdict_table(names, runs),
        "sections": compare(names, runs),
        "tables": [
            {"name": t.name, "title": t.title, "note": t.note, "table": as_grid(t.frame)}
            for t in tables
        ],
    }


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """Setting names; with the directory where several runs are of one setting."""
    names = [run.setting.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({run.directory.path})"
        for name, run in zip(names, runs, strict=True)
    ]


def assemble(about: dict[str, Any], stories: Iterable[tuple[str, Story]]) -> str:
    """The HTML of some runs' stories and of what is to be said of all.

    Nothing of the data stands in it but as base64, and no script but those whose checksums the
    page's policy names is run.
    """
    from plotly.offline import get_plotlyjs

    script = "\n".join(_asset(name) for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}\nmain();\n}})();'
    plotly = get_plotlyjs()
    parts = {
        "style": _asset("style.css"),
        "script": script,
        "policy": " ".join(f"'sha256-{_checksum(text)}'" for text in (script, plotly)),
        "plotly": _packed(plotly.encode()),
        "about": _packed(_json(about)),
        "runs": "\n".join(
            f'<script type="application/octet-stream" id="run-{number}">'
            f"{_packed(_json(vars(story) | {'title': name}))}</script>"
            for number, (name, story) in enumerate(stories)
        ),
    }
    return _SLOT.sub(lambda slot: parts[slot[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (files(f"{__package__}.assets") / name).read_text("utf-8")


def _checksum(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(data: Any) -> bytes:
    """JSON of plain data and of records, which are written as their fields."""
    return json.dumps(data, allow_nan=False, separators=(",", ":"), default=vars).encode()


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, _LEVEL, mtime=0)).decode()
