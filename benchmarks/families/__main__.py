"""``python -m cleansteer.benchmarks.families TABLE...``: our estimates on the published tables."""

import argparse
import json
from pathlib import Path

from pydantic import JsonValue

from ...core.published import TABLES
from ...core.tables import write_text
from ...predictor.evidence.tables import read_labelled
from ...report.comparison.estimates import estimate
from ...report.comparison.recomputed import FILE

_DIGITS = 6  # as the tables have


def recompute(path: Path) -> JsonValue:
    """The estimates of one table, rounded, as JSON."""
    estimates = estimate(read_labelled(path), seed=0)
    residualised = {k: v for k, v in estimates.residualised.items() if k != "paper"}
    estimates = estimates.model_copy(update={"residualised": residualised})
    plain: JsonValue = estimates.model_dump(mode="json")
    return _rounded(plain)


def _rounded(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


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
    estimates = {setting: recompute(paths[table]) for setting, table in TABLES.items()}
    write_text(FILE, json.dumps(estimates, indent=1) + "\n")


if __name__ == "__main__":
    main()
