"""Whether a GPU computes what full forward passes say, at real shapes and in both number formats.

Models and SAEs with random weights, nothing is downloaded: the evaluator's self-check, labels by the fast
pass beside labels by full passes, linear response beside central differences of full passes in float32
with the same weights, and one training step of an adapter, which has to move the adapter alone:
``python -m cleansteer.benchmarks.gpu [--device cuda] [--small]``.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from torch import Tensor

from ..core.device import check_device
from ..core.errors import InputError
from ..core.models import LanguageModel
from ..core.networks import quiet_libraries
from ..core.saes import Dictionary
from ..core.settings import SteeringSetting
from ..features.response import PREFIX, measure_response
from ..steering_eval.choice import plan_all
from ..steering_eval.collateral import CollateralPanel, CollateralReader
from ..steering_eval.derivative import Differentiator
from ..steering_eval.evaluation import Evaluator
from ..steering_eval.rerun import FullForward
from .shapes import (
    PANEL,
    SHAPES,
    SMALL,
    Shape,
    build_network,
    build_sae,
    random_contexts,
    wrap_network,
)

REAL = ("gpt2-small", "llama-3.1-8b-8-layers")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCE = {"float32": 5e-3, "bfloat16": 0.1}
"""Largest difference of fast and slow, relative to the largest entry: rounding of the format, and in
linear response what central differences leave."""
CONTEXTS, STEERED, SPOTS = 4, 6, 3
COMPARED = ("effect_l2", "stability_abs", "collateral_l2", "resid_delta_norm")
FORECAST = ("effect_l2", "resid_delta_norm")
_FEATURES = 4096
_STEP = 1e-2
_LEARNING_RATE = 1e-2


@dataclass(frozen=True)
class Row:
    """What a check found."""

    check: str
    dtype: str
    shape: str
    difference: float
    """The largest relative one; NaN where something is no number or moved that may not."""
    seconds: float
    peak: float
    """MiB: of the GPU in this check; on a CPU, of the process so far."""

    @property
    def right(self) -> bool:
        """Whether the difference lies within the tolerance of the format."""
        return self.difference < TOLERANCE[self.dtype]

    def __str__(self) -> str:
        told = f"{self.difference:.1e} | {self.seconds:.1f} | {self.peak:,.0f}"
        return f"| {self.check} | {self.dtype} | {self.shape} | {told} | {_verdict(self.right)} |"


@dataclass(frozen=True)
class Subject:
    """A shape in one number format."""

    shape: Shape
    model: LanguageModel
    reference: LanguageModel
    """The same weights in float32."""
    primary: Dictionary
    downstream: Dictionary

    @classmethod
    def build(cls, shape: Shape, device: str) -> "Subject":
        """Models and SAEs with random weights."""
        network, twin = build_network(shape, device), None
        if shape.dtype != torch.float32:
            twin = build_network(replace(shape, dtype=torch.float32), device)
            twin.load_state_dict(network.state_dict())
        model = wrap_network(network, device)
        reference = model if twin is None else wrap_network(twin, device)
        primary = build_sae(model, shape, shape.primary, 1, device)
        downstream = build_sae(model, shape, shape.downstream, 2, device)
        return cls(shape, model, reference, primary, downstream)

    @property
    def panel(self) -> CollateralPanel:
        """Downstream features to count in."""
        size = min(PANEL, self.shape.n_features // 2)
        return CollateralPanel(np.arange(size), np.zeros(size, dtype=bool), np.ones(size))

    @property
    def contexts(self) -> Tensor:
        """Random tokens."""
        return random_contexts(self.model, CONTEXTS)

    @property
    def features(self) -> "np.typing.NDArray[np.int64]":
        """Those that are steered, evenly spread."""
        return np.linspace(0, self.shape.n_features - 1, STEERED).astype(np.int64)

    def evaluator(self, full: bool = False) -> Evaluator:
        """The evaluator, by the fast or by full passes."""
        steering = SteeringSetting(alpha=1.0, panel_size=len(self.panel.features))
        return Evaluator(self.model, self.primary, self.downstream, self.panel, steering, full)

    def length(self, evaluator: Evaluator) -> float:
        """Of what stands at the steered site: a push as long drowns in no rounding."""
        return float(evaluator.forward.freeze(self.contexts).final.float().norm(dim=1).mean())


def self_check(subject: Subject) -> float:
    """What a study does before it trusts the fast pass."""
    evaluator = subject.evaluator()
    if not evaluator.resumed:
        raise InputError(
            f"the fast pass does not know models of type {subject.model.config.model_type!r}; expected "
            "a family that it knows; check another shape"
        )
    plan = plan_all(subject.features, CONTEXTS)
    push = subject.length(evaluator)
    return evaluator.spot_check(plan, subject.contexts, push, SPOTS)


def labels(subject: Subject) -> float:
    """Labels by the fast pass and by full passes."""
    fast, slow = (
        _label(subject, subject.evaluator(full)).sort_values("feature") for full in (False, True)
    )
    return _largest(fast[[*COMPARED]].to_numpy(), slow[[*COMPARED]].to_numpy())


def _label(subject: Subject, evaluator: Evaluator) -> pd.DataFrame:
    n = subject.shape.n_features
    with tempfile.TemporaryDirectory() as folder:
        return evaluator.evaluate(
            plan_all(subject.features, CONTEXTS),
            subject.contexts,
            scipy.sparse.csc_array((CONTEXTS, n)),
            pd.DataFrame({"feature": np.arange(n), "final_act_q95": 0.0}),
            subject.length(evaluator),
            Path(folder),
        )


def linear_response(subject: Subject) -> float:
    """Forecasts, and central differences of full passes in float32 with the same weights."""
    evaluator, tap = subject.evaluator(), subject.downstream.site
    worker = Differentiator(evaluator.forward, tap)
    found, _ = measure_response(
        list(worker.jacobians(subject.contexts)),
        subject.primary.decoder[torch.as_tensor(_taken(subject))],
        lambda block, _: torch.ones(len(_taken(subject)[block]), CONTEXTS),
        CollateralReader(subject.downstream, subject.panel, reconstruction=False),
        evaluator.vocabulary,
    )
    columns = [found[f"{PREFIX}{name}"][:STEERED] for name in FORECAST]
    return _largest(np.stack(columns, axis=1), _by_differences(subject))


def _taken(subject: Subject) -> "np.typing.NDArray[np.int64]":
    """Features with a forecast: the steered ones first."""
    others = np.setdiff1d(np.arange(min(_FEATURES, subject.shape.n_features)), subject.features)
    return np.concatenate([subject.features, others])


@torch.no_grad()
def _by_differences(subject: Subject) -> "np.typing.NDArray[np.float64]":
    reference, tap = subject.reference, subject.downstream.site
    vocabulary = Evaluator(
        reference, subject.primary, subject.downstream, subject.panel, SteeringSetting(), full=True
    ).vocabulary
    frozen = FullForward(reference, subject.primary.site).freeze(subject.contexts)
    rows = subject.primary.decoder[torch.as_tensor(subject.features)].to(frozen.final)
    step = _STEP * float(frozen.final.norm(dim=1).mean())
    queries = frozen.final[:, None] + step * torch.cat([rows, -rows])
    moved = [
        (each[:, :STEERED] - each[:, STEERED:]) / (2 * step) for each in frozen.resume(queries, tap)
    ]
    sizes = vocabulary.change(moved[0]).norm(dim=-1), moved[1].norm(dim=-1)
    return torch.stack([size.mean(dim=0) for size in sizes], dim=1).double().cpu().numpy()


def adapter_step(subject: Subject) -> float:
    """0 where a training step moves the adapter's weights by numbers, and nothing else; else NaN."""
    from peft import get_peft_model

    from ..adapters import SaeAdapterConfig

    network = build_network(subject.shape, str(subject.model.device)).requires_grad_(False)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    with tempfile.TemporaryDirectory() as folder, torch.enable_grad():
        subject.primary.sae.save_model(folder)
        target = {
            "hook": subject.primary.site.hook,
            "sae": {"path": folder},
            "features": subject.features.tolist(),
        }
        model: Any = get_peft_model(network, SaeAdapterConfig(targets=[target], component="bias"))
        trained = [value for value in model.parameters() if value.requires_grad]
        start = [value.detach().clone() for value in trained]
        optimiser = torch.optim.AdamW(trained, lr=_LEARNING_RATE)
        tokens = subject.contexts.to(subject.model.device)
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        finite = all(
            value.grad is not None and bool(value.grad.isfinite().all()) for value in trained
        )
        optimiser.step()
    moved = any(not torch.equal(a, b) for a, b in zip(start, trained, strict=True))
    kept = all(
        torch.equal(before.pop(name), value) for name, value in _frozen(model) if name in before
    )
    return 0.0 if finite and moved and kept and not before else float("nan")


def _frozen(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The base model's weights, under their names before the adapter."""
    for name, value in model.get_base_model().named_parameters():
        yield name.replace(".base_layer", ""), value


CHECKS: dict[str, Callable[[Subject], float]] = {
    "self-check": self_check,
    "labels": labels,
    "linear response": linear_response,
    "adapter step": adapter_step,
}


def examine(name: str, shape: Shape, dtype: str, device: str) -> Iterator[Row]:
    """All checks of a shape in one number format."""
    with quiet_libraries():
        subject = Subject.build(replace(shape, dtype=DTYPES[dtype]), device)
    for check, work in CHECKS.items():
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        try:
            with quiet_libraries():
                difference = work(subject)
        except Exception as error:  # whatever happens is to be told, and the next check made
            difference = float("nan")
            _say(f"{check}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        seconds = time.perf_counter() - start
        yield Row(check, dtype, name, difference, seconds, _peak(device))


def _largest(found: "np.typing.NDArray[Any]", expected: "np.typing.NDArray[Any]") -> float:
    """Largest difference, relative to the largest entry of its column."""
    return float((np.abs(found - expected).max(axis=0) / np.abs(expected).max(axis=0)).max())


def _peak(device: str) -> float:
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / (1 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10)


def _verdict(right: bool) -> str:
    return "right" if right else "WRONG"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _check_asked(device: str, small: bool) -> None:
    if device == "cpu" and not small:
        raise InputError(
            "--device cpu takes hours at real shapes, expected a CUDA device; give --small with it"
        )
    check_device(device)


def main() -> int:
    """The program; returns its exit code: 0, 1 where something is wrong, 2 where it cannot be told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny shapes, in seconds")
    arguments = parser.parse_args()
    shapes = SMALL if arguments.small else {name: SHAPES[name] for name in REAL}
    try:
        _check_asked(arguments.device, arguments.small)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    torch.set_grad_enabled(False)
    _say("| check | format | shape | largest relative difference | s | peak MiB | |")
    _say("|---|---|---|---|---|---|---|")
    wrong = 0
    for name, shape in shapes.items():
        for dtype in DTYPES:
            for row in examine(name, shape, dtype, arguments.device):
                _say(str(row))
                wrong += not row.right
    told = ", ".join(f"{value:g} in {dtype}" for dtype, value in TOLERANCE.items())
    _say(f"{wrong} wrong; tolerance {told}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
