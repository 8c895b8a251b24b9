"""Random directions in the places of features."""

import numpy as np
import pytest
import torch
from cleansteer.steering_eval.interventions import random_like

N_FEATURES, WIDTH = 40, 200


def decoder(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Directions whose norms differ by a factor of a hundred."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(N_FEATURES, WIDTH, generator=generator, dtype=torch.float64)
    return (rows * torch.logspace(-1, 1, N_FEATURES, dtype=torch.float64)[:, None]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_each_has_its_features_norm_and_dtype_but_not_its_direction(dtype: torch.dtype) -> None:
    rows, features = decoder(dtype), np.array([3, 17, 39])
    found = random_like(rows, features, seed=0)
    assert found.dtype == dtype
    torch.testing.assert_close(found.norm(dim=1), rows[features].norm(dim=1))
    cosines = torch.nn.functional.cosine_similarity(found, rows[features])
    assert (cosines.abs() < 0.5).all()


def test_each_depends_on_its_feature_and_the_seed_alone() -> None:
    rows = decoder()
    every = random_like(rows, np.arange(N_FEATURES), seed=1)
    some = np.array([30, 2])
    assert torch.equal(random_like(rows, some, seed=1), every[some])
    assert not torch.equal(random_like(rows, some, seed=2), every[some])
    unit = every / every.norm(dim=1, keepdim=True)
    between = (unit @ unit.T).fill_diagonal_(0.0)
    assert (between.abs() < 0.5).all()


def test_they_point_nowhere_on_average() -> None:
    rows = torch.ones(2000, WIDTH, dtype=torch.float64)
    mean = random_like(rows, np.arange(len(rows)), seed=0).mean(dim=0)
    # 2,000 directions of norm sqrt(200): each coordinate has deviation 1, its mean 1/sqrt(2000).
    assert (mean.abs() < 5 / np.sqrt(len(rows))).all()
