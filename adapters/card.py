"""The model card beside an adapter."""

from collections.abc import Mapping
from typing import Any

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

model = AutoModelForCausalLM.from_pretrained("{model}", dtype=torch.{dtype})
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
_WARNING = (
    "**The allowlist's predictions were not trusted**: its features may steer no more cleanly than "
    "others."
)


def card(record: Mapping[str, Any]) -> str:
    """The card, in Markdown, of what ``training.json`` records."""
    ours = record["baseline"] is None
    rows = {
        "setting": record["setting"]["name"],
        "model": record["model"]["name"],
        "component": _with_options(record["component"]),
        "parameters": record["n_parameters"],
        "objective": record["options"]["objective"],
        "examples": f"{record['data']['n_used']} of {record['data']['name']}, fingerprint "
        f"{record['data']['fingerprint']}" + ", BOS in front" * record["options"]["bos"],
        "steps": record["n_steps"],
    }
    if ours:
        n_features = record["sae"]["n_features"]
        rows |= {
            "hook point": record["hook"],
            "SAE": f"{record['sae']['label']}, fingerprint {record['sae']['fingerprint']}",
            "features": f"{len(record['features'] or range(n_features))} of {n_features} "
            f"({record['chosen']})",
        }
    what = (
        "An adapter that edits the model through features of a sparse autoencoder: what stands at "
        "the hook point becomes x + (z' - z) W_dec over the allowed features, and all else stays."
        if ours
        else f"A baseline, {record['baseline']} of PEFT, trained on the same data for comparison."
    )
    return _TEMPLATE.format(
        model=record["model"]["source"],
        title=f"{record['setting']['name']}: {record['component']['component']}",
        what=what,
        rows="\n".join(f"| {key} | {value} |" for key, value in rows.items()),
        before=record["metrics"]["before"],
        after=record["metrics"]["after"],
        metric=_METRICS[record["options"]["objective"]],
        evaluated=counted(record["evaluated"]["n_used"], "example"),
        tags="- cleansteer\n- sparse-autoencoder" if ours else "- peft",
        dtype=record["model"]["dtype"],
        trust=_better(record["metrics"]) + (_trust(record["trust"]) + "\n\n" if ours else ""),
        imports="import cleansteer  # makes PEFT know this kind of adapter\n" if ours else "",
        sae="The SAE is not part of these files: it is loaded from where `adapter_config.json` says, "
        "and refused if it is another.\n"
        if ours
        else "",
        bos=_BOS if record["options"]["bos"] else "",
        version=record["versions"]["cleansteer"],
    )


def _with_options(component: Mapping[str, Any]) -> str:
    options = ", ".join(f"{k} {v}" for k, v in component.items() if k != "component")
    return f"{component['component']} ({options})" if options else str(component["component"])


def _better(metrics: Mapping[str, float]) -> str:
    if metrics["after"] < metrics["before"]:
        return ""
    return "**No adapter was better than none** on these examples; this is the best of those tried.\n\n"


def _trust(trust: Mapping[str, Any] | None) -> str:
    if not trust:
        return (
            "Features were given without an allowlist: nothing is known of how cleanly they steer."
        )
    axes = ", ".join(f"{axis} {found['verdict']}" for axis, found in trust["axes"].items())
    told = f"The allowlist's verdict: **{trust['overall']}** ({axes})."
    return f"{told} {_WARNING}" if trust["overall"] == "not trusted" else told
