"""What a sweep tries, as it is asked for: ranges and lists, checked."""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from math import isfinite
from typing import Any, TypeAlias

from ...core.checks import read_number
from ...core.errors import InputError
from ...core.records.sweep import Point, SearchSpace
from ..asked import AUTO
from ..components.component import check_options, component_class

Values: TypeAlias = str | float | Iterable[str | float]
"""One value, a list of them, or text of them with commas in between."""
ALL = "all"
DEFAULT_RATES = "0.001:0.3"


def read_space(learning_rate: Any, component: Any, beta2: Any, select: Any) -> SearchSpace:
    """What may be tried.

    Args:
        learning_rate: values, or the text ``LOW:HIGH``.
        component: names.
        beta2: numbers, or ``auto``.
        select: numbers of features, ``all`` or ``auto``.

    Raises:
        InputError: a value that cannot be, one given twice, or a range that is none.

    """
    rates, is_range = _rates(learning_rate)
    return SearchSpace(
        learning_rates=rates,
        is_range=is_range,
        components=_listed("--component", component, _component),
        beta2=_listed("--beta2", beta2, _beta2),
        select=_listed("--select", select, _select),
    )


def grid(space: SearchSpace) -> list[Point]:
    """Every combination.

    Raises:
        ValueError: there is any number of them.

    """
    if space.is_range:
        raise ValueError("a range of learning rates has no grid")
    found = product(space.learning_rates, space.components, space.beta2, space.select)
    return [
        Point(learning_rate=rate, component=component, beta2=beta2, select=select)
        for rate, component, beta2, select in found
    ]


def options_of(components: Iterable[str], given: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The options of each component: those that it takes of what is given for all.

    Raises:
        InputError: one that none of them takes, or a value out of range.

    """
    names = list(components)
    for key in given:
        if not any(key in component_class(name).options for name in names):
            if len(names) == 1:
                check_options(names[0], given)
            raise InputError(
                f"option {key!r} applies to none of the components {', '.join(names)}; leave it out"
            )
    return {
        name: check_options(
            name, {key: given[key] for key in given if key in component_class(name).options}
        )
        for name in names
    }


def _rates(given: Any) -> tuple[list[float], bool]:
    if isinstance(given, str) and ":" in given:
        ends = [_rate(part) for part in given.split(":")]
        if len(ends) != 2 or not ends[0] < ends[1]:
            raise InputError(
                f"--learning-rate {given} is no range; expected LOW:HIGH, LOW being less than HIGH, such "
                f"as {DEFAULT_RATES}; change it"
            )
        return ends, True
    return _listed("--learning-rate", given, _rate), False


def _rate(value: Any) -> float:
    number = _number("--learning-rate", value)
    if not number > 0 or not isfinite(number):
        raise InputError(f"--learning-rate {number:g}: expected a number above 0; change it")
    return number


def _component(value: Any) -> str:
    component_class(value)
    return str(value)


def _beta2(value: Any) -> Any:
    if value == AUTO:
        return AUTO
    number = _number("--beta2", value)
    if not 0 < number < 1:
        raise InputError(
            f"--beta2 {number:g}: expected auto, or a number between 0 and 1; change it"
        )
    return number


def _select(value: Any) -> Any:
    if value in (AUTO, ALL):
        return value
    number = read_number("--select", value) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InputError(
            f"--select: {value!s:.40} is no number of features from 1, nor all or auto; change it"
        )
    return number


def _number(name: str, value: Any) -> float:
    if isinstance(value, str):
        return float(read_number(name, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r:.80}; expected a number, or a list of them")
    return float(value)


def _listed(name: str, given: Any, read: Callable[[Any], Any]) -> list[Any]:
    """Values, each read."""
    if isinstance(given, str):
        listed: list[Any] = [part.strip() for part in given.split(",")]
    elif isinstance(given, Iterable) and not isinstance(given, bytes | Mapping):
        listed = list(given)
    else:
        listed = [given]
    if not listed or "" in listed:
        raise InputError(f"{name} {given!r:.80} lists nothing; expected values; give some")
    found = [read(value) for value in listed]
    twice = next((value for value in found if found.count(value) > 1), None)
    if twice is not None:
        raise InputError(f"{name} has {twice} twice; expected each value once; leave one out")
    return found
