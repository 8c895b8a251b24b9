"""The task: texts, and the loss on them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapters.encoding import IGNORED, encode, usable_length
from ..adapters.examples import Examples
from ..adapters.padding import Row, batches, padded
from ..core.errors import InputError
from ..core.training import TrainingOptions


@dataclass(frozen=True)
class Task:
    """Examples as tokens, in batches."""

    rows: Sequence[Row]
    """Shortest first, so that little is padded."""
    n_tokens: int
    """How many tokens are learned."""

    @property
    def n_batches(self) -> int:
        """How many forward passes a pass over all takes."""
        return sum(1 for _ in batches(self.rows))

    def passes(self, model: Any) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Of each batch the arguments of the model, and the summed loss over its learned tokens."""
        for given in self.given(model):
            yield given, losses(model, given).sum()

    def given(self, model: Any) -> Iterator[dict[str, Tensor]]:
        """Of each batch the arguments of the model."""
        device = next(model.parameters()).device
        for batch in batches(self.rows):
            yield padded(batch, device)

    @torch.no_grad()
    def loss(self, model: Any) -> float:
        """Mean cross-entropy, in nats a token."""
        return sum(float(loss) for _, loss in self.passes(model)) / self.n_tokens


def losses(model: Any, given: Mapping[str, Tensor]) -> Tensor:
    """Of each text of a batch the summed loss over its learned tokens, ``[row]``."""
    logits = model(**given, use_cache=False).logits[:, :-1].float()
    labels = given["labels"][:, 1:]
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return each.view(labels.shape).sum(dim=1)


def read_task(
    examples: Examples, model: Any, tokenizer: Any, options: TrainingOptions, most_tokens: int
) -> Task:
    """Examples as a task; of pairs of answers the chosen ones.

    Args:
        examples: what the loss is of.
        model: whose longest length holds.
        tokenizer: its tokenizer.
        options: ``bos``, ``completion_only`` and ``max_length``, as they were trained with.
        most_tokens: after so many no further example is taken.

    Raises:
        InputError: nothing is left to learn.

    """
    given = list(examples.rows)
    if "chosen" in given[0]:
        given = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in given]
    length = usable_length(model, options.max_length)
    plain = options.model_copy(update={"objective": "sft"})
    encoded = encode(given, tokenizer, plain, length)
    rows: list[Row] = []
    total = n_learned = 0
    for row in encoded.rows:
        if total >= most_tokens:
            break
        rows.append(row)
        total += len(row["input_ids"])
        n_learned += sum(label != IGNORED for label in row["labels"][1:])
    if not n_learned:
        raise InputError("no example has a token to learn; expected at least one; give other data")
    return Task(sorted(rows, key=lambda row: len(row["input_ids"])), n_learned)
