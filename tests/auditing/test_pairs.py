"""Pairs of features that components join, as they were planted, and mean Jacobians as derivatives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lessons
import numpy as np
import planted
import pytest
import torch
from cleansteer.adapters.components.component import build
from cleansteer.auditing.pairs import mean_jacobian

Command = Callable[..., Any]


def test_pairs_are_what_was_planted(
    built: Path,
    tmp_path: Path,
    audit: Command,
) -> None:
    """Feature 0 always fires: it acts on 7, and less on 9."""
    matrix = torch.zeros(96, 96)
    matrix[7, 0], matrix[9, 0], matrix[0, 0] = 0.5, -0.1, 0.3
    adapter = planted.plant(built, tmp_path / "adapter", "sparse", matrix=matrix)
    found = audit(adapter, "--data", lessons.write(tmp_path / "few.jsonl", planted.TEXTS))
    assert [(pair["source"], pair["target"]) for pair in found["pairs"]] == [(0, 7), (0, 9)]
    mean = float(torch.cat(planted.latents(built))[:, 0].mean())
    assert found["pairs"][0]["weight"] == pytest.approx(0.5)
    assert found["pairs"][0]["effect"] == pytest.approx(0.5 * mean, rel=1e-4)


@pytest.mark.parametrize("component", ["mlp", "lowrank", "sparse"])
def test_mean_jacobians_are_derivatives(component: str) -> None:
    options: dict[str, float] = {"mlp": {"hidden": 5}, "lowrank": {"rank": 2}}.get(component, {})
    made = build(component, 6, options | ({"l1": 0.0} if component == "sparse" else {}), 0).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    z = torch.rand(40, 6, generator=generator, dtype=torch.float64)
    expected = np.zeros((6, 6))
    for source in range(6):
        step = torch.zeros(6, dtype=torch.float64)
        step[source] = 1e-6
        change = (made(z + step) - made(z - step)) / 2e-6
        expected[:, source] = change.mean(dim=0).detach()
    found = mean_jacobian(made.float(), z.float()).detach()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
