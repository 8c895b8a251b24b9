"""Reports taken apart, and runs made to be reported."""

import base64
import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>alert(2)</script>",
    "\u202eevil\u202c",
    "nul\x00bell\x07tab\tline\nend",
    "{{policy}}",
    "' onmouseover='alert(3)",
)
HOSTILE_NAME = "<script>alert(4)<img src=x onerror=alert(1)>"
"""As bad as a setting's name may be: it has no slash."""
_DATA = re.compile(r'<script type="application/octet-stream" id="([\w-]+)">([^<]*)</script>')


def data_of(report: Path) -> dict[str, Any]:
    """What a report carries, by the id of the element that holds it; plotly left out."""
    found = dict(_DATA.findall(report.read_text("utf-8")))
    return {
        name: json.loads(gzip.decompress(base64.b64decode(packed)))
        for name, packed in found.items()
        if name != "plotly"
    }


def page_of(report: Path) -> str:
    """A report without what it carries."""
    return _DATA.sub(r"<\1>", report.read_text("utf-8"))


def numbers(story: dict[str, Any], name: str) -> np.ndarray:
    """A column of a story's features, as the page reads it."""
    column = story["features"]["numbers"][name]
    values = np.array(column["values"], dtype=np.float64)
    return values / 10.0 ** column["decimals"]


def words(story: dict[str, Any], kind: str) -> list[list[str]]:
    """Lists of words of a story's features, as the page reads them."""
    packed = story["features"]["words"][kind]
    rows = np.array(packed["codes"]).reshape(-1, packed["width"])
    return [[packed["words"][code] for code in row if code >= 0] for row in rows]


def copied(run: Path, to: Path, change: Callable[[Path], object] | None = None) -> Path:
    """A copy of a run that may be changed."""
    shutil.copytree(run, to)
    if change is not None:
        change(to)
    return to


def without(*names: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        for name in names:
            (run / name).unlink()

    return change


def edited(name: str, edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A change of a JSON file."""

    def change(run: Path) -> None:
        found = json.loads((run / name).read_text("utf-8"))
        edit(found)
        (run / name).write_text(json.dumps(found), "utf-8")

    return change


def hostile(run: Path) -> None:
    """Put markup, scripts, control and right-to-left characters wherever a run holds text."""
    for name in ("ranking.parquet", "features.parquet"):
        table = pd.read_parquet(run / name)
        table["direct_top_tokens"] = [
            [HOSTILE[row % len(HOSTILE)], *HOSTILE] for row in range(len(table))
        ]
        if "peak_top_tokens" in table:
            table["peak_top_tokens"] = table["direct_top_tokens"]
        if "reasons" in table:
            table["reasons"] = [f"cleaner: {HOSTILE[row % 2]}: 1" for row in range(len(table))]
        table.to_parquet(run / name, index=False)
    tokens = pd.read_parquet(run / "tokens.parquet")
    tokens["tokens"] = [
        [HOSTILE[place % len(HOSTILE)] for place in range(len(row))] for row in tokens["tokens"]
    ]
    tokens.to_parquet(run / "tokens.parquet", index=False)

    def rename(manifest: dict[str, Any]) -> None:
        manifest["setting"]["name"] = HOSTILE_NAME
        manifest["setting"]["sae"]["path"] = HOSTILE[1]
        manifest["warnings"] = list(HOSTILE)

    edited("manifest.json", rename)(run)


def stretched(run: Path, n: int) -> None:
    """Give a run's dictionary n features, by repeating those that are there."""
    for name in ("features.parquet", "ranking.parquet"):
        table = pd.read_parquet(run / name)
        large = table.loc[np.arange(n) % len(table)].reset_index(drop=True)
        large["feature"] = np.arange(n)
        if "rank" in large:
            large = large.sort_values("predicted_clean_score", ascending=False, kind="stable")
            large["rank"] = np.arange(1, n + 1)
        large.attrs = table.attrs
        large.to_parquet(run / name, index=False)
