"""``cleansteer screen``: the main road."""

import sys
from typing import TYPE_CHECKING, cast

from .options import (
    NOT_TRUSTED,
    DescriptionsOption,
    DeviceOption,
    JsonOption,
    LabelsOption,
    ModeOption,
    MostContextsOption,
    OverwriteOption,
    ReliabilityOption,
    RunOption,
    SettingArgument,
    StrategyOption,
    StrictOption,
    TargetOption,
    TopOption,
    labels_of,
)

if TYPE_CHECKING:
    from ..core.choices import Mode, Sampling


def screen(
    setting: SettingArgument,
    labels: LabelsOption = None,
    strategy: StrategyOption = None,
    reliability: ReliabilityOption = None,
    most_contexts: MostContextsOption = None,
    mode: ModeOption = None,
    target_kl: TargetOption = None,
    run: RunOption = None,
    top: TopOption = 100,
    descriptions: DescriptionsOption = None,
    strict: StrictOption = False,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> int:
    """Rank all features by how cleanly they will steer, and check it on fresh contexts.

    Measures every feature's statistics, steers a sample, fits the predictor, ranks the rest, steers
    predicted-clean, predicted-messy and random features on contexts that were not used before, and
    writes an allowlist, and the report of it all. With --labels 0 linear response ranks the features
    and nothing is fitted; with --labels all every feature is steered and the ranking is measured. The
    check on fresh contexts is the same.
    """
    from rich.console import Console

    from ..core.progress import Reporter
    from ..core.runs import RunDirectory
    from ..naming.source import dictionary_of, read_descriptions
    from ..study.catalogue import load_setting
    from ..study.entry import RUNS
    from ..study.entry import screen as screen_setting
    from .summary import print_summary, shown_features

    chosen = load_setting(setting)
    study = screen_setting(
        chosen,
        labels=labels_of(labels),
        strategy=cast("Sampling | None", strategy),
        reliability=reliability,
        most_contexts=most_contexts,
        mode=cast("Mode | None", mode),
        target_kl=target_kl,
        run=run or RUNS / chosen.name,
        top=top,
        device=device,
        overwrite=overwrite,
        descriptions=descriptions,
    )
    screening = study.screening
    if json:
        sys.stdout.write(screening.to_json() + "\n")
    else:
        names: dict[int, str] = {}
        if descriptions is not None:
            shown = shown_features(study.ranking)
            dictionary = dictionary_of(RunDirectory.existing(study.path))
            # What is wrong with them was told when the report was written.
            silent = Reporter(Console(quiet=True))
            names = read_descriptions(descriptions, dictionary, shown, silent)
        print_summary(Console(stderr=True), study, names)
    return NOT_TRUSTED if strict and screening.trust.overall == "not trusted" else 0
