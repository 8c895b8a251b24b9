"""From a setting and texts to a saved adapter."""

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftConfig

from ..core.choices import Baseline
from ..core.errors import InputError
from ..core.networks import check_causal, load_network
from ..core.progress import Reporter
from ..core.records import TrainingRecord
from ..core.records.training import SettingName, TrainedModel, TrainingForecast
from ..core.settings import Setting
from ..core.tables import write_text
from ..core.tracked import TRACKING
from ..core.training import TrainingOptions
from ..naming.measured import read_run
from ..naming.several import Source, read_several, sources_of
from ..naming.source import NEURONPEDIA
from .allowlist import Allowed
from .asked import RECORD
from .budget import Budgeted, Parts
from .card import card
from .choosing import Choosing
from .config import SaeAdapterConfig, Target
from .encoding import reference_texts, usable_length
from .examples import Examples
from .foresight import foresee
from .model import load_target
from .opening import opened_once
from .places import text_config
from .positions import starts_of
from .reference import Reference, drifts, reference_rows
from .relevance import ALL, Rule
from .results import described, results
from .targets import Opened, Wanted, entries_of, open_wanted
from .tracking import TrackFeatures
from .trainers import baseline_config, steps
from .training import Prepared, prepare, remove_checkpoints, save

LIBRARIES = ("cleansteer", "torch", "transformers", "peft", "trl", "sae-lens")


@dataclass(frozen=True)
class Recipe:
    """How an adapter on features is made."""

    component: str
    component_options: Mapping[str, float]
    allowed: Allowed
    """Features of the setting's SAE."""
    rule: Rule = ALL
    """Which of the allowed features are taken."""
    auto_beta2: bool = True
    """True where beta2 follows from how often the features fire; otherwise it is the options'."""
    reference: Examples | None = None
    """Texts that drift and KL are measured on."""
    descriptions: Source | None = None
    """What features are called while they are tracked (see ``naming.several.read_several``)."""
    run: Path | None = None
    """A run whose tokens are the names where there are no descriptions, if it is of the same SAE."""
    targets: tuple[Wanted, ...] = ()
    """These are edited, in place of the setting's SAE."""


@dataclass(frozen=True)
class FineTuning:
    """A training job: what is trained on, how, and where it is written."""

    setting: Setting
    options: TrainingOptions
    examples: Examples
    evaluated: Examples
    out: Path
    reporter: Reporter
    """Shows how far it is."""
    data_name: str = "data"
    device: str = "cpu"
    resume: bool = False
    fresh: Examples | None = None
    """Scored once at the end, and not chosen by."""

    def adapter(self, recipe: Recipe) -> TrainingRecord:
        """Train and save an adapter on features of the SAEs; returns what is recorded.

        Raises:
            InputError: SAEs, model or allowlists do not fit each other, or ``select`` is more than
                there are; nothing is written then.

        """
        with opened_once():
            prepared, record = self._prepare_adapter(recipe)
        return self._finish(prepared, record)

    def _prepare_adapter(self, recipe: Recipe) -> tuple[Prepared, TrainingRecord]:
        opened = self._opened(recipe)
        n_allowed = sum(each.n_allowed for each in opened)
        if recipe.rule.count is not None and not 1 <= recipe.rule.count <= n_allowed:
            raise InputError(
                f"--select {recipe.rule.count} does not lie between 1 and the {n_allowed} allowed "
                "features; choose such a number"
            )
        if (
            recipe.descriptions is not None
        ):  # what cannot be told is refused before a model is loaded
            sources_of(recipe.descriptions, {each.target.hook: each.described for each in opened})
        network, tokenizer = self._network(each.allowed for each in opened)
        return self._within(network)._prepare_on(network, tokenizer, opened, recipe)

    def _within(self, network: Any) -> "FineTuning":
        """The same job with the longest length that the model takes."""
        max_length = usable_length(network, self.options.max_length)
        return replace(self, options=self.options.model_copy(update={"max_length": max_length}))

    def _prepare_on(
        self, network: Any, tokenizer: Any, opened: Sequence[Opened], recipe: Recipe
    ) -> tuple[Prepared, TrainingRecord]:
        targets = [each.target for each in opened]
        config = self.config_of(targets, recipe)
        record = self._plan(
            baseline=None,
            component={"component": recipe.component, **config.component_options},
            **entries_of(opened),
            select=recipe.rule.count if recipe.rule.automatic else recipe.rule.count or "all",
            by=recipe.rule.by,
            auto_beta2=recipe.auto_beta2,
            reference=None if recipe.reference is None else recipe.reference.fingerprint,
        )
        earlier = self._earlier(record)
        for target in targets:  # what does not fit is refused before a pass over the data
            load_target(target, network)
        rows = self.tokens_of(network, tokenizer, recipe.reference)
        if earlier is None:
            choosing = Choosing(
                network, tokenizer, self.options, self.examples, rows, self.reporter
            )
            counts = [each.n_allowed for each in opened]
            chosen = choosing.choose(config, counts, recipe.rule, recipe.auto_beta2)
            record = record.with_features(chosen.features).model_copy(update=chosen.entries())
        else:
            record = earlier
        edited = [
            replace(each, target=each.target.with_features(place.features))
            for each, place in zip(opened, record.places, strict=True)
            if place.features != []
        ]
        targets = [each.target for each in edited]
        options = self.options.model_copy(update={"beta2": record.beta2})
        reference = self._reference(network, rows, targets)
        config = self.config_of(targets, recipe)
        tracked = TrackFeatures(self._names(recipe, opened, edited), file=self.out / TRACKING)
        prepared = self._prepare(network, tokenizer, config, options, reference, record, tracked)
        return prepared, record

    def _names(
        self, recipe: Recipe, opened: Sequence[Opened], edited: Sequence[Opened]
    ) -> dict[str, dict[int, str]]:
        """What features are called, by hook point."""
        if recipe.descriptions is not None:
            dictionaries = {each.target.hook: each.described for each in opened}
            # Of all features the API is not asked.
            wanted = {each.target.hook: each.target.features or [] for each in edited}
            for each in edited if str(recipe.descriptions) == NEURONPEDIA else ():
                if each.target.features is None:
                    self.reporter.warn(
                        f"--descriptions {NEURONPEDIA}: its API is asked feature by feature, and all "
                        f"{each.n_features} are trained; none is named; give its export, or --select N"
                    )
            return read_several(recipe.descriptions, dictionaries, wanted, self.reporter)
        names = {}
        for each in edited if recipe.run is not None else ():
            # Nobody asked for these names: a run of another SAE, or a broken one, has none to give.
            with suppress(InputError):
                fingerprint = str(each.target.fingerprint)
                names[each.target.hook] = read_run(Path(str(recipe.run)), fingerprint)
        return names

    def forecast(self, recipe: Recipe) -> TrainingForecast:
        """What training an adapter would gain and cost; nothing is trained or written.

        Raises:
            InputError: as :meth:`adapter`, or the component is not linear.

        """
        with opened_once():
            (opened,) = self._opened(recipe)
            network, tokenizer = self._network([opened.allowed])
            return foresee(self._within(network), recipe, network, tokenizer, opened)

    def baseline(
        self, name: Baseline, rank: int, reference: Examples | None = None
    ) -> TrainingRecord:
        """Train and save PEFT's own LoRA or IA3 on the same examples; returns what is recorded."""
        network, tokenizer = self._network(())
        return self._within(network)._baseline_on(network, tokenizer, name, rank, reference)

    def _baseline_on(
        self, network: Any, tokenizer: Any, name: Baseline, rank: int, texts: Examples | None
    ) -> TrainingRecord:
        options = {"rank": rank} if name == "lora" else {}
        record = self._plan(
            baseline=name,
            component={"component": name, **options},
            beta2=self.options.beta2,
            reference=None if texts is None else texts.fingerprint,
            trust=None,
        )
        record = self._earlier(record) or record
        config = baseline_config(name, rank)
        reference = self._reference(network, self.tokens_of(network, tokenizer, texts), ())
        prepared = self._prepare(network, tokenizer, config, self.options, reference, record)
        return self._finish(prepared, record)

    def _opened(self, recipe: Recipe) -> list[Opened]:
        """The SAEs that are edited by: those that are asked for, or else the setting's."""
        own = Wanted(self.setting.sae, self.setting.folder, recipe.allowed)
        return [open_wanted(wanted) for wanted in recipe.targets or (own,)]

    def config_of(self, targets: Sequence[Target], recipe: Recipe) -> SaeAdapterConfig:
        """PEFT's configuration of the adapter."""
        return SaeAdapterConfig(
            targets=[target.to_dict() for target in targets],
            component=recipe.component,
            component_options=dict(recipe.component_options),
            seed=self.options.seed,
            positions=self.options.positions,
            edit_bos=self.options.edit_bos,
        )

    def _plan(self, **entries: Any) -> TrainingRecord:
        """What a training of this job records before it begins."""
        plan: dict[str, Any] = {
            "setting": SettingName(name=self.setting.name, fingerprint=self.setting.fingerprint),
            "model": TrainedModel(name=self.setting.model.name, dtype=self.setting.model.dtype),
            "options": self.options,
            "data": described(self.examples).model_copy(update={"name": self.data_name}),
            "evaluated": described(self.evaluated).model_copy(
                update={"n_shared": self.evaluated.prompts_shared_with(self.examples)}
            ),
            "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        }
        return TrainingRecord(**plan, **entries)

    def _earlier(self, plan: TrainingRecord) -> TrainingRecord | None:
        """What an interrupted training of the same plan recorded; None where none is gone on with."""
        if not self.resume:
            return None
        earlier = TrainingRecord.read(self.out / RECORD)
        if earlier.finished:
            raise InputError(f"the training in {self.out} is finished; give another --out")
        different = plan.differences(earlier)
        if different:
            raise InputError(
                f"{self.out} holds a training with another {', '.join(different)}; expected the same; "
                "repeat the interrupted command with --resume, or give another --out"
            )
        return earlier

    def _network(self, allowed: Iterable[Allowed]) -> tuple[Any, Any]:
        network, tokenizer = load_network(self.setting, attention=None)
        network.to(self.device).requires_grad_(False)
        check_causal(network)
        for each in allowed:
            each.check_model(dict(network.named_parameters()))
        return network, tokenizer

    def tokens_of(
        self, network: Any, tokenizer: Any, texts: Examples | None
    ) -> list[list[int]] | None:
        """Reference texts as tokens."""
        if texts is None:
            return None
        options = self.options
        return reference_rows(
            network,
            tokenizer,
            reference_texts(texts.rows, tokenizer),
            options.max_length,
            options.bos,
        )

    def _reference(
        self, network: Any, rows: list[list[int]] | None, targets: Sequence[Target]
    ) -> Reference | None:
        """What is measured on reference texts; drift only of an adapter with targets."""
        options = self.options
        if rows is None:
            return None
        budgeted = None
        if options.kl_budget is not None:
            budgeted = Budgeted(options.kl_budget, Parts.of(rows), options.seed)
        scored = rows if budgeted is None else budgeted.parts.scaled
        if not targets:
            return Reference(scored, None, budgeted)
        skipped = frozenset() if options.edit_bos else starts_of(text_config(network))
        with self.reporter.bar("reference", len(rows) * len(targets)) as tick:
            found = drifts(network, targets, rows, options.seed, tick, skipped)
        return Reference(scored, found, budgeted)

    def _prepare(
        self,
        network: Any,
        tokenizer: Any,
        config: PeftConfig,
        options: TrainingOptions,
        reference: Reference | None,
        record: TrainingRecord,
        tracked: TrackFeatures | None = None,
    ) -> Prepared:
        return prepare(
            network,
            tokenizer,
            config,
            options,
            self.examples,
            self.evaluated,
            self.out,
            self.resume,
            reference,
            tracked,
            partial(record.write, self.out / RECORD),
        )

    def _finish(self, prepared: Prepared, record: TrainingRecord) -> TrainingRecord:
        with self.reporter.bar(
            "training", steps(prepared.options, len(self.examples.rows))
        ) as tick:
            trained = replace(prepared, fresh=self.fresh).run(tick)
        record = record.model_copy(update=results(trained, record))
        save(trained, self.out)
        write_text(self.out / "README.md", card(record))
        record.write(self.out / RECORD)
        # Last: until the record is whole, an interrupted training goes on from them.
        remove_checkpoints(self.out)
        return record
