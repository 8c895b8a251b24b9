"""How much faster the evaluator is than the paper's way, side by side in one run.

The paper's way, for each feature and batch of 16 contexts: a full forward pass with a hook that
steers the final token, all positions, all logits, and the downstream SAE's encoding at all
positions. Ours: `cleansteer.steering_eval`, clean passes and the assembly of labels included. Both
steer the same features in the same contexts of a model with random weights, and must agree on the
labels.

    python benchmarks/speed/evaluator.py [--shape gpt2-small] [--threads 2] [--features 1000]
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
from cleansteer.benchmarks.shapes import (
    LENGTH,
    NEED_A_GPU,
    PANEL,
    SHAPES,
    Shape,
    build_model,
    build_sae,
    random_contexts,
)
from cleansteer.core.models import LanguageModel
from cleansteer.core.saes import Dictionary
from cleansteer.core.settings import SteeringSetting
from cleansteer.steering_eval.choice import Plan
from cleansteer.steering_eval.collateral import CollateralPanel
from cleansteer.steering_eval.evaluation import Evaluator

PAPER_BATCH = 16
VARIANTS = {
    "without full-vocabulary labels": (False, False),
    "with full-vocabulary labels": (True, False),
    "with full-vocabulary labels and resid_explained": (True, True),
}


def paper_way(
    model: LanguageModel,
    shape: Shape,
    downstream: Dictionary,
    contexts: torch.Tensor,
    push: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Steered final logits and downstream activations of one feature in some contexts."""
    logits, codes = [], []
    for batch in contexts.to(push.device).split(PAPER_BATCH):
        seen: list[torch.Tensor] = []

        def steer(residual: torch.Tensor, hook: object) -> torch.Tensor:
            steered = residual.clone()
            steered[:, -1] += push.to(residual.dtype)
            return steered

        def keep(residual: torch.Tensor, hook: object, seen: list[torch.Tensor] = seen) -> None:
            seen.append(residual)

        hooks = [(shape.primary, steer), (shape.downstream, keep)]
        out = model.bridge.run_with_hooks(batch, fwd_hooks=hooks)
        logits.append(out[:, -1])
        codes.append(downstream.encode(seen[0])[:, -1])
    return torch.cat(logits), torch.cat(codes)


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(name: str, arguments: argparse.Namespace, device: str) -> None:
    """Time both ways on one shape, in turn, and print the ratios."""
    shape = SHAPES[name]
    model = build_model(shape, device)
    primary = build_sae(model, shape, shape.primary, 1, device)
    downstream = build_sae(model, shape, shape.downstream, 2, device)
    contexts = random_contexts(model, arguments.contexts)
    features = np.arange(arguments.features) * max(1, shape.n_features // arguments.features)
    table = pd.DataFrame({"feature": np.arange(shape.n_features), "final_act_q95": 0.0})
    empty = scipy.sparse.csc_array((arguments.contexts, shape.n_features))
    every = np.arange(arguments.contexts)
    panel = CollateralPanel(np.arange(PANEL), np.zeros(PANEL, dtype=bool), np.ones(PANEL))

    def ours(features: np.ndarray, vocabulary: bool, reconstruction: bool) -> pd.DataFrame:
        steering = SteeringSetting(
            panel_size=PANEL, vocabulary_labels=vocabulary, reconstruction_labels=reconstruction
        )
        evaluator = Evaluator(model, primary, downstream, panel, steering)
        plan = Plan(features, [{"all": every} for _ in features], [every for _ in features])
        with tempfile.TemporaryDirectory() as folder:
            return evaluator.evaluate(plan, contexts, empty, table, shape.delta, Path(folder))

    labels = ours(features[:2], True, False)
    nothing = torch.zeros(model.width, device=device)
    clean_logits, clean_codes = paper_way(model, shape, downstream, contexts, nothing)
    for row in labels.to_dict("records"):
        push = shape.delta * primary.decoder[row["feature"]]
        logits, codes = paper_way(model, shape, downstream, contexts, push)
        change = logits.float() - clean_logits.float()
        if model.vocabulary_centred:
            change = change - change.mean(dim=1, keepdim=True)
        size = change.norm(dim=1).mean().item()
        moved = ((codes - clean_codes)[:, :PANEL].abs() > 0.05).sum(dim=1).float().mean().item()
        print(
            f"feature {row['feature']}: effect_l2 {row['effect_l2']:.6f} ours, {size:.6f} paper's "
            f"way; collateral_count_0.05 {row['collateral_count_0.05']:.4f}, {moved:.4f}"
        )

    push = shape.delta * primary.decoder[0]
    slowly = partial(paper_way, model, shape, downstream, contexts, push)
    pairs = arguments.contexts * arguments.features
    times: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(arguments.repeats):
        for variant, (vocabulary, reconstruction) in VARIANTS.items():
            slow = seconds(slowly, device) / arguments.contexts
            fast = seconds(partial(ours, features, vocabulary, reconstruction), device) / pairs
            times[variant].append((slow, fast))
    print(
        f"{name}, {device}, {shape.dtype}, {arguments.threads} threads, {arguments.contexts} contexts "
        f"of {LENGTH} tokens, {arguments.features} features, {arguments.repeats} repeats side by side;"
        " ms a (feature, context), medians"
    )
    for variant, measured in times.items():
        slow, fast = (1e3 * statistics.median(column) for column in zip(*measured, strict=True))
        ratios = sorted(slow / fast for slow, fast in measured)
        print(
            f"  {variant}: paper's way {slow:.3g}, ours {fast:.3g}, ratio "
            f"{statistics.median(ratios):.0f} (min {ratios[0]:.0f}, max {ratios[-1]:.0f})"
        )


def main() -> None:
    """Compare the shapes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="gpt2-small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--features", type=int, default=1000)
    parser.add_argument("--contexts", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in SHAPES if arguments.shape == "all" else [arguments.shape]:
        if name in NEED_A_GPU and device == "cpu":
            print(f"{name}: skipped, it needs a GPU and none is here")
        else:
            compare(name, arguments, device)


if __name__ == "__main__":
    main()
