"""How much faster the evaluator is than the paper's way, side by side in one run.

The paper's way, for each feature and batch of 16 contexts: a full forward pass with a hook that
steers the final token, all positions, all logits, and the downstream SAE's encoding at all
positions. Ours: `cleansteer.steering_eval`. Both steer the same features in the same contexts of a
model of GPT-2-small's shape with random weights, and must agree on the labels.

    python benchmarks/speed/evaluator.py [--threads 2] [--features 1000] [--repeats 2]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from cleansteer.core.models import LanguageModel, wrap_model
from cleansteer.core.saes import Dictionary, wrap_sae
from cleansteer.core.settings import SaeSetting, SteeringSetting
from cleansteer.steering_eval.choice import Plan
from cleansteer.steering_eval.collateral import Panel
from cleansteer.steering_eval.evaluation import Evaluator
from sae_lens import SAE
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

PRIMARY, DOWNSTREAM = "blocks.8.hook_resid_pre", "blocks.10.hook_resid_pre"
N_FEATURES, PANEL, LENGTH, PAPER_BATCH = 24_576, 2048, 48, 16
DELTA = 10.0
"""Of the order of a coefficient that moves GPT-2's residual stream visibly."""


def build_model() -> LanguageModel:
    """GPT-2-small's shape, random weights."""
    torch.manual_seed(0)
    config = GPT2Config(n_positions=64, bos_token_id=0, eos_token_id=0)
    words = {"<eos>": 0, **{f"w{i}": i for i in range(1, config.vocab_size)}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<eos>")),
        eos_token="<eos>",
        unk_token="<eos>",
        pad_token="<eos>",
    )
    return wrap_model(GPT2LMHeadModel(config), tokenizer)


def build_sae(model: LanguageModel, hook: str, seed: int) -> Dictionary:
    """A ReLU SAE of gpt2-small-res-jb's width, random unit decoder rows, sparse activations."""
    generator = torch.Generator().manual_seed(seed)
    sae = SAE.from_dict(
        {
            "architecture": "standard",
            "d_in": model.width,
            "d_sae": N_FEATURES,
            "metadata": {"hook_name": hook},
        }
    )
    decoder = torch.randn(N_FEATURES, model.width, generator=generator)
    decoder = torch.nn.functional.normalize(decoder, dim=1)
    sae.load_state_dict(
        {
            "W_dec": decoder,
            "W_enc": decoder.T.contiguous(),
            "b_enc": torch.full((N_FEATURES,), -0.4),
            "b_dec": torch.zeros(model.width),
        }
    )
    return wrap_sae(sae, SaeSetting(path="random"), model)


def paper_way(
    model: LanguageModel, downstream: Dictionary, contexts: torch.Tensor, push: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Steered final logits and downstream activations of one feature in some contexts."""
    logits, codes = [], []
    for batch in contexts.split(PAPER_BATCH):
        seen: list[torch.Tensor] = []

        def steer(residual: torch.Tensor, hook: object) -> torch.Tensor:
            steered = residual.clone()
            steered[:, -1] += push
            return steered

        def keep(residual: torch.Tensor, hook: object, seen: list[torch.Tensor] = seen) -> None:
            seen.append(residual)

        out = model.bridge.run_with_hooks(batch, fwd_hooks=[(PRIMARY, steer), (DOWNSTREAM, keep)])
        logits.append(out[:, -1])
        codes.append(downstream.encode(seen[0])[:, -1])
    return torch.cat(logits), torch.cat(codes)


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Time both ways in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--features", type=int, default=1000)
    parser.add_argument("--contexts", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)

    model = build_model()
    primary, downstream = build_sae(model, PRIMARY, 1), build_sae(model, DOWNSTREAM, 2)
    generator = torch.Generator().manual_seed(3)
    contexts = torch.randint(
        1, model.config.vocab_size, (arguments.contexts, LENGTH), generator=generator
    )
    features = np.arange(arguments.features) * (N_FEATURES // arguments.features)
    table = pd.DataFrame({"feature": np.arange(N_FEATURES), "final_act_q95": 0.0})
    empty = scipy.sparse.csc_array((arguments.contexts, N_FEATURES))
    every = np.arange(arguments.contexts)
    panel = Panel(np.arange(PANEL), np.zeros(PANEL, dtype=bool))

    def ours(features: np.ndarray, vocabulary: bool, reconstruction: bool) -> pd.DataFrame:
        steering = SteeringSetting(
            panel_size=PANEL, vocabulary_labels=vocabulary, reconstruction_labels=reconstruction
        )
        evaluator = Evaluator(model, primary, downstream, panel, steering)
        plan = Plan(features, [{"all": every} for _ in features], [every for _ in features])
        with tempfile.TemporaryDirectory() as folder:
            return evaluator.evaluate(plan, contexts, empty, table, DELTA, Path(folder))

    labels = ours(features[:2], True, False)
    clean_logits, clean_codes = paper_way(model, downstream, contexts, torch.zeros(model.width))
    for row in labels.to_dict("records"):
        push = DELTA * primary.decoder[row["feature"]]
        logits, codes = paper_way(model, downstream, contexts, push)
        change = logits - clean_logits
        change = change - change.mean(dim=1, keepdim=True)
        size = change.norm(dim=1).mean().item()
        moved = ((codes - clean_codes)[:, :PANEL].abs() > 0.05).sum(dim=1).float().mean().item()
        print(
            f"feature {row['feature']}: effect_l2 {row['effect_l2']:.6f} ours, {size:.6f} paper's "
            f"way; collateral_count_0.05 {row['collateral_count_0.05']:.4f}, {moved:.4f}"
        )

    push = DELTA * primary.decoder[0]
    paper_pairs, pairs = arguments.contexts, arguments.contexts * arguments.features
    variants = {
        "without full-vocabulary labels": (False, False),
        "with full-vocabulary labels": (True, False),
        "with full-vocabulary labels and resid_explained": (True, True),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(arguments.repeats):
        for name, (vocabulary, reconstruction) in variants.items():
            slow = seconds(lambda: paper_way(model, downstream, contexts, push)) / paper_pairs
            fast = seconds(partial(ours, features, vocabulary, reconstruction)) / pairs
            times[name].append((slow, fast))
    print(
        f"{arguments.threads} threads, {arguments.contexts} contexts of {LENGTH} tokens, "
        f"{arguments.features} features, {arguments.repeats} repeats side by side; ms a (feature, "
        "context), medians"
    )
    for name, measured in times.items():
        slow, fast = (1e3 * statistics.median(column) for column in zip(*measured, strict=True))
        ratios = sorted(slow / fast for slow, fast in measured)
        print(
            f"{name}: paper's way {slow:.1f}, ours {fast:.3f}, ratio "
            f"{statistics.median(ratios):.0f} (min {ratios[0]:.0f}, max {ratios[-1]:.0f})"
        )


if __name__ == "__main__":
    main()
