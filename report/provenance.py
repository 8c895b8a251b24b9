"""What was measured, and on what."""

from dataclasses import dataclass

from ..core.records import Manifest, Screening
from ..core.settings import CorpusSetting, Setting

Fact = tuple[str, str | None]
"""What, and what it is; None where that is not known yet."""


@dataclass(frozen=True)
class FactGroup:
    """Facts of one kind: what, and what it is."""

    title: str
    items: list[tuple[str, str]]


def provenance(
    setting: Setting, manifest: Manifest, screening: Screening | None
) -> list[FactGroup]:
    """Model and SAEs, texts, steering, and how it was run; what the manifest does not say yet is
    left out.
    """
    return [
        FactGroup("Model and dictionaries", _known(_dictionaries(setting, manifest))),
        FactGroup("Texts", _known(_texts(setting))),
        FactGroup("Steering", _known(_steering(setting, manifest, screening))),
        FactGroup("How it was run", _known(_running(setting, manifest))),
    ]


def _dictionaries(setting: Setting, manifest: Manifest) -> list[Fact]:
    prints, hooks, l0 = manifest.fingerprints, manifest.hooks, manifest.mean_l0
    return [
        ("model", setting.model.name),
        ("number format", setting.model.dtype),
        ("model's fingerprint", None if prints is None else prints.model),
        ("in any number format", None if prints is None else prints.model_contents),
        ("steered SAE", setting.sae.label),
        ("at", None if hooks is None else hooks.sae),
        ("mean L0", None if l0 is None else f"{l0.sae:.4g}"),
        ("fingerprint", None if prints is None else prints.sae),
        ("downstream SAE", setting.downstream_sae.label),
        ("at", None if hooks is None else hooks.downstream_sae),
        ("mean L0", None if l0 is None else f"{l0.downstream_sae:.4g}"),
        ("fingerprint", None if prints is None else prints.downstream_sae),
    ]


def _texts(setting: Setting) -> list[Fact]:
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
    if corpus.in_memory is not None:
        return "given in memory"
    if corpus.path is not None:
        return corpus.path
    if corpus.packages is not None:
        return f"docstrings of {', '.join(corpus.packages)} ({corpus.split})"
    config = f", {corpus.config}" if corpus.config else ""
    return f"{corpus.dataset}{config} ({corpus.split})"


def _steering(setting: Setting, manifest: Manifest, screening: Screening | None) -> list[Fact]:
    steering, c = setting.steering, manifest.global_value
    measured: list[Fact] = []
    if screening is not None:
        measured = [("coefficient, median", f"{screening.coefficient:.4g}")]
    if steering.n_features == 0:
        measured += [
            ("ranked by", "linear response alone, no feature labelled"),
            ("its contexts", f"{steering.response_contexts:,}"),
        ]
    else:
        measured += _labelling(setting, screening)
    return [
        ("mode", steering.mode),
        ("alpha", f"{steering.alpha:g}" if steering.mode == "add" else None),
        ("units of alpha", None if steering.alpha_units == "global" else steering.alpha_units),
        ("target KL, nats", f"{steering.strength:g}" if steering.mode == "matched" else None),
        ("collateral", steering.collateral),
        ("push", None if screening is None or screening.push is None else str(screening.push)),
        ("global value c", None if c is None else f"{c:.4g}"),
        *measured,
        ("downstream panel", f"{steering.panel_size:,} features at most"),
    ]


def _labelling(setting: Setting, screening: Screening | None) -> list[Fact]:
    steering = setting.steering
    steered = None if screening is None else f"{screening.n_labelled:,}"
    return [
        ("features steered", steered if steering.n_features != "all" else f"{steered}: all"),
        ("how they were drawn", None if steering.n_features == "all" else steering.sample),
        ("contexts of each type", str(steering.contexts_per_type)),
        ("random directions", str(steering.n_controls)),
    ]


def _running(setting: Setting, manifest: Manifest) -> list[Fact]:
    commands = [(entry.at, " ".join(entry.command)) for entry in manifest.commands]
    return [
        ("self-check", None if manifest.evaluator is None else str(manifest.evaluator)),
        ("seed", str(setting.seed)),
        ("setting's fingerprint", manifest.setting_fingerprint),
        *commands,
        ("seconds", ", ".join(f"{stage} {s:g}" for stage, s in manifest.seconds.items())),
        ("versions", ", ".join(f"{name} {v}" for name, v in manifest.versions.items())),
    ]


def _known(facts: list[Fact]) -> list[tuple[str, str]]:
    return [(what, value) for what, value in facts if value]
