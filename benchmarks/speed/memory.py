"""Peak memory against the number of features steered, and against the corpus.

Each case runs in a process of its own; what the models and SAEs take is in every figure.

    python benchmarks/speed/memory.py
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import torch

CASES = {
    "steer 300 features": ("steer", 300),
    "steer 6000 features": ("steer", 6000),
    "statistics of 256 contexts": ("statistics", 256),
    "statistics of 2048 contexts": ("statistics", 2048),
}
STEERED_CONTEXTS = 8


def run(kind: str, count: int) -> None:
    """One case; prints this process's peak memory in MiB."""
    from cleansteer.benchmarks.shapes import PANEL, SHAPES, build_model, build_sae, random_contexts
    from cleansteer.core.settings import SteeringSetting
    from cleansteer.features.sweep import measure_features
    from cleansteer.steering_eval.choice import Plan
    from cleansteer.steering_eval.collateral import CollateralPanel
    from cleansteer.steering_eval.evaluation import Evaluator

    torch.set_grad_enabled(False)
    shape = SHAPES["gpt2-small" if kind == "steer" else "pythia-70m"]
    model = build_model(shape, "cpu")
    primary = build_sae(model, shape, shape.primary, 1, "cpu")
    downstream = build_sae(model, shape, shape.downstream, 2, "cpu")
    if kind == "statistics":
        contexts = random_contexts(model, count)
        measure_features(model, primary, downstream, contexts, SteeringSetting())
    else:
        contexts = random_contexts(model, STEERED_CONTEXTS)
        panel = CollateralPanel(np.arange(PANEL), np.zeros(PANEL, dtype=bool), np.ones(PANEL))
        steering = SteeringSetting(reconstruction_labels=False)
        evaluator = Evaluator(model, primary, downstream, panel, steering)
        features, every = np.arange(count), np.arange(STEERED_CONTEXTS)
        plan = Plan(features, [{"all": every} for _ in features], [every for _ in features])
        table = pd.DataFrame({"feature": np.arange(shape.n_features), "final_act_q95": 0.0})
        empty = scipy.sparse.csc_array((STEERED_CONTEXTS, shape.n_features))
        with tempfile.TemporaryDirectory() as folder:
            evaluator.evaluate(plan, contexts, empty, table, shape.delta, Path(folder))
    unit = 1 << (20 if sys.platform == "darwin" else 10)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit)


def main() -> None:
    """Run every case and print the growth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs=2)
    arguments = parser.parse_args()
    if arguments.case is not None:
        run(arguments.case[0], int(arguments.case[1]))
        return
    peaks = {}
    for name, (kind, count) in CASES.items():
        command = [sys.executable, __file__, "--case", kind, str(count)]
        out = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        peaks[name] = int(out.stdout.split()[-1])
        print(f"{name}: peak {peaks[name]:,} MiB", flush=True)
    few, many, short, long = peaks.values()
    print(f"20 times the features: {many / few:.2f} times the memory")
    print(f"8 times the corpus: {long / short:.2f} times the memory")


if __name__ == "__main__":
    main()
