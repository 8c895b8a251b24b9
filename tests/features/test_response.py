"""Linear response against a dense reading of its definition, its laws, and small doses that are really
steered.
"""

import copy
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import families
import numpy as np
import oracle
import pandas as pd
import pytest
import scipy.sparse
import tiny
import torch
from cleansteer.core.models import LanguageModel, wrap_model
from cleansteer.core.saes import Dictionary
from cleansteer.core.settings import SteeringSetting
from cleansteer.features import response
from cleansteer.features.response import PREFIX, STABILITY, measure_response
from cleansteer.steering_eval.choice import plan_all
from cleansteer.steering_eval.collateral import CollateralPanel, CollateralReader
from cleansteer.steering_eval.derivative import Differentiator, Jacobians
from cleansteer.steering_eval.evaluation import Evaluator
from cleansteer.steering_eval.vocabulary import VocabularyReader

SITE, TAP = "blocks.1.hook_resid_pre", "blocks.3.hook_resid_post"
N_CONTEXTS, N_FEATURES = 6, 96
PANEL = CollateralPanel(
    np.arange(0, N_FEATURES, 2),
    np.arange(N_FEATURES // 2) < 3,
    np.linspace(0.2, 2, N_FEATURES // 2),
)

CLOSE = 2e-5


@cache
def model_of(family: str) -> LanguageModel:
    return wrap_model(copy.deepcopy(families.network(family)), tiny.tokenizer())


@cache
def dictionaries(family: str, architecture: str) -> tuple[Dictionary, Dictionary]:
    one, other = (
        tiny.dictionary(architecture, model_of(family), hook, dtype=torch.float64, seed=seed)
        for hook, seed in ((SITE, 1), (TAP, 2))
    )
    return one, other


def evaluator(family: str, saes: tuple[Dictionary, Dictionary], **steering: object) -> Evaluator:
    return Evaluator(model_of(family), *saes, PANEL, SteeringSetting(**steering))


@cache
def jacobians(family: str, saes: tuple[Dictionary, Dictionary]) -> list[Jacobians]:
    worker = Differentiator(evaluator(family, saes).forward, saes[1].site)
    return list(worker.jacobians(tiny.contexts(N_CONTEXTS)))


def measure(
    family: str,
    saes: tuple[Dictionary, Dictionary],
    pushes: np.ndarray,
    directions: torch.Tensor | None = None,
) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """Columns without their prefix, and tokens; ``pushes`` are ``[feature, context]``."""
    columns, tokens = measure_response(
        jacobians(family, saes),
        saes[0].decoder if directions is None else directions,
        lambda block, _: torch.as_tensor(pushes[block]),
        CollateralReader(saes[1], PANEL, reconstruction=False),
        VocabularyReader.of_model(model_of(family)),
    )
    return {name.removeprefix(PREFIX): values for name, values in columns.items()}, tokens


def varied() -> np.ndarray:
    return 0.5 + np.random.default_rng(0).random((N_FEATURES, N_CONTEXTS))


def expected(
    family: str, saes: tuple[Dictionary, Dictionary], pushes: np.ndarray, feature: int
) -> dict[str, float]:
    """Every column of one feature, written out."""
    reader = VocabularyReader.of_model(model_of(family))
    direction, D, U, moved, divergences = saes[0].decoder[feature], [], [], [], []
    curvatures = []
    for index, each in enumerate(jacobians(family, saes)):
        push = pushes[feature, index]
        logits = reader.logits(each.output)[0]
        slope = reader.slopes(logits).numpy()
        change = push * slope * (reader.change(direction @ each.to_output[0])).numpy()
        p = logits.softmax(dim=0).numpy()
        divergences.append(((p * change**2).sum() - (p * change).sum() ** 2) / 2)
        curvatures.append(divergences[-1] / push**2)
        tapped, dh = each.tapped[0], push * (direction @ each.to_tap[0])
        encoded = [
            saes[1].encode(values).numpy()[PANEL.features] for values in (tapped + dh, tapped)
        ]
        D.append(change)
        U.append(np.abs(encoded[0] - encoded[1]))
        moved.append(float(dh.norm()))
    measured = oracle.stability(np.array(D))
    effect = float(np.mean([np.linalg.norm(row) for row in D]))
    found = {name: measured[name] for name in STABILITY if name != "effect_l2"}
    found |= {
        "effect_l2": effect,
        "kl_clean_steered": float(np.mean(divergences)),
        "curvature": float(np.mean(curvatures)),
        "collateral_l2": float(np.mean([np.linalg.norm(row) for row in U])),
        "collateral_effective": float(np.mean([oracle.effective_count(row) for row in U])),
        "resid_delta_norm": float(np.mean(moved)),
    }
    for threshold in (0.01, 0.05, 0.1):
        found[f"collateral_count_{threshold}"] = float(
            np.mean([(row > threshold).sum() for row in U])
        )
    found["collateral_count_0.05_sparse"] = float(
        np.mean([(row > 0.05)[~PANEL.dense].sum() for row in U])
    )
    relative = [row / PANEL.scales for row in U]
    for threshold in (0.05, 0.2, 0.5):
        found[f"collateral_relative_count_{threshold}"] = float(
            np.mean([(row > threshold).sum() for row in relative])
        )
    found["collateral_relative_mass"] = float(np.mean([row.sum() for row in relative]))
    found["collateral_per_effect"] = found["collateral_count_0.05"] / (effect + 1e-8)
    found["collateral_relative_per_effect"] = found["collateral_relative_mass"] / (effect + 1e-8)
    return found


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("family", [*families.FAMILIES, families.UNKNOWN])
def test_columns_are_their_definitions(family: str, architecture: str) -> None:
    saes, pushes = dictionaries(family, architecture), varied()
    columns, _ = measure(family, saes, pushes)
    for feature in (0, 7, 95):
        truth = expected(family, saes, pushes, feature)
        assert set(truth) == set(columns)
        for name, value in truth.items():
            assert columns[name][feature] == pytest.approx(value, rel=CLOSE, abs=1e-9), name


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
@pytest.mark.parametrize("uneven", [(), (7,), range(N_FEATURES)], ids=["none", "one", "all"])
def test_a_push_may_be_the_same_in_all_contexts_or_not(family: str, uneven: Iterable[int]) -> None:
    saes, pushes = dictionaries(family, "jumprelu"), np.full((N_FEATURES, N_CONTEXTS), 0.8)
    pushes[list(uneven)] = varied()[list(uneven)]
    columns, _ = measure(family, saes, pushes)
    for feature in (0, 7, 95):
        for name, value in expected(family, saes, pushes, feature).items():
            assert columns[name][feature] == pytest.approx(value, rel=CLOSE, abs=1e-9), name


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_a_small_dose_that_is_steered_says_the_same(
    family: str, architecture: str, tmp_path: Path
) -> None:
    saes, dose = dictionaries(family, architecture), 1e-3
    features = np.array([3, 11, 40])
    columns, _ = measure(family, saes, np.full((N_FEATURES, N_CONTEXTS), dose))
    steered = evaluator(family, saes, alpha=dose).evaluate(
        plan_all(features, N_CONTEXTS),
        tiny.contexts(N_CONTEXTS),
        scipy.sparse.csc_array(np.zeros((N_CONTEXTS, N_FEATURES))),
        pd.DataFrame({"feature": range(N_FEATURES), "final_act_q95": 0.0}),
        1.0,
        tmp_path,
    )
    for name in (*STABILITY, "kl_clean_steered", "collateral_l2", "resid_delta_norm"):
        assert columns[name][features] == pytest.approx(steered[name].to_numpy(), rel=5e-3), name


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_permuted_features_permute_the_rows(family: str) -> None:
    saes, pushes = dictionaries(family, "jumprelu"), varied()
    order = np.random.default_rng(1).permutation(N_FEATURES)
    columns, tokens = measure(family, saes, pushes)
    permuted, their_tokens = measure(
        family, saes, pushes[order], saes[0].decoder[torch.as_tensor(order)]
    )
    for name, values in columns.items():
        assert permuted[name] == pytest.approx(values[order], rel=1e-9, abs=1e-12), name
    assert torch.equal(their_tokens, tokens[torch.as_tensor(order)])


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_longer_direction_does_as_a_stronger_push(family: str) -> None:
    saes, pushes = dictionaries(family, "jumprelu"), varied()
    once, tokens = measure(family, saes, pushes)
    longer, same = measure(family, saes, pushes, saes[0].decoder * 3)
    stronger, _ = measure(family, saes, pushes * 3)
    assert longer["curvature"] == pytest.approx(9 * stronger.pop("curvature"))
    for name, values in stronger.items():
        assert longer[name] == pytest.approx(values, rel=1e-6), name
    assert longer["effect_l2"] == pytest.approx(3 * once["effect_l2"])
    assert longer["resid_delta_norm"] == pytest.approx(3 * once["resid_delta_norm"])
    assert longer["kl_clean_steered"] == pytest.approx(9 * once["kl_clean_steered"])
    assert longer["stability_abs"] == pytest.approx(once["stability_abs"])
    assert torch.equal(same, tokens)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_tokens_are_those_that_the_mean_change_moves_most(family: str) -> None:
    saes = dictionaries(family, "standard")
    _, tokens = measure(family, saes, varied())
    reader = VocabularyReader.of_model(model_of(family))
    changes = []
    for each in jacobians(family, saes):
        slopes = reader.slopes(reader.logits(each.output))
        changes.append(slopes * reader.change(saes[0].decoder @ each.to_output[0]))
    mean = torch.stack(changes).mean(dim=0)
    for feature in (0, 7, 95):
        order = mean[feature].argsort(descending=True)
        assert tokens[feature, 0].tolist() == order[: response.TOP_TOKENS].tolist()
        assert tokens[feature, 1].tolist() == order.flip(0)[: response.TOP_TOKENS].tolist()


@pytest.mark.parametrize("elements", [1, 5000, 1 << 24])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_blocks_change_nothing(family: str, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    saes, pushes = dictionaries(family, "topk"), varied()
    whole, tokens = measure(family, saes, pushes)
    monkeypatch.setitem(response._ELEMENTS, "cpu", elements)
    monkeypatch.setattr(response, "_VOCABULARY_BLOCK", 77)
    parts, same = measure(family, saes, pushes)
    for name, values in whole.items():
        assert parts[name] == pytest.approx(values, rel=1e-9, abs=1e-12), name
    assert torch.equal(same, tokens)


def test_a_direction_of_nothing_does_nothing() -> None:
    saes = dictionaries("gpt2", "jumprelu")
    directions = saes[0].decoder.clone()
    directions[5] = 0
    columns, _ = measure("gpt2", saes, varied(), directions)
    assert all(np.isfinite(values).all() for values in columns.values())
    assert columns["effect_l2"][5] == columns["kl_clean_steered"][5] == 0
    assert columns["collateral_count_0.01"][5] == 0
    assert columns["collateral_l2"][5] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float32, 1e-3), (torch.bfloat16, 0.05)], ids=["32", "bfloat16"]
)
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_what_fewer_digits_leave(family: str, dtype: torch.dtype, close: float) -> None:
    """Medians over features: rounding moves a few of them further."""
    double, pushes = dictionaries(family, "jumprelu"), varied()
    exact, _ = measure(family, double, pushes)
    model = wrap_model(copy.deepcopy(families.network(family)).to(dtype), tiny.tokenizer())
    saes = [
        tiny.dictionary("jumprelu", model, hook, seed=seed) for hook, seed in ((SITE, 1), (TAP, 2))
    ]
    forward = Evaluator(model, *saes, PANEL, SteeringSetting()).forward
    columns, _ = measure_response(
        list(Differentiator(forward, saes[1].site).jacobians(tiny.contexts(N_CONTEXTS))),
        saes[0].decoder,
        lambda block, _: torch.as_tensor(pushes[block]),
        CollateralReader(saes[1], PANEL, reconstruction=False),
        VocabularyReader.of_model(model),
    )
    for name in (*STABILITY, "kl_clean_steered", "resid_delta_norm", "collateral_l2"):
        apart = np.abs(columns[PREFIX + name] / exact[name] - 1)
        assert np.median(apart) < close, (name, np.median(apart))
