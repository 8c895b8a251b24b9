"""``cleansteer audit``: what training changed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DescriptionsOption, DeviceOption, JsonOption, check_packages

if TYPE_CHECKING:
    from rich.console import Console

    from ..core.records.audit import AuditedFeature, AuditRecord


def audit(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Directory of an adapter.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Examples of the task, as for `cleansteer train`; held-out ones tell most.",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="FILE", help="Texts on which KL is measured."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="attribution|residual|latent|size",
            help="Order: by what an edit does to the loss, to the residual stream, to the latent, or by "
            "its parameters [default: attribution; without --data size].",
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many features are shown.")] = 20,
    sample: Annotated[
        int,
        typer.Option(
            "--sample",
            min=0,
            help="How many features are switched off one by one, to see whether attribution holds.",
        ),
    ] = 30,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="DIR",
            help="A screened run of the SAE, which says how cleanly its features steer [default: the "
            "setting's under runs/, where there is one].",
        ),
    ] = None,
    setting: Annotated[
        str | None,
        typer.Option("--setting", metavar="SETTING", help="Names the model, where it moved."),
    ] = None,
    descriptions: DescriptionsOption = None,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Show which features an adapter changed, by how much, and what each of them does to the task.

    What switching a feature's edit off does to the loss is forecast from one backward pass
    (attribution), and measured on a sample of features; their rank agreement is told.
    """
    check_packages("peft")
    from rich.console import Console

    from ..auditing.request import audit

    found = audit(
        adapter,
        data=data,
        reference=reference,
        setting=setting,
        run=run or _own_run(adapter),
        descriptions=descriptions,
        by=by,
        top=top,
        sample=sample,
        device=device,
    )
    if json:
        sys.stdout.write(found.to_json() + "\n")
    else:
        print_audit(Console(stderr=True), found)


def _own_run(adapter: Path) -> Path | None:
    """The command line's own run of the setting that the adapter was trained with, where it is of the
    same SAE.
    """
    from ..core.errors import InputError
    from ..core.layout import RANKING
    from ..core.records import TrainingRecord
    from ..core.runs import RunDirectory
    from ..study.entry import RUNS

    try:
        record = TrainingRecord.read(adapter / "training.json")
        run = RUNS / record.setting.name
        if record.sae is None or not (run / RANKING).is_file():
            return None
        known = RunDirectory.existing(run).manifest.fingerprints
    except InputError:
        return None
    return run if known is not None and known.sae == record.sae.fingerprint else None


def print_audit(console: "Console", found: "AuditRecord") -> None:
    """Say what an audit found."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    silent = "" if not found.n_silent else f", {found.n_silent} of them silent on the data"
    say(f"{found.component} on {found.n_features} features: {found.n_changed} changed{silent}")
    if found.loss_with is not None and found.loss_without is not None:
        say(
            f"Loss on {found.n_tokens} tokens: {found.loss_without:.4f} without, "
            f"{found.loss_with:.4f} with the adapter"
        )
    if found.kl is not None:
        say(f"KL on the reference: {found.kl:.4g} nats a token")
    if found.features:
        console.print(_table(found))
    if found.agreement is not None:
        agreed = found.agreement
        say(
            f"Attribution against switching {agreed.n} features off one by one: Spearman "
            f"{agreed.spearman:.2f} [{agreed.low:.2f}, {agreed.high:.2f}]"
        )
    for pair in (found.pairs or ())[:10]:
        say(
            f"{pair.source} -> {pair.target}: {pair.effect:+.4g} in the mean ({pair.weight:+.4g} for a "
            "unit of activation)"
        )


def _table(found: "AuditRecord") -> object:
    from rich.markup import escape

    from .figures import plain_table

    table = plain_table(f"Changed features, by {found.order}")
    several = len({each.hook for each in found.features}) > 1
    ordered = {"latent": {"|z' - z|": "latent"}, "residual": {"in the stream": "residual"}}
    columns = {
        "change": "parameters",
        **ordered.get(found.order, {}),
        "edited": "edited",
        "loss, forecast": "attribution",
        "measured": "switched_off",
        "clean score": "predicted_clean_score",
    }
    kept = {
        title: name
        for title, name in columns.items()
        if any(getattr(each, name) is not None for each in found.features)
    }
    for title in (*(["hook"] if several else []), "feature", *kept):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("name", overflow="ellipsis", no_wrap=True)
    for each in found.features:
        cells = [each.hook] if several else []
        cells += [str(each.feature), *(_cell(each, name) for name in kept.values())]
        table.add_row(*cells, escape(_name(each)))
    return table


def _cell(feature: "AuditedFeature", name: str) -> str:
    if name == "parameters":
        return " ".join(f"{value:+.3f}" for value in feature.parameters.values())
    value = getattr(feature, name)
    if value is None:
        return "-"
    if name == "edited":
        return "silent" if feature.silent else f"{value:.1%}"
    return f"{value:+.5f}" if name in ("attribution", "switched_off") else f"{value:.4g}"


def _name(feature: "AuditedFeature") -> str:
    if feature.description:
        return feature.description
    return " ".join(token.strip() for token in (feature.promotes or ())[:5])
