"""What the statistics cost beside a plain forward pass and two SAE encodings of the same tokens.

python benchmarks/speed/sweep.py [--shape gpt2-small] [--contexts 256] [--threads 2]

The ratios are against a whole forward pass, logits included.
"""

import argparse
import statistics
import time

import torch
from cleansteer.benchmarks.shapes import SHAPES, build_model, build_sae, random_contexts
from cleansteer.core.models import LanguageModel
from cleansteer.core.saes import Dictionary
from cleansteer.core.settings import SteeringSetting
from cleansteer.features.sweep import measure_features

BATCH = 16


def plain(
    model: LanguageModel, primary: Dictionary, downstream: Dictionary, contexts: torch.Tensor
) -> float:
    """Seconds for a forward pass and both encodings at every token, and nothing else."""
    start = time.perf_counter()
    sites = [primary.site, downstream.site]
    for batch in contexts.split(BATCH):
        seen: list[torch.Tensor] = []

        def keep(values: torch.Tensor, hook: object, seen: list[torch.Tensor] = seen) -> None:
            seen.append(values)

        hooks = [(site.hook, keep) for site in sites]
        model.bridge.run_with_hooks(batch, fwd_hooks=hooks)
        for dictionary, values in zip((primary, downstream), seen, strict=True):
            dictionary.encode(values)
    return time.perf_counter() - start


def ours(
    model: LanguageModel, primary: Dictionary, downstream: Dictionary, contexts: torch.Tensor
) -> tuple[float, float]:
    """Seconds for the clean pass, and for the whole table."""
    start = time.perf_counter()
    last = start

    def progress(done: int) -> None:
        nonlocal last
        last = time.perf_counter()

    measure_features(model, primary, downstream, contexts, SteeringSetting(), progress)
    return last - start, time.perf_counter() - start


def main() -> None:
    """Time both in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="gpt2-small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contexts", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    shape = SHAPES[arguments.shape]
    model = build_model(shape, "cpu")
    primary = build_sae(model, shape, shape.primary, 1, "cpu")
    downstream = build_sae(model, shape, shape.downstream, 2, "cpu")
    contexts = random_contexts(model, arguments.contexts)
    plain(model, primary, downstream, contexts[:BATCH])
    found = []
    for _ in range(arguments.repeats):
        reference = plain(model, primary, downstream, contexts)
        clean, table = ours(model, primary, downstream, contexts)
        found.append((reference, clean, table))
    reference, clean, table = (statistics.median(column) for column in zip(*found, strict=True))
    print(
        f"{arguments.shape}, {arguments.contexts} contexts, {arguments.threads} threads: forward pass "
        f"and two encodings {reference:.1f} s; clean pass {clean:.1f} s, ratio {clean / reference:.2f};"
        f" whole table {table:.1f} s, {table / clean:.2f} times the clean pass, "
        f"{table / reference:.2f} times the forward pass and encodings"
    )


if __name__ == "__main__":
    main()
