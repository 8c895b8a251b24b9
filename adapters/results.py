"""What a finished training adds to its record."""

from pathlib import Path
from typing import Any

from ..core.networks import needs_eager
from ..core.records import TrainingRecord
from ..core.records.training import ExampleCount
from .encoding import Encoded
from .examples import Examples
from .training import Trained, n_trainable


def results(trained: Trained, record: TrainingRecord) -> dict[str, Any]:
    """The entries that a finished training adds to its record."""
    config = trained.model.get_base_model().config
    name = config.name_or_path
    model = {"source": str(Path(name).resolve()) if Path(name).is_dir() else name}
    if needs_eager(config):
        model["attention"] = "eager"
    entries: dict[str, Any] = {
        "model": record.model.model_copy(update=model),
        "data": record.data.model_copy(update=_counts(trained.encoded[0])),
        "evaluated": record.evaluated.model_copy(update=_counts(trained.encoded[1])),
        "n_parameters": n_trainable(trained.model),
        "n_steps": trained.n_steps,
        "metrics": trained.losses,
        "effects": trained.effects,
        "history": trained.history,
    }
    if trained.budget is not None:
        entries["budget"] = trained.budget
    if trained.fresh is not None:
        entries["fresh"] = trained.fresh
    if record.baseline is None:
        entries["chosen"] = _how_chosen(record)
    return entries


def described(examples: Examples) -> ExampleCount:
    """What is recorded of examples before any is used."""
    return ExampleCount(
        n=len(examples.rows),
        fingerprint=examples.fingerprint,
        chat=examples.chat,
        n_prompts=examples.n_prompts,
    )


def _counts(encoded: Encoded) -> dict[str, int]:
    return {
        "n_used": len(encoded.rows),
        "n_cut": encoded.n_cut,
        "n_tokens": encoded.n_tokens,
        "n_tokens_lost": encoded.n_tokens_lost,
    }


def _how_chosen(record: TrainingRecord) -> str:
    if record.relevance is not None:
        return record.relevance
    return "all" if all(place.allowed is None for place in record.places) else "allowed"
