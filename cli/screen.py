"""``cleansteer screen``: the main road."""

import sys

from .options import (
    NOT_TRUSTED,
    DeviceOption,
    JsonOption,
    LabelsOption,
    MostContextsOption,
    OverwriteOption,
    ReliabilityOption,
    RunOption,
    SettingArgument,
    StrategyOption,
    StrictOption,
    TopOption,
    open_pipeline,
)


def screen(
    setting: SettingArgument,
    labels: LabelsOption = None,
    strategy: StrategyOption = None,
    reliability: ReliabilityOption = None,
    most_contexts: MostContextsOption = None,
    run: RunOption = None,
    top: TopOption = 100,
    strict: StrictOption = False,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> int:
    """Rank all features by how cleanly they will steer, and check it on fresh contexts.

    Measures every feature's statistics, steers a sample, fits the predictor, ranks the rest, steers
    predicted-clean, predicted-messy and random features on contexts that were not used before, and
    writes an allowlist, and the report of it all.
    """
    from json import dumps

    from rich.console import Console

    from ..core.layout import REPORT
    from ..report.page import write_report
    from .summary import print_summary

    spending = {
        "n_features": labels,
        "sample": strategy,
        "reliability": reliability,
        "most_contexts_per_type": most_contexts,
    }
    pipeline = open_pipeline(setting, run, spending, overwrite, device)
    screening = pipeline.screen(top)
    write_report([pipeline.run.path], pipeline.run.path / REPORT)
    if json:
        sys.stdout.write(dumps(screening, indent=2) + "\n")
    else:
        print_summary(Console(stderr=True), screening, pipeline.run)
    return NOT_TRUSTED if strict and screening["trust"]["overall"] == "not trusted" else 0
