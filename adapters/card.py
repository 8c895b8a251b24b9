"""The model card beside an adapter."""

from ..core.records import TrainingRecord, Verdict
from ..core.records.training import ExampleCount
from ..core.words import counted

_TEMPLATE = """---
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

Held-out loss before training {before:.4f}, of this adapter {after:.4f} ({metric}), over
{evaluated} that were not trained on.

{trust}## Use

```python
{imports}import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("{model}", dtype=torch.{dtype}{attention})
model = PeftModel.from_pretrained(model, "PATH OF THIS DIRECTORY")
```

{bos}{sae}
Made by cleansteer {version}; `training.json` has every option and what was logged.
"""
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
        "An adapter that edits the model through features of a sparse autoencoder: what stands at "
        "the hook point becomes x + (z' - z) W_dec over the allowed features, and all else stays."
        if ours
        else f"A baseline, {record.baseline} of PEFT, trained on the same data for comparison."
    )
    return _TEMPLATE.format(
        model=model.source,
        title=f"{record.setting.name}: {record.component_name}",
        what=what,
        rows="\n".join(f"| {key} | {value} |" for key, value in _rows(record).items()),
        before=losses.before,
        after=losses.after,
        metric=_METRICS[record.options.objective],
        evaluated=counted(record.evaluated.n_used or 0, "example"),
        tags="- cleansteer\n- sparse-autoencoder" if ours else "- peft",
        dtype=model.dtype,
        attention=f', attn_implementation="{model.attention}"' if model.attention else "",
        trust=("" if losses.improved else _NO_BETTER) + (_trust(record.trust) if ours else ""),
        imports="import cleansteer  # makes PEFT know this kind of adapter\n" if ours else "",
        sae="The SAE is not part of these files: it is loaded from where `adapter_config.json` says, "
        "and refused if it is another.\n"
        if ours
        else "",
        bos=_CHAT if record.data.chat else _BOS if record.options.bos else "",
        version=record.versions["cleansteer"],
    )


def _rows(record: TrainingRecord) -> dict[str, object]:
    data = record.data
    rows: dict[str, object] = {
        "setting": record.setting.name,
        "model": record.model.name,
        "component": _with_options(record),
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
    if record.sae is not None:
        rows |= {
            "hook point": record.hook,
            "edited tokens": _TOKENS[record.options.positions]
            + ", but not BOS" * (not record.options.edit_bos),
            "SAE": f"{record.sae.label}, fingerprint {record.sae.fingerprint}",
            "features": f"{record.n_features} of {record.sae.n_features} ({record.chosen})",
        }
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


def _with_options(record: TrainingRecord) -> str:
    options = ", ".join(f"{k} {v}" for k, v in record.component.items() if k != "component")
    return f"{record.component_name} ({options})" if options else record.component_name


def _trust(trust: Verdict | None) -> str:
    if trust is None:
        return (
            "Features were given without an allowlist: nothing is known of how cleanly they steer."
            "\n\n"
        )
    axes = ", ".join(f"{axis} {judged.verdict}" for axis, judged in trust.axes.items())
    told = f"The allowlist's verdict: **{trust.overall}** ({axes})."
    return (f"{told} {_WARNING}" if trust.overall == "not trusted" else told) + "\n\n"
