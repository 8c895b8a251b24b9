"""What ``cleansteer train`` says when it is done."""

from pathlib import Path

from rich.console import Console

from ..adapters.components.component import component_class
from ..core.records import TrainingRecord
from ..core.records.allowlist import told_ranking
from ..core.words import counted


def print_training(record: TrainingRecord, out: Path) -> None:
    """Say on stderr what a finished training brought."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    console = Console(stderr=True)
    losses = record.metrics
    assert losses is not None
    parameters = counted(record.n_parameters or 0, "parameter")
    if record.baseline is None:
        name, never = record.component_name, record.never_fire or 0
        cannot = "" if component_class(name).moves_silent else " and cannot learn"
        say(
            f"{name} on {counted(record.n_features, 'feature')}, {parameters}"
            + (f"; {never} of them never fire on the data{cannot}" * (never > 0))
        )
        several = len(record.places) > 1
        for place in record.places:
            if several:
                say(f"{place.hook}: {place.n_features} of {place.sae.n_features} features")
            if place.trust is not None:
                ranked = told_ranking(place.ranked_by or "labels")
                of = f" of {place.hook}" * several
                say(f"Allowlist{of}: {place.trust.overall}{ranked}")
    else:
        say(f"{record.baseline}, {parameters}")
    for kind, examples in (("training", record.data), ("held-out", record.evaluated)):
        left_out = examples.n - (examples.n_used or 0)
        if left_out:
            say(f"{left_out} of {examples.n} examples have nothing to learn within --max-length")
        if examples.n_tokens_lost:
            say(
                f"{examples.n_cut} of {examples.n} {kind} examples are longer than "
                f"{record.options.max_length} tokens: {examples.n_tokens_lost} of "
                f"{examples.n_tokens} tokens are not used"
            )
        if (examples.n_prompts or examples.n) < examples.n:
            say(f"{examples.n} {kind} examples have {counted(examples.n_prompts or 0, 'prompt')}")
    if record.evaluated.n_shared:
        say(
            f"{record.evaluated.n_shared} of {record.evaluated.n} held-out examples have a prompt that "
            "is trained on too"
        )
    say(
        f"Held-out loss on {counted(record.evaluated.n_used or 0, 'example')}: "
        f"{losses.before:.4f} before, {losses.after:.4f} after (best of the evaluations; "
        f"{counted(record.n_steps or 0, 'step')}, beta2 {record.beta2:g})"
    )
    effects = record.effects
    if effects is not None and effects.drift is not None:
        drift = effects.drift
        say(f"Drift on the reference: {drift.before:.4g} before, {drift.after:.4g} after")
    if effects is not None and effects.kl is not None:
        kl = effects.kl
        say(f"KL on the reference: {kl.before:.4g} before, {kl.after:.4g} nats a token after")
    budget = record.budget
    if budget is not None:
        say(
            f"KL budget {budget.kl_budget:g}: {budget.held_out:.4g} nats a token on "
            f"{budget.held_out_tokens} reference tokens that nothing was fitted to"
        )
        if budget.first_step is not None and budget.first_step > budget.kl_budget:
            say(
                f"The first step alone moved predictions by a KL of {budget.first_step:.3g}, more than "
                "the budget: a lower --learning-rate may learn more"
            )
    if not losses.improved:
        say(
            "No adapter was better than none: try a smaller --learning-rate, other features or data"
        )
    say(f"Adapter: {out}")
