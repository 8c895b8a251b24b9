"""Adapters with parameters set by hand, and what plain Hugging Face and SAELens say of their world."""

from pathlib import Path
from typing import Any

import lessons
import tiny
import torch
from cleansteer.adapters import SaeAdapterConfig
from peft import get_peft_model
from sae_lens import SAE
from transformers import AutoModelForCausalLM

HOOK = "blocks.1.hook_resid_pre"
ABOVE = "blocks.2.hook_resid_post"
TEXTS = lessons.texts(5, seed=3, least=5, most=9)


def network(built: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(built / "model").eval().requires_grad_(False)


def rows(ends: bool = True) -> list[torch.Tensor]:
    """The texts as tokens: BOS in front, and EOS behind."""
    tokenizer = tiny.tokenizer()
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    start = end if start is None else start
    ids = [tokenizer(row["text"], add_special_tokens=False)["input_ids"] for row in TEXTS]
    return [torch.tensor([[start, *each, *([end] if ends else [])]]) for each in ids]


def latents(built: Path) -> list[torch.Tensor]:
    """Of every text, by SAELens' own encoder over plain Hugging Face's hidden states."""
    sae, model = SAE.load_from_disk(str(built / "primary")), network(built)
    return [sae.encode(model(ids, output_hidden_states=True).hidden_states[1][0]) for ids in rows()]


def mean_loss(model: Any) -> float:
    total, count = 0.0, 0
    for ids in rows():
        logits = model(input_ids=ids, labels=ids, use_cache=False).logits[0, :-1].double()
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        total, count = total + float(losses.sum()), count + len(losses)
    return total / count


def target(built: Path) -> dict[str, Any]:
    return {"hook": HOOK, "sae": {"path": str(built / "primary")}, "features": None}


def plant(
    built: Path, folder: Path, component: str, **values: torch.Tensor | dict[int, float]
) -> Path:
    """An adapter on all features, with parameters set by hand."""
    config = SaeAdapterConfig(targets=[target(built)], component=component)
    model = get_peft_model(network(built), config)
    for name, given in values.items():
        (parameter,) = (
            p for n, p in model.named_parameters() if n.endswith(name) and p.requires_grad
        )
        entries = given.items() if isinstance(given, dict) else enumerate(given)
        for at, value in entries:
            parameter.data[at] = value
    model.save_pretrained(folder)
    return folder
