"""An audit as it is asked for, by the command and from Python."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..adapters.asked import Rows
from ..adapters.examples import Examples, read_examples, take_examples
from ..adapters.opening import opened_once
from ..core.checks import check_file, check_packages
from ..core.device import check_device
from ..core.errors import InputError
from ..core.progress import Reporter
from ..core.records.audit import AuditRecord
from ..core.records.movement import MovementRecord
from ..core.records.pulled import PulledRecord
from ..core.records.tuned import TunedRecord
from ..naming.several import Source
from ..study.catalogue import load_setting
from ..study.entry import SettingLike
from .audit import Audit, audit_adapter
from .movement import compare_checkpoints
from .pulled import pull_back
from .states import find_adapters, read_states
from .tuned import compare_models


def audit(
    adapter: str | Path,
    *,
    data: Rows | None = None,
    reference: Rows | None = None,
    setting: SettingLike | None = None,
    run: str | Path | None = None,
    descriptions: Source | None = None,
    meaning: str | Path | None = None,
    by: str | None = None,
    top: int = 20,
    sample: int = 30,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> AuditRecord:
    """Look at what training changed: which features, by how much, and what each does to the task.

    Args:
        adapter: directory of an adapter on SAE latents, trained by ``cleansteer train`` or any other way.
        data: examples of the task, a file of JSON lines or rows, as :func:`cleansteer.train` takes them;
            of pairs of answers the chosen ones. None: nothing is measured on data.
        reference: texts that KL(without || with the adapter) is measured on, and whether features still
            mean what they meant (see :mod:`cleansteer.auditing.meaning`).
        setting: names the model, where the adapter's directory does not, or it lies elsewhere now; and,
            without ``run``, the downstream SAE.
        run: a screened run of the adapter's SAE, which says how cleanly its features steer, and names the
            downstream SAE whose features are compared on the reference too.
        descriptions: of the features: .csv with the columns index and description, .jsonl with these
            keys, a directory of Neuronpedia's export, ``neuronpedia`` (its API), or a run; of an adapter
            with several SAEs a dictionary of these by hook point.
        meaning: a Parquet file to write: of every feature of these SAEs what the reference says.
        by: the order: ``attribution``, ``residual``, ``latent`` or ``size`` (see
            :mod:`cleansteer.auditing.changes`); None: attribution, without ``data`` size.
        top: how many features are looked at closely.
        sample: how many features are switched off one by one, to see whether attribution holds.
        seed: of the features drawn for that.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        progress: False shows nothing.

    Raises:
        InputError: something that is given cannot be used, or does not belong to the adapter.

    """
    check_packages("peft")
    check_device(device)
    for name, value, least in (("top", top, 1), ("sample", sample, 0)):
        if value < least:
            raise InputError(f"--{name} {value}: expected {least} or more; change it")
    if meaning is not None:
        check_file(Path(meaning), "--meaning")
        if reference is None:
            raise InputError(
                f"--meaning {meaning} is measured on a reference; expected --reference as well; give it"
            )
    asked = Audit(
        adapter=Path(adapter),
        data=None if data is None else _task_examples(data),
        reference=None if reference is None else _examples(reference, "reference", "sft"),
        setting=None if setting is None else load_setting(setting),
        run=None if run is None else Path(run),
        descriptions=descriptions,
        meaning=None if meaning is None else Path(meaning),
        order=by,
        top=top,
        sample=sample,
        seed=seed,
        device=device,
    )
    return audit_adapter(asked, Reporter(quiet=not progress))


def audit_checkpoints(
    adapters: str | Path | Iterable[str | Path],
    *,
    top: int = 20,
    descriptions: Source | None = None,
    progress: bool = True,
    **audited: Any,
) -> MovementRecord:
    """Look at how every feature moved over the checkpoints of a training: its parameters in each of some
    adapters, and by how much they have changed since training began.

    Args:
        adapters: their directories, in order; a directory that is none stands for the ``checkpoint-N`` in
            it, or in its ``checkpoints``. Checkpoints of one directory follow each other by their steps.
        top: how many features are told, those that have moved most in the last adapter.
        descriptions: of the features, as for :func:`audit`.
        progress: False shows nothing.
        audited: ``data`` or ``reference``, and other arguments of :func:`audit`, with which the last
            adapter is audited too; neither: no model is needed.

    Raises:
        InputError: one is no adapter, or has other targets or another component than the first.

    """
    check_packages("peft")
    if top < 1:
        raise InputError(f"--top {top}: expected 1 or more; change it")
    paths = [adapters] if isinstance(adapters, str | Path) else list(adapters)
    states = read_states(find_adapters([Path(path) for path in paths]))
    last = None
    if any(audited.get(name) is not None for name in ("data", "reference")):
        more: dict[str, Any] = {"top": top, "descriptions": descriptions, "progress": progress}
        last = audit(states[-1].folder, **audited, **more)
    else:
        for name in ("setting", "run", "meaning", "by"):
            if audited.get(name) is not None:
                raise InputError(
                    f"--{name} {audited[name]} is for an audit of the last adapter; expected --data or "
                    "--reference as well; give one, or leave it out"
                )
    with opened_once():
        return compare_checkpoints(states, top, descriptions, last, Reporter(quiet=not progress))


def audit_lora(
    lora: str | Path,
    setting: SettingLike,
    *,
    top: int = 20,
    descriptions: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> PulledRecord:
    """Look at an ordinary LoRA in the basis of an SAE's features: what it writes to the stream in front
    of the SAE's hook, and what it reads of it behind (see :mod:`cleansteer.auditing.pulled`).

    Args:
        lora: its directory, as PEFT saves it.
        setting: names its base model, and the SAE.
        top: how many features are named on each side.
        descriptions: of the features, as for :func:`audit` of one SAE.
        seed: of the random changes that shares are compared with.
        progress: False shows nothing.

    Raises:
        InputError: no LoRA, one of another model, or an SAE that does not read the residual stream.

    """
    check_packages("peft")
    if top < 1:
        raise InputError(f"--top {top}: expected 1 or more; change it")
    reporter = Reporter(quiet=not progress)
    return pull_back(Path(lora), load_setting(setting), top, descriptions, seed, reporter)


def audit_tuned(
    tuned: str | Path,
    setting: SettingLike,
    data: Rows,
    *,
    top: int = 20,
    descriptions: str | Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> TunedRecord:
    """Look at a model that was fine-tuned as a whole: which features' mean activations differ from the
    base model's on the same texts, with 95 % intervals over texts.

    Args:
        tuned: directory or hub id of the tuned model.
        setting: names the base model and the SAE.
        data: texts, a file of JSON lines or rows.
        top: how many features are shown.
        descriptions: of the features, as for :func:`audit` of one SAE.
        seed: of the intervals.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        progress: False shows nothing.

    Raises:
        InputError: a model or SAE cannot be loaded, or they do not fit each other.

    """
    check_packages("peft")
    if top < 1:
        raise InputError(f"--top {top}: expected 1 or more; change it")
    check_device(device)
    texts, reporter = _task_examples(data), Reporter(quiet=not progress)
    chosen = load_setting(setting)
    return compare_models(chosen, str(tuned), texts, top, descriptions, seed, device, reporter)


def _task_examples(given: Any) -> Examples:
    """Examples of either objective."""
    try:
        return _examples(given, "data", "sft")
    except InputError:
        try:
            return _examples(given, "data", "dpo")
        except InputError:
            pass
        raise


def _examples(given: Any, name: str, objective: str) -> Examples:
    if isinstance(given, str | Path):
        return read_examples(Path(given), objective)
    if not isinstance(given, Iterable):
        raise TypeError(f"{name} is {given!r:.80}; expected a file of JSON lines, or rows")
    return take_examples(list(given), name, objective)
