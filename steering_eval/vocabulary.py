"""Labels that need every logit: sizes, divergences and concentration of the change.

The change of the logits, D = dy W, is computed block of vocabulary by block, and every block is
summed up while it lies in the cache. Where the model soft-caps its logits at b, D is the change of
b tanh(l / b), and not linear in dy.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.concentration import MASS_SIZES
from ..core.models import LanguageModel
from .sums import COUNT_THRESHOLDS, SoftCap, sum_up

COLUMNS = (
    "effect_l1",
    "effect_linf",
    "kl_clean_steered",
    "kl_steered_clean",
    *(f"logit_count_gt_{threshold}" for threshold in COUNT_THRESHOLDS),
    *(f"logit_top{k}_mass_frac" for k in MASS_SIZES),
    "logit_effective_vocab",
)
"""Columns of :meth:`VocabularyReader.measure`, in order."""

_MOST_QUERIES = {"cpu": 1024}
_MOST_QUERIES_DEFAULT = 1 << 13
_MOST_ELEMENTS = {"cpu": 1 << 28}
_MOST_ELEMENTS_DEFAULT = 1 << 28
_COLUMNS_AT_ONCE = {"cpu": 16384}
_COLUMNS_AT_ONCE_DEFAULT = 1 << 16
_GRAM_BLOCK = 4096
_TRIANGLE = 4
"""Blocks of columns in which half of a symmetric matrix is computed."""
_SMALLEST = 1e-30
_LARGE_CHANGE = 30.0
"""Above it tokens whose clean share is no float32 any more may become likely."""


class VocabularyReader:
    """Reads changes of all logits from changes of the final norm's output."""

    def __init__(
        self,
        unembedding: Float[Tensor, "vocab d"],
        bias: Float[Tensor, " vocab"] | None = None,
        soft_cap: float | None = None,
    ) -> None:
        self._unembedding = unembedding
        self._bias = bias
        self._soft_cap = soft_cap
        device = unembedding.device.type
        self._columns = _COLUMNS_AT_ONCE.get(device, _COLUMNS_AT_ONCE_DEFAULT)
        elements = _MOST_ELEMENTS.get(device, _MOST_ELEMENTS_DEFAULT)
        self.most_queries = min(
            _MOST_QUERIES.get(device, _MOST_QUERIES_DEFAULT), max(1, elements // len(unembedding))
        )
        """How many queries are measured at once."""
        self._memory = unembedding.new_empty(0)

    @classmethod
    def of_model(cls, model: LanguageModel) -> "VocabularyReader":
        """The reader of a model's logits, as they are compared."""
        bias = model.unembedding_bias()
        if bias is not None and model.vocabulary_centred:
            bias = bias - bias.mean()
        return cls(model.comparison_unembedding().T.contiguous(), bias, model.soft_cap)

    @property
    def dtype(self) -> torch.dtype:
        """The number format in which outputs of the final norm are read."""
        return self._unembedding.dtype

    @property
    def linear(self) -> bool:
        """Whether a change of the logits is linear in that of the final norm's output."""
        return self._soft_cap is None

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return len(self._unembedding)

    def unembedding_gram(self) -> Float[Tensor, "d d"]:
        """W W^T on the CPU, accumulated block by block in float64: with it, lengths and angles of
        linear changes need no logits.
        """
        width = self._unembedding.shape[1]
        total = torch.zeros(width, width, dtype=torch.float64)
        for block in self._unembedding.split(_GRAM_BLOCK):
            total += (block.T @ block).cpu().double()
        return total.to(self.dtype)

    def logits(self, output: Float[Tensor, "*any d"]) -> Float[Tensor, "*any vocab"]:
        """The logits of an output of the final norm, up to a shift of all of them."""
        logits = output.to(self.dtype) @ self._unembedding.T
        if self._bias is not None:
            logits = logits + self._bias
        if self._soft_cap is not None:
            logits = self._soft_cap * torch.tanh(logits / self._soft_cap)
        return logits

    def change(
        self, moved: Float[Tensor, "*any d"], columns: slice = slice(None)
    ) -> Float[Tensor, "*any column"]:
        """The change of the unembedding's output, without a soft-cap, for some tokens."""
        return moved.to(self.dtype) @ self._unembedding[columns].T

    def slopes(self, logits: Float[Tensor, "*any vocab"]) -> Float[Tensor, "*any vocab"]:
        """The derivative of the soft-cap b tanh(l / b) at logits as :meth:`logits` gives them:
        1 - (logit / b)^2; 1 without one.
        """
        if self._soft_cap is None:
            return torch.ones_like(logits)
        return 1 - (logits / self._soft_cap).square()

    def fisher(self, output: Float[Tensor, " d"]) -> Float[Tensor, "d d"]:
        """W (diag p - p p^T) W^T for linear logits, p being the next-token distribution of an output
        of the final norm: the curvature of KL(p || .) at 0, block of vocabulary by block, and of a
        symmetric matrix hardly more than half.
        """
        shares = self.logits(output).softmax(dim=-1)
        width = self._unembedding.shape[1]
        total = self._unembedding.new_zeros(width, width)
        step = -(-width // _TRIANGLE)
        for block, share in zip(
            self._unembedding.split(_GRAM_BLOCK), shares.split(_GRAM_BLOCK), strict=True
        ):
            weighted = block * share[:, None]
            for first in range(0, width, step):
                columns = slice(first, first + step)
                total[first:, columns] += weighted[:, first:].T @ block[:, columns]
        mean = shares @ self._unembedding
        return total.tril() + total.tril(-1).T - torch.outer(mean, mean)

    def measure(
        self,
        moved: Float[Tensor, "query d"],
        clean: Float[Tensor, "context d"],
        owners: Int[Tensor, " query"],
    ) -> Float[Tensor, "query column"]:
        """Measure D, steered minus clean logits; ``COLUMNS`` in order.

        With p the clean next-token distribution and q the steered one, p proportional to exp(l), q
        to exp(l + D): let m = sum p D, s = sum p (e^D - 1), c = sum p (e^D - 1) D. Then KL(p || q)
        = ln(1 + s) - m (``kl_clean_steered``) and KL(q || p) = (m + c)/(1 + s) - ln(1 + s)
        (``kl_steered_clean``), which keeps its digits where D is small.

        Args:
            moved: change of the final norm's output.
            clean: the final norm's clean output of each context.
            owners: which context a query belongs to.

        Source: docs/protocol.md, Steering and its labels (arXiv:2606.08365).
        """
        pieces = max(1, -(-len(moved) // self.most_queries))
        return torch.cat(
            [
                self._measure(part, clean, some, [])
                for part, some in zip(moved.chunk(pieces), owners.chunk(pieces), strict=True)
            ]
        )

    def measure_features(
        self,
        moved: Float[Tensor, "query d"],
        clean: Float[Tensor, "context d"],
        owners: Int[Tensor, " query"],
        counts: list[int],
    ) -> tuple[Float[Tensor, "query column"], list[Float[Tensor, "_own _own"]]]:
        """:meth:`measure`, and the Gram matrix D D^T of each feature's queries, in float64.

        ``counts`` says how many queries each feature has, one feature after the other.
        """
        grams = [torch.zeros(n, n, dtype=torch.float64) for n in counts]
        return self._measure(moved, clean, owners, grams), grams

    def grams(
        self,
        moved: Float[Tensor, "query d"],
        clean: Float[Tensor, "context d"],
        owners: Int[Tensor, " query"],
        counts: list[int],
    ) -> list[Float[Tensor, "_own _own"]]:
        """The Gram matrices of :meth:`measure_features` alone."""
        grams = [torch.zeros(n, n, dtype=torch.float64) for n in counts]
        for start in range(0, len(self._unembedding), self._columns):
            columns = slice(start, min(start + self._columns, len(self._unembedding)))
            block = moved @ self._unembedding[columns].T
            if self._soft_cap is not None:
                self._cap(clean, columns).bend(block, owners, 0)
            _add_grams(grams, block)
        return grams

    def _measure(
        self,
        moved: Float[Tensor, "query d"],
        clean: Float[Tensor, "context d"],
        owners: Int[Tensor, " query"],
        grams: list[Tensor],
    ) -> Float[Tensor, "query column"]:
        there, owners = owners.unique(return_inverse=True)
        clean = clean[there.to(clean.device)]
        probabilities = self.logits(clean).softmax(dim=-1)
        shape = len(moved), len(self._unembedding)
        if len(self._memory) < shape[0] * shape[1]:
            self._memory = moved.new_empty(shape[0] * shape[1])
        change = self._memory[: shape[0] * shape[1]].view(shape)
        for start in range(0, shape[1], self._columns):
            columns = slice(start, min(start + self._columns, shape[1]))
            block = change[:, columns]
            torch.mm(moved, self._unembedding[columns].T, out=block)
            if self._soft_cap is not None:
                self._cap(clean, columns).bend(change, owners, start)
            _add_grams(grams, block)
        sums, largest = sum_up(change, probabilities, owners)
        divergences = _divergences(sums)
        for query in (sums[:, 5] > _LARGE_CHANGE).nonzero().flatten().tolist():
            logits = self.logits(clean[owners[query]])
            divergences[query] = _divergences_of(logits, change[query])
        return _columns(sums, divergences, largest).to(moved.dtype)

    def _cap(self, clean: Float[Tensor, "context d"], columns: slice) -> SoftCap:
        assert self._soft_cap is not None
        logits = clean @ self._unembedding[columns].T
        if self._bias is not None:
            logits = logits + self._bias[columns]
        return SoftCap(logits, self._soft_cap)


def _add_grams(grams: list[Tensor], block: Float[Tensor, "query column"]) -> None:
    start = 0
    for gram in grams:
        rows = block[start : start + len(gram)]
        gram += (rows @ rows.T).cpu().double()
        start += len(gram)


def _divergences_of(
    logits: Float[Tensor, " vocab"], change: Float[Tensor, " vocab"]
) -> Float[Tensor, " 2"]:
    """Both divergences of one query by log-softmax: for any size of change, if few digits."""
    clean, steered = logits.log_softmax(dim=0), (logits + change).log_softmax(dim=0)
    difference = clean - steered
    return torch.stack([clean.exp() @ difference, -(steered.exp() @ difference)])


def _divergences(sums: Float[Tensor, "query sum"]) -> Float[Tensor, "query 2"]:
    """KL(p || q) and KL(q || p), from the sums s, c and m."""
    s, c, m = sums[:, 2], sums[:, 3], sums[:, 4]
    growth = s.log1p()
    return torch.stack([growth - m, (m + c) / (1 + s) - growth], dim=1).clamp_min(0.0)


def _columns(
    sums: Float[Tensor, "query sum"],
    divergences: Float[Tensor, "query 2"],
    largest: Float[Tensor, "query size"],
) -> Float[Tensor, "query column"]:
    """``COLUMNS`` from all that was summed up."""
    total, weighted, peaks, counts = sums[:, 0], sums[:, 1], sums[:, 5], sums[:, 6:]
    safe = total.clamp_min(_SMALLEST)
    some = total > 0
    effective = torch.where(some, (safe.log() - weighted / safe).exp(), 0.0)
    shares = torch.where(some[:, None], largest.to(total) / safe[:, None], 0.0)
    return torch.cat(
        [torch.stack([total, peaks], dim=1), divergences, counts, shares, effective[:, None]], dim=1
    )
