"""SAEs that normalise what they read, or read heads: fast labels against the slow oracle's."""

from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from bench import EXACT, SINGLE, Bench, assert_equals_oracle
from cleansteer.steering_eval import collateral, pairs

NORMALISATIONS = ("layer_norm", "constant_norm_rescale")
FEATURES = [3, 11, 40]


def normalised(
    architecture: str, normalisation: str, dtype: torch.dtype = torch.float64, **steering: object
) -> Bench:
    config = {"normalize_activations": normalisation}
    return Bench(architecture, dtype, config=config, **steering)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_normalising_saes_equal_slow(architecture: str, normalisation: str, tmp_path: Path) -> None:
    bench = normalised(architecture, normalisation)
    table = bench.evaluate(FEATURES, tmp_path)
    assert_equals_oracle(bench, table, EXACT)
    explained = table["resid_explained"]
    assert explained.nunique() > len(table) // 2
    assert explained.abs().min() > 1e-3
    assert (table["collateral_count_0.05"] > 0).all()


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_normalising_saes_equal_slow_in_float32(normalisation: str, tmp_path: Path) -> None:
    fast = normalised("standard", normalisation, torch.float32)
    slow = normalised("standard", normalisation)
    assert_equals_oracle(slow, fast.evaluate(FEATURES, tmp_path), SINGLE)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_normalisation_changes_the_labels(normalisation: str, tmp_path: Path) -> None:
    """The comparisons above are of something."""
    plain, other = (
        normalised("standard", kind).evaluate(FEATURES, tmp_path)
        for kind in ("none", normalisation)
    )
    for name in ("resid_explained", "collateral_l2"):
        assert (plain[name] != other[name]).all()


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_small_batches_change_nothing(
    normalisation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SAELens remembers of an input until it decodes belongs to that input."""
    bench = normalised("jumprelu", normalisation)
    whole = bench.evaluate(FEATURES, tmp_path)
    monkeypatch.setattr(collateral, "_ELEMENTS", {"cpu": 1})
    monkeypatch.setattr(pairs, "_MOST_QUERIES", 5)
    pd.testing.assert_frame_equal(bench.evaluate(FEATURES, tmp_path), whole, rtol=EXACT)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_without_reconstruction_the_other_labels_stay(normalisation: str, tmp_path: Path) -> None:
    """The panel alone is encoded then."""
    full = normalised("gated", normalisation).evaluate(FEATURES, tmp_path)
    lean = normalised("gated", normalisation, reconstruction_labels=False)
    table = lean.evaluate(FEATURES, tmp_path)
    assert set(full.columns) - set(table.columns) == {"resid_explained"}
    pd.testing.assert_frame_equal(full[table.columns], table, rtol=EXACT)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_saes_of_joined_heads_equal_saes_that_join_them(architecture: str, tmp_path: Path) -> None:
    """Labels do not depend on whether the SAE's own configuration joins heads."""
    hooks = ("blocks.1.attn.hook_z", "blocks.2.attn.hook_z")
    tables = [
        Bench(architecture, torch.float64, hooks, config={"reshape_activations": reshape}).evaluate(
            FEATURES, tmp_path
        )
        for reshape in ("none", "hook_z")
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert (tables[0]["resid_explained"] != 0).all()
