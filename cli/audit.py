"""``cleansteer audit``: what training changed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ..core.errors import InputError
from .learning import DescriptionsByHookOption
from .options import DeviceOption, JsonOption, check_packages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

    from ..core.records.record import Versioned
    from ..naming.several import Source

Found = TypeVar("Found", bound="Versioned")


def audit(
    adapters: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[ADAPTER...]",
            help="Directory of an adapter; of several, or of a directory of checkpoint-N, it is told how "
            "each feature moved.",
        ),
    ] = None,
    lora: Annotated[
        Path | None,
        typer.Option(
            "--lora",
            metavar="DIR",
            help="In place of ADAPTER: an ordinary LoRA, told by the features of --setting's SAE.",
        ),
    ] = None,
    tuned: Annotated[
        str | None,
        typer.Option(
            "--tuned",
            metavar="MODEL",
            help="In place of ADAPTER: a fine-tuning of --setting's model as a whole, compared with it "
            "on --data.",
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
        typer.Option(
            "--reference",
            metavar="FILE",
            help="Texts on which KL is measured, and whether features still mean what they meant.",
        ),
    ] = None,
    meaning: Annotated[
        Path | None,
        typer.Option(
            "--meaning",
            metavar="FILE",
            help="A Parquet file to write: of every feature what --reference says of its meaning.",
        ),
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
            help="A screened run of the SAE, which says how cleanly its features steer, and of which "
            "downstream SAE the meaning is measured too [default: the setting's under runs/, where there "
            "is one].",
        ),
    ] = None,
    setting: Annotated[
        str | None,
        typer.Option(
            "--setting",
            metavar="SETTING",
            help="Names the model, where it moved; with --lora and --tuned model and SAE.",
        ),
    ] = None,
    descriptions: DescriptionsByHookOption = None,
    device: DeviceOption = "cpu",
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Also write what is found as one HTML file, to look at in a browser.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show which features an adapter changed, by how much, and what each of them does to the task.

    What switching a feature's edit off does to the loss is forecast from one backward pass
    (attribution), and measured on a sample of features; their rank agreement is told. With --lora an
    ordinary LoRA is pulled back to an SAE's features: what it writes to the stream and what it reads.
    With --tuned a model that was fine-tuned as a whole is compared with its base: which features' mean
    activations changed on text. Of several adapters, or of the checkpoints in a directory, a table shows
    how each feature moved; with --data or --reference the last of them is audited too.
    """
    check_packages("peft")
    from ..naming.several import read_source

    described = read_source(descriptions)
    if lora is not None and tuned is not None:
        raise InputError("--lora and --tuned exclude each other; leave one out")
    if lora is not None:
        given = {
            "ADAPTER": _joined(adapters),
            "--data": data,
            "--reference": reference,
            "--meaning": meaning,
            "--by": by,
            "--run": run,
            "--html": html,
        }
        chosen = _alone("--lora", lora, setting, given)
        from ..auditing.request import audit_lora
        from .audited import print_pulled

        pulled = audit_lora(lora, chosen, top=top, descriptions=_one("--lora", described))
        _tell(pulled, print_pulled, json)
    elif tuned is not None:
        given = {
            "ADAPTER": _joined(adapters),
            "--reference": reference,
            "--meaning": meaning,
            "--by": by,
            "--run": run,
            "--html": html,
        }
        chosen = _alone("--tuned", tuned, setting, given)
        if data is None:
            raise InputError(
                f"--tuned {tuned} is compared with its base on text; expected --data as well; give it"
            )
        from ..auditing.request import audit_tuned
        from .audited import print_tuned

        one = _one("--tuned", described)
        compared = audit_tuned(tuned, chosen, data, top=top, descriptions=one, device=device)
        _tell(compared, print_tuned, json)
    elif adapters:
        given = {"data": data, "reference": reference, "setting": setting, "run": run, "by": by}
        more = {"meaning": meaning, "sample": sample, "device": device}
        _audit(adapters, html, json, top=top, descriptions=described, **given, **more)
    else:
        raise InputError(
            "nothing to audit; expected an adapter's directory, --lora DIR or --tuned MODEL; give one"
        )


def _audit(adapters: list[Path], html: Path | None, json: bool, **given: Any) -> None:
    """An adapter by itself, or how features moved over several."""
    from ..auditing.request import audit, audit_checkpoints
    from ..auditing.states import find_adapters
    from ..core.checks import check_file
    from ..core.records.audit import AuditRecord
    from ..report.adapter import write_audit
    from .audited import print_audit
    from .moved import print_movement

    if html is not None:
        check_file(html, "--html")
    folders = find_adapters(adapters)
    alone = folders == adapters[:1]
    if alone or given["data"] is not None or given["reference"] is not None:
        given["run"] = given["run"] or _own_run(folders[-1])
    found = audit(folders[0], **given) if alone else audit_checkpoints(folders, **given)
    if html is not None:
        write_audit(found, html)
    if isinstance(found, AuditRecord):
        _tell(found, print_audit, json)
    else:
        _tell(found, print_movement, json)


def _joined(adapters: "list[Path] | None") -> str | None:
    return " ".join(map(str, adapters)) if adapters else None


def _alone(flag: str, value: object, setting: str | None, given: "Mapping[str, object]") -> str:
    """The setting that a LoRA or a tuned model is told by; nothing else of an adapter applies."""
    for name, other in given.items():
        if other is not None:
            raise InputError(f"{name} {other} does not apply to {flag}; leave it out")
    if setting is None:
        raise InputError(
            f"{flag} {value} does not say by which SAE it is to be told; expected --setting as well; "
            "give it"
        )
    return setting


def _one(flag: str, described: "Source | None") -> str | Path | None:
    """Descriptions of one SAE's features."""
    if described is None or isinstance(described, str | Path):
        return described
    raise InputError(
        f"--descriptions {next(iter(described))}=... with {flag}, which is told by one SAE; expected no "
        "hook point; leave it out"
    )


def _tell(found: Found, show: "Callable[[Console, Found], object]", json: bool) -> None:
    from rich.console import Console

    if json:
        sys.stdout.write(found.to_json() + "\n")
    else:
        show(Console(stderr=True), found)


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
        if not (run / RANKING).is_file():
            return None
        known = RunDirectory.existing(run).manifest.fingerprints
    except InputError:
        return None
    edited = {place.sae.fingerprint for place in record.places}
    return run if known is not None and known.sae in edited else None
