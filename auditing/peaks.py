"""The strongest contexts of every feature of a dictionary, in one pass over texts."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..adapters.slices import FIRES, Slice

_AT_ONCE = 1 << 24  # activations


def latents_of(part: Slice, values: Float[Tensor, "token d"]) -> Iterator[Tensor]:
    """Activations of all features of an SAE at the tokens of a text, as many tokens at once as need no
    more than 64 MB, ``[token, feature]``.
    """
    for some in values.split(max(1, _AT_ONCE // part.n_features)):
        yield part.encode(part.read(some)[0])


class Peaks:
    """Of every feature its strongest contexts, and its mean, over texts that are added one by one.

    A context is a token of a text at which the feature is active; of each text there is at most one,
    the token at which it is most active, the first one of several. What is kept grows with the number
    of features alone.

    Args:
        n_features: of the dictionary.
        count: how many contexts are kept.

    """

    values: Float[Tensor, "count feature"]
    """Activations there, in no order; 0 where there are fewer contexts."""
    places: Int[Tensor, "count feature"]
    """Tokens, counted through all texts; -1 where there are fewer contexts."""

    def __init__(self, n_features: int, count: int) -> None:
        self.values = torch.zeros(count, n_features)
        self.places = torch.full((count, n_features), -1)
        self.sums = torch.zeros(n_features, dtype=torch.float64)
        self.fires = torch.zeros(n_features, dtype=torch.int64)
        """At how many tokens it fires."""
        self.texts = torch.zeros(n_features, dtype=torch.int64)
        """In how many texts."""
        self.n_tokens = 0

    def add(self, part: Slice, values: Float[Tensor, "token d"], start: int) -> None:
        """Add a text.

        Args:
            part: the SAE with all features.
            values: what it reads at the text's tokens.
            start: the number of the first of them among all.

        """
        self.n_tokens += len(values)
        best = torch.zeros(len(self.sums))
        where = torch.full_like(self.texts, -1)
        for latents in latents_of(part, values):
            peak, at = (each.cpu() for each in latents.max(dim=0))
            better = peak > best
            best = torch.where(better, peak.float(), best)
            where = torch.where(better, at + start, where)
            self.sums += latents.sum(dim=0).double().cpu()
            self.fires += (latents > FIRES).sum(dim=0).cpu()
            start += len(latents)
        active = best > FIRES
        self.texts += active
        least, slot = self.values.min(dim=0)
        (better,) = (active & (best > least)).nonzero(as_tuple=True)
        self.values[slot[better], better] = best[better]
        self.places[slot[better], better] = where[better]

    def common(self, other: "Peaks") -> Int[Tensor, " feature"]:
        """How many of a feature's contexts are also among another's."""
        found = torch.zeros_like(self.texts)
        for place in self.places:
            found += (other.places == place).any(dim=0) & (place >= 0)
        return found

    def strongest(self, feature: int) -> list[tuple[float, int]]:
        """A feature's contexts, activation and token, strongest first."""
        pairs = zip(self.values[:, feature].tolist(), self.places[:, feature].tolist(), strict=True)
        return sorted(
            (pair for pair in pairs if pair[1] >= 0), key=lambda pair: (-pair[0], pair[1])
        )
