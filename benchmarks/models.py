"""Every causal language model class of transformers, small and random: is what we measure what the
model does?

``python -m cleansteer.benchmarks.models [TYPE...]`` builds each from its configuration, steers
features by the evaluator, and steers them again by a plain hook on an untouched copy. Each class is
right, or refused in one line; anything else is a fault, and the exit code says so.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters.places import decoder_layers
from ..core.errors import InputError
from ..core.models import LanguageModel, wrap_model
from ..core.saes import Dictionary, wrap_sae
from ..core.settings import SaeSetting, SteeringSetting
from ..features.sweep import measure_features
from ..steering_eval.choice import plan_all
from ..steering_eval.collateral import choose_panel
from ..steering_eval.evaluation import Evaluator
from .tiny import LAYERS, VOCABULARY, classes, tiny_network, tiny_tokenizer

TOLERANCE = 1e-4
COMPARED = ("effect_l2", "kl_clean_steered")
_STEERED, _TAPPED = 1, LAYERS - 1
_FEATURES, _CONTEXTS, _LENGTH, _PUSH = 24, 12, 9, 2.0

Verdict = Literal["right", "refused", "WRONG", "FAILED"]


@dataclass(frozen=True)
class Result:
    """What came out for one class."""

    name: str
    verdict: Verdict
    detail: str
    """Which passes were compared and the largest relative difference, or why it was refused."""


def examine(model_type: str) -> Result:
    """Compare the evaluator's labels with plain hooks on an untouched copy."""
    name = model_type
    try:
        untouched = tiny_network(model_type)
        name = type(untouched).__name__
        differences = _compare(untouched, tiny_network(model_type))
    except InputError as error:
        return Result(name, "refused", str(error))
    except Exception as error:  # whatever happens is to be told, and the next class examined
        text = " ".join(str(error).split())
        return Result(name, "FAILED", f"{type(error).__name__}: {text[:160]}")
    told = ", ".join(f"{way} {value:.1e}" for way, value in differences.items())
    right = all(value < TOLERANCE for value in differences.values())
    return Result(name, "right" if right else "WRONG", told)


def _compare(untouched: nn.Module, network: nn.Module) -> dict[str, float]:
    """The largest relative difference by pass (``full``, ``fast``)."""
    model = wrap_model(network, tiny_tokenizer())
    primary = _dictionary(model, f"blocks.{_STEERED}.hook_resid_pre", 1)
    downstream = _dictionary(model, f"blocks.{_TAPPED}.hook_resid_post", 2)
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randint(1, VOCABULARY, (_CONTEXTS, _LENGTH), generator=generator)
    steering = SteeringSetting(alpha=1.0, contexts_per_type=4, panel_size=_FEATURES)
    measured = measure_features(model, primary, downstream, contexts, steering)
    panel = choose_panel(measured.downstream, steering.panel_size)
    plan = plan_all(np.arange(3), len(contexts))
    expected = [
        _steer_plainly(untouched, contexts, _PUSH * row, model.vocabulary_centred)
        for row in primary.decoder[:3]
    ]
    differences = {}
    for way in ("full", "fast"):
        evaluator = Evaluator(model, primary, downstream, panel, steering, full=way == "full")
        if evaluator.resumed != (way == "fast"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            labels = evaluator.evaluate(
                plan, contexts, measured.final_activations, measured.table, _PUSH, Path(folder)
            )
        ours = labels[list(COMPARED)].to_numpy()
        differences[way] = float(np.abs(ours / np.array(expected) - 1).max())
    return differences


@torch.no_grad()
def _steer_plainly(
    network: nn.Module, contexts: Tensor, push: Tensor, centred: bool
) -> tuple[float, float]:
    """Mean length of the change of the logits, and mean KL divergence from clean to steered, by a hook
    in front of a layer of a Hugging Face model.
    """
    _, layers = decoder_layers(network)

    def steer(module: nn.Module, inputs: Any, options: dict[str, Any]) -> Any:
        values = (inputs[0] if inputs else options["hidden_states"]).clone()
        values[:, -1] += push
        if inputs:
            return (values, *inputs[1:]), options
        return inputs, options | {"hidden_states": values}

    def logits() -> Tensor:
        output: Any = network(contexts, use_cache=False)
        return torch.as_tensor(output.logits)[:, -1].double()

    clean = logits()
    handle = layers[_STEERED].register_forward_pre_hook(steer, with_kwargs=True)
    try:
        steered = logits()
    finally:
        handle.remove()
    change = steered - clean
    if centred:
        change = change - change.mean(dim=-1, keepdim=True)
    p, q = clean.log_softmax(dim=-1), steered.log_softmax(dim=-1)
    divergence = (p.exp() * (p - q)).sum(dim=-1)
    return float(change.norm(dim=-1).mean()), float(divergence.mean())


def _dictionary(model: LanguageModel, hook: str, seed: int) -> Dictionary:
    from sae_lens import SAE

    generator = torch.Generator().manual_seed(seed)
    sae = SAE.from_dict(
        {
            "architecture": "standard",
            "d_in": model.width,
            "d_sae": _FEATURES,
            "metadata": {"hook_name": hook},
        }
    )
    decoder = torch.randn(_FEATURES, model.width, generator=generator)
    decoder = nn.functional.normalize(decoder, dim=1)
    sae.load_state_dict(
        {
            "W_dec": decoder,
            "W_enc": decoder.T.contiguous(),
            "b_enc": torch.zeros(_FEATURES),
            "b_dec": torch.zeros(model.width),
        }
    )
    return wrap_sae(sae, SaeSetting(path="random"), model)


def main(model_types: list[str]) -> int:
    """Examine classes; prints a Markdown table and the counts."""
    counts = dict.fromkeys(("right", "refused", "WRONG", "FAILED"), 0)
    sys.stdout.write("| class | | largest relative difference, or reason |\n|---|---|---|\n")
    for model_type in model_types or classes():
        result = examine(model_type)
        counts[result.verdict] += 1
        sys.stdout.write(f"| `{result.name}` | {result.verdict} | {result.detail} |\n")
        sys.stdout.flush()
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    sys.stdout.write(f"\n{sum(counts.values())} classes: {told}\n")
    return int(counts["WRONG"] + counts["FAILED"] > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
