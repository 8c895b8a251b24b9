"""Every family, at every site it has, with every kind of SAE: fast equals plain Hugging Face."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import families
import numpy as np
import pandas as pd
import pytest
import slowly
import tiny
import torch
from cleansteer.benchmarks.models import examine
from cleansteer.core.models import LanguageModel, wrap_model
from cleansteer.core.saes import Dictionary
from cleansteer.core.settings import SteeringSetting
from cleansteer.steering_eval import vocabulary
from cleansteer.steering_eval.choice import Plan
from cleansteer.steering_eval.collateral import CollateralPanel, choose_panel
from cleansteer.steering_eval.evaluation import Evaluator
from cleansteer.steering_eval.families import find_blocks

EXACT = 1e-5  # float64; norms and attention weights are float32 in Hugging Face's own code
SINGLE = 1e-4  # float32 against float64
TOLERANCE = {torch.float64: EXACT, torch.float32: SINGLE}
# Threshold crossings by rounding, in all contexts of a row: Hugging Face's float32 norms and
# attention weights bring them about in float64 too, on one processor and not on another.
CROSSINGS = 1
FEATURES = np.array([3, 11, 40])
N_CONTEXTS = 12
STRENGTH = 1.5
ARCHITECTURES = ("standard", "jumprelu", "topk", "gated")


@cache
def networks(family: str, dtype: torch.dtype) -> tuple[Any, LanguageModel]:
    """One network twice: untouched in float64, and as our model in ``dtype``."""
    made = families.network(family)
    return made, wrap_model(copy.deepcopy(made).to(dtype), tiny.tokenizer())


def width_at(model: LanguageModel, hook: str) -> int:
    if not hook.endswith("hook_z"):
        return tiny.WIDTH
    config = model.config
    return int(config.num_attention_heads * (getattr(config, "head_dim", None) or 8))


def dictionary(
    model: LanguageModel, architecture: str, hook: str, dtype: torch.dtype, seed: int
) -> Dictionary:
    return tiny.dictionary(
        architecture, model, hook, dtype=dtype, seed=seed, width=width_at(model, hook)
    )


def evaluate(
    model: LanguageModel,
    primary: Dictionary,
    downstream: Dictionary,
    panel: CollateralPanel,
    folder: Path,
    full: bool = False,
    **steering: object,
) -> pd.DataFrame:
    every = np.arange(N_CONTEXTS)
    plan = Plan(FEATURES, [{"all": every} for _ in FEATURES], [every for _ in FEATURES])
    table = pd.DataFrame({"feature": range(96), "final_act_q95": 0.0})
    evaluator = Evaluator(model, primary, downstream, panel, SteeringSetting(**steering), full)
    assert evaluator.resumed == (not full and model.config.model_type != families.UNKNOWN)
    nothing = np.zeros((N_CONTEXTS, 96))
    return evaluator.evaluate(
        plan, tiny.contexts(N_CONTEXTS), sparse(nothing), table, STRENGTH, folder
    )


def sparse(values: np.ndarray) -> Any:
    import scipy.sparse

    return scipy.sparse.csc_array(values)


CASES = [
    (family, place, ARCHITECTURES[number % len(ARCHITECTURES)])
    for family in families.FAMILIES
    for number, place in enumerate(families.sites_of(family))
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["64", "32"])
@pytest.mark.parametrize(("family", "place", "architecture"), CASES)
def test_fast_equals_hugging_face_at_every_site(
    family: str, place: str, architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    compare(family, (f"blocks.1.{place}", f"blocks.3.{place}"), architecture, dtype, tmp_path)


@pytest.mark.parametrize("family", families.BIASES)
def test_families_with_and_without_biases(family: str, tmp_path: Path) -> None:
    hooks = "blocks.1.hook_resid_pre", "blocks.3.hook_resid_post"
    compare(family, hooks, "jumprelu", torch.float64, tmp_path)


def compare(
    family: str,
    hooks: tuple[str, str],
    architecture: str,
    dtype: torch.dtype,
    folder: Path,
    full: bool = False,
) -> None:
    """Our labels of some features against Hugging Face's own passes, column by column."""
    tolerance = TOLERANCE[dtype]
    network, model = networks(family, dtype)
    primary, downstream = (
        dictionary(model, architecture, hook, dtype, seed)
        for hook, seed in zip(hooks, (1, 2), strict=True)
    )
    contexts = tiny.contexts(N_CONTEXTS)
    clean = families.run(network, tiny.contexts(), hooks[1])[1]
    exact = [copy.deepcopy(d.sae).to(torch.float64) for d in (primary, downstream)]
    fires = (exact[1].encode(clean) > 1e-6).double().mean(dim=0).numpy()
    table = {"feature": range(96), "final_act_freq": fires, "final_firing_median": 1.0}
    panel = choose_panel(pd.DataFrame(table), 60)
    table = evaluate(model, primary, downstream, panel, folder, full)
    for _, row in table.iterrows():
        push = STRENGTH * exact[0].W_dec[int(row["feature"])].detach()
        expected = slowly.labels(
            network, exact[1], hooks, panel, contexts, push, model.vocabulary_centred
        )
        slowly.agree(row, expected, tolerance, CROSSINGS / N_CONTEXTS)


@pytest.mark.parametrize("place", families.sites_of("gpt_neox"))
def test_a_family_that_is_not_known_is_steered_by_full_passes(place: str, tmp_path: Path) -> None:
    hooks = (f"blocks.1.{place}", f"blocks.2.{place}")
    compare(families.UNKNOWN, hooks, "standard", torch.float64, tmp_path)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_full_passes_equal_hugging_face_too(family: str, tmp_path: Path) -> None:
    for place in ("attn.hook_z", families.sites_of(family)[3]):
        hooks = (f"blocks.1.{place}", "blocks.2.hook_resid_post")
        compare(family, hooks, "jumprelu", torch.float64, tmp_path, full=True)


@pytest.mark.parametrize(
    "hooks",
    [
        ("blocks.2.attn.hook_z", "blocks.2.hook_resid_mid"),
        ("blocks.2.hook_resid_pre", "blocks.2.hook_mlp_out"),
        ("blocks.2.hook_attn_out", "blocks.2.hook_resid_post"),
        ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_pre"),
        ("blocks.1.attn.hook_z", "blocks.1.attn.hook_z"),
        ("blocks.3.hook_mlp_out", "blocks.3.hook_resid_post"),
        ("blocks.3.hook_resid_post", "blocks.3.hook_resid_post"),
    ],
)
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "llama", "qwen2"])
def test_mixed_sites_equal_hugging_face(
    family: str, hooks: tuple[str, str], tmp_path: Path
) -> None:
    compare(family, hooks, "standard", torch.float64, tmp_path)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_sites_are_read_where_hugging_face_has_them(family: str) -> None:
    network, model = networks(family, torch.float64)
    tokens = tiny.contexts(6)
    for layer in range(families.LAYERS):
        for place in families.sites_of(family):
            hook = f"blocks.{layer}.{place}"
            (found,) = model.read(tokens, [tiny.site(hook, model)])
            _, expected = families.run(network, tokens, hook)
            torch.testing.assert_close(found[:, -1], expected, rtol=EXACT, atol=EXACT)


def test_the_part_of_a_model_that_reads_text_is_known() -> None:
    """Gemma-3 of 4 billion parameters and more sees pictures too."""
    found = examine("gemma3")
    assert found.name == "Gemma3ForConditionalGeneration"
    assert found.verdict == "right", found.detail
    assert "fast" in found.detail


def test_soft_capped_labels_without_vocabulary_columns_stay(tmp_path: Path) -> None:
    """Where logits are soft-capped, stability and effect need every logit all the same."""
    _, model = networks("gemma2", torch.float64)
    hooks = ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_post")
    primary, downstream = (
        dictionary(model, "standard", hook, torch.float64, seed)
        for hook, seed in zip(hooks, (1, 2), strict=True)
    )
    panel = CollateralPanel(np.arange(60), np.zeros(60, dtype=bool), np.ones(60))
    full = evaluate(model, primary, downstream, panel, tmp_path)
    lean = evaluate(model, primary, downstream, panel, tmp_path, vocabulary_labels=False)
    assert set(full.columns) - set(lean.columns) == set(vocabulary.COLUMNS)
    pd.testing.assert_frame_equal(full[lean.columns], lean, rtol=1e-9)


def test_phi3_with_positions_scaled_for_long_contexts_takes_full_passes() -> None:
    config = families.CONFIGURATIONS["phi3"]()
    rotated = config.hidden_size // config.num_attention_heads // 4
    config.rope_parameters |= {
        "rope_type": "longrope",
        "short_factor": [1.0] * rotated,
        "long_factor": [2.0] * rotated,
        "original_max_position_embeddings": 16,
        "factor": 4.0,
    }
    assert find_blocks(wrap_model(families.build(config), tiny.tokenizer())) is None
    _, known = networks("phi3", torch.float64)
    assert find_blocks(known) is not None
