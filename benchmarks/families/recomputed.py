"""Our estimates on the replication's published tables: reference points beside our runs.

``python -m cleansteer.benchmarks.families TABLE...`` makes them anew; the tables themselves are not
ours to ship.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "recomputed.json"


@cache
def recomputed() -> dict[str, dict[str, Any]]:
    """:func:`~.estimates.estimate` of the published tables, by setting; residualised skill with the
    replication's controls alone, since the tables lack some of the paper's.
    """
    data: dict[str, dict[str, Any]] = json.loads(FILE.read_text("utf-8"))
    return data
