"""One pass over the contexts that fills every statistic of every feature."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ..core.massive import is_massive
from ..core.models import LanguageModel
from ..core.saes import Dictionary
from ..core.settings import SteeringSetting
from .activation import FIRES_ABOVE, TokenMoments, firing_medians, measure_final_tokens
from .coactivation import Firings, measure_coactivation
from .examples import Examples
from .geometry import measure_crowding, measure_norms
from .logits import measure_direct_logits
from .peaks import Peaks, peaks_of

_BATCH_ELEMENTS = 1 << 24
_PEAK_TOKENS = 5


@dataclass(frozen=True)
class FeatureStatistics:
    """What the clean pass leaves behind."""

    table: pd.DataFrame
    """A row for every feature: ``feature``, the protocol's columns, ``input_score``,
    ``direct_top_tokens`` and ``peak_top_tokens``."""
    final_activations: scipy.sparse.csc_array
    """The steered SAE's activations at the contexts' final tokens, ``[context, feature]``."""
    downstream: pd.DataFrame
    """``feature``, ``final_act_freq`` and ``final_firing_median`` of every downstream feature."""
    mean_l0: float
    """Mean number of features of the steered SAE that fire at a final token."""
    downstream_mean_l0: float
    """The same of the downstream SAE."""
    examples: pd.DataFrame
    """Where every feature fires: see :class:`.examples.Examples`."""
    residual_norm: float
    """Median norm of what stands at the steered hook, over all tokens but the first of each context."""


def measure_features(
    model: LanguageModel,
    primary: Dictionary,
    downstream: Dictionary,
    contexts: Int[Tensor, "context token"],
    steering: SteeringSetting,
    progress: Callable[[int], object] = lambda done: None,
    seed: int = 0,
) -> FeatureStatistics:
    """Measure all statistics of every feature of the dictionary.

    Moments and entropies accumulate in float64 as the contexts stream past, from firing entries
    only; crowding and direct logits are computed in blocks. ``progress`` is called with the number
    of contexts finished. ``seed`` is of the examples. First positions that the SAE's training left
    out are no tokens of the statistics.

    Source: docs/protocol.md, Feature statistics (arXiv:2606.08365).
    """
    per_context = contexts.shape[1] * primary.n_features
    batch_size = max(1, _BATCH_ELEMENTS // per_context)
    with Firings(primary.n_features) as firings:
        examples = Examples(primary.n_features, len(contexts), seed, _numbers(primary.decoder))
        skipped = min(primary.n_skipped, contexts.shape[1] - 1)
        sweep = _Sweep(primary.n_features, downstream.n_features, firings, examples, skipped)
        for batch in contexts.split(batch_size):
            read, written, there = model.read(
                batch, [primary.source, primary.site, downstream.site]
            )
            sweep.add(batch, written, primary.encode(read), downstream.encode(there[:, -1]))
            progress(len(batch))
        together = measure_coactivation(
            firings, sweep.moments.firings, steering.coactivation_panel_size
        )
    final = sweep.final_activations()
    directions = model.to_stream(primary.decoder, primary.site)
    footprint, promoted = measure_direct_logits(directions, model.processed_unembedding())
    columns: dict[str, NDArray[np.float64] | Tensor] = {
        **measure_norms(primary),
        **measure_crowding(primary.decoder, steering.crowding_top_k),
        **measure_final_tokens(final),
        **sweep.moments.columns(),
        **together,
        **footprint,
        "input_score": sweep.peaks.input_scores(model.promoted(directions).cpu().numpy()),
    }
    table = pd.DataFrame(
        {"feature": np.arange(primary.n_features)}
        | {name: _float64(column) for name, column in columns.items()}
    )
    table["direct_top_tokens"] = token_texts(model, promoted.tolist())
    table["peak_top_tokens"] = token_texts(model, sweep.later_peaks.frequent_tokens(_PEAK_TOKENS))
    frequency = sweep.downstream_firings / len(contexts)
    return FeatureStatistics(
        table=table,
        final_activations=final,
        downstream=pd.DataFrame(
            {
                "feature": np.arange(downstream.n_features),
                "final_act_freq": frequency,
                "final_firing_median": firing_medians(sweep.downstream_activations()),
            }
        ),
        mean_l0=float(table["final_act_freq"].sum()),
        downstream_mean_l0=float(frequency.sum()),
        examples=examples.table(),
        residual_norm=float(np.median(np.concatenate(sweep.norms))),
    )


def final_activations(
    model: LanguageModel, primary: Dictionary, contexts: Int[Tensor, "context token"]
) -> scipy.sparse.csc_array:
    """The steered SAE's activations at the final tokens of some contexts, ``[context, feature]``."""
    batch_size = max(1, _BATCH_ELEMENTS // (contexts.shape[1] * model.width * model.n_layers))
    rows = []
    for batch in contexts.split(batch_size):
        (values,) = model.read(batch, [primary.source])
        rows.append(scipy.sparse.csr_array(primary.encode(values[:, -1]).cpu().numpy()))
    return scipy.sparse.csc_array(scipy.sparse.vstack(rows))


class _Sweep:
    """What accumulates while contexts stream past."""

    def __init__(
        self,
        n_features: int,
        n_downstream: int,
        firings: Firings,
        examples: Examples,
        n_skipped: int,
    ) -> None:
        self.moments = TokenMoments(n_features)
        self.peaks = Peaks(n_features)
        self.later_peaks = Peaks(n_features)
        self.downstream_firings = np.zeros(n_downstream)
        self._firings = firings
        self._examples = examples
        self._n_skipped = n_skipped
        self._n_contexts = 0
        self.norms: list[NDArray[np.float32]] = []
        self._final: list[scipy.sparse.csr_array] = []
        self._downstream_final: list[scipy.sparse.csr_array] = []

    def add(
        self,
        tokens: Int[Tensor, "context token"],
        values: Float[Tensor, "context token width"],
        activations: Float[Tensor, "context token feature"],
        downstream_final: Float[Tensor, "context downstream"],
    ) -> None:
        final = activations[:, -1].cpu()
        tokens, activations = tokens[:, self._n_skipped :], activations[:, self._n_skipped :]
        flat = activations.flatten(0, 1)
        places, features = (index.cpu().numpy() for index in flat.nonzero(as_tuple=True))
        fired = flat[places, features].cpu().numpy().astype(np.float64)
        self.moments.add(features, fired, len(flat))
        firing = fired > FIRES_ABOVE
        places, features, fired = places[firing], features[firing], fired[firing]
        counts = np.bincount(places, minlength=len(flat)).astype(np.int64)
        self._firings.add(features.astype(np.int32), counts)
        token_ids = tokens.flatten().numpy()[places]
        within, positions = np.divmod(places, tokens.shape[1])
        positions += self._n_skipped
        self.peaks.add(within, features, fired, token_ids)
        ordinary = ~is_massive(values[:, 1:].flatten(0, 1)).view(len(values), -1).cpu().numpy()
        telling = np.concatenate([np.zeros((len(values), 1), dtype=bool), ordinary], axis=1)
        later = np.flatnonzero(telling[within, positions])
        later = later[peaks_of(within[later], features[later], fired[later])]
        self.later_peaks.add(within[later], features[later], fired[later], token_ids[later])
        self._examples.add(
            self._n_contexts + within[later], positions[later], features[later], fired[later]
        )
        self._n_contexts += len(tokens)
        self.norms.append(values[:, 1:].float().norm(dim=-1).flatten().cpu().numpy())
        self._final.append(scipy.sparse.csr_array(final.numpy()))
        self._downstream_final.append(scipy.sparse.csr_array(downstream_final.cpu().numpy()))
        self.downstream_firings += (downstream_final > FIRES_ABOVE).sum(dim=0).cpu().numpy()

    def final_activations(self) -> scipy.sparse.csc_array:
        """``[context, feature]`` at the final tokens."""
        return scipy.sparse.csc_array(scipy.sparse.vstack(self._final))

    def downstream_activations(self) -> scipy.sparse.csc_array:
        """The same of the downstream SAE."""
        return scipy.sparse.csc_array(scipy.sparse.vstack(self._downstream_final))


def _numbers(rows: Float[Tensor, "feature d"]) -> NDArray[np.int64]:
    """A number of each row, whatever place it has."""
    plain = rows.float().cpu().contiguous().numpy()
    return np.array([zlib.crc32(row) for row in plain], dtype=np.int64)


def _float64(column: NDArray[np.float64] | Tensor) -> NDArray[np.float64]:
    if isinstance(column, Tensor):
        return column.double().cpu().numpy()
    return column


def token_texts(model: LanguageModel, tokens: Sequence[Sequence[int]]) -> list[list[str]]:
    """Tokens as texts, row by row."""
    used = sorted({token for row in tokens for token in row})
    texts = dict(zip(used, model.tokenizer.batch_decode([[t] for t in used]), strict=True))
    return [[texts[token] for token in row] for row in tokens]
