"""The evaluator: steers the pairs of a plan and labels its features."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ..core.models import LanguageModel
from ..core.saes import Dictionary
from ..core.settings import SteeringSetting
from .choice import Plan
from .collateral import CollateralPanel, CollateralReader
from .families import find_blocks
from .forward import ForwardPass
from .interventions import INTERVENTIONS
from .labels import Labeller
from .pairs import PairMeasurer
from .parts import PairStore
from .prompts import PROMPT as PROMPT
from .prompts import PROMPT_STRENGTH, PromptScorer
from .rerun import FullForward
from .resume import ResumedForward
from .selfcheck import PassComparison
from .visits import split_plan
from .vocabulary import VocabularyReader


class Evaluator:
    """Steers features and measures stability and collateral spread, by the resumed forward pass.

    Exact: its labels are those of a full forward pass for each feature and context, up to the
    rounding of floating-point numbers. For a family that the resumed pass does not know, or where
    ``full`` is given, it makes those full passes.
    """

    def __init__(
        self,
        model: LanguageModel,
        primary: Dictionary,
        downstream: Dictionary,
        panel: CollateralPanel,
        steering: SteeringSetting,
        full: bool = False,
    ) -> None:
        site, tap = primary.site, downstream.site
        if tap.order < site.order:
            raise ValueError(f"downstream hook {tap.hook} lies below {site.hook}")
        self._model = model
        self._primary = primary
        self._downstream = downstream
        self._steering = steering
        rerun = FullForward(model, site)
        blocks = None if full else find_blocks(model)
        forward: ForwardPass = rerun if blocks is None else ResumedForward(model, blocks, site)
        self._resumed = blocks is not None
        self.forward = forward
        """The pass by which features are steered."""
        vocabulary = VocabularyReader.of_model(model)
        self.vocabulary = vocabulary
        """Reads outputs of the final norm."""
        collateral = CollateralReader(downstream, panel, steering.reconstruction_labels)
        # Where logits are soft-capped, the labeller measures them: it needs them for stability too.
        measure_logits = steering.vocabulary_labels and vocabulary.linear
        self._pairs = PairMeasurer(
            model, forward, site, tap, collateral, vocabulary, measure_logits
        )
        self._labeller = Labeller(model, vocabulary, steering)
        self._comparison = PassComparison(model, forward, rerun, tap, vocabulary)
        self._prompts = PromptScorer(model, forward, primary, tap, vocabulary)

    @property
    def resumed(self) -> bool:
        """Whether features are steered by the resumed pass, not by full forward passes."""
        return self._resumed

    def evaluate(
        self,
        plan: Plan,
        contexts: Int[Tensor, "context token"],
        activations: scipy.sparse.csc_array,
        features: pd.DataFrame,
        units: float | NDArray[np.float64],
        folder: Path,
        progress: Callable[[int], object] = lambda done: None,
        directions: Float[Tensor, "feature width"] | None = None,
    ) -> pd.DataFrame:
        """Labels of a plan: a row per feature and context type.

        Args:
            plan: which features are steered in which contexts.
            contexts: token ids.
            activations: the steered SAE's final activations in these contexts,
                ``[context, feature]``.
            features: the feature table (for final_act_q95).
            units: the coefficient of a strength of 1: of all features, such as the global value c, or of
                each of the plan.
            folder: where finished parts are kept until the labels are whole; parts of the same work
                that are there already are not computed again.
            progress: called with the number of pairs finished.
            directions: what is added in place of each feature's decoder row (controls).

        Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365).

        """
        intervention = INTERVENTIONS[self._steering.mode]
        quantiles = features.set_index("feature").loc[plan.features, "final_act_q95"].to_numpy()
        own = np.broadcast_to(np.asarray(units, dtype=np.float64), quantiles.shape)
        values = intervention.value(self._steering.alpha, own, quantiles)
        clean = _pair_activations(plan, activations)
        owners = np.repeat(np.arange(len(plan.features)), [len(u) for u in plan.union])
        deltas = intervention.delta(values[owners], clean)
        if directions is None:
            directions = self._directions(plan)
        store = PairStore(folder / f"work-{self.work_id(plan, contexts, deltas, directions)}")
        for number, visits in enumerate(split_plan(plan, self._pairs.pairs_at_once)):
            if not store.has(number):
                store.write(number, self._pairs.measure(visits, contexts, directions, deltas))
            progress(sum(len(visit.pairs) for visit in visits))
        table = self._labeller.label(plan, store, values, clean)
        store.remove()
        return table

    def divergences(
        self,
        plan: Plan,
        contexts: Int[Tensor, "context token"],
        values: NDArray[np.float64],
        directions: Float[Tensor, "feature width"] | None = None,
        progress: Callable[[int], object] = lambda done: None,
    ) -> NDArray[np.float64]:
        """KL(clean || steered) of each feature, mean over its contexts, with ``values`` times its
        direction added: what ``kl_clean_steered`` is in mode ``add``, and nothing else measured.

        Arguments as of :meth:`evaluate`.
        """
        if directions is None:
            directions = self._directions(plan)
        counts = np.array([len(union) for union in plan.union])
        deltas = np.repeat(values, counts)
        measured = np.empty(len(deltas))
        for visits in split_plan(plan, self._pairs.pairs_at_once):
            pairs, divergence = self._pairs.divergences(visits, contexts, directions, deltas)
            measured[pairs] = divergence
            progress(len(pairs))
        owners = np.repeat(np.arange(len(counts)), counts)
        return np.asarray(np.bincount(owners, weights=measured, minlength=len(counts)) / counts)

    def spot_check(
        self, plan: Plan, contexts: Int[Tensor, "context token"], delta: float, count: int
    ) -> float:
        """Largest difference of fast and slow, relative to the largest change.

        ``count`` (feature, context) pairs, evenly spread over the plan, are steered by ``delta``
        times their decoder direction: once as :meth:`evaluate` does, once by a full forward pass
        of the bridge. Compared are the changes of the model's own logits and of what the
        downstream SAE reads.
        """
        return self._comparison.largest_difference(
            plan, contexts, delta * self._directions(plan), count
        )

    def prompt_scores(
        self,
        features: NDArray[np.int64],
        prompt: Int[Tensor, "1 token"],
        strength: float = PROMPT_STRENGTH,
    ) -> pd.DataFrame:
        """Scores of features on one neutral prompt: see :meth:`.prompts.PromptScorer.score`."""
        return self._prompts.score(features, prompt, strength)

    def _directions(self, plan: Plan) -> Float[Tensor, "feature width"]:
        return self._primary.decoder[torch.as_tensor(plan.features)]

    def work_id(
        self,
        plan: Plan,
        contexts: Int[Tensor, "context token"],
        pushes: NDArray[np.float64],
        directions: Float[Tensor, "feature width"] | None = None,
    ) -> str:
        """What work on a plan depends on, as 16 hexadecimal digits; ``pushes`` is what it is given."""
        if directions is None:
            directions = self._directions(plan)
        digest = hashlib.sha256()
        digest.update(f"{self._steering.model_dump_json()}{self.resumed}".encode())
        digest.update(f"{self._primary.fingerprint}{self._downstream.fingerprint}".encode())
        digest.update(self._model.fingerprint.encode())
        digest.update(plan.features.tobytes() + np.concatenate(plan.union).tobytes())
        digest.update(contexts.numpy().tobytes() + pushes.tobytes())
        digest.update(directions.float().cpu().numpy().tobytes())
        for members in plan.members:
            for name, some in members.items():
                digest.update(name.encode() + some.tobytes())
        return digest.hexdigest()[:16]


def _pair_activations(plan: Plan, activations: scipy.sparse.csc_array) -> NDArray[np.float64]:
    """The clean activation of each pair's feature."""
    columns = [
        activations[:, [feature]].toarray().ravel()[union]
        for feature, union in zip(plan.features, plan.union, strict=True)
    ]
    return np.concatenate(columns).astype(np.float64)
