"""Data and assets put into one HTML file."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files

_LEVEL = 6
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def bundle(scripts: Sequence[str], about: object, runs: Iterable[object] = ()) -> str:
    """The HTML of a page.

    Nothing of the data stands in it but as base64, and no script but those whose checksums the
    page's policy names is run.

    Args:
        scripts: names of assets, in the order in which they are joined; together they have a function
            ``main``, which begins.
        about: what the page tells, as dataclasses and plain data.
        runs: what it tells when it is asked to, one by one.

    """
    from plotly.offline import get_plotlyjs

    script = "\n".join(_asset(name) for name in scripts)
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
            f"{_packed(_json(run))}</script>"
            for number, run in enumerate(runs)
        ),
    }
    return _SLOT.sub(lambda slot: parts[slot[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (files(f"{__package__}.assets") / name).read_text("utf-8")


def _checksum(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(data: object) -> bytes:
    """JSON of dataclasses, which are written as their fields, and of plain data within them."""
    return json.dumps(data, allow_nan=False, separators=(",", ":"), default=vars).encode()


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, _LEVEL, mtime=0)).decode()
