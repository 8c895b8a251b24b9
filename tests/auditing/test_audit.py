"""An audit finds what was planted, and each of its figures is what a plain loop over the model gives."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lessons
import pandas as pd
import pytest
import teaching
import tiny
import torch
import world
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.adapters.layer import component_at
from peft import LoraConfig, PeftModel, get_peft_model
from planted import ABOVE, HOOK, TEXTS, latents, mean_loss, network, plant, rows, target
from sae_lens import SAE

Command = Callable[..., Any]


@pytest.fixture(autouse=True, scope="module")
def _texts(built: Path) -> None:
    lessons.write(built / "few.jsonl", TEXTS)


def few(built: Path) -> tuple[object, ...]:
    return ("--data", built / "few.jsonl")


@pytest.fixture(scope="module")
def three(built: Path) -> dict[int, float]:
    """Two features that fire in the texts, and one that never does."""
    together = torch.cat(latents(built))
    fires = (together > 0).sum(dim=0)
    silent = int((fires == 0).nonzero()[0])
    first, second = (int(i) for i in ((fires > 5) & (fires < 30)).nonzero().flatten()[:2])
    return {first: 0.8, second: -0.5, silent: 2.0}


@pytest.fixture(scope="module")
def planted(built: Path, three: dict[int, float]) -> Path:
    return plant(built, built / "planted", "scale", scale=three)


def test_exactly_what_was_planted_is_found_and_the_silent_one_told(
    planted: Path,
    built: Path,
    three: dict[int, float],
    audit: Command,
) -> None:
    found = audit(planted, *few(built))
    assert (found["n_features"], found["n_changed"], found["n_silent"]) == (96, 3, 1)
    silent = list(three)[2]
    assert {f["feature"] for f in found["features"]} == set(three)
    for feature in found["features"]:
        index = feature["feature"]
        assert feature["parameters"]["scale"] == pytest.approx(three[index])
        assert feature["silent"] == (index == silent)
        assert (feature["latent"] == 0) == (index == silent)
    assert found["features"][-1]["feature"] == silent
    sizes = [abs(feature["attribution"]) for feature in found["features"]]
    assert sizes == sorted(sizes, reverse=True)


def test_figures_are_those_of_plain_loops(
    planted: Path,
    built: Path,
    three: dict[int, float],
    audit: Command,
) -> None:
    found = audit(planted, *few(built), "--reference", built / "few.jsonl")
    together = torch.cat(latents(built))
    decoder = SAE.load_from_disk(str(built / "primary")).W_dec
    model = PeftModel.from_pretrained(network(built), planted).eval()
    (scale,) = (p for n, p in model.named_parameters() if n.endswith("scale"))
    with_all = mean_loss(model)
    assert found["loss_with"] == pytest.approx(with_all, abs=1e-5)
    assert found["loss_without"] == pytest.approx(mean_loss(network(built)), abs=1e-5)
    assert found["n_tokens"] == sum(ids.shape[1] - 1 for ids in rows())
    total, count = 0.0, 0
    for ids in rows(ends=False):
        base, ours = (
            torch.log_softmax(each(ids).logits[0, :-1], -1) for each in (network(built), model)
        )
        total, count = total + float((base.exp() * (base - ours)).sum()), count + len(base)
    assert found["kl"] > 1e-4
    assert found["kl"] == pytest.approx(total / count, rel=1e-3)
    for feature in found["features"]:
        index, s = feature["feature"], three[feature["feature"]]
        z = together[:, index]
        assert feature["latent"] == pytest.approx(float((s * z).abs().mean()), abs=1e-6)
        norm = float(decoder[index].norm())
        assert feature["residual"] == pytest.approx(float((s * z).abs().mean()) * norm, abs=1e-5)
        assert feature["fires"] == pytest.approx(float((z > 1e-6).float().mean()))
        gates = []
        for gate in (0.99, 1.01, 0.0):
            with torch.no_grad():
                scale[index] = gate * s
            gates.append(mean_loss(model))
            with torch.no_grad():
                scale[index] = s
        assert feature["attribution"] == pytest.approx((gates[1] - gates[0]) / 0.02, abs=3e-5)
        if not feature["silent"]:
            assert feature["switched_off"] == pytest.approx(with_all - gates[2], abs=1e-5)


@pytest.mark.parametrize("order", ["size", "latent", "residual", "attribution"])
def test_orders_fall(
    order: str,
    built: Path,
    tmp_path: Path,
    audit: Command,
) -> None:
    values = torch.randn(96, generator=torch.Generator().manual_seed(0))
    adapter = plant(built, tmp_path / "adapter", "bias", bias=values)
    found = audit(adapter, *few(built), "--by", order, "--top", 96, "--sample", 12)
    keys = [abs(feature[order]) for feature in found["features"]]
    assert len(keys) == 96
    assert keys == sorted(keys, reverse=True)
    assert sum("switched_off" in feature for feature in found["features"]) == 12
    assert found["agreement"]["n"] == 12
    assert found["agreement"]["low"] <= found["agreement"]["spearman"] <= 1
    assert found["agreement"]["spearman"] > 0.8  # pushes of about a unit of activation


def test_contexts_are_where_the_feature_is_most_active(
    planted: Path,
    built: Path,
    three: dict[int, float],
    audit: Command,
) -> None:
    found = audit(planted, *few(built))
    for feature in found["features"]:
        index = feature["feature"]
        peaks = sorted((float(z[:, index].max()) for z in latents(built)), reverse=True)
        expected = [peak for peak in peaks if peak > 1e-6][:3]
        before = [context["activation"] for context in feature["strongest"]]
        after = [context["activation"] for context in feature["strongest_after"]]
        assert before == pytest.approx(expected, rel=1e-4)
        assert after == pytest.approx([(1 + three[index]) * peak for peak in expected], rel=1e-4)
        if expected:
            text, z = max(
                zip(rows(), latents(built), strict=True), key=lambda p: p[1][:, index].max()
            )
            token = text[0, int(z[:, index].argmax())]
            assert feature["strongest"][0]["token"] == tiny.tokenizer().decode([token])
            assert feature["description"]
        else:
            assert "description" not in feature


def test_without_data_features_are_listed_by_their_parameters(
    planted: Path,
    built: Path,
    three: dict[int, float],
    audit: Command,
) -> None:
    names = built / "names.csv"
    names.write_text("".join(["index,description\n", *(f"{i},called {i}\n" for i in three)]))
    found = audit(planted, "--descriptions", names)
    expected = sorted(three, key=lambda i: -abs(three[i]))
    assert [feature["feature"] for feature in found["features"]] == expected
    assert [feature["description"] for feature in found["features"]] == [
        f"called {i}" for i in expected
    ]
    assert "attribution" not in found["features"][0]
    assert len(found["features"][0]["promotes"]) == 10


def test_promoted_tokens_are_those_of_the_direction(
    planted: Path,
    built: Path,
    audit: Command,
) -> None:
    """The final norm's weight folded in, all centred, as in the statistics."""
    found = audit(planted)
    model = network(built)
    weight = (model.lm_head.weight * model.transformer.ln_f.weight).double().T
    weight = weight - weight.mean(dim=0, keepdim=True)
    decoder = SAE.load_from_disk(str(built / "primary")).W_dec.double()
    for feature in found["features"]:
        footprint = decoder[feature["feature"]] @ weight
        best = tiny.tokenizer().decode([int(footprint.argmax())])
        worst = tiny.tokenizer().decode([int(footprint.argmin())])
        assert (feature["promotes"][0], feature["demotes"][0]) == (best, worst)


def test_a_run_says_how_cleanly_features_steer(
    planted: Path,
    built: Path,
    three: dict[int, float],
    audit: Command,
    refused: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = built / "run"
    assert world.run(monkeypatch, "screen", built / "tiny.toml", "--run", run) == 0
    found = audit(planted, *few(built), "--run", run)
    ranking = pd.read_parquet(run / "ranking.parquet").set_index("feature")
    for feature in found["features"]:
        expected = ranking.loc[feature["feature"], "predicted_clean_score"]
        assert feature["predicted_clean_score"] == pytest.approx(expected)
    other = plant(built, built / "elsewhere", "scale", scale=three)
    config = json.loads((other / "adapter_config.json").read_text())
    config["targets"][0]["sae"] = {"path": str(built / "other")}
    world.save_sae(tiny.sae("standard", HOOK, seed=9), built / "other")
    (other / "adapter_config.json").write_text(json.dumps(config))
    assert "expected a run of the adapter's SAE" in refused(other, "--run", run)


def test_a_trained_adapter_is_shown_in_a_terminal(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: Command
) -> None:
    out = tmp_path / "out"
    assert teaching.train(monkeypatch, built, out, *teaching.SHORT, "--component", "lowrank") == 0
    err = shown(out, "--data", built / "held.jsonl", "--sample", 6)
    for part in ("lowrank on 96 features: 96 changed", "Changed features, by attribution", "->"):
        assert part in err
    assert "against switching 6 features off one by one: Spearman" in err


REFUSED: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "order without data": (("--by", "residual"), ("--by residual", "expected --data as well")),
    "unknown order": (("--by", "luck"), ("--by 'luck'", "attribution, residual, latent, size")),
    "no data": (("--data", "missing.jsonl"), ("missing.jsonl",)),
    "no run": (("--run", "nowhere"), ("--run nowhere holds no run",)),
    "no descriptions": (("--descriptions", "none.csv"), ("none.csv does not exist",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_told_in_a_line(
    case: str,
    planted: Path,
    refused: Command,
) -> None:
    more, parts = REFUSED[case]
    err = refused(planted, *more)
    for part in parts:
        assert part in err


def test_adapters_that_are_none_of_ours_or_not_whole_are_refused(
    planted: Path,
    built: Path,
    tmp_path: Path,
    refused: Command,
    shown: Command,
) -> None:
    get_peft_model(network(built), LoraConfig(r=2)).save_pretrained(tmp_path / "lora")
    moved = plant(built, tmp_path / "moved", "scale", scale={3: 1.0})
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "/gone/model"})
    )
    for adapter, part in (
        (tmp_path / "nothing", "holds no adapter_config.json"),
        (tmp_path / "lora", "expected one on SAE latents"),
        (moved, "its base model /gone/model is not there"),
    ):
        assert part in refused(adapter)
    shown(moved, "--setting", built / "tiny.toml")


def test_adapters_of_several_places_are_told_by_place(
    built: Path, three: dict[int, float], tmp_path: Path, audit: Command
) -> None:
    """An SAE of one place, put at another as well: figures of each are those of an audit of it alone."""
    above = target(built) | {
        "hook": ABOVE,
        "sae": {"path": str(built / "downstream")},
        "features": [2, 5],
    }
    config = SaeAdapterConfig(targets=[target(built), above], component="bias")
    model = get_peft_model(network(built), config)
    first = next(iter(three))
    for hook, position, value in ((HOOK, first, 0.8), (ABOVE, 1, -2.0)):
        component_at(model, hook, "default").bias.data[position] = value
    model.save_pretrained(tmp_path / "both")
    found = audit(tmp_path / "both", *few(built))
    told = {(each["hook"], each["feature"]): each for each in found["features"]}
    assert set(told) == {(HOOK, first), (ABOVE, 5)}
    assert found["n_features"] == 98
    assert told[HOOK, first]["latent"] == pytest.approx(0.8, rel=1e-5)
    assert told[ABOVE, 5]["latent"] == pytest.approx(2.0, rel=1e-5)
    loaded = PeftModel.from_pretrained(network(built), tmp_path / "both").eval()
    whole = mean_loss(loaded)
    for (hook, feature), each in told.items():
        bias = component_at(loaded, hook, "default").bias
        position = first if hook == HOOK else 1
        kept = float(bias[position])
        bias.data[position] = 0.0
        assert each["switched_off"] == pytest.approx(whole - mean_loss(loaded), abs=1e-5), feature
        bias.data[position] = kept
