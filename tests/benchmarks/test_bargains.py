"""The experiment on adapters: its pools, measures and readings against planted and plain ones."""

import math
from pathlib import Path

import lessons
import numpy as np
import pandas as pd
import pytest
import teaching
import tiny
import torch
from cleansteer.adapters.config import Target
from cleansteer.adapters.model import load_target
from cleansteer.benchmarks.adapters import experiment, texts
from cleansteer.benchmarks.adapters.design import POOLS, Design
from cleansteer.benchmarks.adapters.experiment import Experiment
from cleansteer.benchmarks.adapters.frontier import gain_at
from cleansteer.benchmarks.adapters.pools import pool_of
from cleansteer.benchmarks.adapters.scores import Elsewhere, Preferences
from cleansteer.benchmarks.adapters.summary import differences, foreseen, gains, interval, levels
from cleansteer.benchmarks.adapters.telling import sentences
from cleansteer.benchmarks.adapters.texts import Pair
from cleansteer.core.errors import InputError
from cleansteer.core.progress import Reporter
from cleansteer.core.settings import Setting, read_setting
from cleansteer.miniatures.text import HELD_OUT_PACKAGES, TRAINED_PACKAGES, gather
from sae_lens import SAE
from torch.nn.functional import kl_div

ROWS = [[0, *range(3 * i + 1, 3 * i + 8 + i)] for i in range(4)]
N_FEATURES = 60


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return read_setting(teaching.build(tmp_path_factory.mktemp("world")) / "tiny.toml")


def ranking() -> pd.DataFrame:
    """Stability rises with the feature, collateral does not, a quarter is not eligible."""
    draw = np.random.default_rng(0)
    table = pd.DataFrame({"feature": np.arange(N_FEATURES)})
    table["predicted_stability_abs"] = table["feature"] / N_FEATURES
    table["predicted_collateral_per_effect"] = draw.random(N_FEATURES)
    table["predicted_clean_score"] = draw.random(N_FEATURES)
    table["eligible"] = table["feature"] % 4 != 0
    return table.sort_values("predicted_clean_score", ascending=False, ignore_index=True)


def test_halves_are_of_the_eligible_features() -> None:
    rankings = {"paper": ranking(), "own": ranking(), "matched": ranking()}
    pools = {name: pool_of(name, rankings, N_FEATURES, 0) for name in POOLS}
    eligible = set(ranking().loc[lambda t: t["eligible"], "feature"])
    assert len(pools["clean"]) == len(pools["messy"]) == len(eligible) // 2
    assert set(pools["clean"]) | set(pools["messy"]) <= eligible
    assert not set(pools["clean"]) & set(pools["messy"])
    scores = ranking().set_index("feature")["predicted_clean_score"]
    assert scores[pools["clean"]].min() > scores[pools["messy"]].max()
    for name in ("both", "random"):
        assert len(pools[name]) == len(eligible) // 2
        assert set(pools[name]) < eligible
    assert pools["random"] != pool_of("random", rankings, N_FEATURES, 1)
    assert pools["all"] == pools["unchosen"] == list(range(N_FEATURES))


@torch.no_grad()
def test_costs_are_those_of_plain_passes(setting: Setting) -> None:
    network, other = tiny.network().eval(), tiny.network().eval()
    other.transformer.h[1].mlp.c_proj.weight.mul_(1.5)
    source = setting.locate("downstream")
    target = Target.parse({"hook": "blocks.2.hook_resid_pre", "sae": {"path": str(source)}})
    elsewhere = Elsewhere(network, load_target(target, network), ROWS)
    same = elsewhere.cost(network)
    assert same.kl == pytest.approx(0.0, abs=1e-9)
    assert same.moved == same.drift == 0
    found = elsewhere.cost(other)
    sae = SAE.load_from_disk(str(source))
    logs, latents = [], []
    for model in (network, other):
        seen = [
            model(torch.tensor([row]), output_hidden_states=True, use_cache=False) for row in ROWS
        ]
        logs.append(torch.cat([out.logits[0, :-1].log_softmax(-1) for out in seen]))
        latents.append(torch.cat([sae.encode(out.hidden_states[2][0]) for out in seen]))
    expected = kl_div(logs[1], logs[0], reduction="sum", log_target=True) / len(logs[0])
    assert found.kl == pytest.approx(float(expected), rel=1e-4)
    change = (latents[1] - latents[0]).abs()
    assert found.drift == pytest.approx(float(change.sum(dim=1).mean()), rel=1e-4)
    usual = [
        column[column > 1e-6].mean() if (column > 1e-6).any() else math.inf
        for column in latents[0].T
    ]
    moved = (change > 0.2 * torch.tensor(usual)).sum(dim=1).double().mean()
    assert found.moved == pytest.approx(float(moved), abs=1e-9)
    assert found.moved > 0


@torch.no_grad()
def test_preferences_are_scored_by_their_own_formula() -> None:
    network, other = tiny.network().eval(), tiny.network().eval()
    other.transformer.h[1].mlp.c_proj.weight.mul_(1.5)
    prompt, answers = [0, 5, 6], ([7, 8, 9], [1, 2, 3])
    rows = [{"input_ids": prompt + a, "labels": [-100] * 3 + a} for a in answers]
    preferences = Preferences(network, [Pair(*rows, prompt=prompt)])
    assert preferences.loss(network) == pytest.approx(math.log(2))

    def said(model: object, answer: list[int]) -> float:
        ids = torch.tensor([prompt + answer])
        logs = model(ids).logits[0].log_softmax(-1)  # type: ignore[operator]
        return sum(float(logs[2 + i, token]) for i, token in enumerate(answer))

    ratios = [said(other, answer) - said(network, answer) for answer in answers]
    expected = math.log1p(math.exp(-0.1 * (ratios[0] - ratios[1])))
    assert preferences.loss(other) == pytest.approx(expected, rel=1e-5)


def way(step: int, gain: float, kl: float, strengths: tuple[float, ...]) -> pd.DataFrame:
    """Gain that grows as the edit, KL as its square."""
    s = np.array(strengths)
    return pd.DataFrame({"step": step, "strength": s, "gain": gain * s, "kl": kl * s**2})


def test_gains_are_read_between_strengths() -> None:
    points = way(60, 0.3, 0.08, (0.2, 0.5, 1.0))
    for budget in (0.001, 0.01, 0.05):
        expected = 0.3 * math.sqrt(budget / 0.08)
        assert gain_at(points, "kl", budget) == pytest.approx(expected, rel=1e-9)
    assert gain_at(points, "kl", 5.0) == pytest.approx(0.3), "no more than was measured"
    early = way(15, 0.3, 0.02, (0.2, 0.5, 1.0))
    both = pd.concat([points, early])
    assert gain_at(both, "kl", 0.005) == pytest.approx(0.15), "the better of the two ways"
    assert gain_at(points.assign(gain=-points["gain"]), "kl", 0.05) == 0, "no edit gains nothing"
    too_far = points.assign(gain=[0.1, 0.3, -0.5])
    assert gain_at(too_far, "kl", 0.08) == pytest.approx(0.3), "a weaker edit is within it too"


def jobs(gain: dict[str, float], noise: float = 0.0) -> pd.DataFrame:
    """Points of four blocks, each with an offset of its own that all of its pools share."""
    draw, tables = np.random.default_rng(0), []
    for seed in range(4):
        offset = draw.normal()
        for pool, value in gain.items():
            own = way(60, value + offset + noise * draw.normal(), 0.04, (0.5, 1.0))
            fixed = {"topic": "t", "seed": seed, "objective": "sft", "method": "bias"}
            tables.append(own.assign(**fixed, pool=pool, count=100))
    return pd.concat(tables, ignore_index=True)


def test_pools_are_compared_within_a_block() -> None:
    points = jobs({"clean": 5.2, "messy": 5.0, "random": 5.1})
    found = differences(gains(points, "kl", (0.04,))).set_index("pool")
    assert found["mean"].to_dict() == pytest.approx({"clean": 0.1, "messy": -0.1})
    assert (found["high"] - found["low"]).max() < 1e-9, "offsets of blocks cancel"
    told = sentences(found.reset_index(), Design(budgets=(0.04,)))
    assert "gain 0.1000 more than random" in told[0]
    assert "gain 0.1000 less than random" in told[1]
    loud = differences(gains(jobs({"clean": 5.2, "random": 5.1}, 2.0), "kl", (0.04,)))
    (told,) = sentences(loud, Design(budgets=(0.04,)))
    assert "gain as much as random ones, as far as can be seen" in told


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    draw = np.random.default_rng(1)
    held = 0
    for _ in range(600):
        _, low, high = interval(draw.normal(size=9))
        held += low <= 0 <= high
    assert 0.92 <= held / 600 <= 0.975  # binomial, three standard deviations of 95 %


def test_other_costs_are_read_where_kl_is_the_budget() -> None:
    points = jobs({"clean": 5.0, "random": 5.0}).assign(moved=lambda t: 25 * t["kl"])
    assert levels(points, "moved", (0.01, 0.04)) == pytest.approx([0.25, 1.0])
    assert levels(points, "kl", (0.01,)) == [0.01]


def test_forecasts_are_ranked_as_they_are() -> None:
    draw = np.random.default_rng(2)
    kl, gain = draw.random(40), draw.random(40)
    ends = pd.DataFrame({"step": 60, "strength": 1.0, "method": "scale", "kl": kl, "gain": gain})
    ends = ends.assign(forecast_kl=2 * kl, forecast_gain=-gain)
    found = foreseen(pd.concat([ends, ends.assign(strength=0.5, kl=0.0)]), 60)
    found = found[found["method"] == "all"].set_index("of")
    assert found.loc["kl", "rho"] == pytest.approx(1.0)
    assert found.loc["kl", "ratio"] == pytest.approx(2.0)
    assert found.loc["gain", "rho"] == pytest.approx(-1.0)
    assert found.loc["kl", "n"] == 40


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"seeds": 0}, "seeds = 0; expected 1 or more"),
        ({"pools": ("clean", "dirty")}, "pool 'dirty' is not known; expected some of clean, both"),
        ({"budgets": (0.1, math.nan)}, "expected finite numbers above 0"),
        ({"topics": ()}, "expected the name of an installed package"),
    ],
)
def test_bad_designs_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Design(**given)  # type: ignore[arg-type]


@pytest.fixture
def some(monkeypatch: pytest.MonkeyPatch) -> Design:
    """A short experiment, on words of the tiny world."""

    def docstrings(packages: tuple[str, ...], split: str) -> list[str]:
        own = len(packages) == 1
        rows = lessons.texts(24, len(split), 40, 46, 30 if own else 300)
        return [row["text"] for row in rows]

    monkeypatch.setattr(texts, "_docstrings", docstrings)
    monkeypatch.setattr(experiment, "rank", lambda *given: {"paper": ranking()})
    pools = ("clean", "random", "unchosen")
    return Design(("words",), 1, 6, (4,), pools, steps=4, batch_size=4, examples=20, scored=200)


def points(setting: Setting, design: Design, out: Path) -> pd.DataFrame:
    return Experiment(setting, design, out, "cpu", Reporter(quiet=True)).points()


def test_an_experiment_goes_on_to_the_same_table(
    setting: Setting, some: Design, tmp_path: Path
) -> None:
    whole = points(setting, some, tmp_path / "whole")
    keys = whole.drop_duplicates(["objective", "method", "pool", "count"])
    assert len(keys) == some.n_jobs() == 6 + 3 + 4 + 4 + 4 + 2
    assert set(whole["step"]) == {1, 4}
    assert (whole["kl"] > 0).all()
    assert whole.loc[whole["objective"] == "dpo", "before"].unique() == pytest.approx(math.log(2))
    linear = (whole["objective"] == "sft") & whole["method"].isin(["scale", "bias"])
    assert (whole["forecast_kl"].notna() == linear).all()
    pieces = sorted((tmp_path / "whole" / "adapters").iterdir())
    for piece in pieces[::5]:
        piece.unlink()
    again = points(setting, some, tmp_path / "whole")
    pd.testing.assert_frame_equal(whole, again)
    with pytest.raises(InputError, match="of another design"):
        points(setting, Design(("words",), 2), tmp_path / "whole")


def test_held_out_texts_are_not_trained_on() -> None:
    assert not set(HELD_OUT_PACKAGES) & set(TRAINED_PACKAGES)
    train, held_out = (set(gather(("sympy",), split, 0)) for split in ("train", "validation"))
    assert len(train) > 1600
    assert len(held_out) >= 200
    assert len(train & held_out) < 0.02 * len(held_out)
