"""The experiment: features, strengths, texts; each finished block of features is kept."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.contexts import prompt_tokens
from ...core.errors import InputError
from ...core.progress import Reporter
from ...core.tables import Json, read_json, write_json, write_table
from ...predictor.model.targets import CLEAN_SCORE, clean_score, scheme_of
from ...steering_eval.generation import SteeredModel
from ...steering_eval.matching import LARGEST_PUSH, StrengthSearch
from ...study.parts import Parts
from ...study.study import Study
from .measures import REPEATED, UNSTEERED, repetition

Array = NDArray[np.float64]

LEAST_PROMPTS = 4
_BLOCK = 10
_MOST_LOGITS = 1 << 27


@dataclass(frozen=True)
class Design:
    """What is asked of a run; the same design gives the same texts.

    Raises:
        InputError: a number is out of range, or there are too few prompts for two halves of them.

    """

    prompts: Sequence[str]
    n_features: int = 60
    n_tokens: int = 40
    target_kl: float = 0.2
    """Nats a token, mean over the first tokens of the unsteered texts."""
    temperature: float = 1.0
    seed: int = 0
    matched_tokens: int = 16
    """On so many first tokens strengths are matched."""

    def __post_init__(self) -> None:
        least = {
            "n_features": 8,
            "n_tokens": REPEATED,
            "matched_tokens": 1,
            "target_kl": 0.0,
            "temperature": 0.0,
        }
        for name, bound in least.items():
            given = getattr(self, name)
            if given < bound or given == 0 or not np.isfinite(given):
                expected = f"{bound} or more" if bound else "a finite number above 0"
                raise InputError(f"{name} = {given:g}; expected {expected}; correct it")
        if len(self.prompts) < LEAST_PROMPTS:
            raise InputError(
                f"{len(self.prompts)} prompts, expected {LEAST_PROMPTS} or more; add some"
            )


def choose(ranking: pd.DataFrame, count: int) -> NDArray[np.int64]:
    """Eligible features that the predictor has not seen, at equal steps of rank.

    Raises:
        InputError: there are fewer.

    """
    table = ranking[ranking["eligible"] & ~ranking["measured"]].sort_values(
        ["predicted_clean_score", "feature"]
    )
    if len(table) < count:
        raise InputError(
            f"{len(table)} eligible features are ranked and not measured, expected {count}; ask for "
            "fewer --features"
        )
    places = np.linspace(0, len(table) - 1, count).round().astype(np.int64)
    return table["feature"].to_numpy(dtype=np.int64)[places]


class Experiment:
    """Steered texts of a screened study's features.

    Args:
        study: a screened one.
        design: what is asked.
        folder: where finished blocks are kept.
        reporter: shows progress.

    Raises:
        InputError: the folder holds another design's texts.

    """

    def __init__(self, study: Study, design: Design, folder: Path, reporter: Reporter) -> None:
        self._study, self._design, self._folder = study, design, folder
        self._reporter = reporter
        inputs = self._parts.inputs
        wanted: Json = {
            **asdict(design),
            "prompts": list(design.prompts),
            "features": self.features.tolist(),
            "model": inputs.model.fingerprint,
            "sae": inputs.primary.fingerprint,
        }
        record = folder / "design.json"
        if not record.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(record, wanted)
        elif read_json(record) != wanted:
            raise InputError(
                f"{folder} holds texts of another design, run or ranking; give another --out"
            )

    @property
    def _parts(self) -> Parts:
        return self._study._parts

    @cached_property
    def _steered(self) -> SteeredModel:
        inputs = self._parts.inputs
        return SteeredModel(inputs.model, inputs.primary.site)

    @cached_property
    def features(self) -> NDArray[np.int64]:
        """The features, by rising predicted clean score."""
        return choose(self._study.ranking, self._design.n_features)

    def scores(self) -> pd.DataFrame:
        """Of each feature: what was predicted, what steering it in the study's own mode shows, how often
        it fires.
        """
        ranking = self._study.ranking.set_index("feature").loc[self.features]
        scheme = scheme_of(str(name).removeprefix("predicted_") for name in ranking)
        labels = self._study.evaluate(self.features.tolist()).set_index("feature")
        labels = labels.loc[self.features]
        measured = labels[list(scheme.axes.values())].assign(
            **{CLEAN_SCORE: clean_score(labels, scheme=scheme)}
        )
        kept = ranking[[f"predicted_{label}" for label in scheme.judged]]
        firing = self._study.features.set_index("feature").loc[self.features, "token_act_freq"]
        return pd.concat([kept, measured.add_prefix("measured_"), firing], axis=1)

    def texts(self) -> pd.DataFrame:
        """The unsteered and all steered texts, with what was measured of each (see
        :class:`.measures.Continuations`), and of steered ones ``coefficient`` and ``kl``.
        """
        blocks = range(0, len(self.features), _BLOCK)
        tables = [self._plain]
        with self._reporter.bar("features", len(self.features)) as advance:
            for start in blocks:
                some = self.features[start : start + _BLOCK]
                file = self._folder / "blocks" / f"{start:04d}.parquet"
                if not file.is_file():
                    file.parent.mkdir(exist_ok=True)
                    write_table(file, self._block(some))
                tables.append(pd.read_parquet(file))
                advance(len(some))
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def _prompts(self) -> list[Tensor]:
        tokenizer = self._parts.inputs.model.tokenizer
        return [prompt_tokens(text, tokenizer)[0] for text in self._design.prompts]

    @cached_property
    def _plain(self) -> pd.DataFrame:
        """The unsteered texts."""
        file = self._folder / "unsteered.parquet"
        if not file.is_file():
            table = self._written(np.array([UNSTEERED]), np.zeros(1))
            write_table(file, table.assign(promoted=0.0))
        return pd.read_parquet(file)

    @cached_property
    def _unsteered(self) -> list[Tensor]:
        """The tokens that strengths are matched on, by prompt."""
        some = self._design.matched_tokens
        return [torch.tensor(row[:some]) for row in self._plain["tokens"]]

    @cached_property
    def _clean(self) -> list[Tensor]:
        """Ln p at the unsteered texts, by prompt."""
        found: list[Tensor] = []
        for prompt, written in zip(self._prompts, self._unsteered, strict=True):
            row = torch.cat([prompt, written])[None]
            found += self._steered.log_probabilities(row, None, len(written))
        return found

    def _block(self, features: NDArray[np.int64]) -> pd.DataFrame:
        coefficients, divergences, reached = self._match(features)
        table = self._written(features[reached], coefficients[reached])
        shares = self._promoted(features[reached], table)
        each = len(self._prompts)
        return table.assign(
            promoted=shares,
            coefficient=np.repeat(coefficients[reached], each),
            kl=np.repeat(divergences[reached], each),
        )

    def _match(self, features: NDArray[np.int64]) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Coefficients at which the features reach the KL, what they reach, and which do."""
        target, steering = self._design.target_kl, self._parts.labelling.steering
        matched = self._study.setting.steering.model_copy(
            update={"mode": "matched", "target_kl": target}
        )
        first, largest = steering.units(matched), LARGEST_PUSH * steering.residual_units()
        search = StrengthSearch(first[features], largest[features], target)
        while search.open.any():
            search.tell(self._divergences(features[search.open], search.values[search.open]))
        return search.values, search.divergences, search.reached

    def _divergences(self, features: NDArray[np.int64], coefficients: Array) -> Array:
        """KL(unsteered || steered), mean over the first tokens of the unsteered texts."""
        sums, length = np.zeros(len(features)), len(self._unsteered[0])
        for some, _, pushes in self._batches(features, coefficients):
            tokens = [torch.cat([self._prompts[p], self._unsteered[p]]) for _, p in some]
            ours = self._steered.log_probabilities(torch.stack(tokens), pushes, length)
            for at, (row, prompt) in enumerate(some):
                clean = self._clean[prompt].double()
                sums[row] += float((clean.exp() * (clean - ours[at].double())).sum())
        return sums / (length * len(self._prompts))

    def _batches(
        self, features: NDArray[np.int64], coefficients: Array
    ) -> Iterator[tuple[list[tuple[int, int]], Tensor, Tensor]]:
        """Pairs of feature (its row) and prompt with the prompts' tokens and the pushes; the prompts of a
        batch are equally long.
        """
        decoder = self._parts.inputs.primary.decoder
        known = np.maximum(features, 0)
        pushes = decoder[torch.as_tensor(known, device=decoder.device)] * torch.as_tensor(
            coefficients, device=decoder.device, dtype=decoder.dtype
        ).unsqueeze(1)
        lengths = [len(prompt) for prompt in self._prompts]
        vocabulary = int(self._parts.inputs.model.text_config.vocab_size)
        for length in sorted(set(lengths)):
            same = [p for p, own in enumerate(lengths) if own == length]
            pairs = [(row, p) for row in range(len(features)) for p in same]
            at_once = max(1, _MOST_LOGITS // ((length + self._design.n_tokens) * vocabulary))
            for start in range(0, len(pairs), at_once):
                some = pairs[start : start + at_once]
                rows = torch.stack([self._prompts[p] for _, p in some])
                yield some, rows, pushes[[row for row, _ in some]]

    def _written(self, features: NDArray[np.int64], coefficients: Array) -> pd.DataFrame:
        """Texts with their surprisal and repetition."""
        tokenizer, n_tokens = self._parts.inputs.model.tokenizer, self._design.n_tokens
        rows = []
        for some, beginnings, pushes in self._batches(features, coefficients):
            prompts = [prompt for _, prompt in some]
            written = self._steered.write(
                beginnings,
                pushes,
                n_tokens,
                partial(self._noise, prompts),
                self._design.temperature,
            ).cpu()
            whole = torch.cat([beginnings, written], dim=1)
            clean = self._steered.log_probabilities(whole, None, n_tokens).cpu()
            chosen = clean.gather(2, written[..., None])[..., 0].double()
            for at, (row, prompt) in enumerate(some):
                tokens = written[at].tolist()
                rows.append(
                    {
                        "feature": int(features[row]),
                        "prompt": prompt,
                        "tokens": tokens,
                        "text": tokenizer.decode(tokens, skip_special_tokens=True),
                        "surprisal": float(-chosen[at].mean()),
                        "repetition": repetition(tokens),
                    }
                )
        order = {int(feature): row for row, feature in enumerate(features)}
        table = pd.DataFrame(rows)
        table["place"] = table["feature"].map(order)
        return table.sort_values(["place", "prompt"], ignore_index=True).drop(columns="place")

    def _noise(self, prompts: Sequence[int], step: int, vocabulary: int) -> Tensor:
        """Gumbel noise, the same for a prompt whatever is pushed."""
        drawn = {}
        for prompt in set(prompts):
            seed = (self._design.seed * 1_000 + prompt) * 100_000 + step
            generator = torch.Generator().manual_seed(seed)
            drawn[prompt] = -torch.empty(vocabulary).exponential_(generator=generator).log()
        return torch.stack([drawn[prompt] for prompt in prompts])

    def _promoted(self, features: NDArray[np.int64], table: pd.DataFrame) -> list[float]:
        """Share of a text's tokens among the feature's promoted ones, less that of the unsteered text."""
        inputs = self._parts.inputs
        decoder = inputs.primary.decoder[torch.as_tensor(features)]
        promoted = inputs.model.promoted(
            inputs.model.to_stream(decoder, inputs.primary.site)
        ).tolist()
        known = dict(zip(features.tolist(), map(set, promoted), strict=True))
        plain = self._plain["tokens"].tolist()
        shares = []
        for feature, prompt, tokens in zip(
            table["feature"], table["prompt"], table["tokens"], strict=True
        ):
            own = [np.mean([t in known[feature] for t in each]) for each in (tokens, plain[prompt])]
            shares.append(float(own[0] - own[1]))
        return shares
