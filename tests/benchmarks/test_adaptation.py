"""What an adaptation is scored by."""

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import world
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.adapters.trainers import baseline_config
from cleansteer.benchmarks.adaptation import adapt, feature_sets, mean_interval, token_scores
from cleansteer.core.settings import Setting, read_setting
from cleansteer.core.training import TrainingOptions

TEXTS = [" ".join(f"w{(3 * i + j) % 40 + 1}" for j in range(10 + i)) for i in range(12)]

RATES = {"bias": (1e-5, 0.03), "lora": (0.01,)}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return read_setting(world.build(tmp_path_factory.mktemp("world")))


def test_sets_are_the_two_ends_and_a_seeded_draw_of_the_eligible() -> None:
    order = np.random.default_rng(0).permutation(60)
    ranking = pd.DataFrame({"feature": order, "rank": np.arange(1, 61), "eligible": order % 4 != 0})
    sets = feature_sets(ranking, 10, 0)
    eligible = [int(f) for f in order if f % 4]
    assert sets["clean"] == sorted(eligible[:10])
    assert sets["messy"] == sorted(eligible[-10:])
    assert len(set(sets["random"])) == 10
    assert set(sets["random"]) <= set(eligible)
    assert feature_sets(ranking.sample(frac=1, random_state=1), 10, 0) == sets
    assert feature_sets(ranking, 10, 1)["random"] != sets["random"]


def test_scores_are_cross_entropy_and_the_divergence_from_the_base() -> None:
    base, other, tokenizer = tiny.network(), tiny.network(), tiny.tokenizer()
    with torch.no_grad():
        other.transformer.ln_f.weight *= 1.1
    sums, counts = token_scores(other, tokenizer, TEXTS[:3])
    tokens = torch.tensor([[tokenizer.eos_token_id, *tokenizer(TEXTS[2])["input_ids"]]])
    expected = other(input_ids=tokens, labels=tokens).loss.item() * counts[2]
    assert sums[2] == pytest.approx(expected, rel=1e-5)
    assert counts.tolist() == [10, 11, 12]
    same, _ = token_scores(base, tokenizer, TEXTS[:3], base)
    np.testing.assert_allclose(same, 0, atol=1e-6)
    moved, _ = token_scores(other, tokenizer, TEXTS[:3], base)
    p, q = (torch.log_softmax(m(tokens).logits[0, :-1], dim=-1) for m in (base, other))
    expected = torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True).item()
    assert moved[2] == pytest.approx(expected, rel=1e-4)
    assert moved.min() > 0


def test_intervals_are_of_means_a_token_over_texts() -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(5, 50, 400).astype(float)
    sums = counts * (2.0 + generator.normal(size=400))
    value, low, high = mean_interval(sums, counts, 0)
    assert value == sums.sum() / counts.sum()
    error = np.std(sums - value * counts) / counts.mean() / np.sqrt(400)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert low < value < high
    assert mean_interval(np.full(5, 3.0), np.ones(5), 0) == (3.0, 3.0, 3.0)


def test_every_adapter_starts_from_the_same_model(setting: Setting) -> None:
    path = str(setting.locate("primary"))
    target = {"hook": "blocks.1.hook_resid_pre", "sae": {"path": path}, "features": [1, 5, 9]}
    jobs = [
        ("bias", "some", lambda: SaeAdapterConfig(targets=[target], component="bias")),
        ("lora", "", lambda: baseline_config("lora", 2)),
        ("bias", "again", lambda: SaeAdapterConfig(targets=[target], component="bias")),
    ]
    texts = {"train": TEXTS, "check": TEXTS[:2], "topic": TEXTS[2:8], "other": TEXTS[8:]}
    options = TrainingOptions(max_steps=6, batch_size=4, evaluations=2)
    done: list[int] = []
    with torch.enable_grad():
        table = adapt(setting, jobs, texts, options, RATES, done.append)
    assert sum(done) == 3
    assert list(table["component"]) == ["none", "bias", "lora", "bias"]
    none, one, lora, again = (row for _, row in table.iterrows())
    assert one.drop("features").equals(again.drop("features"))
    assert one["learning_rate"] == 0.03, "what learns, not the first"
    assert one["parameters"] == 3 < lora["parameters"]
    for row in (one, lora):
        assert row["topic_gain"] == pytest.approx(none["topic_loss"] - row["topic_loss"])
        assert row["topic_gain"] != 0
        for name in ("topic_gain", "other_kl"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
        assert row["other_kl"] > 0


def test_held_out_texts_are_not_trained_on() -> None:
    from cleansteer.miniatures.text import HELD_OUT_PACKAGES, TRAINED_PACKAGES, gather

    assert not set(HELD_OUT_PACKAGES) & set(TRAINED_PACKAGES)
    train, held_out = (set(gather(("sympy",), split, 0)) for split in ("train", "validation"))
    assert len(train) > 1600
    assert len(held_out) >= 200
    assert len(train & held_out) < 0.02 * len(held_out)
