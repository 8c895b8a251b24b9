"""The fast evaluator against the slow oracle, and its laws."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from bench import EXACT, SINGLE, Bench, assert_equals_oracle
from cleansteer.steering_eval import pairs, sums, vocabulary
from cleansteer.steering_eval.pairs import PairMeasurer
from cleansteer.steering_eval.parts import MeasuredPairs, PairStore

FEATURES = [3, 11, 40, 77]


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("mode", ["add", "clamp_global", "clamp_q95"])
def test_fast_equals_slow_exactly_in_float64(architecture: str, mode: str, tmp_path: Path) -> None:
    bench = Bench(architecture, torch.float64, mode=mode)
    table = bench.evaluate(FEATURES, tmp_path)
    assert sorted(set(table["context_type"])) == ["low", "mixed", "random", "top"]
    assert_equals_oracle(bench, table, EXACT)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_fast_equals_slow_in_float32(architecture: str, tmp_path: Path) -> None:
    fast = Bench(architecture, torch.float32)
    slow = Bench(architecture, torch.float64)
    assert_equals_oracle(slow, fast.evaluate(FEATURES, tmp_path), SINGLE)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(
    "hooks",
    [
        ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"),
        ("blocks.2.hook_resid_pre", "blocks.2.hook_resid_pre"),
        ("blocks.1.hook_resid_post", "blocks.3.hook_resid_post"),
        ("blocks.3.hook_resid_post", "blocks.3.hook_resid_post"),
    ],
)
def test_every_site_equals_slow(hooks: tuple[str, str], centred: bool, tmp_path: Path) -> None:
    bench = Bench("standard", torch.float64, hooks=hooks, centred=centred)
    assert_equals_oracle(bench, bench.evaluate(FEATURES[:2], tmp_path), EXACT)


@pytest.mark.parametrize(
    "changes",
    [
        {"scale_attn_by_inverse_layer_idx": True},
        {"activation_function": "relu"},
    ],
)
def test_gpt2_variants_equal_slow(
    changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tiny.model
    monkeypatch.setattr(tiny, "model", lambda dtype: original(dtype, **changes))
    bench = Bench("standard", torch.float64)
    assert_equals_oracle(bench, bench.evaluate(FEATURES[:2], tmp_path), EXACT)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_batched_equals_one_by_one(architecture: str, tmp_path: Path) -> None:
    bench = Bench(architecture, torch.float64)
    together = bench.evaluate(FEATURES, tmp_path)
    alone = [bench.evaluate([feature], tmp_path) for feature in FEATURES]
    pd.testing.assert_frame_equal(together, pd.concat(alone, ignore_index=True), rtol=EXACT)


def test_small_batches_and_parts_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench("jumprelu", torch.float64)
    whole = bench.evaluate(FEATURES, tmp_path)
    monkeypatch.setattr(pairs, "_MOST_QUERIES", 3)
    monkeypatch.setattr(pairs, "_PART_ELEMENTS", 1)
    monkeypatch.setattr(vocabulary, "_COLUMNS_AT_ONCE", {"cpu": 37})
    monkeypatch.setattr(sums, "_ELEMENTS_AT_ONCE", 1)
    pd.testing.assert_frame_equal(bench.evaluate(FEATURES, tmp_path), whole, rtol=EXACT)


def test_alpha_near_zero_changes_nothing_and_doubles_linearly(tmp_path: Path) -> None:
    sizes = [
        Bench("standard", torch.float64, alpha=alpha).evaluate(FEATURES, tmp_path)
        for alpha in (1e-6, 2e-6)
    ]
    assert (sizes[0][["effect_l2", "kl_clean_steered", "collateral_l2"]] < 1e-3).all(axis=None)
    np.testing.assert_allclose(sizes[1]["effect_l2"], 2 * sizes[0]["effect_l2"], rtol=1e-4)


def test_a_zero_decoder_row_has_no_effect(tmp_path: Path) -> None:
    bench = Bench("standard", torch.float64)
    bench.primary.sae.W_dec.data[3] = 0
    table = bench.evaluate([3], tmp_path)
    for name in ("effect_l2", "effect_l1", "kl_clean_steered", "collateral_l2", "stability_abs"):
        assert (table[name] == 0).all(), name
    assert np.isfinite(table.select_dtypes("number").to_numpy()).all()


def test_doubling_the_decoder_halves_the_coefficient(tmp_path: Path) -> None:
    plain = Bench("standard", torch.float64, alpha=1.0)
    doubled = Bench("standard", torch.float64, alpha=0.5)
    doubled.primary.sae.W_dec.data *= 2
    tables = [
        bench.evaluate(FEATURES, tmp_path).drop(columns=["coefficient", "alpha"])
        for bench in (plain, doubled)
    ]
    pd.testing.assert_frame_equal(*tables, rtol=EXACT)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_permuting_the_dictionary_permutes_the_labels(architecture: str, tmp_path: Path) -> None:
    bench = Bench(architecture, torch.float64)
    table = bench.evaluate(FEATURES, tmp_path)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(5))
    place = torch.argsort(order)
    state = bench.primary.sae.state_dict()
    for name, tensor in state.items():
        if name != "b_dec":
            state[name] = tensor[:, order] if name == "W_enc" else tensor[order]
    bench.primary.sae.load_state_dict(state)
    bench.activations = bench.activations[:, order.numpy()]
    moved = bench.evaluate([int(place[f]) for f in FEATURES], tmp_path)
    pd.testing.assert_frame_equal(
        table.drop(columns="feature"), moved.drop(columns="feature"), rtol=EXACT
    )


def test_model_and_saes_are_bit_for_bit_as_before(tmp_path: Path) -> None:
    bench = Bench("topk", torch.float32)
    before = {name: tensor.clone() for name, tensor in bench.model.parameters.items()}
    logits = bench.model.bridge(bench.contexts)
    codes = bench.primary.sae.encode(torch.ones(tiny.WIDTH))
    bench.evaluate(FEATURES, tmp_path)
    for name, tensor in bench.model.parameters.items():
        assert torch.equal(tensor, before[name]), name
    assert torch.equal(bench.model.bridge(bench.contexts), logits)
    assert torch.equal(bench.primary.sae.encode(torch.ones(tiny.WIDTH)), codes)


def test_without_reconstruction_and_vocabulary_the_other_labels_stay(tmp_path: Path) -> None:
    full = Bench("jumprelu", torch.float64).evaluate(FEATURES, tmp_path)
    lean = Bench(
        "jumprelu", torch.float64, vocabulary_labels=False, reconstruction_labels=False
    ).evaluate(FEATURES, tmp_path)
    assert set(full.columns) - set(lean.columns) == {*vocabulary.COLUMNS, "resid_explained"}
    pd.testing.assert_frame_equal(full[lean.columns], lean, rtol=EXACT)


def test_finished_parts_are_kept_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "_MOST_QUERIES", 6)
    monkeypatch.setattr(pairs, "_PART_ELEMENTS", 1)
    bench = Bench("standard", torch.float32)
    whole = bench.evaluate(FEATURES, tmp_path / "whole")
    measured = []
    original = PairMeasurer._measure

    def measure_or_die(self: PairMeasurer, *args: object) -> object:
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append(args)
        return original(self, *args)

    monkeypatch.setattr(PairMeasurer, "_measure", measure_or_die)
    with pytest.raises(KeyboardInterrupt):
        bench.evaluate(FEATURES, tmp_path / "run")
    done = len(list((tmp_path / "run").rglob("part-*.safetensors")))
    assert done >= 2
    monkeypatch.setattr(PairMeasurer, "_measure", original)
    written: list[int] = []
    write = PairStore.write

    def count(self: PairStore, part: int, measured: MeasuredPairs) -> None:
        written.append(part)
        write(self, part, measured)

    monkeypatch.setattr(PairStore, "write", count)
    resumed = bench.evaluate(FEATURES, tmp_path / "run")
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    again = written.copy()
    written.clear()
    bench.evaluate(FEATURES, tmp_path / "anew")
    assert again == written[done:], "finished parts are not computed again"


def test_a_push_so_strong_that_exponentials_overflow_equals_slow(tmp_path: Path) -> None:
    for dtype, tolerance in ((torch.float64, EXACT), (torch.float32, SINGLE)):
        bench = Bench("standard", dtype)
        bench.model.parameters["transformer.ln_f.weight"].mul_(2000.0)
        slow = Bench("standard", torch.float64)
        slow.model.parameters["transformer.ln_f.weight"].mul_(2000.0)
        table = bench.evaluate(FEATURES[:2], tmp_path)
        assert (table["effect_linf"] > 1000).all()
        assert_equals_oracle(slow, table, tolerance)
