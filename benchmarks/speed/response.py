"""How much faster linear response is than steering every feature, side by side in one run.

Both say, for each feature and context, what steering does to logits and panel: the evaluator exactly,
linear response to first order. The evaluator is timed on a sample of the features and scaled to all of
them; linear response takes them all. A model with random weights, contexts of 48 tokens.

    python benchmarks/speed/response.py [--shape gpt2-small] [--threads 2] [--contexts 32]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from cleansteer.benchmarks.shapes import (
    NEED_A_GPU,
    PANEL,
    SHAPES,
    build_model,
    build_sae,
    random_contexts,
)
from cleansteer.core.settings import SteeringSetting
from cleansteer.features.response import PREFIX, measure_response
from cleansteer.steering_eval.choice import plan_all
from cleansteer.steering_eval.collateral import CollateralPanel, CollateralReader
from cleansteer.steering_eval.derivative import Differentiator
from cleansteer.steering_eval.evaluation import Evaluator

COMPARED = ("stability_abs", "effect_l2", "kl_clean_steered", "collateral_l2")


def compare(name: str, arguments: argparse.Namespace, device: str) -> None:
    """Time both on one shape, and print how far they agree at a small push."""
    shape = SHAPES[name]
    model = build_model(shape, device)
    primary = build_sae(model, shape, shape.primary, 1, device)
    downstream = build_sae(model, shape, shape.downstream, 2, device)
    contexts = random_contexts(model, arguments.contexts)
    panel = CollateralPanel(np.arange(PANEL), np.zeros(PANEL, dtype=bool), np.ones(PANEL))
    steering = SteeringSetting(panel_size=PANEL, reconstruction_labels=False)
    evaluator = Evaluator(model, primary, downstream, panel, steering)
    sample = np.arange(arguments.sample) * max(1, shape.n_features // arguments.sample)
    table = pd.DataFrame({"feature": np.arange(shape.n_features), "final_act_q95": 0.0})
    empty = scipy.sparse.csc_array((arguments.contexts, shape.n_features))
    push = arguments.push * shape.delta

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        labels = evaluator.evaluate(
            plan_all(sample, len(contexts)), contexts, empty, table, push, Path(folder)
        )
    exact = (time.perf_counter() - start) * shape.n_features / len(sample)

    start = time.perf_counter()
    worker = Differentiator(evaluator.forward, downstream.site)
    jacobians = list(worker.jacobians(contexts))
    derived = time.perf_counter() - start
    columns, _ = measure_response(
        jacobians,
        primary.decoder,
        lambda block, _: torch.full((len(primary.decoder[block]), len(contexts)), push),
        CollateralReader(downstream, panel, reconstruction=False),
        evaluator.vocabulary,
    )
    if device == "cuda":
        torch.cuda.synchronize()
    whole = time.perf_counter() - start
    print(
        f"{name}, {device}, {shape.dtype}, {arguments.threads} threads, {len(contexts)} contexts, all "
        f"{shape.n_features} features: linear response {whole:.1f} s (Jacobians {derived:.1f} s); "
        f"steering them all {exact:.0f} s (from {len(sample)} features); ratio {exact / whole:.1f}"
    )
    for column in COMPARED:
        ours, theirs = columns[PREFIX + column][sample], labels[column].to_numpy()
        print(f"  {column}: correlation over these features {np.corrcoef(ours, theirs)[0, 1]:.4f}")


def main() -> None:
    """Compare the shapes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="gpt2-small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sample", type=int, default=400)
    parser.add_argument("--contexts", type=int, default=32)
    parser.add_argument("--push", type=float, default=0.1, help="Of the shape's own.")
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
