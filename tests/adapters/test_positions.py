"""Edits at some tokens alone: what is edited is what untouched hooks edit there by hand."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import adapted
import families
import pytest
import torch
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.core.errors import InputError
from peft import PeftModel
from torch import Tensor

HOOK = "blocks.1.hook_resid_post"
TOKENS = torch.tensor([[0, 5, 6, 7, 8, 9], [0, 11, 12, 13, 14, 15], [3, 21, 22, 23, 24, 25]])
RIGHT = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])
LEFT = RIGHT.flip(1)
LABELS = torch.tensor(
    [[-100] * 3 + [7, 8, 9], [-100] * 2 + [12, 13, -100, -100], [-100] * 5 + [25]]
)


def adapt(shelf: Path, family: str = "gpt2", hook: str = HOOK, **which: Any) -> PeftModel:
    width = adapted.width_at(family, hook)
    config = adapted.adapter([adapted.target(shelf, hook, width=width)], "bias", **which)
    return adapted.adapt(adapted.network(family), config)


def vector(model: PeftModel) -> Tensor:
    (layer,) = adapted.layers(model)
    return layer.cleansteer_exit["default"].bias.detach() @ layer.slice_exit["default"].decoder


@contextmanager
def pushed(network: Any, push: Tensor, where: Tensor) -> Iterator[None]:
    """The vector is added to the output of layer 1 of an untouched network, where it is True."""

    def change(_: Any, inputs: Any, output: Any) -> Any:
        values = output[0] if isinstance(output, tuple) else output
        values = values + push * where[..., None]
        return (values, *output[1:]) if isinstance(output, tuple) else values

    handle = families.layers_of(network)[1].register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


def expected(model: PeftModel, where: Tensor, **given: Any) -> Tensor:
    network = adapted.network()
    with pushed(network, vector(model), where.bool()):
        return network(use_cache=False, **given).logits


LAST = {
    "right": (RIGHT, torch.tensor([[0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]])),
    "left": (LEFT, torch.tensor([[0, 0, 0, 0, 0, 1]] * 3)),
    "none": (None, torch.tensor([[0, 0, 0, 0, 0, 1]] * 3)),
}


@pytest.mark.parametrize("padding", LAST)
def test_last_is_the_last_token_that_is_no_padding(padding: str, shelf: Path) -> None:
    mask, where = LAST[padding]
    model = adapt(shelf, positions="last")
    given = {"input_ids": TOKENS, "attention_mask": mask}
    found = model(use_cache=False, **given).logits
    assert adapted.relative(found, expected(model, where, **given)) < adapted.EXACT
    assert adapted.relative(found, expected(model, where * 0, **given)) > 0.01


def test_completion_is_what_has_a_label(shelf: Path) -> None:
    model = adapt(shelf, positions="completion")
    given = {"input_ids": TOKENS, "attention_mask": RIGHT}
    found = model(labels=LABELS, use_cache=False, **given).logits
    assert adapted.relative(found, expected(model, LABELS != -100, **given)) < adapted.EXACT
    with pytest.raises(InputError, match="nothing tells the completion from the prompt"):
        model(use_cache=False, **given)
    with model.disable_adapter():
        model(use_cache=False, **given)


@pytest.mark.parametrize("padding", ["right", "left", "none"])
def test_bos_is_left_out_where_a_row_begins_with_it(padding: str, shelf: Path) -> None:
    mask = LAST[padding][0]
    tokens = TOKENS.clone()
    if padding == "left":
        tokens[0, 0], tokens[1, 2], tokens[2, 4] = 0, 0, 9
    where = torch.ones_like(tokens)
    where[0, 0] = 0  # id 0 is BOS and EOS; row 2 begins with another
    where[1, 2 if padding == "left" else 0] = 0
    model = adapt(shelf, edit_bos=False)
    given = {"input_ids": tokens, "attention_mask": mask}
    found = model(use_cache=False, **given).logits
    assert adapted.relative(found, expected(model, where, **given)) < adapted.EXACT
    tokens = tokens.clone()
    tokens[:, 3] = 0  # in the middle it is a token like others
    given["input_ids"] = tokens
    found = model(use_cache=False, **given).logits
    assert adapted.relative(found, expected(model, where, **given)) < adapted.EXACT


WHICH = [
    {"positions": "last"},
    {"positions": "completion"},
    {"edit_bos": False},
    {"positions": "last", "edit_bos": False},
]


@pytest.mark.parametrize("family", adapted.FAMILIES)
@pytest.mark.parametrize("which", WHICH, ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_generation_with_and_without_cache(
    family: str, which: dict[str, Any], padded: bool, shelf: Path
) -> None:
    model = adapt(shelf, family, **which)
    tokens, mask = TOKENS.clone(), LEFT if padded else torch.ones_like(TOKENS)
    tokens[mask == 0] = 0

    def scores(model: Any, cache: bool) -> Tensor:
        out = model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=5,
            min_new_tokens=5,
            do_sample=False,
            use_cache=cache,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        return torch.stack(out.logits)

    cached, whole = scores(model, True), scores(model, False)
    assert adapted.relative(cached, whole) < 10 * adapted.EXACT
    assert adapted.relative(cached, scores(adapted.network(family), True)) > 0.01
    if which == {"positions": "completion"}:  # the prompt is not edited
        untouched = scores(adapted.network(family), True)
        assert adapted.relative(cached[0], untouched[0]) < adapted.EXACT
        assert adapted.relative(cached[1], untouched[1]) > 1e-3


def test_one_new_token_is_that_of_the_last_position(shelf: Path) -> None:
    """What generation draws the next token from is what a plain pass gives there."""
    model = adapt(shelf, positions="last")
    out = model.generate(
        input_ids=TOKENS,
        attention_mask=torch.ones_like(TOKENS),
        max_new_tokens=1,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    plain = model(input_ids=TOKENS, use_cache=False).logits[:, -1]
    assert adapted.relative(out.logits[0], plain) < adapted.EXACT


@pytest.mark.parametrize("which", WHICH, ids=str)
def test_saved_and_loaded(which: dict[str, Any], shelf: Path, tmp_path: Path) -> None:
    model = adapt(shelf, **which)
    model.save_pretrained(tmp_path)
    given = {"input_ids": TOKENS, "attention_mask": RIGHT, "labels": LABELS, "use_cache": False}
    loaded = PeftModel.from_pretrained(adapted.network(), tmp_path)
    assert torch.equal(loaded(**given).logits, model(**given).logits)
    twin = copy.deepcopy(model)
    model(**{**given, "input_ids": TOKENS[:1], "attention_mask": RIGHT[:1], "labels": LABELS[:1]})
    assert torch.equal(twin(**given).logits, loaded(**given).logits)
    unloaded = loaded.unload()
    assert adapted.hooks_of(unloaded) == []


def test_adapters_of_other_tokens_stand_beside_each_other(shelf: Path) -> None:
    first, second = ({"positions": "last"}, {"edit_bos": False})
    model = adapt(shelf, **first)
    alone = adapt(shelf, **second)
    model.add_adapter("second", copy.deepcopy(alone.peft_config["default"]))
    adapted.randomise(model, "second")
    given = {"input_ids": TOKENS, "attention_mask": RIGHT, "use_cache": False}
    model.set_adapter("second")
    assert torch.equal(model(**given).logits, alone(**given).logits)
    model.set_adapter("default")
    assert torch.equal(model(**given).logits, adapt(shelf, **first)(**given).logits)


def test_gradient_comes_from_edited_tokens_alone(shelf: Path) -> None:
    """The last token's edit moves no earlier logits."""
    model = adapt(shelf, positions="last")
    with torch.enable_grad():
        logits = model(input_ids=TOKENS, use_cache=False).logits
        (gradient,) = torch.autograd.grad(
            logits[:, :-1].sum(), list(adapted.parameters(model).values()), retain_graph=True
        )
        assert torch.equal(gradient, torch.zeros_like(gradient))
        (gradient,) = torch.autograd.grad(
            logits[:, -1].square().sum(), list(adapted.parameters(model).values())
        )
    assert gradient.abs().max() > 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"positions": "first"}, "positions is 'first'"), ({"edit_bos": 1}, "edit_bos is 1")],
)
def test_unknown_tokens_are_refused(wrong: dict[str, Any], told: str, shelf: Path) -> None:
    with pytest.raises(InputError, match=told):
        SaeAdapterConfig(targets=[adapted.target(shelf, HOOK)], **wrong)


def test_embeddings_do_not_tell_where_bos_is(shelf: Path) -> None:
    model = adapt(shelf, edit_bos=False)
    values = model.get_input_embeddings()(TOKENS)
    with pytest.raises(InputError, match="do not tell where BOS is"):
        model(inputs_embeds=values)
