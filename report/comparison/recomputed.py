"""Our estimates on the replication's published tables: reference points beside our runs.

``python -m cleansteer.benchmarks.families TABLE...`` makes them anew; the tables themselves are not
ours to ship.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from .estimates import Estimates

FILE = Path(__file__).parent / "recomputed.json"


@cache
def read_recomputed() -> Mapping[str, Estimates]:
    """:func:`~.estimates.estimate` of the published tables, by setting; residualised skill with the
    replication's controls alone, since the tables lack some of the paper's.
    """
    tables = json.loads(FILE.read_text("utf-8"))
    return {setting: Estimates.model_validate(found) for setting, found in tables.items()}
