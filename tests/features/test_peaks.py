"""Where features fire most, and firings kept on disk: against dense oracles, whatever the batches."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import families
import numpy as np
import oracle
import pytest
import tiny
import torch
from cleansteer.core.models import wrap_model
from cleansteer.core.settings import SteeringSetting
from cleansteer.features import coactivation as coactivation_module
from cleansteer.features import peaks, sweep
from cleansteer.features.coactivation import Firings, measure_coactivation
from cleansteer.features.peaks import Peaks
from cleansteer.features.sweep import measure_features
from numpy.typing import NDArray

N_FEATURES = 40
VOCABULARY = 30
FEWEST, MOST = 10, 100  # contexts that count, arXiv:2505.20063
FIRES_ABOVE = 1e-6
STEERING = SteeringSetting(panel_size=30)


def firings(
    n_contexts: int, length: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Activations ``[context, token, feature]`` with many ties, from never to always; tokens."""
    generator = np.random.default_rng(seed)
    shape = n_contexts, length, N_FEATURES
    fires = generator.random(shape) < np.linspace(0, 0.6, N_FEATURES) ** 2
    fires[..., -1] = True
    return (
        np.where(fires, generator.integers(1, 6, shape) / 4, 0.0),
        generator.integers(VOCABULARY, size=(n_contexts, length)),
    )


def promoted_at_random(seed: int) -> NDArray[np.int64]:
    generator = np.random.default_rng([seed, 3])
    return np.array([generator.permutation(VOCABULARY)[:8] for _ in range(N_FEATURES)])


def dense_input_scores(
    activations: NDArray[np.float64], tokens: NDArray[np.int64], promoted: NDArray[np.int64]
) -> list[float]:
    """The definition, feature by feature: ties go to the earlier token, the earlier context."""
    scores = []
    for feature, own in enumerate(promoted):
        found = []
        for context, values in enumerate(activations[:, :, feature]):
            place = int(np.argmax(values))
            if values[place] > FIRES_ABOVE:
                found.append((-values[place], context, tokens[context, place]))
        taken = [token in own for _, _, token in sorted(found)[:MOST]]
        scores.append(float(np.mean(taken)) if len(taken) >= FEWEST else np.nan)
    return scores


def add(
    made: Peaks, activations: NDArray[np.float64], tokens: NDArray[np.int64], batch: int
) -> Peaks:
    """Batch by batch, contexts numbered within it, as they stream past."""
    for start in range(0, len(tokens), batch):
        part = activations[start : start + batch]
        contexts, places, features = np.nonzero(part)
        made.add(
            contexts,
            features,
            part[contexts, places, features],
            tokens[start : start + batch][contexts, places],
        )
    return made


@pytest.mark.parametrize("buffer", [1 << 22, 1000, 0])
@pytest.mark.parametrize("batch", [1, 7, 400])
@pytest.mark.parametrize("seed", [0, 1])
def test_input_scores_equal_the_dense_oracle(
    seed: int, batch: int, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peaks, "_BUFFER", buffer)
    activations, tokens = firings(240, 6, seed)
    promoted = promoted_at_random(seed)
    expected = dense_input_scores(activations, tokens, promoted)
    found = add(Peaks(N_FEATURES), activations, tokens, batch).input_scores(promoted)
    np.testing.assert_array_equal(found, expected)
    in_contexts = (activations.max(axis=1) > 0).sum(axis=0)
    for edge in (in_contexts == 0, (in_contexts > 0) & (in_contexts < FEWEST), in_contexts > MOST):
        assert edge.any()
    assert 0 < np.nanmin(expected) < np.nanmax(expected) < 1


@pytest.mark.parametrize("buffer", [1 << 22, 0])
def test_frequent_tokens_are_those_of_the_strongest_contexts(
    buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peaks, "_BUFFER", buffer)
    activations, tokens = firings(240, 6, 0)
    found = add(Peaks(N_FEATURES), activations, tokens, 7).frequent_tokens(3)
    lengths = set()
    for feature in range(N_FEATURES):
        strongest = []
        for context, values in enumerate(activations[:, :, feature]):
            place = int(np.argmax(values))
            if values[place] > FIRES_ABOVE:
                strongest.append((-values[place], context, int(tokens[context, place])))
        strongest = [(-peak, token) for peak, _, token in sorted(strongest)[:MOST]]
        counted = {
            token: (
                sum(t == token for _, t in strongest),
                max(p for p, t in strongest if t == token),
            )
            for _, token in strongest
        }
        expected = sorted(
            counted, key=lambda token: (-counted[token][0], -counted[token][1], token)
        )
        assert found[feature] == expected[:3]
        lengths.add(len(expected[:3]))
    assert {0, 3} <= lengths


def test_a_small_buffer_bounds_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "_BUFFER", 500)
    activations, tokens = firings(300, 6, 0)
    made = Peaks(N_FEATURES)
    for start in range(0, 300, 10):
        add(made, activations[start : start + 10], tokens[start : start + 10], 10)
        waiting = sum(len(entries.features) for entries in made._new)
        assert waiting <= 500
        assert len(made._kept.features) <= MOST * N_FEATURES


@pytest.mark.parametrize(("n_contexts", "score"), [(0, np.nan), (9, np.nan), (10, 1.0), (11, 1.0)])
def test_fewer_than_ten_contexts_say_nothing(n_contexts: int, score: float) -> None:
    made = Peaks(2)
    contexts = np.repeat(np.arange(n_contexts), 3)  # at three tokens of each
    made.add(contexts, 0 * contexts, 1.0 + contexts, 0 * contexts + 5)
    found = made.input_scores(np.array([[5], [5]]))
    np.testing.assert_array_equal(found, [score, np.nan])


def test_neighbouring_contexts_and_features_are_apart() -> None:
    made = Peaks(2)
    contexts = np.arange(20)
    made.add(contexts, 1 - contexts % 2, np.ones(20), contexts)  # features 1, 0, 1, 0, ...
    scores = made.input_scores(np.array([[1], [0]]))
    assert scores.tolist() == [0.1, 0.1]


@pytest.mark.parametrize("strong_first", [True, False])
def test_only_a_hundred_contexts_count(strong_first: bool) -> None:
    """The 60 strongest have token 1, the next 40 token 2, the 80 weakest token 3."""
    values = np.repeat([3.0, 2.0, 1.0], [60, 40, 80])
    tokens = np.repeat([1, 2, 3], [60, 40, 80])
    order = np.arange(180) if strong_first else np.random.default_rng(0).permutation(180)
    made = Peaks(1)
    for part in np.array_split(order, 7):
        made.add(np.arange(len(part)), 0 * part, values[part], tokens[part])
    scores = [made.input_scores(np.array([[token]]))[0] for token in (1, 2, 3)]
    assert scores == [0.6, 0.4, 0.0]


def test_ties_go_to_the_earlier_context_and_token() -> None:
    made = Peaks(1)
    for start in (0, 90):  # contexts 0 to 89, then 90 to 179; two tokens each, all alike
        contexts = np.repeat(np.arange(90), 2)
        made.add(contexts, 0 * contexts, np.ones(180), 2 * start + np.arange(180))
    taken = [token for token in range(360) if made.input_scores(np.array([[token]]))[0] > 0]
    assert taken == list(range(0, 200, 2))


@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_pre", "blocks.1.attn.hook_z"])
@pytest.mark.parametrize("family", ["gpt2", "gemma2", families.UNKNOWN])
def test_input_scores_of_a_model_equal_hugging_faces(
    family: str, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations by the bridge, promoted tokens by Hugging Face's final norm and unembedding."""
    network = families.network(family)
    model = wrap_model(families.network(family), tiny.tokenizer())
    primary = tiny.dictionary(
        "standard", model, hook, dtype=torch.float64, width=families.width_at(network, hook)
    )
    contexts = tiny.contexts(60, 7) % 50
    (read,) = model.read(contexts, [primary.site])
    footprint = families.lens(network, primary.decoder, hook)
    promoted = np.argsort(-footprint.numpy(), axis=1)[:, :20]
    expected = dense_input_scores(primary.encode(read).numpy(), contexts.numpy(), promoted)
    monkeypatch.setattr(sweep, "_BATCH_ELEMENTS", 11 * 7 * 96)
    table = measure_features(model, primary, primary, contexts, STEERING).table
    np.testing.assert_array_equal(table["input_score"], expected)
    assert len({score for score in expected if score > 0}) > 10


# Firings on disk


def sparse(activations: NDArray[np.float64]) -> Iterator[tuple[NDArray, NDArray]]:
    """Firings of tokens in batches of unequal size, as the sweep gives them."""
    for part in np.array_split(activations, 7):
        fires = part > FIRES_ABOVE
        yield np.nonzero(fires)[1].astype(np.int32), fires.sum(axis=1)


@pytest.mark.parametrize("elements", [1 << 23, 60, 1])
@pytest.mark.parametrize("entries", [1 << 21, 300, 0])
@pytest.mark.parametrize("panel", [1, 13, N_FEATURES, 1000])
def test_small_parts_and_blocks_change_nothing(
    panel: int, entries: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coactivation_module, "_PART_ENTRIES", entries)
    monkeypatch.setattr(coactivation_module, "_BLOCK_ELEMENTS", elements)
    activations = firings(30, 6, 0)[0].reshape(180, N_FEATURES)
    activations[:, 1::2] = np.roll(activations[:, ::2], 17, axis=0)  # as often: ties in the panel
    activations[:, 4] = 0.0  # silent
    activations[40:60] = activations[57:77] = 0.0  # tokens at which nothing fires
    with Firings(N_FEATURES) as made:
        for features, counts in sparse(activations):
            made.add(features, counts)
        total = (activations > FIRES_ABOVE).sum(axis=0).astype(np.float64)
        found, again = (measure_coactivation(made, total, panel) for _ in range(2))
        parts = list(made.patterns())
    fires = activations > FIRES_ABOVE
    members = oracle.largest(total, panel)
    rows = [oracle.coactivation(fires[:, f], fires[:, members]) for f in range(N_FEATURES)]
    assert set(found) == set(rows[0])
    for name, column in found.items():
        expected = [row[name] for row in rows]
        np.testing.assert_allclose(column, expected, rtol=1e-10, atol=1e-12, err_msg=name)
        np.testing.assert_array_equal(again[name], column)
    assert (len(parts) > 1) == (entries < 1 << 21)
    dense = np.concatenate([part.toarray() for part in parts])
    np.testing.assert_array_equal(dense, fires)


def test_without_any_firing_all_is_0() -> None:
    with Firings(5) as made:
        assert all(
            (column == 0).all() for column in measure_coactivation(made, np.zeros(5), 3).values()
        )
        made.add(np.empty(0, np.int32), np.zeros(4, np.int64))
        assert all(
            (column == 0).all() for column in measure_coactivation(made, np.zeros(5), 3).values()
        )


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, empty at first."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(coactivation_module, "_PART_ENTRIES", 0)
    return tmp_path


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_firings_leave_nothing_behind(error: type[BaseException] | None, temporary: Path) -> None:
    try:
        with Firings(5) as made:
            made.add(np.array([1, 3], np.int32), np.array([2]))
            assert list(temporary.rglob("*.npz"))
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("calls", [1, 3])
def test_an_interrupted_sweep_leaves_nothing_behind(
    calls: int, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.model()
    primary = tiny.dictionary("standard", model, "blocks.1.hook_resid_pre")
    monkeypatch.setattr(sweep, "_BATCH_ELEMENTS", 5 * 9 * 96)
    progress: list[list[Path]] = []

    def interrupt(done: int) -> None:
        progress.append(list(temporary.rglob("*.npz")))
        if len(progress) == calls:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_features(model, primary, primary, tiny.contexts(), STEERING, interrupt)
    assert [len(files) for files in progress] == list(range(1, calls + 1))
    assert not list(temporary.iterdir())
    measure_features(model, primary, primary, tiny.contexts(), STEERING)
    assert not list(temporary.iterdir())
