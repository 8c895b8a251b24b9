"""A training step of an adapter beside a LoRA's and the full-SAE way's, in one run.

GPT-2-small's shape with random weights, an SAE of 24,576 features at one layer, 200 allowed features.
One step: forward pass, loss, backward pass, AdamW. The full-SAE way encodes, edits and decodes all
features with the error term, x' = x + decode(z') - decode(z). Ratios are medians over rounds, in each
of which every way takes its turn; the order changes.
"""

import argparse
import gc
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.adapters.components.component import build
from peft import LoraConfig, TaskType, get_peft_model
from sae_lens import SAE
from transformers import GPT2Config, GPT2LMHeadModel

HOOK, LAYER, WIDTH, N_FEATURES, ALLOWED = "blocks.8.hook_resid_pre", 8, 768, 24_576, 200
WAYS = ("lora", "ours", "full")


def network() -> Any:
    """The model's shape; frozen."""
    torch.manual_seed(0)
    config = GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return GPT2LMHeadModel(config).requires_grad_(False)


def dictionary() -> Any:
    """A ReLU SAE with random unit decoder rows."""
    torch.manual_seed(1)
    sae = SAE.from_dict(
        {
            "architecture": "standard",
            "d_in": WIDTH,
            "d_sae": N_FEATURES,
            "dtype": "float32",
            "metadata": {"hook_name": HOOK},
        }
    )
    rows = torch.nn.functional.normalize(torch.randn(N_FEATURES, WIDTH), dim=1)
    sae.load_state_dict(
        {
            "W_dec": rows,
            "W_enc": rows.T.clone(),
            "b_dec": torch.zeros(WIDTH),
            "b_enc": torch.full((N_FEATURES,), -0.5),
        }
    )
    return sae.requires_grad_(False)


class Full(torch.nn.Module):
    """The layer with the whole SAE in the graph."""

    def __init__(self, base: torch.nn.Module, sae: Any, features: torch.Tensor, name: str) -> None:
        super().__init__()
        self.base_layer, self.sae, self.features = base, sae, features
        self.component = build(name, len(features), {}, 0)

    def forward(self, hidden_states: torch.Tensor, *others: Any, **named: Any) -> Any:
        """Encode, edit, decode all features; keep the error."""
        latents = self.sae.encode(hidden_states)
        error = hidden_states - self.sae.decode(latents)
        edited = latents.index_add(-1, self.features, self.component(latents[..., self.features]))
        return self.base_layer(self.sae.decode(edited) + error, *others, **named)


def build_way(way: str, component: str, folder: Path) -> Any:
    """A model that is trained one way."""
    model = network()
    if way == "lora":
        return get_peft_model(model, LoraConfig(r=8, task_type=TaskType.CAUSAL_LM))
    features = torch.arange(0, N_FEATURES, N_FEATURES // ALLOWED)[:ALLOWED]
    if way == "ours":
        target = {"hook": HOOK, "sae": {"path": str(folder)}, "features": features.tolist()}
        return get_peft_model(model, SaeAdapterConfig(targets=[target], component=component))
    layers = model.transformer.h
    layers[LAYER] = Full(layers[LAYER], dictionary(), features, component)
    return model


def stepper(model: Any, batch: int, length: int) -> Any:
    """A function that takes one training step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, 50_000, (batch, length), generator=generator)
    model.train()

    def step() -> None:
        optimiser.zero_grad()
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimiser.step()

    return step


def peak(way: str, given: argparse.Namespace) -> float:
    """Peak memory of a process that does one way's steps, in MiB."""
    command = [sys.executable, __file__, "--only", way, "--component", given.component]
    command += ["--batch", str(given.batch), "--length", str(given.length)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--component", default="scale")
    parser.add_argument("--only", choices=WAYS, help="one way's peak memory alone")
    given = parser.parse_args()
    # Before this process grows: a child's peak starts from its parent's.
    memory = {} if given.only else {way: peak(way, given) for way in WAYS}
    with TemporaryDirectory() as name:
        folder = Path(name)
        if given.only in (None, "ours"):
            dictionary().save_model(folder)
        if given.only is not None:
            step = stepper(
                build_way(given.only, given.component, folder), given.batch, given.length
            )
            gc.collect()
            step()
            step()
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return
        steps = {
            way: stepper(build_way(way, given.component, folder), given.batch, given.length)
            for way in WAYS
        }
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(given.rounds + 1):
        for way in WAYS[number % 3 :] + WAYS[: number % 3]:
            start = time.perf_counter()
            steps[way]()
            if number:  # the first warms up
                times[way].append(time.perf_counter() - start)
    print(
        f"{given.component}, batch {given.batch} x {given.length}, {torch.get_num_threads()} threads"
    )
    for way in WAYS:
        ratios = [a / b for a, b in zip(times[way], times["lora"], strict=True)]
        print(
            f"{way:5} {statistics.median(times[way]) * 1e3:7.0f} ms a step, "
            f"{statistics.median(ratios):.2f} x LoRA ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"peak {memory[way]:,.0f} MiB"
        )
    full = [a / b for a, b in zip(times["full"], times["ours"], strict=True)]
    print(f"full / ours {statistics.median(full):.2f} ({min(full):.2f} to {max(full):.2f})")


if __name__ == "__main__":
    main()
