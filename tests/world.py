"""A tiny world on disk: model, SAEs, corpus and setting, for tests of the whole program."""

import random
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
from cleansteer.cli.app import main
from sae_lens import SAE
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

SETTING = """
name = "tiny"
[model]
name = "model"
[sae]
path = "primary"
[downstream_sae]
path = "downstream"
[corpus]
path = "texts.txt"
min_chars = 20
n_contexts = 96
context_length = 9
[heldout_corpus]
path = "fresh.txt"
n_contexts = 40
[steering]
n_features = 60
contexts_per_type = 6
alpha = 0.7
collateral = "absolute"
response = false
"""

CHANGES = {
    "corpus.min_chars": 20,
    "corpus.n_contexts": 96,
    "corpus.context_length": 9,
    "heldout_corpus.min_chars": 20,
    "heldout_corpus.n_contexts": 40,
    "heldout_corpus.context_length": 9,
    "steering.n_features": 60,
    "steering.contexts_per_type": 6,
    "steering.alpha": 0.7,
    "steering.collateral": "absolute",
    "steering.response": False,
}
"""What the setting says beside its sources."""


def save_sae(sae: SAE, folder: Path) -> None:
    sae.save_model(folder)


def build(folder: Path, architecture: str = "standard") -> Path:
    """Fill a folder; returns the path of the setting's file."""
    folder.mkdir(parents=True, exist_ok=True)
    network = tiny.network()
    network.save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    save_sae(tiny.sae(architecture, "blocks.1.hook_resid_pre"), folder / "primary")
    save_sae(
        tiny.sae(architecture, "blocks.2.hook_resid_post", n_features=80, seed=2),
        folder / "downstream",
    )
    for name, seed in (("texts", 1), ("fresh", 2)):
        draw = random.Random(seed)
        lines = [
            " ".join(f"w{draw.randrange(1, tiny.VOCABULARY)}" for _ in range(20))
            for _ in range(120)
        ]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    path = folder / "tiny.toml"
    path.write_text(SETTING, "utf-8")
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the program in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["cleansteer", *map(str, arguments)])
    with torch.enable_grad(), pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def one_line(capture: pytest.CaptureFixture[str], *parts: str) -> None:
    """One line on stderr that holds all parts, and nothing on stdout."""
    out, err = capture.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    for part in parts:
        assert part in err


def overwrite_tensor(folder: Path, **tensors: torch.Tensor) -> None:
    from safetensors.torch import load_file

    path = folder / "sae_weights.safetensors"
    save_file(load_file(path) | tensors, path)


def mixed(table: pd.DataFrame) -> pd.DataFrame:
    """The labels of mixed contexts, by feature."""
    return table[table["context_type"] == "mixed"].set_index("feature")


def memory(folder: Path) -> dict[str, Any]:
    """The world's objects, loaded as their own libraries load them."""
    return {
        "model": AutoModelForCausalLM.from_pretrained(folder / "model"),
        "tokenizer": AutoTokenizer.from_pretrained(folder / "model"),
        "sae": SAE.load_from_disk(folder / "primary"),
        "downstream_sae": SAE.load_from_disk(folder / "downstream"),
        "texts": (folder / "texts.txt").read_text("utf-8").splitlines(),
        "heldout_texts": (folder / "fresh.txt").read_text("utf-8").splitlines(),
    }
