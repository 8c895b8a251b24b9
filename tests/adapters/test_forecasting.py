"""Forecasts of trainings: their optimiser is torch's, and what they foresee is what training does."""

import json
from pathlib import Path

import lessons
import numpy as np
import pytest
import teaching
import tiny
import torch
import world
from cleansteer.adapters import choosing, forecast, foresight
from cleansteer.adapters.config import Target
from cleansteer.adapters.downstream import count_moved, first_rows
from cleansteer.adapters.forecasting import Schedule, simulate
from cleansteer.adapters.gradients import Site, TextGradients
from cleansteer.adapters.model import load_target
from cleansteer.adapters.positions import EVERY
from cleansteer.core.errors import InputError
from cleansteer.core.settings import read_setting
from sae_lens import SAE


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teaching.build(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("batch_size", [1, 4, 12])
def test_the_simulation_takes_torchs_own_steps(batch_size: int) -> None:
    """AdamW of torch, with the rate that the Trainer lowers, on the same quadratic model and batches."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    texts[:, 2] *= torch.arange(12) == 3  # fires in one text
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    curvature = root @ root.T
    schedule = Schedule(9, batch_size, 0.03, 0.995, seed=4)
    found = simulate(TextGradients(texts, 60), curvature, schedule)
    parameter = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = torch.optim.AdamW(
        [parameter], lr=0.03, betas=(0.9, 0.995), weight_decay=0.0, eps=1e-8
    )
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 9)
    draw, order = torch.Generator().manual_seed(4), []
    for _ in range(9):
        while len(order) < batch_size:
            order += torch.randperm(12, generator=draw).tolist()
        batch, order = order[:batch_size], order[batch_size:]
        parameter.grad = curvature @ parameter.detach() - texts[batch].sum(dim=0) / (5 * batch_size)
        optimizer.step()
        falling.step()
    torch.testing.assert_close(found, parameter.detach(), rtol=1e-9, atol=1e-12)


def test_features_that_move_downstream_are_those_of_a_plain_loop(built: Path) -> None:
    network = tiny.network().eval()
    above = Target.parse(
        {"hook": lessons.HOOK, "sae": {"path": str(built / "primary")}, "features": [3, 5]}
    )
    below = Target.parse(
        {
            "hook": "blocks.2.hook_resid_post",
            "sae": {"path": str(built / "downstream")},
            "features": None,
        }
    )
    fit = load_target(above, network)
    learnt = torch.tensor([2.0, -1.5])
    rows = [[0, 4, 9, 13], [0, 7, 2], [0, 5, 5, 8, 21]]
    site = Site(fit.place, fit.part, False, EVERY)
    found = count_moved(network, site, learnt, load_target(below, network), rows)
    sae, decoder = (SAE.load_from_disk(str(built / name)) for name in ("downstream", "primary"))
    push = (learnt @ decoder.W_dec[[3, 5]]).detach()
    before, after = [], []
    for row in rows:
        for kept, change in ((before, 0.0), (after, 1.0)):
            handle = network.transformer.h[1].register_forward_pre_hook(
                lambda module, given, change=change: (given[0] + change * push, *given[1:])
            )
            out = network(torch.tensor([row]), output_hidden_states=True)
            handle.remove()
            kept.append(sae.encode(out.hidden_states[3][0]))
    one, other = torch.cat(before), torch.cat(after)
    usual = torch.stack(
        [z[z > 1e-6].mean() if (z > 1e-6).any() else torch.tensor(torch.inf) for z in one.T]
    )
    assert found == pytest.approx(float(((other - one).abs() > 0.2 * usual).sum()) / len(one))
    assert found > 0


def test_only_the_first_texts_count() -> None:
    rows = [[0] * 1000] * 9
    assert len(first_rows(rows)) == 5
    assert first_rows(rows[:2]) == rows[:2]


@pytest.mark.parametrize("component", ["scale", "bias"])
def test_a_forecast_is_what_training_does(
    component: str,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In small steps, as the model of the tiny world is random: its curvature is not its loss's."""
    lessons.write(built / "much.jsonl", lessons.texts(96))
    lessons.write(built / "check.jsonl", lessons.texts(48, seed=9))
    lessons.write(built / "elsewhere.jsonl", lessons.texts(400, seed=5, among=599))
    common = (
        *("--data", built / "much.jsonl", "--eval-data", built / "check.jsonl"),
        *("--reference", built / "elsewhere.jsonl", "--component", component),
        *("--max-steps", 12, "--learning-rate", 0.004, "--select", 24),
    )
    setting = built / "tiny.toml"
    capfd.readouterr()
    assert world.run(monkeypatch, "forecast", setting, *common, "--json") == 0
    foreseen = json.loads(capfd.readouterr().out)
    assert world.run(monkeypatch, "train", setting, "--out", tmp_path / "a", *common) == 0
    record = teaching.record_of(tmp_path / "a")
    assert foreseen["features"] == record["features"]
    assert (foreseen["n_steps"], foreseen["beta2"]) == (record["n_steps"], record["beta2"])
    gain = record["metrics"]["before"] - record["metrics"]["after"]
    assert foreseen["gain"] == pytest.approx(gain, rel=0.25)
    assert foreseen["kl"] == pytest.approx(record["effects"]["kl"]["after"], rel=0.3)
    assert foreseen["moved"] > 0


def test_a_budget_scales_the_gain(
    built: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ("--data", built / "sft.jsonl", "--reference", built / "reference.jsonl")
    found = []
    for budget in (1e-5, 100.0):
        capfd.readouterr()
        more = ("--max-steps", 6, "--kl-budget", budget, "--json")
        assert world.run(monkeypatch, "forecast", built / "tiny.toml", *common, *more) == 0
        found.append(json.loads(capfd.readouterr().out))
    tight, wide = found
    assert wide["gain_at_budget"] == wide["gain"] == tight["gain"]
    expected = tight["gain"] * np.sqrt(1e-5 / tight["kl"])
    assert tight["gain_at_budget"] == pytest.approx(expected)


def test_what_cannot_be_forecast_is_refused(
    built: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ("--data", built / "sft.jsonl", "--reference", built / "reference.jsonl")
    cases = [
        (("--component", "mlp"), "what it learns is not linear"),
        (("--component", "paint"), "component 'paint' is not known"),
        (("--by", "luck"), "gradient or fisher"),
        (("--beta2", "x"), "--beta2"),
        (("--features", "1", "--allowlist", "x.json"), "exclude each other"),
    ]
    for more, part in cases:
        capfd.readouterr()
        assert world.run(monkeypatch, "forecast", built / "tiny.toml", *common, *more) == 2
        assert part in capfd.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("penalty", ["l1", "drift"])
def test_penalties_cannot_be_forecast(penalty: str, built: Path) -> None:
    """Of the command they are no options."""
    rows = lessons.texts(24)
    with pytest.raises(InputError, match=f"--{penalty} 0.5 cannot be forecast"):
        forecast(read_setting(built / "tiny.toml"), rows, reference=rows, **{penalty: 0.5})


def test_curvature_that_chose_the_features_is_not_measured_twice(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is the same: a forecast of features by name gives the same KL."""
    asked: list[int] = []
    counted = foresight.text_gradients

    def counting(
        network: object, sites: list[Site], rows: object, seed: int | None, tick: object
    ) -> object:
        asked.append(sum(site.part.n_features for site in sites))
        return counted(network, sites, rows, seed, tick)

    monkeypatch.setattr(foresight, "text_gradients", counting)
    monkeypatch.setattr(choosing, "text_gradients", counting)
    common = {"reference": lessons.texts(30, seed=5), "max_steps": 4, "progress": False}
    setting, rows = read_setting(built / "tiny.toml"), lessons.texts(24)
    with torch.enable_grad():
        chosen = forecast(setting, rows, select=6, by="fisher", **common)
        assert asked == [96, 6, 6, 6]  # the reference; data, its curvature, what is held out
        named = forecast(setting, rows, features=chosen.features, beta2=chosen.beta2, **common)
    assert named.kl == pytest.approx(chosen.kl, rel=1e-3)
