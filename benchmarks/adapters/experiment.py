"""The experiment: block by block, adapter by adapter; every finished adapter is kept."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ...adapters.config import SaeAdapterConfig
from ...adapters.model import Fit, load_target
from ...adapters.places import locate
from ...adapters.training import n_trainable
from ...core.errors import InputError
from ...core.networks import load_network
from ...core.progress import Reporter
from ...core.settings import Setting
from ...core.tables import Json, read_json, write_json, write_table
from .block import Block
from .design import BASELINES, Design, Job
from .frontier import trace
from .learning import baseline, learn, target_of
from .pools import pool_of, rank, rankings_for

DESIGN = "design.json"
_PIECES = "adapters"
_RUNS = "rankings"


class Experiment:
    """Adapters of a design, and what they gain and cost.

    Args:
        setting: names model and SAEs.
        design: which adapters.
        folder: where rankings and finished adapters are kept.
        device: where the model is put.
        reporter: shows progress.

    Raises:
        InputError: the folder holds another experiment.

    """

    def __init__(
        self, setting: Setting, design: Design, folder: Path, device: str, reporter: Reporter
    ) -> None:
        self._setting, self._design, self._folder = setting, design, folder
        self._device, self._reporter = device, reporter
        wanted: Json = {
            "setting": setting.fingerprint,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(design).items()},
        }
        record = folder / DESIGN
        if not record.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(record, wanted)
        elif read_json(record) != wanted:
            raise InputError(
                f"{folder} holds an experiment of another design or setting; expected the same, which "
                "it goes on with; give another --out"
            )

    def points(self) -> pd.DataFrame:
        """A row for each adapter, point of training and strength: what :class:`.design.Job` says,
        ``n_parameters``, ``n_features``, ``before`` (the loss without the adapter), what
        :func:`.frontier.trace` measures, ``gain``; ``forecast_gain`` and ``forecast_kl`` of the training
        as a whole, where it can be foreseen.
        """
        tables = []
        with self._reporter.bar("adapters", self._design.n_jobs()) as advance:
            for topic, seed in self._design.blocks():
                block = None
                for job in self._design.jobs(topic, seed):
                    file = self._folder / _PIECES / f"{job.key}.parquet"
                    if not file.is_file():
                        if block is None:
                            block = self._block(topic, seed)
                        file.parent.mkdir(exist_ok=True)
                        write_table(file, self._piece(block, job))
                    tables.append(pd.read_parquet(file))
                    advance(1)
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        network, tokenizer = load_network(self._setting, attention=None)
        return network.to(self._device).requires_grad_(False).eval(), tokenizer

    @cached_property
    def _here(self) -> Fit:
        fit: Fit = load_target(target_of(self._setting, self._setting.sae), self._loaded[0])
        return fit

    @cached_property
    def _below(self) -> Fit:
        target = target_of(self._setting, self._setting.downstream_sae)
        fit: Fit = load_target(target, self._loaded[0])
        return fit

    @cached_property
    def _rankings(self) -> dict[str, pd.DataFrame]:
        wanted = rankings_for(self._design.pools)
        folder = self._folder / _RUNS
        return rank(self._setting, wanted, folder, self._device, self._reporter)

    def _block(self, topic: str, seed: int) -> Block:
        network, tokenizer = self._loaded
        return Block(topic, seed, self._design, network, tokenizer, self._here, self._below)

    def _pool(self, job: Job) -> list[int]:
        return pool_of(job.pool, self._rankings, self._here.part.n_features, job.seed)

    def _piece(self, block: Block, job: Job) -> pd.DataFrame:
        features: Sequence[int] = ()
        foreseen = None
        if job.method not in BASELINES:
            features = block.features(job, self._pool(job))
            foreseen = block.forecast(job, features)
        network, tokenizer = self._loaded
        steps = sorted({max(1, self._design.steps // 4), self._design.steps})
        with torch.enable_grad():
            model, waypoints = learn(
                deepcopy(network),
                tokenizer,
                self._config(job, features),
                block.options(job),
                block.examples(job),
                steps,
            )
        loss, before = block.loss(job)
        largest = max(self._design.budgets)
        table = trace(model, waypoints, loss, block.elsewhere, largest)
        return table.assign(
            **vars(job),
            n_parameters=n_trainable(model),
            n_features=len(features),
            before=before,
            gain=before - table["loss"],
            forecast_gain=float("nan") if foreseen is None else foreseen.gain,
            forecast_kl=float("nan") if foreseen is None else foreseen.kl,
        )

    def _config(self, job: Job, features: Sequence[int]) -> Any:
        target = self._here.target
        if job.method in BASELINES:
            _, number, place = locate(self._loaded[0], target.hook)
            return baseline(job.method, max(0, number - (place == "entry")))
        return SaeAdapterConfig(
            targets=[target.with_features(list(features)).to_dict()],
            component=job.method,
            seed=job.seed,
        )
