"""What the page on ISaeRFT asks the hub for: its SAE and its datasets, small, in their real layouts."""

import random
from pathlib import Path
from typing import Any

import hub
import lessons
import pandas as pd
import tiny
import torch
from sae_lens.saes.sae import TrainingSAE, TrainStepInput
from transformers import AutoModelForCausalLM

MODEL = "google/gemma-2-2b"
RELEASE, HOOK = "gemma-2-2b-res-matryoshka-dc", "blocks.20.hook_resid_post"
REPOSITORY = "chanind/gemma-2-2b-batch-topk-matryoshka-saes-w-32k-l0-40"
LISTING = "gemma-2-2b/20-res-matryoshka-dc"
CODE = "iamtarun/code_instructions_120k_alpaca"
HELPFUL = "trl-internal-testing/hh-rlhf-helpful-base-trl-style"
LAYER = 20
ROWS = 1200
"""Of each dataset, of which a page takes 2 %."""
_SHARE = 24
_README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
---
"""


def build(folder: Path) -> None:
    """Add them to a hub that has the model already."""
    network = AutoModelForCausalLM.from_pretrained(folder / "models" / MODEL)
    _write_sae(network, folder / "models" / REPOSITORY / "standard" / HOOK)
    _write_dataset(folder / "datasets" / CODE, _instructions(random.Random(1)))
    _write_dataset(folder / "datasets" / HELPFUL, _conversations(random.Random(2)))


@torch.no_grad()
def stream(network: Any, ids: torch.Tensor) -> torch.Tensor:
    """What layer 20 of a Hugging Face model gives, ``[row, token, d]``."""
    return network(ids, output_hidden_states=True).hidden_states[LAYER + 1]


@torch.no_grad()
def _write_sae(network: Any, folder: Path) -> None:
    """A Matryoshka SAE as SAELens' training saves it: JumpReLU, with the threshold at which a token has
    k = 8 latents on average.
    """
    seen = stream(network, tiny.contexts(64, 16)).flatten(0, 1)
    made = TrainingSAE.from_dict(
        {
            "architecture": "matryoshka_batchtopk",
            "matryoshka_widths": [16, 64, hub.FEATURES],
            "d_in": hub.WIDTH,
            "d_sae": hub.FEATURES,
            "k": 8,
            "topk_threshold_lr": 1.0,
            "metadata": {"hook_name": HOOK, "model_name": "gemma-2-2b"},
        }
    )
    generator = torch.Generator().manual_seed(LAYER)
    decoder = torch.randn(hub.FEATURES, hub.WIDTH, generator=generator)
    decoder = torch.nn.functional.normalize(decoder, dim=1)
    spread = (seen - seen.mean(dim=0)).norm(dim=1).mean()
    state = {
        "W_dec": decoder,
        "W_enc": decoder.T + 0.1 * torch.randn(hub.WIDTH, hub.FEATURES, generator=generator),
        "b_enc": 0.1 * spread * torch.randn(hub.FEATURES, generator=generator),
        "b_dec": seen.mean(dim=0),
    }
    for name, tensor in state.items():
        getattr(made, name).copy_(tensor)
    step = TrainStepInput(
        sae_in=seen,
        coefficients={},
        dead_neuron_mask=None,
        n_training_steps=0,
        is_logging_step=False,
    )
    made.training_forward_pass(step)
    folder.mkdir(parents=True)
    made.save_inference_model(folder)


def _instructions(draw: random.Random) -> list[dict[str, object]]:
    """Low words follow any."""
    return [
        {
            "instruction": lessons.words(draw, 2, 5, 300),
            "input": lessons.words(draw, 1, 3, 300) if i % 2 else "",
            "output": lessons.words(draw, 3, 6),
            "prompt": "Below is an instruction",
        }
        for i in range(_SHARE)
    ]


def _conversations(draw: random.Random) -> list[dict[str, object]]:
    """Whole conversations, of which the last messages differ: low words are preferred to any."""
    rows: list[dict[str, object]] = []
    for i in range(_SHARE):
        turns = [lessons.words(draw, 2, 4, 300) for _ in range(3 if i % 2 else 1)]
        before = [
            {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)
        ]
        answers = lessons.words(draw, 3, 6), lessons.words(draw, 3, 6, 599)
        chosen, rejected = ([*before, {"role": "assistant", "content": text}] for text in answers)
        rows.append({"chosen": chosen, "rejected": rejected, "prompt": turns[0]})
    rows[3]["rejected"] = rows[3]["chosen"]  # there are such
    return rows


def _write_dataset(folder: Path, rows: list[dict[str, object]]) -> None:
    """As many rows that 2 % are all of which something is asked."""
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(_README, "utf-8")
    more = [rows[-1]] * (ROWS - len(rows))
    path = folder / "data" / "train-00000-of-00001.parquet"
    pd.DataFrame(rows + more).to_parquet(path, index=False)
