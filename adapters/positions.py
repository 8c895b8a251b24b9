"""Which tokens an adapter edits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.choices import Tokens
from ..core.errors import InputError

_IGNORED = -100
"""Label of a token that is not learned, in transformers."""


@dataclass(frozen=True)
class Which:
    """The tokens that an adapter edits.

    Args:
        positions: ``all``; ``completion``: while training those with a label, while generating those
            behind the prompt; ``last``: while training and scoring the last token of each row that is
            no padding, while generating each token from which the next one is drawn: the prompt's last
            one and all behind it.
        bos: whether BOS at the start of a row counts, and EOS in its stead.

    """

    positions: Tokens = "all"
    bos: bool = True

    @property
    def every(self) -> bool:
        """True where no token is left out."""
        return self.positions == "all" and self.bos

    @property
    def told(self) -> str:
        """The same in words."""
        return f"positions {self.positions!r}" + " without BOS" * (not self.bos)


EVERY = Which()


@dataclass(frozen=True)
class Pass:
    """What is known of a forward pass, ``[row, token]``."""

    shape: tuple[int, int]
    seen: int
    """How many tokens of each row are in the cache."""
    ids: Tensor | None
    labels: Tensor | None
    mask: Tensor | None
    """1 for tokens, 0 for padding, those in the cache included."""
    prompt: int | None
    """Length of the prompt that text is generated for."""


class Positions:
    """Sees the forward passes of a model, and tells which tokens of the last one are edited; shared by
    the model's layers.

    Args:
        starts: ids that count as BOS.

    """

    def __init__(self, starts: frozenset[int]) -> None:
        self._starts = starts
        self._prompt: int | None = None
        self._pass: Pass | None = None

    def see(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take note of the arguments of a forward pass."""
        ids = args[0] if args else kwargs.get("input_ids")
        given = ids if ids is not None else kwargs.get("inputs_embeds")
        if given is None:
            self._pass = None
            return
        mask: Any = kwargs.get("attention_mask")
        cache: Any = kwargs.get("past_key_values")
        if len(args) > 1 and mask is None:
            mask = args[1]
        seen = int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            mask = None
        shape = (int(given.shape[0]), int(given.shape[1]))
        self._pass = Pass(shape, seen, ids, kwargs.get("labels"), mask, self._prompt)

    @contextmanager
    def generating(self, length: int | None) -> Iterator[None]:
        """Text is generated for prompts of a length, padding included."""
        before, self._prompt = self._prompt, length
        try:
            yield
        finally:
            self._prompt = before

    def edited(self, which: Which) -> Tensor:
        """True for the tokens of the last forward pass that are edited, ``[row, token]``.

        Raises:
            InputError: it cannot be known: there are neither labels nor a generation that tells the
                completion from the prompt, or no ids that tell BOS.

        """
        if self._pass is None:
            raise InputError(
                f"positions = {which.positions!r}, edit_bos = {which.bos}: the model was not given "
                "input_ids as a whole, so it is not known which tokens stand where; expected its own "
                "forward pass; call the model itself"
            )
        chosen = _chosen(self._pass, which.positions)
        return chosen if which.bos else chosen & ~_starting(self._pass, self._starts)


def _chosen(known: Pass, positions: str) -> Tensor:
    rows, length = known.shape
    device = _device(known)
    chosen = torch.ones(rows, length, dtype=torch.bool, device=device)
    if positions == "all":
        return chosen
    place = known.seen + torch.arange(length, device=device)
    if positions == "completion":
        if known.labels is not None:
            return chosen & (known.labels != _IGNORED)
        if known.prompt is None and not known.seen:
            raise InputError(
                "positions = 'completion': nothing tells the completion from the prompt; expected labels "
                "(-100 on the prompt), or model.generate; give them"
            )
        return chosen & (place >= (known.prompt or 0))
    if known.prompt is not None:
        return chosen & (place >= known.prompt - 1)
    return place == _last(known, device)[:, None]


def _last(known: Pass, device: torch.device) -> Tensor:
    """The place of each row's last token that is no padding, those in the cache counted."""
    rows, length = known.shape
    if known.mask is None:
        return torch.full((rows,), known.seen + length - 1, device=device)
    places = torch.arange(known.mask.shape[1], device=device)
    return torch.where(known.mask.to(device).bool(), places, -1).amax(dim=1)


def _starting(known: Pass, starts: frozenset[int]) -> Tensor:
    """True for BOS at the start of a row, padding before it not counted."""
    rows, length = known.shape
    device = _device(known)
    if known.ids is None:
        raise InputError(
            "edit_bos = False: the model was given embeddings, which do not tell where BOS is; expected "
            "input_ids; give them, or let the adapter edit BOS too"
        )
    first = torch.zeros(rows, dtype=torch.long, device=device)
    if known.mask is not None:
        first = known.mask.to(device).bool().int().argmax(dim=1)
    place = known.seen + torch.arange(length, device=device)
    named = torch.isin(known.ids, torch.tensor(sorted(starts), device=device))
    return (place == first[:, None]) & named


def _device(known: Pass) -> torch.device:
    given = known.ids if known.ids is not None else known.mask
    return torch.device("cpu") if given is None else given.device


def starts_of(config: Any) -> frozenset[int]:
    """Ids that stand at the start of a row as BOS, by a Hugging Face configuration: BOS, and EOS, which
    stands in for it where a tokenizer has none.
    """
    given: list[Any] = []
    for name in ("bos_token_id", "eos_token_id"):
        value = getattr(config, name, None)
        given += value if isinstance(value, list | tuple) else [value]
    return frozenset(int(each) for each in given if each is not None)


def prompt_length(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Length of the prompt that ``generate`` is given, padding included; None: there is none."""
    named = (kwargs.get(name) for name in ("inputs", "input_ids", "inputs_embeds"))
    given = next((each for each in (*args[:1], *named) if isinstance(each, Tensor)), None)
    return None if given is None else int(given.shape[1])
