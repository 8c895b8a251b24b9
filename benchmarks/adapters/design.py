"""What the experiment trains."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from ...core.choices import Objective
from ...core.errors import InputError
from ...miniatures.text import HELD_OUT_PACKAGES

RANKED = ("clean", "both", "matched", "messy")
"""Pools that a ranking makes (see :mod:`.pools`)."""
TOPICS = HELD_OUT_PACKAGES[-3:]
UNCHOSEN = "unchosen"
"""Features of the whole dictionary drawn at random, without the rule of relevance."""
POOLS = (*RANKED, "random", "all", UNCHOSEN)
COMPONENTS = ("scale", "bias", "lowrank", "mlp")
LINEAR = COMPONENTS[:2]
BASELINES = ("lora", "lora-layer", "ia3")
"""PEFT's own: LoRA of rank 8 on all layers, of rank 1 on the layer that writes the hook, IA3."""
LEARNING_RATES: Mapping[str, float] = {
    "scale": 0.1,
    "bias": 0.1,
    "lowrank": 0.03,
    "mlp": 0.03,
    "lora": 0.01,
    "lora-layer": 0.03,
    "ia3": 0.1,
}


@dataclass(frozen=True)
class Job:
    """One adapter."""

    topic: str
    seed: int
    objective: Objective
    method: str
    pool: str = ""
    """None: PEFT's own have none."""
    count: int = 0

    @property
    def key(self) -> str:
        """Its name among all."""
        name = f"{self.topic}-{self.seed}-{self.objective}-{self.method}"
        return f"{name}-{self.pool}-{self.count}" if self.pool else name


@dataclass(frozen=True)
class Design:
    """Which adapters are trained, and how; the same design gives the same table.

    Raises:
        InputError: a value is out of range.

    """

    topics: tuple[str, ...] = TOPICS
    """Installed packages whose docstrings the model has not seen."""
    seeds: int = 3
    count: int = 100
    """Features of an adapter, in the main comparison."""
    counts: tuple[int, ...] = (50, 300)
    """And in the one of sizes."""
    pools: tuple[str, ...] = POOLS
    steps: int = 40
    batch_size: int = 16
    max_length: int = 48
    """Tokens of an example."""
    examples: int = 480
    """Of the topic, that are trained on."""
    scored: int = 2048
    """Tokens that gain and cost are measured on, of either."""
    budgets: tuple[float, ...] = (0.005, 0.02, 0.1)
    """Nats a token of KL elsewhere, at which gains are read."""
    brief: bool = False
    """The main comparison alone."""

    def __post_init__(self) -> None:
        for name in ("seeds", "count", "steps", "batch_size", "examples", "scored"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}; expected 1 or more; correct it")
        if not self.topics:
            raise InputError("no topic; expected the name of an installed package; give one")
        unknown = [pool for pool in self.pools if pool not in POOLS]
        if unknown or not self.pools:
            raise InputError(
                f"pool {(unknown or [''])[0]!r} is not known; expected some of {', '.join(POOLS)}; "
                "correct it"
            )
        if not self.budgets or not all(np.isfinite(b) and b > 0 for b in self.budgets):
            raise InputError(
                f"budgets {self.budgets}; expected finite numbers above 0, nats a token; correct them"
            )

    def blocks(self) -> Iterator[tuple[str, int]]:
        """Topics with seeds."""
        return product(self.topics, range(self.seeds))

    def jobs(self, topic: str, seed: int) -> list[Job]:
        """The adapters of a block: the main comparison, and with the first seeds, one a topic, sizes,
        components that mix latents, and preferences.
        """
        found = [
            Job(topic, seed, "sft", component, pool, self.count)
            for component, pool in product(LINEAR, self.pools)
        ]
        found += [Job(topic, seed, "sft", name) for name in BASELINES]
        if self.brief or self.topics.index(topic) % self.seeds != seed:
            return found
        fewer = [p for p in ("clean", "messy", "random", "all") if p in self.pools]
        found += [
            Job(topic, seed, "sft", component, pool, count)
            for count, component, pool in product(self.counts, LINEAR, fewer)
        ]
        found += [
            Job(topic, seed, "sft", component, pool, self.count)
            for component, pool in product(COMPONENTS[2:], fewer)
        ]
        found += [
            Job(topic, seed, "dpo", component, pool, self.count)
            for component, pool in product(LINEAR, fewer)
        ]
        return found + [Job(topic, seed, "dpo", name) for name in ("lora", "ia3")]

    def n_jobs(self) -> int:
        """How many adapters there are."""
        return sum(len(self.jobs(*block)) for block in self.blocks())
