"""Jacobians against double-precision central differences of the untouched Hugging Face model."""

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import families
import pytest
import tiny
import torch
from cleansteer.core.errors import InputError
from cleansteer.core.models import LanguageModel, wrap_model
from cleansteer.core.sites import Site
from cleansteer.steering_eval import derivative
from cleansteer.steering_eval.derivative import Differentiator, Jacobians
from cleansteer.steering_eval.families import find_blocks
from cleansteer.steering_eval.forward import ForwardPass, Prefix
from cleansteer.steering_eval.rerun import FullForward
from cleansteer.steering_eval.resume import ResumedForward
from cleansteer.steering_eval.vocabulary import VocabularyReader

EXACT = 1e-4
"""Relative to the largest entry: float32, and norms that are float32 in Hugging Face's own code."""
STEP = 1e-2
N_CONTEXTS, N_DIRECTIONS = 3, 4
LATER = "blocks.3.hook_resid_post"

CASES = [
    (family, place, dtype)
    for family in (*families.FAMILIES, families.UNKNOWN)
    for place in families.sites_of(family if family != families.UNKNOWN else "gpt_neox")
    for dtype in (torch.float64, torch.float32)
    if dtype == torch.float64 or place == "hook_resid_pre"
]


@cache
def networks(family: str, dtype: torch.dtype) -> tuple[Any, LanguageModel]:
    made = families.network(family)
    return made, wrap_model(copy.deepcopy(made).to(dtype), tiny.tokenizer())


def passes(model: LanguageModel, hook: str) -> dict[str, ForwardPass]:
    site, blocks = tiny.site(hook, model), find_blocks(model)
    found: dict[str, ForwardPass] = {"full": FullForward(model, site)}
    if blocks is not None:
        found["resumed"] = ResumedForward(model, blocks, site)
    return found


def directions(width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(N_DIRECTIONS, width, generator=generator, dtype=torch.float64)


def differences(network: Any, hook: str, read: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Central differences of fourth order of logits and of what stands at a tap,
    ``[context, direction, entry]``.
    """
    tokens, found = tiny.contexts(N_CONTEXTS), []
    for direction in directions(families.width_at(network, hook)):
        once, minus_once, twice, minus_twice = (
            families.run(network, tokens, read, hook, steps * STEP * direction)
            for steps in (1, -1, 2, -2)
        )
        found.append(
            [
                (8 * (a - b) - (c - d)) / (12 * STEP)
                for a, b, c, d in zip(once, minus_once, twice, minus_twice, strict=True)
            ]
        )
    logits, tapped = (torch.stack(each, dim=1) for each in zip(*found, strict=True))
    return logits, tapped


def response(model: LanguageModel, found: list[Jacobians]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by Jacobians."""
    vocabulary = VocabularyReader.of_model(model)
    logits, tapped = [], []
    for each in found:
        some = directions(each.to_output.shape[1]).to(each.to_output)
        slopes = vocabulary.slopes(vocabulary.logits(each.output))
        logits.append(vocabulary.change(some @ each.to_output[0]) * slopes)
        tapped.append(some @ each.to_tap[0])
    return torch.stack(logits), torch.stack(tapped)


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize(("family", "place", "dtype"), CASES)
def test_they_equal_differences_of_the_untouched_model(
    family: str, place: str, dtype: torch.dtype
) -> None:
    network, model = networks(family, dtype)
    hook = f"blocks.1.{place}"
    read = LATER if family != families.UNKNOWN else "blocks.3.hook_mlp_out"
    logits, tapped = differences(network, hook, read)
    if model.vocabulary_centred:
        logits = logits - logits.mean(dim=-1, keepdim=True)
    for name, forward in passes(model, hook).items():
        worker = Differentiator(forward, tiny.site(read, model))
        ours = response(model, list(worker.jacobians(tiny.contexts(N_CONTEXTS))))
        assert worker.exact, f"{name}: no forward-mode derivative"
        assert apart(ours[0], logits) < EXACT, name
        assert apart(ours[1], tapped) < EXACT, name


def test_where_site_and_tap_are_one_it_is_the_identity() -> None:
    model = tiny.model()
    hook = "blocks.2.hook_resid_pre"
    for forward in passes(model, hook).values():
        for each in Differentiator(forward, tiny.site(hook, model)).jacobians(tiny.contexts(2)):
            assert torch.equal(each.to_tap[0], torch.eye(tiny.WIDTH))


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_central_differences_agree_with_exact_ones(family: str) -> None:
    _, model = networks(family, torch.float32)
    (forward,) = (f for n, f in passes(model, "blocks.1.hook_resid_pre").items() if n == "resumed")
    tap = tiny.site(LATER, model)
    exact, different = (
        list(Differentiator(forward, tap, exact=exact).jacobians(tiny.contexts(2)))
        for exact in (True, False)
    )
    for one, other in zip(exact, different, strict=True):
        assert torch.equal(one.output, other.output)
        assert apart(other.to_output, one.to_output.double()) < 5e-3
        assert apart(other.to_tap, one.to_tap.double()) < 5e-3


def test_without_a_forward_mode_derivative_differences_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny.model()
    forward = passes(model, "blocks.1.hook_resid_pre")["resumed"]

    def refuse(*_: object) -> None:
        raise NotImplementedError("Trying to use forward AD with f that does not support it")

    monkeypatch.setattr(Differentiator, "_push", refuse)
    worker = Differentiator(forward, tiny.site(LATER, model))
    assert len(list(worker.jacobians(tiny.contexts(1)))) == 1
    assert not worker.exact


@dataclass(frozen=True)
class Forgetful:
    """A forward pass that loses derivatives on its way, and says nothing."""

    of_model: ForwardPass

    def freeze(self, tokens: torch.Tensor) -> Prefix:
        return ForgetfulPrefix(self.of_model.freeze(tokens))


@dataclass(frozen=True)
class ForgetfulPrefix:
    known: Prefix

    @property
    def final(self) -> torch.Tensor:
        return self.known.final

    def of(self, contexts: slice) -> Prefix:
        return ForgetfulPrefix(self.known.of(contexts))

    def resume(self, steered: torch.Tensor, tap: Site) -> tuple[torch.Tensor, torch.Tensor]:
        output, tapped = self.known.resume(steered, tap)
        return output - 0.5 * (output - output.detach()), tapped


def test_derivatives_that_are_lost_are_noticed() -> None:
    model = tiny.model()
    tap, forward = tiny.site(LATER, model), passes(model, "blocks.1.hook_resid_pre")["resumed"]
    worker = Differentiator(Forgetful(forward), tap)
    (found,) = worker.jacobians(tiny.contexts(1))
    assert not worker.exact
    (truth,) = Differentiator(forward, tap).jacobians(tiny.contexts(1))
    assert apart(found.to_output, truth.to_output.double()) < 5e-3


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()

    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Differentiator, "_push", fail)
    forward = passes(model, "blocks.1.hook_resid_pre")["resumed"]
    with pytest.raises(RuntimeError, match="shapes"):
        next(Differentiator(forward, tiny.site(LATER, model)).jacobians(tiny.contexts(1)))


def test_steps_that_disagree_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    monkeypatch.setattr(derivative, "_STEP", 3.0)  # of the size of what stands there
    forward = passes(model, "blocks.1.hook_resid_pre")["resumed"]
    worker = Differentiator(forward, tiny.site(LATER, model), exact=False)
    with pytest.raises(InputError, match=r"cannot be differentiated.*response = false"):
        next(worker.jacobians(tiny.contexts(1)))


@pytest.mark.parametrize("most", [1, 5, 1024])
def test_how_many_at_once_changes_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model(torch.float64)
    forward = passes(model, "blocks.1.hook_resid_pre")["resumed"]
    tap = tiny.site(LATER, model)
    (whole,) = Differentiator(forward, tap).jacobians(tiny.contexts(1))
    monkeypatch.setitem(derivative._MOST_QUERIES, "cpu", most)
    (parts,) = Differentiator(forward, tap).jacobians(tiny.contexts(1))
    assert apart(parts.to_output, whole.to_output) < 1e-12
    assert apart(parts.to_tap, whole.to_tap) < 1e-12
