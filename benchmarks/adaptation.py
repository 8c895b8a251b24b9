"""What training on allowed features brings on a topic, and what it changes elsewhere.

An adapter is trained on the docstrings of a package that the miniature models have never seen, on the
features that a screened run predicts cleanest, on the messiest and on random ones; beside it PEFT's
LoRA. Held-out docstrings of the package say what was learned, those of other packages what was
changed: ``python -m cleansteer.benchmarks.adaptation SETTING --run RUN --out FILE.csv``.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ..adapters import SaeAdapterConfig
from ..adapters.config import Target
from ..adapters.examples import gather
from ..adapters.trainers import baseline_config
from ..adapters.training import Trained, n_trainable, prepare
from ..core.contexts import prompt_tokens
from ..core.networks import load_network
from ..core.progress import Reporter
from ..core.saes import hook_of, open_sae
from ..core.settings import Setting
from ..core.tables import read_table, write_text
from ..core.training import TrainingOptions
from ..miniatures.text import HELD_OUT_PACKAGES, TRAINED_PACKAGES
from ..miniatures.text import gather as docstrings
from ..study.catalogue import load_setting

Array = NDArray[np.float64]

LEARNING_RATES: Mapping[str, Sequence[float]] = {
    "scale": (0.03, 0.1, 0.3),
    "bias": (0.1, 0.3, 1.0),
    "mlp": (0.01, 0.03, 0.1),
    "lowrank": (0.01, 0.03, 0.1),
    "lora": (0.003, 0.01, 0.03),
}
"""Tried for every adapter by itself; it keeps the one of the least loss on ``check``."""
_RESAMPLES = 2000
_MAX_LENGTH = 128
_BATCH = 16


def feature_sets(ranking: pd.DataFrame, count: int, seed: int) -> dict[str, list[int]]:
    """Predicted cleanest, messiest and random eligible features, the last drawn from all of them."""
    eligible = ranking[ranking["eligible"]].sort_values("rank")["feature"].to_numpy()
    drawn = np.random.default_rng(seed).choice(eligible, count, replace=False)
    sets = {"clean": eligible[:count], "messy": eligible[-count:], "random": drawn}
    return {name: sorted(int(f) for f in features) for name, features in sets.items()}


@torch.no_grad()
def token_scores(
    network: Any, tokenizer: Any, texts: Sequence[str], base: Any = None
) -> tuple[Array, Array]:
    """Per text, the sum over its tokens of the cross-entropy (with ``base``: of KL(base || network)),
    in nats, and the number of tokens; BOS in front, texts cut.
    """
    sums, counts = [], []
    for text in texts:
        tokens = prompt_tokens(text, tokenizer)[:, :_MAX_LENGTH]
        ours = _log_probabilities(network, tokens)
        if base is None:
            sums.append(-ours.gather(1, tokens[0, 1:, None]).sum().item())
        else:
            known = _log_probabilities(base, tokens)
            sums.append((known.exp() * (known - ours)).sum().item())
        counts.append(tokens.shape[1] - 1)
    return np.array(sums), np.array(counts, dtype=np.float64)


def _log_probabilities(network: Any, tokens: torch.Tensor) -> torch.Tensor:
    logits = network(tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    return torch.log_softmax(logits[0, :-1].float(), dim=-1)


def mean_interval(sums: Array, counts: Array, seed: int) -> tuple[float, float, float]:
    """Mean a token, with a 95 % bootstrap interval over texts."""
    draws = np.random.default_rng(seed).integers(len(sums), size=(_RESAMPLES, len(sums)))
    resampled = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def adapt(
    setting: Setting,
    configs: Iterable[tuple[str, str, Callable[[], Any]]],
    texts: Mapping[str, list[str]],
    options: TrainingOptions,
    learning_rates: Mapping[str, Sequence[float]],
    tick: Callable[[int], object] = lambda _: None,
) -> pd.DataFrame:
    """Train every adapter and score it: a row each, the first the model without one.

    Columns: component, features, parameters, learning_rate (that of the least loss on ``check``, each
    tried with the options' seed); ``topic_loss`` on the topic's held-out texts, in nats a
    token; ``topic_gain``, the fall of it, and ``other_kl`` on other texts, KL(model without ||
    with adapter), both with 95 % intervals over texts.

    Args:
        setting: names the model.
        configs: component, name of the feature set, and what makes the adapter's configuration.
        texts: ``train``, ``check`` (scored while training), ``topic``, ``other``.
        options: how to train.
        learning_rates: to try, by component.
        tick: called with 1 after each adapter.

    """
    base, tokenizer = load_network(setting, attention=None)
    base.eval()
    before, counts = token_scores(base, tokenizer, texts["topic"])
    loss, *_ = mean_interval(before, counts, options.seed)
    rows: list[dict[str, Any]] = [{"component": "none", "features": "", "topic_loss": loss}]
    for component, features, make in configs:
        tried = [
            (rate, _trained(setting, make(), texts, options, rate))
            for rate in learning_rates[component]
        ]
        rate, trained = min(tried, key=lambda pair: pair[1].losses.after)
        model = trained.model.eval()
        after, _ = token_scores(model, tokenizer, texts["topic"])
        gain = mean_interval(before - after, counts, options.seed)
        changed = mean_interval(*token_scores(model, tokenizer, texts["other"], base), options.seed)
        loss, *_ = mean_interval(after, counts, options.seed)
        row = {"component": component, "features": features, "topic_loss": loss}
        row |= {"parameters": n_trainable(model), "learning_rate": rate}
        for name, (value, low, high) in (("topic_gain", gain), ("other_kl", changed)):
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
        tick(1)
    return pd.DataFrame(rows)


def _trained(
    setting: Setting,
    config: Any,
    texts: Mapping[str, list[str]],
    options: TrainingOptions,
    learning_rate: float,
) -> Trained:
    network, tokenizer = load_network(setting, attention=None)
    network.requires_grad_(False)
    examples, check = (gather([{"text": t} for t in texts[name]]) for name in ("train", "check"))
    options = options.model_copy(update={"learning_rate": learning_rate})
    with TemporaryDirectory() as folder:
        prepared = prepare(network, tokenizer, config, options, examples, check, Path(folder))
        return prepared.run()


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", help="a miniature's")
    parser.add_argument("--run", type=Path, required=True, help="its screened run")
    parser.add_argument("--out", type=Path, required=True, help="table, .csv")
    parser.add_argument("--package", default="sympy", choices=HELD_OUT_PACKAGES)
    parser.add_argument("--components", default="scale,bias,mlp,lowrank")
    parser.add_argument("--count", type=int, default=100, help="features a set")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    setting = load_setting(given.setting)
    sets = feature_sets(read_table(given.run / "ranking.parquet"), given.count, given.seed)
    topic = docstrings((given.package,), "train", given.seed)
    held_out = docstrings((given.package,), "validation", given.seed)
    other = docstrings(TRAINED_PACKAGES, "validation", given.seed)
    order = np.random.default_rng(given.seed).permutation(len(topic))
    topic = [topic[i] for i in order]
    texts = {"check": topic[:40], "train": topic[40:1640], "topic": held_out[:200]}
    texts["other"] = [other[i] for i in range(0, len(other), max(1, len(other) // 200))][:200]
    options = TrainingOptions(
        max_steps=given.steps,
        batch_size=_BATCH,
        max_length=_MAX_LENGTH,
        seed=given.seed,
        evaluations=5,
    )

    hook = hook_of(open_sae(setting.sae, setting.folder)[0], setting.sae)

    def ours(component: str, features: list[int]) -> SaeAdapterConfig:
        target = Target.of(setting.sae, setting.folder, hook, features).to_dict()
        return SaeAdapterConfig(targets=[target], component=component, seed=given.seed)

    jobs: list[tuple[str, str, Callable[[], Any]]] = [
        (component, name, lambda c=component, f=features: ours(c, f))  # type: ignore[misc]
        for component in given.components.split(",")
        for name, features in sets.items()
    ]
    jobs.append(("lora", "", lambda: baseline_config("lora", 8)))
    with Reporter().bar(f"{setting.name}, {given.package}", len(jobs)) as tick:
        table = adapt(setting, jobs, texts, options, LEARNING_RATES, tick)
    write_text(given.out, table.to_csv(index=False))
    Reporter().console.print(table.to_string(index=False, float_format=lambda v: f"{v:.4f}"))


if __name__ == "__main__":
    main()
