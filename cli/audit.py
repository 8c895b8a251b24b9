"""``cleansteer audit``: what training changed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import InputError
from .options import DescriptionsOption, DeviceOption, JsonOption, check_packages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from ..core.records.audit import AuditedFeature, AuditRecord
    from ..core.records.pulled import PulledRecord


def audit(
    adapter: Annotated[
        Path | None, typer.Argument(metavar="[ADAPTER]", help="Directory of an adapter.")
    ] = None,
    lora: Annotated[
        Path | None,
        typer.Option(
            "--lora",
            metavar="DIR",
            help="In place of ADAPTER: an ordinary LoRA, told by the features of --setting's SAE.",
        ),
    ] = None,
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
    (attribution), and measured on a sample of features; their rank agreement is told. With --lora an
    ordinary LoRA is pulled back to an SAE's features: what it writes to the stream and what it reads.
    """
    check_packages("peft")
    if lora is not None:
        given = {
            "ADAPTER": adapter,
            "--data": data,
            "--reference": reference,
            "--by": by,
            "--run": run,
        }
        _audit_lora(lora, setting, given, top, descriptions, json)
        return
    if adapter is None:
        raise InputError(
            "nothing to audit; expected an adapter's directory, or --lora DIR; give one"
        )
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


def _audit_lora(
    lora: Path,
    setting: str | None,
    given: "Mapping[str, object]",
    top: int,
    descriptions: str | None,
    json: bool,
) -> None:
    from rich.console import Console

    from ..auditing.request import audit_lora

    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name} {value} does not apply to --lora; leave it out")
    if setting is None:
        raise InputError(
            f"--lora {lora} does not say by which SAE it is to be told; expected --setting as well; "
            "give it"
        )
    found = audit_lora(lora, setting, top=top, descriptions=descriptions)
    if json:
        sys.stdout.write(found.to_json() + "\n")
    else:
        print_pulled(Console(stderr=True), found)


def _own_run(adapter: Path) -> Path | None:
    """The command line's own run of the setting that the adapter was trained with, where it is of the
    same SAE.
    """
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


def print_pulled(console: "Console", found: "PulledRecord") -> None:
    """Say what a LoRA reads and writes."""
    from rich.markup import escape

    from .figures import plain_table

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    told = {"writes": "writes in front of it", "reads": "reads behind it"}
    say(f"{found.lora}, by the features of {found.sae} at {found.hook}")
    for side in found.sides:
        say(
            f"What it {told[side.kind]} ({len(side.modules)} modules): {len(side.features)} features "
            f"explain {side.share:.0%}, of a random change {side.random_share:.0%}"
        )
        table = plain_table("")
        for title in ("feature", "share", "alone", "encoder"):
            table.add_column(title, justify="right", no_wrap=True)
        if any(each.description for each in side.features):
            table.add_column("name", overflow="ellipsis", no_wrap=True)
        for each in side.features:
            cells = [
                str(each.feature),
                f"{each.share:.1%}",
                f"{each.share_alone:.1%}",
                f"{each.encoder:.2f}",
                escape(each.description or ""),
            ]
            table.add_row(*cells[: len(table.columns)])
        console.print(table)
        for direction in side.directions:
            say(
                f"  direction with {direction.share:.0%}: nearest to feature {direction.feature} (cosine "
                f"{direction.cosine:.2f})"
            )
    if not found.sides:
        say("Nothing of it writes to the stream in front of the hook or reads it behind")
    for kind, names in (("act elsewhere", found.elsewhere), ("are not known", found.unknown)):
        if names:
            say(f"{len(names)} modules {kind}: {', '.join(names[:4])}{' ...' * (len(names) > 4)}")
