"""Options made from the fields of a pydantic model: adding a field adds the option."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType, NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

Given = Mapping[str, Any]
"""The options that were given on the command line, by the names of their fields."""
NONE_GIVEN: Given = MappingProxyType({})
_INTO = "options"
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


class Signed:
    """A function that shows a signature of ours."""

    def __init__(self, function: Callable[..., Any], parameters: list[inspect.Parameter]) -> None:
        functools.update_wrapper(self, function)
        del vars(self)["__wrapped__"]  # or that one's signature would be shown
        self._function = function
        self.__signature__ = inspect.Signature(parameters)
        self.__annotations__ = {p.name: p.annotation for p in parameters}

    def __call__(self, **values: Any) -> Any:
        return self._function(**values)


class Unfinished(Signed):
    """A command of which the model's options are still to be made."""

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: list[inspect.Parameter],
        complete: Callable[[], Signed],
    ) -> None:
        super().__init__(function, parameters)
        self.complete = complete

    def __call__(self, **values: Any) -> Any:
        return self.complete()(**values)


def options_of(
    load: "Callable[[], type[BaseModel]]",
    *,
    only: Collection[str] | None = None,
    leave_out: Collection[str] = (),
    names: Mapping[str, str] | None = None,
    metavars: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], Unfinished]:
    """Give a command an option for every field of a model, in the place of its parameter ``options``.

    That parameter takes those that were given (:data:`Given`); what was not is left to the model's
    defaults. Help is the field's docstring; default, choices and limits are told from the field, and
    checked by the model alone. The command has to be of class :class:`ModelCommand`: the model is
    loaded when its options are asked for, not before.

    Args:
        load: imports the model.
        only: the fields that get an option; None: all.
        leave_out: fields that get none.
        names: of options that are not called like their field, without dashes.
        metavars: what stands for the value in the help, where the type does not say it well.
        notes: more about a default, for the help.

    """
    names, metavars, notes = names or {}, metavars or {}, notes or {}

    def decorate(function: Callable[..., Any]) -> Unfinished:
        own = list(inspect.signature(function, eval_str=True).parameters.values())
        place = next(i for i, parameter in enumerate(own) if parameter.name == _INTO)
        before, after = own[:place], own[place + 1 :]

        def complete() -> Signed:
            fields = {
                name: field
                for name, field in load().model_fields.items()
                if (only is None or name in only) and name not in leave_out
            }

            def call(**values: Any) -> Any:
                given = {name: values.pop(name) for name in fields}
                given = {name: value for name, value in given.items() if value is not None}
                return function(**values, **{_INTO: given})

            made = [
                _parameter(name, field, names.get(name, name), metavars.get(name), notes.get(name))
                for name, field in fields.items()
            ]
            functools.update_wrapper(call, function)
            return Signed(call, [*before, *made, *after])

        return Unfinished(function, [*before, *after], complete)

    return decorate


class ModelCommand(TyperCommand):
    """A command with options of a model (see :func:`options_of`), made when they are asked for."""

    _complete: Callable[[], Signed] | None = None
    _params: list[Any]

    @property
    def params(self) -> list[Any]:
        if self._complete is not None:
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command()(self._complete())
            made = typer.main.get_command(app)
            self._complete, self._params, self.callback = None, made.params, made.callback
        return self._params

    @params.setter
    def params(self, value: list[Any]) -> None:
        # typer copies the attributes of a command onto what it calls.
        self._complete = getattr(self.callback, "complete", None)
        self._params = value


def _parameter(
    name: str, field: "FieldInfo", option: str, metavar: str | None, note: str | None
) -> inspect.Parameter:
    kinds = [kind for kind in _alternatives(field.annotation) if kind is not NoneType]
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    kind: Any = str if choices else _plain(kinds[0])
    flag = option.replace("_", "-")
    info = typer.Option(
        None,
        f"--{flag}/--no-{flag}" if kind is bool and field.default else f"--{flag}",
        help=_help(field, flag, note, [] if choices else _limits(field)),
        metavar=metavar or "|".join(map(str, choices)) or None,
        show_default=False,
    )
    kind_of = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind_of, default=info, annotation=kind | None)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _plain(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _help(field: "FieldInfo", flag: str, note: str | None, limits: list[str]) -> str:
    text = " ".join((field.description or "").split())
    default = flag if field.default is True else str(field.default)
    if field.default is None or field.default is False:
        default = ""
    told = "; ".join(part for part in (default, note) if part)
    brackets = [f"default: {told}"] if told else []
    brackets += [", ".join(limits)] if limits else []
    return f"{text} [{'; '.join(brackets)}]" if brackets else text


def _limits(field: "FieldInfo") -> list[str]:
    """The bounds of a number, in words."""
    constraints = list(field.metadata)
    for kind in _alternatives(field.annotation):
        if get_origin(kind) is Annotated:
            constraints += get_args(kind)[1:]
    each = [inner for c in constraints for inner in getattr(c, "metadata", [c])]
    return [
        f"{word} {getattr(constraint, bound)}"
        for constraint in each
        for bound, word in _LIMITS.items()
        if getattr(constraint, bound, None) is not None
    ]
