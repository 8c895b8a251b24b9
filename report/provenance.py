"""What was measured, and on what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.settings import CorpusSetting, Setting


@dataclass(frozen=True)
class Facts:
    """Facts of one kind: what, and what it is."""

    title: str
    items: list[tuple[str, str]]


def provenance(
    setting: Setting, manifest: Mapping[str, Any], screening: Mapping[str, Any] | None
) -> list[Facts]:
    """Model and SAEs, texts, steering, and how it was run; what the manifest does not say yet is
    left out.
    """
    hooks, prints = manifest.get("hooks", {}), manifest.get("fingerprints", {})
    l0 = manifest.get("mean_l0", {})
    model = [
        ("model", setting.model.name),
        ("number format", setting.model.dtype),
        ("model's fingerprint", prints.get("model")),
    ]
    for key, what, sae in (
        ("sae", "steered SAE", setting.sae),
        ("downstream_sae", "downstream SAE", setting.downstream_sae),
    ):
        model += [
            (what, sae.label),
            ("at", hooks.get(key)),
            ("mean L0", _number(l0.get(key), ".4g")),
            ("fingerprint", prints.get(key)),
        ]
    return [
        Facts("Model and dictionaries", _known(model)),
        Facts("Texts", _known(_texts(setting))),
        Facts("Steering", _known(_steering(setting, manifest, screening))),
        Facts("How it was run", _known(_running(setting, manifest))),
    ]


def _texts(setting: Setting) -> list[tuple[str, Any]]:
    return [
        fact
        for corpus, what in ((setting.corpus, "labels"), (setting.heldout_corpus, "fresh check"))
        for fact in (
            (f"{what}: corpus", _source(corpus)),
            (
                f"{what}: contexts",
                f"{corpus.n_contexts:,} of {corpus.context_length} tokens ({corpus.contexts})",
            ),
        )
    ]


def _source(corpus: CorpusSetting) -> str:
    if corpus.path is not None:
        return corpus.path
    if corpus.packages is not None:
        return f"docstrings of {', '.join(corpus.packages)} ({corpus.split})"
    config = f", {corpus.config}" if corpus.config else ""
    return f"{corpus.dataset}{config} ({corpus.split})"


def _steering(
    setting: Setting, manifest: Mapping[str, Any], screening: Mapping[str, Any] | None
) -> list[tuple[str, Any]]:
    steering = setting.steering
    coefficient = manifest.get("global_value")
    labelled = None if screening is None else screening["n_labelled"]
    return [
        ("mode", steering.mode),
        ("alpha", f"{steering.alpha:g}"),
        ("global value c", _number(coefficient, ".4g")),
        ("coefficient, median", _number((screening or {}).get("coefficient"), ".4g")),
        ("features steered", None if labelled is None else f"{labelled:,}"),
        ("how they were drawn", steering.sample),
        ("contexts of each type", str(steering.contexts_per_type)),
        ("downstream panel", f"{steering.panel_size:,} features at most"),
        ("random directions", str(steering.n_controls)),
    ]


def _running(setting: Setting, manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    check = manifest.get("evaluator", {})
    told = None
    if check.get("method") == "resumed":
        told = (
            f"fast and full forward passes differ by {check['largest_difference']:.1e} of the largest "
            f"change (tolerance {check['tolerance']:g})"
        )
    elif check:
        told = f"full forward passes, because {check.get('reason')}"
    commands = [(c["at"], " ".join(map(str, c["command"]))) for c in manifest.get("commands", [])]
    seconds = ", ".join(f"{stage} {s:g}" for stage, s in manifest.get("seconds", {}).items())
    versions = ", ".join(f"{name} {v}" for name, v in manifest.get("versions", {}).items())
    return [
        ("self-check", told),
        ("seed", str(setting.seed)),
        ("setting's fingerprint", manifest.get("setting_fingerprint")),
        *((at, command) for at, command in commands),
        ("seconds", seconds),
        ("versions", versions),
    ]


def _number(value: float | None, spec: str) -> str | None:
    return None if value is None else format(value, spec)


def _known(items: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(what, str(value)) for what, value in items if value]
