"""The model card beside an adapter."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.records import TrainingRecord
from ..core.records.allowlist import told_ranking
from ..core.records.training import ExampleCount, TrainedTarget
from ..core.tables import write_text
from ..core.words import counted

if TYPE_CHECKING:
    from .config import SaeAdapterConfig

_HEAD = """---
base_model: {model}
library_name: peft
pipeline_tag: text-generation
tags:
{tags}
---

# {title}

{what}

| | |
|---|---|
{rows}

"""
_RESULTS = """Held-out loss before training {before:.4f}, of this adapter {after:.4f} ({metric}), over
{evaluated} that were not trained on.

{effects}{trust}"""
_USE = """## Use

```python
{imports}import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("{model}", dtype=torch.{dtype}{attention})
model = PeftModel.from_pretrained(model, "PATH OF THIS DIRECTORY")
```

{bos}{sae}"""
_MADE = "\nMade by cleansteer {version}; `training.json` has every option and what was logged.\n"
_IMPORT = "import cleansteer  # makes PEFT know this kind of adapter\n"
_WHAT = (
    "An adapter that edits the model through features of a sparse autoencoder: what stands at "
    "the hook point becomes x + (z' - z) W_dec over the allowed features, and all else stays."
)
_SAE = (
    "The SAE is not part of these files: it is loaded from where `adapter_config.json` says, "
    "and refused if it is another. Where it lies elsewhere now: "
    "`cleansteer.adapters.load(model, path, sae=...)`.\n"
)
_BLANK = "[More Information Needed]"
"""What PEFT's own card says where nobody has filled it in."""
_OURS = "- cleansteer\n- sparse-autoencoder"
_METRICS = {"sft": "mean cross-entropy, in nats a token", "dpo": "DPO's loss, in nats"}
_BOS = (
    "Examples began with BOS (EOS where the tokenizer has none); begin prompts so too, where the "
    "tokenizer does not.\n\n"
)
_CHAT = "Examples were conversations, made text of by the model's chat template; give prompts so too.\n\n"
_TOKENS = {
    "all": "all",
    "completion": "completion (behind the prompt)",
    "last": "last (from which the next token is drawn)",
}
_NO_BETTER = (
    "**No adapter was better than none** on these examples; this is the best of those tried.\n\n"
)
_WARNING = (
    "**The allowlist's predictions were not trusted**: its features may steer no more cleanly than "
    "others."
)


def card(record: TrainingRecord) -> str:
    """The card, in Markdown, of a finished training.

    Raises:
        ValueError: the training is not finished.

    """
    if record.metrics is None:
        raise ValueError("a training that is not finished has no card")
    model, losses, ours = record.model, record.metrics, record.baseline is None
    what = (
        _WHAT
        if ours
        else f"A baseline, {record.baseline} of PEFT, trained on the same data for comparison."
    )
    head = _HEAD.format(
        model=model.source,
        title=f"{record.setting.name}: {record.component_name}",
        what=what,
        rows=_table(_rows(record)),
        tags=_OURS if ours else "- peft",
    )
    results = _RESULTS.format(
        before=losses.before,
        after=losses.after,
        metric=_METRICS[record.options.objective],
        evaluated=counted(record.evaluated.n_used or 0, "example"),
        effects=_fresh(record) + _effects(record),
        trust=("" if losses.improved else _NO_BETTER)
        + "".join(_trust(place, len(record.places) > 1) for place in record.places),
    )
    use = _USE.format(
        model=model.source,
        dtype=model.dtype,
        attention=f', attn_implementation="{model.attention}"' if model.attention else "",
        imports=_IMPORT if ours else "",
        sae=_SAE if ours else "",
        bos=_CHAT if record.data.chat else _BOS if record.options.bos else "",
    )
    return head + results + use + _MADE.format(version=record.versions["cleansteer"])


def write_card(folder: Path, config: "SaeAdapterConfig") -> None:
    """Let the card in a directory say what the adapter is, and that cleansteer has to be imported: one
    that PEFT left blank is written anew, any other is kept and told the rest.
    """
    path = folder / "README.md"
    there = path.read_text("utf-8") if path.is_file() else ""
    if _IMPORT.split("  ")[0] in there:
        return
    model = config.base_model_name_or_path or "PATH OF THE BASE MODEL"
    use = _USE.format(model=model, dtype="float32", attention="", imports=_IMPORT, sae=_SAE, bos="")
    if there and _BLANK not in there:
        write_text(path, f"{there.rstrip()}\n\n{use}")
        return
    rows: dict[str, object] = {
        "component": _with_options(config.component, config.component_options),
        "edited tokens": _edited(config),
    }
    for target in config.targets:
        features, sae = target["features"], target["sae"]
        rows[target["hook"]] = (
            f"{'all' if features is None else len(features)} features of SAE "
            + str(sae.get("path") or sae.get("subfolder") or f"{sae['release']}/{sae['id']}")
            + f", fingerprint {sae.get('fingerprint')}"
        )
    if config.base_fingerprint is not None:
        rows["base model"] = f"{model}, fingerprint {config.base_fingerprint}"
    head = _HEAD.format(
        model=model,
        title=f"Adapter on SAE latents: {config.component}",
        what=_WHAT,
        rows=_table(rows),
        tags=_OURS,
    )
    write_text(path, head + use)


def _table(rows: dict[str, object]) -> str:
    return "\n".join(f"| {key} | {value} |" for key, value in rows.items())


def _edited(which: Any) -> str:
    """The tokens that are edited, of a configuration or options."""
    return _TOKENS[which.positions] + ", but not BOS" * (not which.edit_bos)


def _effects(record: TrainingRecord) -> str:
    """What changes beside the loss, before and after; nothing where it was not measured."""
    effects, losses = record.effects, record.metrics
    if effects is None or losses is None:
        return ""
    penalised = effects.objective is not None and effects.objective.after != losses.after
    told = {
        "Sum of the edits of latents, mean over held-out tokens": effects.edit,
        "Drift of the other latents on the reference, mean over tokens": effects.drift,
        "KL(without ‖ with) on the reference, nats a token": effects.kl,
        "Held-out loss with all penalties, by which this adapter was chosen": effects.objective
        if penalised
        else None,
    }
    rows = [
        f"| {name} | {change.before:.4g} | {change.after:.4g} |"
        for name, change in told.items()
        if change is not None
    ]
    return "\n".join(["| | before | after |", "|---|---|---|", *rows]) + "\n\n" if rows else ""


def _fresh(record: TrainingRecord) -> str:
    fresh = record.fresh
    if fresh is None:
        return ""
    return (
        f"On {counted(fresh.n, 'further example')} that nothing was chosen by: {fresh.before:.4f} before "
        f"training, {fresh.after:.4f} of this adapter.\n\n"
    )


def _rows(record: TrainingRecord) -> dict[str, object]:
    data = record.data
    rows: dict[str, object] = {
        "setting": record.setting.name,
        "model": record.model.name,
        "component": _with_options(record.component_name, record.component),
        "parameters": record.n_parameters,
        "objective": record.options.objective,
        "examples": f"{data.n_used} of {data.name}, fingerprint {data.fingerprint}"
        + ", conversations" * bool(data.chat)
        + ", BOS in front" * record.options.bos
        + _used(data, record.options.max_length),
        "held out": f"{record.evaluated.n_used} of {record.evaluated.n}"
        + _shared(record.evaluated)
        + _used(record.evaluated, record.options.max_length),
        "steps": record.n_steps,
    }
    places = record.places
    if len(places) == 1:
        sae = places[0].sae
        rows |= {
            "hook point": places[0].hook,
            "edited tokens": _edited(record.options),
            "SAE": f"{sae.label}, fingerprint {sae.fingerprint}",
            "features": f"{record.n_features} of {sae.n_features} ({record.chosen})",
        }
    elif places:
        rows["edited tokens"] = _edited(record.options)
        rows["features"] = f"{record.n_features} in {len(places)} places ({record.chosen})"
        rows |= {
            place.hook: f"{place.n_features} of {place.sae.n_features} features of SAE "
            f"{place.sae.label}, fingerprint {place.sae.fingerprint}"
            for place in places
        }
    budget = record.budget
    if budget is not None:
        rows["KL budget"] = (
            f"{budget.kl_budget:g} nats a token; {budget.held_out:.4g} on {budget.held_out_tokens} "
            "reference tokens that nothing was fitted to"
        )
    return rows


def _shared(examples: ExampleCount) -> str:
    if not examples.n_prompts:
        return ""
    told = f", {counted(examples.n_prompts, 'prompt')}"
    return told + f", {examples.n_shared} examples of one trained on too" * bool(examples.n_shared)


def _used(examples: ExampleCount, max_length: int) -> str:
    """What was cut off, in words."""
    lost = examples.n_tokens_lost
    if not lost:
        return ""
    return f"; {lost} of {examples.n_tokens} tokens not used, more than {max_length} an example"


def _with_options(component: str, given: Mapping[str, object]) -> str:
    options = ", ".join(f"{k} {v}" for k, v in given.items() if k != "component")
    return f"{component} ({options})" if options else component


def _trust(place: TrainedTarget, several: bool) -> str:
    trust, at = place.trust, f" at {place.hook}" * several
    if trust is None:
        return (
            f"Features{at} were given without an allowlist: nothing is known of how cleanly they steer."
            "\n\n"
        )
    axes = ", ".join(f"{axis} {judged.verdict}" for axis, judged in trust.axes.items())
    ranked = told_ranking(place.ranked_by or "labels")
    told = f"The allowlist's verdict{at}: **{trust.overall}** ({axes}){ranked}."
    return (f"{told} {_WARNING}" if trust.overall == "not trusted" else told) + "\n\n"
