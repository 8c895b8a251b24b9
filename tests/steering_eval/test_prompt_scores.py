"""Scores on one neutral prompt against plain Hugging Face in float64, and their laws."""

import copy
from functools import cache
from typing import Any

import families
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from cleansteer.core.models import LanguageModel, wrap_model
from cleansteer.core.saes import Dictionary
from cleansteer.core.settings import SteeringSetting
from cleansteer.steering_eval import prompts
from cleansteer.steering_eval.collateral import CollateralPanel
from cleansteer.steering_eval.evaluation import Evaluator
from cleansteer.steering_eval.prompts import PROMPT_COLUMNS
from torch import Tensor

EXACT = 1e-5  # float64; norms and attention weights are float32 in Hugging Face's own code
SINGLE = 1e-4  # float32 against float64
TOLERANCE = {torch.float64: EXACT, torch.float32: SINGLE}
STRENGTH = 10.0
WEAK = 0.3  # promoted tokens are not the likeliest then
PROMOTED = 20
FEATURES = np.arange(96)[::-1].copy()
PANEL = CollateralPanel(np.arange(10), np.zeros(10, dtype=bool), np.ones(10))
DOWNSTREAM = "blocks.3.hook_resid_post"


@cache
def networks(family: str, dtype: torch.dtype) -> tuple[Any, LanguageModel]:
    """One network twice: untouched in float64, and as our model in ``dtype``."""
    made = families.network(family)
    return made, wrap_model(copy.deepcopy(made).to(dtype), tiny.tokenizer())


def dictionary(
    family: str, hook: str, dtype: torch.dtype = torch.float64, architecture: str = "jumprelu"
) -> Dictionary:
    network, model = networks(family, dtype)
    width = families.width_at(network, hook)
    return tiny.dictionary(architecture, model, hook, dtype=dtype, width=width)


def evaluator(
    family: str, primary: Dictionary, dtype: torch.dtype = torch.float64, full: bool = False
) -> Evaluator:
    downstream = dictionary(family, DOWNSTREAM, dtype)
    model = networks(family, dtype)[1]
    return Evaluator(model, primary, downstream, PANEL, SteeringSetting(), full)


def prompt(seed: int = 3) -> Tensor:
    return tiny.contexts(1, 7, seed)


def slowly(
    network: Any, sae: Any, hook: str, tokens: Tensor, strength: float = STRENGTH
) -> pd.DataFrame:
    """The definitions, from a full pass of every feature; ``rank`` is that of the best token."""
    clean, values = families.run(network, tokens, hook)
    largest = float(sae.encode(values).max())
    assert largest > 0
    pushes = strength * largest * sae.W_dec[FEATURES]
    logits, _ = families.run(network, tokens.expand(len(FEATURES), -1), hook, hook, pushes)
    footprint = families.lens(network, sae.W_dec[FEATURES], hook).numpy()
    before = clean[0].softmax(dim=-1).numpy()
    rows = []
    for feature, after, promotes in zip(
        FEATURES, logits.softmax(dim=-1).numpy(), footprint, strict=True
    ):
        chosen = np.argsort(-promotes)[:PROMOTED]
        ranks = {token: int((after > after[token]).sum()) for token in chosen}
        best = min(chosen, key=lambda token: ranks[token])
        rows.append(
            {
                "feature": feature,
                "output_score": (1 - ranks[best] / len(after)) * after[best],
                "delta_token_confidence": np.log(before.max()) - np.log(after.max()),
                "rank": ranks[best],
            }
        )
    return pd.DataFrame(rows)


def assert_equal(found: pd.DataFrame, expected: pd.DataFrame, tolerance: float) -> None:
    assert list(found.columns) == ["feature", *PROMPT_COLUMNS]
    assert found["feature"].tolist() == expected["feature"].tolist()
    np.testing.assert_allclose(found["output_score"], expected["output_score"], rtol=tolerance)
    name = "delta_token_confidence"  # a difference of logarithms that are about 4
    np.testing.assert_allclose(found[name], expected[name], atol=tolerance)


CASES = [
    (family, place)
    for family in ("gpt2", "gpt_neox", "gemma2", "llama")
    for place in families.sites_of(family)
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["64", "32"])
@pytest.mark.parametrize(("family", "place"), CASES)
def test_scores_equal_hugging_face(family: str, place: str, dtype: torch.dtype) -> None:
    hook = f"blocks.2.{place}"
    primary = dictionary(family, hook, dtype)
    exact = copy.deepcopy(primary.sae).to(torch.float64)
    made = evaluator(family, primary, dtype)
    assert made.resumed
    network = networks(family, dtype)[0]
    strong, weak = (slowly(network, exact, hook, prompt(), s) for s in (STRENGTH, WEAK))
    compared = [(made.prompt_scores(FEATURES, prompt()), strong)]
    if dtype == torch.float64:  # in float32 tokens alike to rounding may change their ranks
        compared.append((made.prompt_scores(FEATURES, prompt(), WEAK), weak))
    for found, expected in compared:
        assert_equal(found, expected, TOLERANCE[dtype])
        assert expected["output_score"].max() > 2 * expected["output_score"].min()
        assert expected["delta_token_confidence"].std() > 0.01
    assert weak["rank"].nunique() > 10


@pytest.mark.parametrize("place", ["hook_resid_pre", "attn.hook_z"])
@pytest.mark.parametrize("family", ["gemma2", families.UNKNOWN])
def test_scores_by_full_passes_equal_hugging_face(family: str, place: str) -> None:
    """The unembedding of the family that is not known has a bias."""
    hook = f"blocks.2.{place}"
    primary = dictionary(family, hook)
    expected = slowly(networks(family, torch.float64)[0], primary.sae, hook, prompt())
    slow = evaluator(family, primary, full=True)
    assert not slow.resumed
    assert_equal(slow.prompt_scores(FEATURES, prompt()), expected, EXACT)


def test_a_feature_is_scored_alone_as_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made = evaluator("llama", dictionary("llama", "blocks.1.attn.hook_z", architecture="topk"))
    together = made.prompt_scores(FEATURES, prompt())
    monkeypatch.setattr(prompts, "_QUERIES", 5)
    pd.testing.assert_frame_equal(made.prompt_scores(FEATURES, prompt()), together, rtol=1e-9)
    alone = [made.prompt_scores(FEATURES[[i]], prompt()) for i in (0, 50, 95)]
    pd.testing.assert_frame_equal(
        pd.concat(alone, ignore_index=True),
        together.iloc[[0, 50, 95]].reset_index(drop=True),
        rtol=1e-9,
    )


def test_an_sae_that_is_silent_there_pushes_nothing() -> None:
    primary = dictionary("gpt2", "blocks.2.hook_resid_pre", architecture="standard")
    primary.sae.b_enc.data -= 1e3
    found = evaluator("gpt2", primary).prompt_scores(FEATURES, prompt())
    assert (found["delta_token_confidence"].abs() < 1e-12).all()


def test_another_prompt_has_other_scores() -> None:
    made = evaluator("gpt2", dictionary("gpt2", "blocks.2.hook_resid_pre"))
    one, other = (made.prompt_scores(FEATURES, prompt(seed)) for seed in (3, 4))
    assert (one[list(PROMPT_COLUMNS)] != other[list(PROMPT_COLUMNS)]).all(axis=None)


def test_scoring_leaves_the_model_as_it_was() -> None:
    primary = dictionary("gpt2", "blocks.2.hook_resid_pre")
    model = networks("gpt2", torch.float64)[1]
    before, logits = copy.deepcopy(model.parameters), model.bridge(prompt())
    decoder = primary.decoder.clone()
    evaluator("gpt2", primary).prompt_scores(FEATURES, prompt())
    assert torch.equal(model.bridge(prompt()), logits)
    assert torch.equal(primary.decoder, decoder)
    assert all(torch.equal(model.parameters[name], tensor) for name, tensor in before.items())
