"""Examples of where features fire: against the definition, whatever the batches."""

from pathlib import Path

import cleansteer
import numpy as np
import pytest
import tiny
import torch
from cleansteer.features import examples
from cleansteer.features.examples import KINDS, SAMPLED, Examples, token_pieces
from numpy.typing import NDArray
from transformers import AutoTokenizer

MINIATURE = Path(cleansteer.__file__).parent / "miniatures" / "weights" / "mini-gpt2" / "model"

N_FEATURES = 30
LENGTH = 5
FIRES_ABOVE = 1e-6


def activations(n_contexts: int, seed: int) -> NDArray[np.float64]:
    """``[context, token, feature]`` with ties, from features that never fire to one that always does."""
    generator = np.random.default_rng(seed)
    shape = n_contexts, LENGTH, N_FEATURES
    fires = generator.random(shape) < np.linspace(0, 0.5, N_FEATURES) ** 2
    fires[..., -1] = True
    fires[:, 1:, 3] = False
    fires[:, 0, 3] = True
    return np.where(fires, generator.integers(1, 6, shape) / 4, 0.0)


def numbers(n_features: int) -> NDArray[np.int64]:
    return np.random.default_rng(5).integers(0, 1 << 32, n_features)


def collect(
    dense: NDArray[np.float64],
    batch: int,
    seed: int = 0,
    starts: NDArray[np.int64] | None = None,
) -> Examples:
    n_features = dense.shape[2]
    starts = numbers(n_features) if starts is None else starts
    made = Examples(n_features, len(dense), seed, starts)
    for start in range(0, len(dense), batch):
        part = dense[start : start + batch]
        contexts, positions, features = np.nonzero(part)
        made.add(start + contexts, positions, features, part[contexts, positions, features])
    return made


def rows(made: Examples) -> list[tuple[int, str, int, int, float]]:
    table = made.table()
    return [tuple(row) for row in table.itertuples(index=False)]


def defined(dense: NDArray[np.float64], seed: int = 0) -> list[tuple[int, str, int, int, float]]:
    """The definition, feature by feature."""
    order = np.random.default_rng([seed, len(dense)]).permutation(len(dense))
    found = []
    for feature, start in enumerate(numbers(dense.shape[2])):
        key = (order + start) % len(dense)
        peaks = {}
        for context, values in enumerate(dense[:, 1:, feature]):
            place = int(np.argmax(values))
            if values[place] > FIRES_ABOVE:
                peaks[context] = (place + 1, float(values[place]))
        if not peaks:
            continue
        top = min(peaks, key=lambda context: (-peaks[context][1], context))
        found.append((feature, "strongest", top, *peaks[top]))
        sample = sorted((c for c in peaks if c != top), key=lambda context: key[context])[:SAMPLED]
        if not sample:
            continue
        ordered = sorted(sample, key=lambda context: (peaks[context][1], key[context]))
        middling = ordered[(len(sample) - 1) // 2]
        found.append((feature, "middling", middling, *peaks[middling]))
        left = [context for context in sample if context != middling]
        if left:
            found.append((feature, "random", left[0], *peaks[left[0]]))
    return found


@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("n_contexts", [1, 2, 3, 90])
@pytest.mark.parametrize("buffer", [0, 50, 1 << 20])
def test_examples_are_those_of_the_definition(
    batch: int, n_contexts: int, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "_BUFFER", buffer)
    dense = activations(n_contexts, n_contexts)
    assert rows(collect(dense, batch)) == defined(dense)


def test_bos_alone_is_no_example() -> None:
    table = collect(activations(40, 0), 40).table()
    assert 3 not in set(table["feature"])
    assert 0 not in set(table["position"])


def test_permuted_features_have_the_same_examples() -> None:
    dense = activations(60, 1)
    order = np.random.default_rng(0).permutation(N_FEATURES)
    table = collect(dense[..., order], 9, starts=numbers(N_FEATURES)[order]).table()
    table["feature"] = order[table["feature"]]
    again = table.sort_values(["feature", "kind"], kind="stable").reset_index(drop=True)
    before = collect(dense, 60).table().sort_values(["feature", "kind"], kind="stable")
    assert again.equals(before.astype({"feature": again["feature"].dtype}).reset_index(drop=True))


def test_other_seeds_sample_other_contexts_and_the_same_strongest() -> None:
    dense = activations(90, 2)
    first, second = (
        collect(dense, 90, seed).table().set_index(["kind", "feature"]) for seed in (0, 1)
    )
    assert first.loc["strongest"].equals(second.loc["strongest"])
    assert not first.loc["random"].equals(second.loc["random"])


def test_a_random_example_is_any_context_equally_often() -> None:
    """A feature that fires alike in 40 contexts: over seeds each of them comes up, none much oftener."""
    dense = np.ones((40, 2, 1))
    dense[7] = 2.0
    counts = np.zeros(40)
    for seed in range(800):
        table = collect(dense, 40, seed).table().set_index("kind")
        counts[table.loc["random", "context"]] += 1
    assert counts[7] == 0
    expected = 800 / 39
    assert ((counts[np.arange(40) != 7] - expected) ** 2 / expected).sum() < 38 + 5 * 76**0.5


def test_features_that_fire_alike_have_examples_of_their_own() -> None:
    """Of 800 features that fire in the same 40 contexts, each context is the random example of some."""
    dense = np.ones((40, 2, 800))
    dense[7] = 2.0
    table = collect(dense, 40).table().set_index("kind")
    counts = np.bincount(table.loc["random", "context"], minlength=40)
    assert counts[7] == 0
    assert counts[np.arange(40) != 7].min() > 0
    assert counts.max() < 3 * 800 / 39


def test_kinds_stand_in_their_order() -> None:
    table = collect(activations(90, 3), 90).table()
    assert (
        table.groupby("feature")["kind"].agg(list).isin([list(KINDS[:n]) for n in (1, 2, 3)]).all()
    )


@pytest.mark.parametrize("text", ["plain words, 12", "naïve 日本語, ok", "🙂🙂 done"])
def test_pieces_of_tokens_join_to_the_text(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MINIATURE)
    row = tokenizer(text, add_special_tokens=False)["input_ids"]
    (pieces,) = token_pieces(torch.tensor([row]), tokenizer)
    assert len(pieces) == len(row)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_pieces_of_a_tokenizer_that_leaves_spaces_out_have_them() -> None:
    tokenizer = tiny.tokenizer()
    row = tokenizer("w3 w4 w5", add_special_tokens=False)["input_ids"]
    (pieces,) = token_pieces(torch.tensor([row]), tokenizer)
    assert pieces == ["w3", " w4", " w5"]
