"""What else is known of changed features: names, tokens of their directions, how cleanly they steer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..adapters.config import Target
from ..adapters.layer import part_at
from ..adapters.objective import ADAPTER
from ..adapters.opening import open_at
from ..core.errors import InputError
from ..core.layout import DOSE_FORECAST, DOSES, MANIFEST, RANKING
from ..core.models import wrap_model
from ..core.progress import Reporter
from ..core.runs import RunDirectory
from ..naming.several import Source, read_several
from ..naming.source import Described
from .subject import Subject

_TOKENS = 10


def open_run(path: Path) -> RunDirectory:
    """A screened run.

    Raises:
        InputError: it is none.

    """
    if not (path / MANIFEST).is_file():
        raise InputError(f"--run {path} holds no run; expected a screened run; correct the name")
    run = RunDirectory.existing(path)
    if not run.has(RANKING):
        raise InputError(f"--run {path} has no ranking yet; expected a screened run; screen it")
    return run


def check_run(run: RunDirectory | None, subject: Subject) -> None:
    """Refuse a run of another SAE.

    Raises:
        InputError: it is of another than the adapter edits.

    """
    known = None if run is None else run.manifest.fingerprints
    if run is None or known is None:
        return
    if all(target.fingerprint != known.sae for target in subject.targets):
        raise InputError(
            f"--run {run.path} is of SAE {run.setting().sae.label} ({known.sae}), the adapter edits "
            f"another ({subject.targets[0].fingerprint}); expected a run of the adapter's SAE; give "
            "that, or leave --run out"
        )


def names_by_feature(
    targets: Sequence[Target],
    wanted: Sequence[tuple[str, int]],
    given: Source | None,
    out: Reporter,
) -> dict[tuple[str, int], str]:
    """Descriptions by hook and feature.

    Args:
        targets: places and SAEs of an adapter.
        wanted: hooks and features that matter.
        given: where the descriptions are; None: there are none.
        out: told what of them is of no use.

    """
    if given is None:
        return {}
    dictionaries: dict[str, Described] = {}
    features: dict[str, list[int]] = {}
    for target in targets:
        sae, fingerprint = open_at(target.hook, target.sae, Path.cwd())
        dictionaries[target.hook] = Described(target.sae, int(sae.cfg.d_sae), fingerprint)
        own = [feature for hook, feature in wanted if hook == target.hook]
        if own:
            features[target.hook] = own
    found = read_several(given, dictionaries, features, out)
    return {
        (hook, feature): text for hook, texts in found.items() for feature, text in texts.items()
    }


@torch.no_grad()
def promoted_tokens(
    subject: Subject, shown: pd.DataFrame
) -> list[tuple[list[str], list[str]]] | None:
    """Tokens that each decoder direction raises and lowers most by itself (docs/protocol.md, Direct
    logits), both empty where the place is no part of the stream; None where none is, or TransformerLens'
    bridge does not know the model.
    """
    places = list(zip(shown["hook"], shown["position"], strict=True))
    written = [not str(hook).endswith("hook_z") for hook, _ in places]
    if not any(written):
        return None
    rows = torch.stack(
        [
            part_at(subject.model, str(hook), ADAPTER).decoder[int(position)]
            for (hook, position), writes in zip(places, written, strict=True)
            if writes
        ]
    )
    network: Any = subject.model.unload()
    try:
        model = wrap_model(network, subject.tokenizer, device=str(rows.device))
    except InputError:
        return None
    footprint = rows.float() @ model.processed_unembedding().float()
    found = []
    for each in footprint:
        ends = (each.topk(_TOKENS).indices, (-each).topk(_TOKENS).indices)
        raised, lowered = ([subject.tokenizer.decode([i]) for i in end.tolist()] for end in ends)
        found.append((raised, lowered))
    each_of = iter(found)
    return [next(each_of) if writes else ([], []) for writes in written]


def modularity(run: RunDirectory | None) -> dict[int, dict[str, float]]:
    """What a run says of its features."""
    if run is None:
        return {}
    columns = ["predicted_clean_score", "measured_clean_score"]
    table = run.table(RANKING, ("feature", "predicted_clean_score")).set_index("feature")
    table = table[[name for name in columns if name in table]]
    for name in (DOSE_FORECAST, DOSES):
        if run.has(name):
            doses = run.table(name, ("feature", "recommended_coefficient"))
            table["recommended_coefficient"] = doses.set_index("feature")["recommended_coefficient"]
            break
    return {
        int(str(feature)): {
            str(name): float(value) for name, value in row.items() if value == value
        }
        for feature, row in table.to_dict("index").items()
    }
