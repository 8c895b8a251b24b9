"""What happens behind the unembedding is measured: untouched Hugging Face models are the judge."""

from typing import Any

import pytest
import tiny
import torch
from cleansteer.core.errors import InputError
from cleansteer.core.head import Head, measure_head
from cleansteer.core.models import wrap_model
from cleansteer.steering_eval.vocabulary import VocabularyReader
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

SMALL = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": tiny.WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
MODELS: dict[str, tuple[str, dict[str, object], Head]] = {
    "none": ("llama", {}, Head()),
    "divided": ("granite", {"logits_scaling": 8.0}, Head(scale=0.125)),
    "divided by no power of two": ("granite", {"logits_scaling": 3.0}, Head(scale=1 / 3)),
    "multiplied": ("granite", {"logits_scaling": 0.25}, Head(scale=4.0)),
    "multiplied elsewhere": ("cohere", {"logit_scale": 0.0625}, Head(scale=0.0625)),
    "capped": ("gemma2", {"final_logit_softcapping": 5.0}, Head(soft_cap=5.0)),
    "capped elsewhere": ("gemma3_text", {"final_logit_softcapping": 7.5}, Head(soft_cap=7.5)),
}
"""``model_type``, what differs from :data:`SMALL`, and the head."""
PROBE = torch.arange(8)[None]


def network(name: str) -> Any:
    model_type, changes, _ = MODELS[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **SMALL, **changes)
    made = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_measured_in_any_number_format(name: str, dtype: torch.dtype) -> None:
    model = network(name).to(dtype)
    before = model(PROBE).logits
    found, expected = measure_head(model, PROBE), MODELS[name][2]
    assert found.scale == pytest.approx(expected.scale, rel=1e-6)
    assert found.soft_cap == expected.soft_cap
    assert torch.equal(model(PROBE).logits, before), "the model is left as it was"


# TransformerLens' bridge turns Cohere's heads another way, and the model is refused for that.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "multiplied elsewhere"])
def test_logits_are_the_models_own(name: str) -> None:
    tokens = torch.randint(tiny.VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(1))
    untouched = network(name)
    seen: list[torch.Tensor] = []
    untouched.lm_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    expected = untouched(tokens).logits
    model = wrap_model(network(name), tiny.tokenizer())
    reader = VocabularyReader.of_model(model)
    logits = reader.logits(seen[0])
    if model.vocabulary_centred:
        expected = expected - expected.mean(dim=-1, keepdim=True)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


class Odd(nn.Module):
    """A model of which the logits are something else than a multiple."""

    def __init__(self, bend: Any) -> None:
        super().__init__()
        self.inner, self.bend = network("none"), bend

    def get_output_embeddings(self) -> nn.Module | None:
        return self.inner.lm_head

    def forward(self, tokens: torch.Tensor, **options: Any) -> Any:
        output = self.inner(tokens, **options)
        output.logits = self.bend(output.logits)
        return output


@pytest.mark.parametrize(
    "bend",
    [
        lambda x: x.abs(),
        lambda x: x.clamp(-5, 5),
        lambda x: x + 1.0,
        lambda x: x - x.mean(dim=-1, keepdim=True) + 0.1 * x.flip(-1),
        lambda x: 0.0 * x,
        lambda x: x.log_softmax(dim=-1),
    ],
    ids=["abs", "clamp", "shift", "mixed", "zero", "log-softmax"],
)
def test_any_other_function_is_refused(bend: Any) -> None:
    with pytest.raises(InputError, match="in a way that is not known"):
        measure_head(Odd(bend), PROBE)


def test_a_model_without_unembedding_is_refused() -> None:
    model = Odd(lambda x: x)
    model.get_output_embeddings = lambda: None  # type: ignore[method-assign]
    with pytest.raises(InputError, match="no output embedding"):
        measure_head(model, PROBE)
