"""From a setting and texts to a saved adapter."""

import importlib.metadata
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftConfig

from ..core.errors import InputError
from ..core.networks import fingerprint_tensors, load_network
from ..core.saes import hook_of, open_sae
from ..core.settings import Setting
from ..core.tables import read_json, write_json, write_text
from .allowlist import Allowlist, check_fingerprint, check_hook
from .card import card
from .config import SaeAdapterConfig, target_of
from .examples import Examples, begun
from .model import load_target
from ..core.training import TrainingOptions
from .penalties import Drift, values_at
from .selection import fitting_beta2, strongest, survey
from .trainers import baseline_config, steps
from .training import Trained, n_trainable, remove_checkpoints, save, train

RECORD = "training.json"
FORMAT = "cleansteer-training/1"
_LIBRARIES = ("cleansteer", "torch", "transformers", "peft", "trl", "sae-lens")
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]


@dataclass(frozen=True)
class FineTuning:
    """A training job: what is trained on, how, and where it is written."""

    setting: Setting
    options: TrainingOptions
    examples: Examples
    evaluated: Examples
    out: Path
    bar: Bar
    """Opens a progress bar: a description and a total; see ``core.progress``."""
    data_name: str = "data"
    device: str = "cpu"
    resume: bool = False

    def adapter(
        self,
        component: str,
        component_options: Mapping[str, float],
        allowed: Allowlist | list[int] | None,
        select: int | None = None,
        auto_beta2: bool = True,
        reference: Examples | None = None,
    ) -> dict[str, Any]:
        """Train and save an adapter on features of the setting's SAE; returns what is recorded.

        Args:
            component: its name.
            component_options: of it.
            allowed: an allowlist, or features; None: all.
            select: of the allowed features, how many to take (see ``selection.strongest``).
            auto_beta2: whether beta2 follows from how often the features fire.
            reference: texts for the drift penalty.

        Raises:
            InputError: SAE, model or allowlist do not fit each other, or ``select`` is more than
                there are; nothing is written then.

        """
        target, n_features = self._target(allowed)
        allowlist = allowed if isinstance(allowed, Allowlist) else None
        features = target["features"]
        n_allowed = n_features if features is None else len(features)
        if select is not None and not 1 <= select <= n_allowed:
            raise InputError(
                f"--select {select} does not lie between 1 and the {n_allowed} allowed features; choose "
                "such a number"
            )
        config = SaeAdapterConfig(
            targets=[target],
            component=component,
            component_options=dict(component_options),
            seed=self.options.seed,
        )
        plan = self._plan() | {
            "baseline": None,
            "component": {"component": component, **config.component_options},
            "hook": target["hook"],
            "sae": {
                "label": self.setting.sae.label,
                "fingerprint": target["sae"]["fingerprint"],
                "n_features": n_features,
            },
            "allowed": features,
            "select": select,
            "auto_beta2": auto_beta2,
            "reference": None if reference is None else reference.fingerprint,
            "trust": dict(allowlist.trust) if allowlist else None,
        }
        known = self._resumed(plan)
        network, tokenizer = self._network(allowlist)
        load_target(target, network)
        if known is None:
            known = plan | self._surveyed(network, tokenizer, config, select, auto_beta2)
        config.targets[0]["features"] = known["features"]
        options = self.options.model_copy(update={"beta2": known["beta2"]})
        drift = None
        if reference is not None and options.drift:
            drift = self._drift(network, tokenizer, config.targets[0], reference)
        trained = self._train(network, tokenizer, config, options, drift, known)
        chosen = "all" if features is None else "allowed"
        if select is not None:
            chosen = f"largest gradients of {len(features) if features else 'all'} allowed"
        return self._finish(trained, known | {"chosen": chosen})

    def baseline(self, name: str, rank: int) -> dict[str, Any]:
        """Train and save PEFT's own LoRA or IA3 on the same examples; returns what is recorded."""
        options = {"rank": rank} if name == "lora" else {}
        plan = self._plan() | {
            "baseline": name,
            "component": {"component": name, **options},
            "beta2": self.options.beta2,
            "trust": None,
        }
        known = self._resumed(plan) or plan
        network, tokenizer = self._network(None)
        config = baseline_config(name, rank)
        trained = self._train(network, tokenizer, config, self.options, None, known)
        return self._finish(trained, known)

    def _target(self, allowed: Allowlist | list[int] | None) -> tuple[dict[str, Any], int]:
        """The setting's SAE with the allowed features, and how many it has in all."""
        source = self.setting.sae
        sae, fingerprint = open_sae(source, self.setting.folder)
        hook, n_features = hook_of(sae, source), int(sae.cfg.d_sae)
        if isinstance(allowed, Allowlist):
            check_fingerprint(allowed, "SAE", fingerprint)
            check_hook(allowed, hook)
        features = allowed.features if isinstance(allowed, Allowlist) else allowed
        if features is not None and max(features) >= n_features:
            raise InputError(
                f"feature {max(features)} does not exist: SAE {source.label} has features 0 to "
                f"{n_features - 1}; remove it"
            )
        return target_of(source, self.setting.folder, hook, features, fingerprint), n_features

    def _plan(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "setting": {"name": self.setting.name, "fingerprint": self.setting.fingerprint},
            "model": {"name": self.setting.model.name, "dtype": self.setting.model.dtype},
            "options": self.options.model_dump(),
            "data": {
                "name": self.data_name,
                "n": len(self.examples.rows),
                "fingerprint": self.examples.fingerprint,
            },
            "evaluated": {
                "n": len(self.evaluated.rows),
                "fingerprint": self.evaluated.fingerprint,
            },
            "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        }

    def _resumed(self, plan: Mapping[str, Any]) -> dict[str, Any] | None:
        """What an interrupted training of the same plan had found; None where none is gone on with."""
        if not self.resume:
            return None
        found = read_json(self.out / RECORD)
        if "metrics" in found:
            raise InputError(f"the training in {self.out} is finished; give another --out")
        other = [
            key for key, value in plan.items() if key != "versions" and found.get(key) != value
        ]
        if other:
            raise InputError(
                f"{self.out} holds a training with another {', '.join(other)}; expected the same; repeat "
                "the interrupted command with --resume, or give another --out"
            )
        return found

    def _network(self, allowlist: Allowlist | None) -> tuple[Any, Any]:
        network, tokenizer = load_network(self.setting, attention=None)
        network.to(self.device).requires_grad_(False)
        if allowlist is not None:
            found = fingerprint_tensors(dict(network.named_parameters()))
            check_fingerprint(allowlist, "model", found)
        return network, tokenizer

    def _surveyed(
        self,
        network: Any,
        tokenizer: Any,
        config: SaeAdapterConfig,
        select: int | None,
        auto_beta2: bool,
    ) -> dict[str, Any]:
        features = config.targets[0]["features"]
        if select is None and not auto_beta2:
            return {"features": features, "beta2": self.options.beta2}
        total = -(-len(self.examples.rows) // self.options.batch_size)
        with self.bar("examples", total) as tick:
            found = survey(network, tokenizer, config, self.options, self.examples, tick)
        shares, beta2 = found.step_share, self.options.beta2
        if select is not None:
            everyone = features or list(range(len(shares)))
            features = strongest(everyone, found.gradient, select)
            shares = shares[[everyone.index(feature) for feature in features]]
        if auto_beta2:
            beta2 = fitting_beta2(shares, config.component)
        never = int((shares == 0).sum())
        return {"features": features, "beta2": beta2, "never_fire": never}

    def _drift(
        self, network: Any, tokenizer: Any, target: dict[str, Any], reference: Examples
    ) -> Drift:
        _, whole = load_target(target | {"features": None}, network)
        rows = begun(reference.rows, tokenizer) if self.options.bos else reference.rows
        texts = [" ".join(row.values()) for row in rows]
        with self.bar("reference", len(texts)) as tick:
            values = values_at(
                network, tokenizer, target["hook"], texts, self.options.max_length, tick
            )
        return Drift(values, whole, target["features"], self.options.seed)

    def _train(
        self,
        network: Any,
        tokenizer: Any,
        config: PeftConfig,
        options: TrainingOptions,
        drift: Drift | None,
        known: Mapping[str, Any],
    ) -> Trained:
        with self.bar("training", steps(options, len(self.examples.rows))) as tick:
            return train(
                network,
                tokenizer,
                config,
                options,
                self.examples,
                self.evaluated,
                self.out,
                self.resume,
                drift,
                tick,
                partial(write_json, self.out / RECORD, known),
            )

    def _finish(self, trained: Trained, known: dict[str, Any]) -> dict[str, Any]:
        base = trained.model.get_base_model()
        record = known | {
            "model": known["model"] | {"source": _resolved(base.config.name_or_path)},
            "data": known["data"] | {"n_used": trained.n_used[0]},
            "evaluated": known["evaluated"] | {"n_used": trained.n_used[1]},
            "n_parameters": n_trainable(trained.model),
            "n_steps": trained.n_steps,
            "metrics": {"before": trained.before, "after": trained.after},
            "history": trained.history,
        }
        save(trained, self.out)
        write_text(self.out / "README.md", card(record))
        write_json(self.out / RECORD, record)
        # Last: until the record is whole, an interrupted training goes on from them.
        remove_checkpoints(self.out)
        return record


def _resolved(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).is_dir() else name
