"""What a training is asked for: options, examples and features, checked."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, TypeAlias, get_args

from pydantic import ValidationError

from ..core.checks import check_features, check_parents, listed_features
from ..core.choices import Relevance
from ..core.errors import InputError
from ..core.records import Allowlist
from ..core.training import TrainingOptions
from .allowlist import Allowed
from .examples import Examples, read_examples, take_examples
from .relevance import Rule

Rows: TypeAlias = str | Path | Iterable[Mapping[str, object]]
"""Path of a file of JSON lines; or rows, dictionaries of columns."""
Indices: TypeAlias = str | Path | Iterable[SupportsIndex]
"""Indices of features; or text such as ``1,2,3``; or the path of a file of such text."""
AUTO = "auto"
IN_MEMORY = "rows in memory"
"""What data is called that has no file."""
RECORD = "training.json"
"""The file of a training's record."""


def rule_of(select: int | str, by: str, has_reference: bool) -> Rule:
    """How features are chosen, checked."""
    known = next((name for name in get_args(Relevance) if name == by), None)
    if known is None:
        raise InputError(f"--by {by!r} is not known; expected gradient or fisher; choose one")
    if known == "fisher" and not has_reference:
        raise InputError(
            "--by fisher needs text on which little shall change; expected --reference as well; give it"
        )
    if isinstance(select, int):
        return Rule(select, by=known)
    if select not in (AUTO, "all"):
        raise InputError(
            f"--select {select!r:.40} is not understood; expected a number of features, all or auto; "
            "correct it"
        )
    return Rule(automatic=select == AUTO, by=known)


def check_out(out: Path, resume: bool, record: str, what: str) -> None:
    """Refuse a directory that cannot be written to, or holds what is not gone on with.

    Args:
        out: the directory.
        resume: whether what is in it is gone on with.
        record: the file that is there then.
        what: of which it is.

    Raises:
        InputError: as said.

    """
    check_parents(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file, expected a directory; change it")
    if resume and not (out / record).is_file():
        raise InputError(f"--out {out} holds no {what} to go on with; leave --resume out")
    if not resume and out.exists() and any(out.iterdir()):
        raise InputError(
            f"--out {out} is not empty; give another, or go on with what is there by --resume"
        )


def check_names(
    options: Mapping[str, object], function: str = "train", without: Sequence[str] = ()
) -> None:
    """Refuse options that there are not.

    Args:
        options: by name.
        function: that they are given to.
        without: fields of the options that are none of its.

    Raises:
        TypeError: there is one.

    """
    fields = sorted(set(TrainingOptions.model_fields) - set(without))
    for name in options:
        if name not in fields:
            known = ", ".join(fields)
            raise TypeError(
                f"{function}() got an unexpected argument {name!r}; its options are {known}"
            )


def checked_options(options: Mapping[str, object], has_reference: bool) -> TrainingOptions:
    """Options, and that they go together."""
    try:
        checked = TrainingOptions.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name, value = str(first["loc"][0]), first["input"]
        if first["type"].endswith("_type"):
            raise TypeError(f"{name} is {value!r:.80}: {first['msg']}") from None
        flag = name.replace("_", "-")
        raise InputError(f"--{flag} {value}: {first['msg']}; change it") from None
    if checked.drift > 0 and not has_reference:
        raise InputError(
            f"--drift {checked.drift:g} needs text that it is measured on; expected --reference as well; "
            "give it"
        )
    if checked.kl_budget is not None and not has_reference:
        raise InputError(
            f"--kl-budget {checked.kl_budget:g} needs text that it is measured on; expected --reference "
            "as well; give it"
        )
    if "dpo_beta" in options and checked.objective != "dpo":
        raise InputError(f"--dpo-beta {checked.dpo_beta:g} is for --objective dpo; leave it out")
    if not checked.completion_only and checked.objective == "dpo":
        raise InputError("--no-completion-only is for --objective sft; leave it out")
    return checked


def given_examples(
    data: Any, eval_data: Any, eval_share: float, options: TrainingOptions
) -> tuple[Examples, Examples]:
    """Examples to train on, and to score."""
    examples = read_rows(data, "data", options.objective)
    if eval_data is None:
        if not 0 < eval_share < 1:
            raise InputError(f"--eval-share {eval_share} is out of range; expected between 0 and 1")
        return examples.held_out(eval_share, options.seed)
    evaluated = read_rows(eval_data, "eval_data", options.objective)
    ours, theirs = (
        str(given) if isinstance(given, str | Path) else name
        for given, name in ((data, "data"), (eval_data, "eval_data"))
    )
    if set(evaluated.rows[0]) != set(examples.rows[0]):
        raise InputError(
            f"{theirs} has other columns than {ours}; expected {', '.join(examples.rows[0])}; rename "
            "them"
        )
    if evaluated.chat != examples.chat:
        raise InputError(
            f"one of {ours} and {theirs} holds text, the other messages; expected the same in both; "
            "write one anew"
        )
    both = evaluated.shared_with(examples)
    if both:
        raise InputError(
            f"{both} of {len(evaluated.rows)} examples of {theirs} are in {ours} too; expected others, "
            "which tell what was learned; remove them"
        )
    return examples, evaluated


def read_rows(given: Any, name: str, objective: str) -> Examples:
    """Examples of a file, or of rows in memory."""
    if isinstance(given, str | Path):
        return read_examples(Path(given), objective)
    if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(
            f"{name} is {given!r:.80}; expected the path of a file of JSON lines, or a list of "
            "dictionaries"
        )
    return take_examples(given, name, objective)


def allowed_by(allowlist: Allowlist | str | Path | None, features: Any) -> Allowed:
    """The features that may be edited."""
    if allowlist is not None and features is not None:
        raise InputError("--allowlist and --features exclude each other; leave one out")
    if allowlist is not None:
        if isinstance(allowlist, str):
            allowlist = Path(allowlist)
        return Allowed.by(allowlist)
    if features is None:
        return Allowed(None)
    if isinstance(features, str | Path):
        return Allowed(check_features(listed_features(str(features), "--features"), "--features"))
    if isinstance(features, bytes | Mapping) or not isinstance(features, Iterable):
        raise TypeError(f"features is {features!r:.80}; expected a list of indices")
    return Allowed(check_features(features, "features"))
