"""Examples to train on in the tiny world, and what a training needs in memory."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tiny
import torch
import world
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.adapters.examples import Examples, gather
from cleansteer.core.networks import fingerprint_contents, fingerprint_tensors, load_network
from cleansteer.core.records import Allowlist
from cleansteer.core.saes import hook_of, open_sae
from cleansteer.core.settings import Setting
from torch import Tensor
from transformers import GPT2LMHeadModel

HOOK = "blocks.1.hook_resid_pre"
ACTIVE = [0, 3, 5, 8, 13, 21, 34, 55]
"""Features that are allowed in most tests; the first always fires."""
Rows = list[dict[str, str]]


def words(draw: random.Random, least: int, most: int, among: int = 30) -> str:
    """Words of a small part of the vocabulary, so that there is something to learn."""
    return " ".join(f"w{draw.randrange(1, among)}" for _ in range(draw.randint(least, most)))


def texts(count: int, seed: int = 0, least: int = 4, most: int = 9, among: int = 30) -> Rows:
    draw = random.Random(seed)
    return [{"text": words(draw, least, most, among)} for _ in range(count)]


def completions(count: int, seed: int = 0) -> Rows:
    draw = random.Random(seed)
    return [
        {"prompt": words(draw, 2, 5, 300), "completion": " " + words(draw, 2, 5)}
        for _ in range(count)
    ]


def preferences(count: int, seed: int = 0) -> Rows:
    """Low words are preferred to high ones."""
    draw = random.Random(seed)
    return [
        {
            "prompt": words(draw, 2, 5, 300),
            "chosen": " " + words(draw, 2, 5, 30),
            "rejected": " " + words(draw, 2, 5, 599),
        }
        for _ in range(count)
    ]


ROWS = {"sft": texts, "dpo": preferences}


def write(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def examples(objective: str, count: int = 16, seed: int = 0) -> Examples:
    return gather(ROWS[objective](count, seed))


def save_sae(folder: Path, architecture: str = "standard", **shape: object) -> Path:
    world.save_sae(tiny.sae(architecture, HOOK, **shape), folder)  # type: ignore[arg-type]
    return folder


def config(
    sae: Path, component: str = "scale", features: list[int] | None = ACTIVE, **options: float
) -> SaeAdapterConfig:
    target = {"hook": HOOK, "sae": {"path": str(sae)}, "features": features}
    return SaeAdapterConfig(targets=[target], component=component, component_options=options)


def network(dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    return tiny.network(dtype).requires_grad_(False)


def tokens(text: str, bos: bool = True) -> Tensor:
    """As trainers see it: with an end, and ours with a beginning."""
    return torch.tensor([[0] * bos + [int(word[1:]) for word in text.split()] + [0]])


@torch.no_grad()
def log_probabilities(model: Any, text: str, skip: int = 0, bos: bool = True) -> Tensor:
    """Of every token behind the first ``skip`` words, one context at a time, without padding."""
    ids = tokens(text, bos)
    found = model(ids, use_cache=False).logits[0, :-1].double().log_softmax(-1)
    return found.gather(1, ids[0, 1:, None])[max(skip - (not bos), 0) :, 0]


def mean_loss(model: Any, rows: Rows, bos: bool = True) -> float:
    """Cross-entropy a token of texts or completions: summed over all tokens, divided by their number."""
    found = []
    for row in rows:
        prompt = row.get("prompt", "")
        text = prompt + row["completion"] if prompt else row["text"]
        found.append(log_probabilities(model, text, len(prompt.split()), bos))
    return -float(torch.cat(found).mean())


def state(model: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def allowlist(setting: Setting, features: list[int] | None = None, **changes: Any) -> Allowlist:
    """An allowlist as a screening of the tiny world makes it, for its model and SAE."""
    network, _ = load_network(setting)
    parameters = dict(network.named_parameters())
    sae, fingerprint = open_sae(setting.sae, setting.folder)
    axes = {
        "stability": {"verdict": "trusted", "reasons": []},
        "collateral": {"verdict": "not trusted", "reasons": ["rho is 0.1, expected 0.2"]},
    }
    entries = {
        "setting": setting.name,
        "model": {
            "name": setting.model.name,
            "fingerprint": fingerprint_tensors(parameters),
            "contents": fingerprint_contents(parameters),
        },
        "hook": hook_of(sae, setting.sae),
        "sae": {"path": setting.sae.path, "fingerprint": fingerprint},
        "features": features or [0, 3, 5, 8, 13, 21, 34],
        "criterion": {"rule": "top", "k": 7, "score": "clean_score"},
        "trust": {"overall": "partly", "axes": axes, "fresh_check": True},
        "created": "2026-01-02T03:04:05+00:00",
    }
    return Allowlist.model_validate(entries | changes)


def disturb(model: Any, size: float = 0.3) -> None:
    """Give an adapter random parameters."""
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += size * torch.randn(parameter.shape, generator=generator)
