"""Published figures: silent where they are met, and only spoken of for the setting they are of."""

import math

import pytest
from cleansteer.core.records import PerSae
from cleansteer.study.catalogue import bundled, load_setting
from cleansteer.study.published import PUBLISHED, deviations, published_for

FIGURES = PUBLISHED["gpt2-small"]


def measured(l0: float = 1, downstream: float = 1, eligible: float = 1) -> list[str]:
    """Deviations where the figures are so many times the published ones."""
    mean_l0 = PerSae[float](sae=l0 * FIGURES.l0, downstream_sae=downstream * FIGURES.downstream_l0)
    return deviations(FIGURES, mean_l0, round(eligible * FIGURES.n_eligible))


@pytest.mark.parametrize("times", [0.91, 1.0, 1.09])
def test_near_the_published_figures_nothing_is_said(times: float) -> None:
    assert measured(times, times, times) == []


@pytest.mark.parametrize("times", [0.0, 0.89, 1.11, 30.0])
def test_every_figure_is_judged_by_itself(times: float) -> None:
    lines = [measured(l0=times), measured(downstream=times), measured(eligible=times)]
    for (line,), expected, part in zip(
        lines,
        (FIGURES.l0, FIGURES.downstream_l0, FIGURES.n_eligible),
        ("steered SAE", "downstream SAE", "eligible"),
        strict=True,
    ):
        assert part in line
        assert f"published {expected:g}" in line
        assert f"{times - 1:+.0%}" in line
    assert len(measured(times, times, times)) == 3


def test_what_is_not_a_number_is_off() -> None:
    assert len(measured(l0=math.nan)) == 1


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_figures_are_of_bundled_settings(name: str) -> None:
    assert published_for(load_setting(name)) == PUBLISHED[name]


def test_no_figures_for_other_settings() -> None:
    for name in set(bundled()) - set(PUBLISHED):
        assert published_for(load_setting(name)) is None


@pytest.mark.parametrize(
    ("section", "changes", "comparable"),
    [
        ("steering", {"n_features": 20}, True),
        ("heldout_corpus", {"n_evaluated": 100}, True),
        ("model", {"dtype": "bfloat16"}, False),
        ("sae", {"centred": False}, False),
        ("sae", {"id": "blocks.7.hook_resid_pre"}, False),
        ("downstream_sae", {"id": "blocks.11.hook_resid_pre"}, False),
        ("corpus", {"n_contexts": 512}, False),
        ("corpus", {"contexts": "text-start"}, False),
    ],
)
def test_only_for_what_they_were_measured_with(
    section: str, changes: dict[str, object], comparable: bool
) -> None:
    changed = load_setting("gpt2-small").replace(section, **changes)
    assert (published_for(changed) is not None) is comparable
