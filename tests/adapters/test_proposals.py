"""What a sweep tries: what was asked for, next what is worth it, and after an interruption the same."""

import math
from typing import Any

import pytest
from cleansteer.adapters.sweeps.proposals import propose
from cleansteer.adapters.sweeps.space import grid, options_of, read_space
from cleansteer.core.errors import InputError
from cleansteer.core.records.sweep import Point, Sampler, SearchSpace, Trial
from cleansteer.core.records.training import Losses


def space(
    learning_rate: Any = "0.001:1",
    component: Any = "scale",
    beta2: Any = "auto",
    select: Any = "auto",
) -> SearchSpace:
    return read_space(learning_rate, component, beta2, select)


def loss_of(point: Point) -> float:
    """Best at a rate of 0.03 with bias; it is not finite above 0.6."""
    if point.learning_rate > 0.6:
        return math.nan
    return (math.log10(point.learning_rate) + 1.5) ** 2 + 2.0 * (point.component == "scale")


def done(points: list[Point]) -> list[Trial]:
    trials = []
    for number, point in enumerate(points):
        loss = loss_of(point)
        fine = math.isfinite(loss)
        trials.append(
            Trial(
                number=number,
                point=point,
                state="complete" if fine else "failed",
                chosen_by=Losses(before=9.0, after=loss) if fine else None,
                seconds=1.0,
            )
        )
    return trials


def proposed(given: SearchSpace, sampler: Sampler, count: int, seed: int = 0) -> list[Point]:
    points: list[Point] = []
    while len(points) < count:
        point = propose(given, sampler, done(points), seed)
        if point is None:
            break
        points.append(point)
    return points


def test_values_are_read_from_text_and_from_lists() -> None:
    same = (
        space("0.01, 0.1", "scale,bias", "auto,0.99", "all,20,auto"),
        space([0.01, "0.1"], ["scale", "bias"], ["auto", 0.99], ["all", 20, "auto"]),
    )
    assert same[0] == same[1]
    assert same[0].size == 2 * 2 * 2 * 3 == len(set(grid(same[0])))
    assert space(0.05).learning_rates == [0.05]
    assert (space().learning_rates, space().is_range, space().size) == ([0.001, 1.0], True, None)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("learning_rate", "0.1:0.01", "LOW being less"),
        ("learning_rate", "0.1:0.1", "LOW being less"),
        ("learning_rate", "0.1:0.2:0.3", "LOW:HIGH"),
        ("learning_rate", "0:1", "above 0"),
        ("learning_rate", "0.1:inf", "above 0"),
        ("learning_rate", "nan", "above 0"),
        ("learning_rate", "-0.1,0.1", "above 0"),
        ("learning_rate", "fast", "'fast' is no number"),
        ("learning_rate", "0.1,0.10", "twice"),
        ("learning_rate", "", "lists nothing"),
        ("learning_rate", [], "lists nothing"),
        ("component", "scale,paint", "'paint' is not known"),
        ("component", "scale,scale", "scale twice"),
        ("beta2", "1", "between 0 and 1"),
        ("beta2", "auto,x", "'x' is no number"),
        ("select", "0", "no number of features"),
        ("select", "2.5", "no number of features"),
        ("select", "many", "'many' is no number"),
        ("select", "all,,3", "lists nothing"),
    ],
)
def test_what_cannot_be_tried_is_refused(name: str, value: Any, part: str) -> None:
    with pytest.raises(InputError, match=part):
        space(**{name: value})


def test_components_take_the_options_that_they_know() -> None:
    found = options_of(["scale", "mlp"], {"hidden": 4})
    assert found["scale"] == {}
    assert found["mlp"]["hidden"] == 4
    with pytest.raises(InputError, match="'rank' applies to none of the components scale, mlp"):
        options_of(["scale", "mlp"], {"rank": 2})
    with pytest.raises(InputError, match="which takes none"):
        options_of(["scale"], {"rank": 2})


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_lists_are_tried_to_the_end_each_combination_once(sampler: Sampler) -> None:
    given = space([0.01, 0.1], "scale,bias", "auto,0.9", ["all", 3])
    found = proposed(given, sampler, 99)
    assert len(found) == 16
    assert set(found) == set(grid(given))
    assert found != grid(given), "in random order"
    assert proposed(given, sampler, 99, seed=1) != found


@pytest.mark.parametrize(
    "given",
    [space(component="scale,bias"), space([0.01, 0.03, 0.1, 0.3], "scale,bias", "0.9,0.99")],
)
def test_what_is_tried_next_depends_on_what_was_tried_alone(given: SearchSpace) -> None:
    """So an interrupted sweep goes on as it would have gone, and one can be made longer."""
    whole = proposed(given, "tpe", 14)
    for cut in (0, 1, 7, 13):
        assert propose(given, "tpe", done(whole[:cut]), 0) == whole[cut]
    assert proposed(given, "tpe", 14, seed=3) != whole


def test_a_range_is_searched_where_it_is_good() -> None:
    """Once there is something to go by, proposals lie nearer to the best place than random ones do, and
    of the better component; those that failed are left alone.
    """
    given = space(component="scale,bias")
    later = [point for seed in range(4) for point in proposed(given, "tpe", 24, seed)[10:]]
    assert all(0.001 <= point.learning_rate <= 1 for point in later)
    away = [abs(math.log10(point.learning_rate) + 1.5) for point in later]
    assert sum(away) / len(away) < 0.5  # of even ones 0.75
    assert sum(point.component == "bias" for point in later) > 0.75 * len(later)
    assert sum(point.learning_rate > 0.6 for point in later) <= 0.05 * len(later)


def test_rates_are_as_people_write_them() -> None:
    for point in proposed(space("0.0123456:0.0123457"), "tpe", 3) + proposed(space(), "tpe", 3):
        rate = point.learning_rate
        assert float(f"{rate:.3g}") == rate or 0.0123456 <= rate <= 0.0123457
