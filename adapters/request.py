"""A training as it is asked for, by the command and from Python: checked, then done."""

from collections.abc import Mapping
from pathlib import Path

from ..core.checks import (
    check_packages,
    check_type,
    read_number,
)
from ..core.choices import BASELINES, Baseline
from ..core.device import check_device
from ..core.errors import InputError
from ..core.progress import Reporter
from ..core.records import Allowlist, TrainingRecord
from ..core.settings import Setting
from ..core.training import (
    BASELINE_LEARNING_RATE,
    COMPONENT_LEARNING_RATES,
)
from ..naming.several import Source, check_sources
from .asked import (
    AUTO,
    IN_MEMORY,
    RECORD,
    Indices,
    Rows,
    allowed_by,
    check_names,
    check_out,
    checked_options,
    given_examples,
    read_rows,
    rule_of,
)
from .components.component import check_options
from .components.steps import too_slow
from .targets import Targets, wanted_by

_LORA_RANK = 8
_LOGGERS = ("tensorboard", "wandb", "trackio")


def train(
    setting: Setting,
    /,
    data: Rows,
    *,
    out: str | Path,
    allowlist: Allowlist | str | Path | None = None,
    features: Indices | None = None,
    targets: Targets | None = None,
    component: str = "scale",
    component_options: Mapping[str, float] | None = None,
    select: int | str = AUTO,
    by: str = "gradient",
    eval_data: Rows | None = None,
    eval_share: float = 0.1,
    beta2: float | str = AUTO,
    reference: Rows | None = None,
    baseline: str | None = None,
    rank: int | None = None,
    descriptions: Source | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
    **options: object,
) -> TrainingRecord:
    """Train an adapter that edits only allowed features of a setting's SAE, or of several SAEs.

    With TRL's SFTTrainer or DPOTrainer; held-out examples are scored before, while and after, and
    the best adapter of the evaluations after the start is kept in ``out``, with a model card. PEFT
    opens it: ``PeftModel.from_pretrained(model, out)``.

    Args:
        setting: names model and SAE; with ``targets`` the model alone.
        data: examples with ``text``, or ``prompt`` and ``completion``, or ``messages`` (objective
            ``sft``); or ``prompt``, ``chosen``, ``rejected`` (``dpo``). All but ``text`` may be lists
            of messages, which the model's chat template makes text of.
        out: an empty or new directory.
        allowlist: only its features are edited; neither this nor ``features``: all.
        features: only these are edited, in place of an allowlist.
        targets: SAEs and the hook points that are edited through them, in place of the setting's SAE:
            each ``HOOK=SAE[:ALLOWLIST]``, SAE being a directory or ``RELEASE/ID`` of SAELens' list,
            ALLOWLIST an allowlist's .json file, indices such as ``1,2,3`` or a text file of them (see
            :mod:`cleansteer.adapters.targets`); or a dictionary with ``hook``, ``sae`` (that text, or as
            :class:`~cleansteer.adapters.SaeAdapterConfig` takes it) and perhaps ``features`` or
            ``allowlist``. Features of all of them compete where ``select`` takes fewer.
        component: what is done to the allowed latents (see ``cleansteer.adapters.components``).
        component_options: numbers that the component takes.
        select: of the allowed features only so many; ``all``; or ``auto``: where four times fewer hold
            95 % of what all together are worth, these (see :mod:`cleansteer.adapters.relevance`).
        by: what makes a feature worth training: the gradient of its scaling on the data
            (``gradient``), or that against what it moves on the reference texts (``fisher``).
        eval_data: examples to score, as ``data``.
        eval_share: share of ``data`` that is held out where ``eval_data`` is not given, all examples
            of a prompt together.
        beta2: AdamW's beta2; ``auto``: by how often features fire (see
            :func:`cleansteer.adapters.selection.fitting_beta2`).
        reference: texts on which drift and KL are measured; the option ``drift`` needs them.
        baseline: ``lora`` or ``ia3``: train PEFT's own instead, for comparison.
        rank: of LoRA; None: 8.
        descriptions: what features are called while they are tracked: .csv with the columns index and
            description, .jsonl with these keys, a directory of Neuronpedia's export, ``neuronpedia``
            (its API), or a run, whose tokens are the names then; of several targets a dictionary of
            these by hook point.
        run: a run whose tokens are the names where there are no descriptions, if it is of the same SAE.
        resume: whether to go on with an interrupted training in ``out``.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        progress: whether progress bars are shown, on stderr.
        options: fields of :class:`~cleansteer.core.training.TrainingOptions`; the default
            ``learning_rate`` of a baseline is 0.01, of the component ``sparse`` 0.003.

    Returns:
        What ``training.json`` holds.

    Raises:
        InputError: anything given is wrong, or does not fit together; nothing is written then.
        TypeError: an argument is unknown or of another type.

    """
    _check_types(
        setting, out, allowlist, component, component_options, select, by, eval_share, beta2
    )
    check_names(options)
    report_to = options.get("report_to")
    check_packages("peft", "trl", *([str(report_to)] if report_to in _LOGGERS else []))
    out = Path(out)
    check_out(out, resume, RECORD, "training")
    check_device(device)
    method: Baseline | None = None
    if baseline is not None:
        method = _check_baseline(
            baseline,
            rank,
            component=component if component != "scale" else None,
            option=component_options,
            allowlist=allowlist,
            features=features,
            target=None if targets is None else True,
            select=None if select == AUTO else select,
            by=None if by == "gradient" else by,
            descriptions=descriptions,
            l1=options.get("l1"),
            drift=options.get("drift"),
            positions=options.get("positions"),
            no_edit_bos=options.get("edit_bos") is False,
        )
        options.setdefault("learning_rate", BASELINE_LEARNING_RATE)
    elif rank is not None:
        raise InputError(f"--rank {rank} is for --baseline lora; use --option rank={rank}")
    elif component in COMPONENT_LEARNING_RATES:
        options.setdefault("learning_rate", COMPONENT_LEARNING_RATES[component])
    rule = rule_of(select, by, reference is not None)
    numbers = check_options(component, component_options or {})
    if beta2 != AUTO:
        options["beta2"] = read_number("--beta2", beta2) if isinstance(beta2, str) else beta2
    checked = checked_options(options, reference is not None)
    reporter = Reporter(quiet=not progress)
    slow = None if method is not None else too_slow(component, checked.learning_rate)
    if slow is not None:
        reporter.warn(f"--learning-rate: {slow}")
    examples, evaluated = given_examples(data, eval_data, eval_share, checked)
    texts = None if reference is None else read_rows(reference, "reference", "sft")
    wanted = wanted_by(targets, allowlist, features)
    if descriptions is not None:
        check_sources(descriptions, [each.source for each in wanted] or [setting.sae])
    allowed = allowed_by(allowlist, features)
    from .finetuning import FineTuning, Recipe

    job: FineTuning = FineTuning(
        setting=setting,
        options=checked,
        examples=examples,
        evaluated=evaluated,
        out=out,
        reporter=reporter,
        data_name=Path(data).name if isinstance(data, str | Path) else IN_MEMORY,
        device=device,
        resume=resume,
    )
    if method is not None:
        return job.baseline(method, rank or _LORA_RANK, texts)
    recipe = Recipe(
        component,
        numbers,
        allowed,
        rule,
        beta2 == AUTO,
        texts,
        descriptions,
        None if run is None else Path(run),
        wanted,
    )
    return job.adapter(recipe)


def _check_types(
    setting: object,
    out: object,
    allowlist: object,
    component: object,
    component_options: object,
    select: object,
    by: object,
    eval_share: object,
    beta2: object,
) -> None:
    nothing = type(None)
    check_type("setting", setting, Setting, "a setting (see cleansteer.load_setting)")
    check_type("out", out, (str, Path), "a directory's path")
    check_type("allowlist", allowlist, (Allowlist, str, Path, nothing), "an allowlist or its path")
    check_type("component", component, str, "a component's name")
    check_type("component_options", component_options, (Mapping, nothing), "a dictionary")
    check_type("select", select, (int, str), "a number of features, 'all' or 'auto'")
    check_type("by", by, str, "'gradient' or 'fisher'")
    check_type("eval_share", eval_share, (int, float), "a number between 0 and 1")
    check_type("beta2", beta2, (int, float, str), "a number or 'auto'")


def _check_baseline(name: str, rank: int | None, **given: object) -> Baseline:
    method = next((known for known in BASELINES if known == name), None)
    if method is None:
        raise InputError(
            f"--baseline {name!r} is not known; expected {' or '.join(BASELINES)}; choose one"
        )
    if rank is not None and (name != "lora" or rank < 1):
        raise InputError(
            f"--rank {rank}: expected a number from 1, with --baseline lora; change it"
        )
    for option, value in given.items():
        if value is not None and not (isinstance(value, int | float | Mapping) and not value):
            raise InputError(
                f"--{option} does not apply to --baseline {name}, which has no features; leave it out"
            )
    return method
