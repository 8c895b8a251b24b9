"""Tables of statistics and labels, as a run holds them and as people export them."""

from pathlib import Path

import pandas as pd
import synthetic
from cleansteer.predictor.evidence.tables import STATISTIC_PREFIXES

MEASURED = ("stability_abs", "collateral_count_0.05", "effect_l2")


def exported(n: int = 40, seed: int = 0) -> pd.DataFrame:
    """A row a feature: statistics, what is measured by steering, and a word."""
    statistics = synthetic.statistics(n, seed)
    labels = synthetic.labels(statistics, 0.5, seed)[list(MEASURED)].abs()
    table = pd.concat([statistics, labels], axis=1).assign(mode="add")
    return table.rename_axis("feature").reset_index()


def write(path: Path, table: pd.DataFrame) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path


def as_run(folder: Path, table: pd.DataFrame) -> Path:
    """The same in the files of a run: statistics of more features, labels of all context types."""
    folder.mkdir()
    names = [c for c in table if c.startswith(STATISTIC_PREFIXES)]
    more = table[["feature", *names]].assign(feature=table["feature"] + 10_000)
    write(folder / "features.parquet", pd.concat([more, table[["feature", *names]]]))
    labels = table.drop(columns=names).assign(
        collateral_per_effect=table["collateral_count_0.05"] / (table["effect_l2"] + 1e-8)
    )
    typed = [labels.assign(context_type=name) for name in ("mixed", "top")]
    typed[1][list(MEASURED)] += 5.0
    write(folder / "labels.parquet", pd.concat(typed))
    return folder
