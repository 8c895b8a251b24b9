"""``python -m cleansteer.benchmarks.families TABLE...``: our estimates on the published tables."""

import argparse
import json
from pathlib import Path
from typing import Any

from ...core.tables import write_text
from ...predictor.tables import read_labelled
from ...study.published import TABLES
from .estimates import estimate
from .recomputed import FILE

_DIGITS = 6  # as the tables have


def recompute(path: Path) -> dict[str, Any]:
    """The estimates of one table, rounded."""
    found = estimate(read_labelled(path), seed=0)
    del found["residualised"]["paper"]
    plain: dict[str, Any] = _rounded(found)
    return plain


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _rounded(value) for key, value in found.items()}
    return float(f"{found:.{_DIGITS}g}") if isinstance(found, float) else found


def main() -> None:
    """Write the estimates of all tables."""
    parser = argparse.ArgumentParser(description="Estimate anew from the replication's tables.")
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE")
    paths = {path.stem: path for path in parser.parse_args().tables}
    missing = set(TABLES.values()) - set(paths)
    if missing:
        parser.error(
            f"missing {', '.join(sorted(missing))}; give all of {', '.join(TABLES.values())}"
        )
    found = {setting: recompute(paths[table]) for setting, table in TABLES.items()}
    write_text(FILE, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
