"""An audit finds what was planted, and each of its figures is what a plain loop over the model gives."""

import json
from pathlib import Path
from typing import Any

import lessons
import numpy as np
import pandas as pd
import pytest
import teaching
import tiny
import torch
import world
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.adapters.components.component import build
from cleansteer.auditing.pairs import mean_jacobian
from peft import LoraConfig, PeftModel, get_peft_model
from sae_lens import SAE
from transformers import AutoModelForCausalLM

HOOK = "blocks.1.hook_resid_pre"
TEXTS = lessons.texts(5, seed=3, least=5, most=9)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = teaching.build(tmp_path_factory.mktemp("world"))
    lessons.write(folder / "few.jsonl", TEXTS)
    return folder


def network(built: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(built / "model").eval().requires_grad_(False)


def rows() -> list[torch.Tensor]:
    """The texts as tokens: BOS in front, EOS behind."""
    tokenizer = tiny.tokenizer()
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    start = end if start is None else start
    ids = [tokenizer(row["text"], add_special_tokens=False)["input_ids"] for row in TEXTS]
    return [torch.tensor([[start, *each, end]]) for each in ids]


def latents(built: Path) -> list[torch.Tensor]:
    """Of every text, by SAELens' own encoder over plain Hugging Face's hidden states."""
    sae, model = SAE.load_from_disk(str(built / "primary")), network(built)
    return [sae.encode(model(ids, output_hidden_states=True).hidden_states[1][0]) for ids in rows()]


def mean_loss(model: Any) -> float:
    total, count = 0.0, 0
    for ids in rows():
        logits = model(input_ids=ids, labels=ids, use_cache=False).logits[0, :-1].double()
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        total, count = total + float(losses.sum()), count + len(losses)
    return total / count


def plant(
    built: Path, folder: Path, component: str, **values: torch.Tensor | dict[int, float]
) -> Path:
    """An adapter on all features, with parameters set by hand."""
    target = {"hook": HOOK, "sae": {"path": str(built / "primary")}, "features": None}
    config = SaeAdapterConfig(targets=[target], component=component)
    model = get_peft_model(network(built), config)
    for name, given in values.items():
        (parameter,) = (
            p for n, p in model.named_parameters() if n.endswith(name) and p.requires_grad
        )
        entries = given.items() if isinstance(given, dict) else enumerate(given)
        for at, value in entries:
            parameter.data[at] = value
    model.save_pretrained(folder)
    return folder


def audited(
    built: Path,
    adapter: Path,
    patch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *more: object,
    data: bool = True,
) -> dict[str, Any]:
    given = ("--data", built / "few.jsonl") if data else ()
    capfd.readouterr()
    assert world.run(patch, "audit", adapter, *given, *more, "--json") == 0
    return json.loads(capfd.readouterr().out)


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
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = audited(built, planted, monkeypatch, capfd)
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
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = audited(built, planted, monkeypatch, capfd, "--reference", built / "few.jsonl")
    together = torch.cat(latents(built))
    decoder = SAE.load_from_disk(str(built / "primary")).W_dec
    model = PeftModel.from_pretrained(network(built), planted).eval()
    (scale,) = (p for n, p in model.named_parameters() if n.endswith("scale"))
    with_all = mean_loss(model)
    assert found["loss_with"] == pytest.approx(with_all, abs=1e-5)
    assert found["loss_without"] == pytest.approx(mean_loss(network(built)), abs=1e-5)
    assert found["n_tokens"] == sum(ids.shape[1] - 1 for ids in rows())
    kl = [(torch.log_softmax(network(built)(ids).logits[0, :-1], -1), ids) for ids in rows()]
    total = sum(
        float((base.exp() * (base - torch.log_softmax(model(ids).logits[0, :-1], -1))).sum())
        for base, ids in kl
    )
    count = sum(len(base) for base, _ in kl)
    assert found["kl"] > 1e-4
    # The reference's texts have no EOS behind.
    assert found["kl"] == pytest.approx(total / count, rel=0.3)
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
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    values = torch.randn(96, generator=torch.Generator().manual_seed(0))
    adapter = plant(built, tmp_path / "adapter", "bias", bias=values)
    found = audited(built, adapter, monkeypatch, capfd, "--by", order, "--top", 96, "--sample", 12)
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
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = audited(built, planted, monkeypatch, capfd)
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
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    names = built / "names.csv"
    names.write_text("".join(["index,description\n", *(f"{i},called {i}\n" for i in three)]))
    found = audited(built, planted, monkeypatch, capfd, "--descriptions", names, data=False)
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
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The final norm's weight folded in, all centred, as in the statistics."""
    found = audited(built, planted, monkeypatch, capfd, data=False)
    model = network(built)
    weight = (model.lm_head.weight * model.transformer.ln_f.weight).double().T
    weight = weight - weight.mean(dim=0, keepdim=True)
    decoder = SAE.load_from_disk(str(built / "primary")).W_dec.double()
    for feature in found["features"]:
        footprint = decoder[feature["feature"]] @ weight
        best = tiny.tokenizer().decode([int(footprint.argmax())])
        worst = tiny.tokenizer().decode([int(footprint.argmin())])
        assert (feature["promotes"][0], feature["demotes"][0]) == (best, worst)


def test_pairs_are_what_was_planted(
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Feature 0 always fires: it acts on 7, and less on 9."""
    matrix = torch.zeros(96, 96)
    matrix[7, 0], matrix[9, 0], matrix[0, 0] = 0.5, -0.1, 0.3
    adapter = plant(built, tmp_path / "adapter", "sparse", matrix=matrix)
    found = audited(built, adapter, monkeypatch, capfd)
    assert [(pair["source"], pair["target"]) for pair in found["pairs"]] == [(0, 7), (0, 9)]
    mean = float(torch.cat(latents(built))[:, 0].mean())
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


def test_a_run_says_how_cleanly_features_steer(
    planted: Path,
    built: Path,
    three: dict[int, float],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = built / "run"
    assert world.run(monkeypatch, "screen", built / "tiny.toml", "--run", run) == 0
    found = audited(built, planted, monkeypatch, capfd, "--run", run)
    ranking = pd.read_parquet(run / "ranking.parquet").set_index("feature")
    for feature in found["features"]:
        expected = ranking.loc[feature["feature"], "predicted_clean_score"]
        assert feature["predicted_clean_score"] == pytest.approx(expected)
    other = plant(built, built / "elsewhere", "scale", scale=three)
    config = json.loads((other / "adapter_config.json").read_text())
    config["targets"][0]["sae"] = {"path": str(built / "other")}
    world.save_sae(tiny.sae("standard", HOOK, seed=9), built / "other")
    (other / "adapter_config.json").write_text(json.dumps(config))
    capfd.readouterr()
    assert world.run(monkeypatch, "audit", other, "--run", run) == 2
    assert "expected a run of the adapter's SAE" in capfd.readouterr().err


def test_a_trained_adapter_is_shown_in_a_terminal(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert teaching.train(monkeypatch, built, out, *teaching.SHORT, "--component", "lowrank") == 0
    capfd.readouterr()
    assert world.run(monkeypatch, "audit", out, "--data", built / "held.jsonl", "--sample", 6) == 0
    shown, err = capfd.readouterr()
    assert shown == ""
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
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    more, parts = REFUSED[case]
    capfd.readouterr()
    assert world.run(monkeypatch, "audit", planted, *more) == 2
    err = capfd.readouterr().err.strip().splitlines()[-1]
    for part in parts:
        assert part in err


def test_adapters_that_are_none_of_ours_or_not_whole_are_refused(
    planted: Path,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
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
        capfd.readouterr()
        assert world.run(monkeypatch, "audit", adapter) == 2
        assert part in capfd.readouterr().err
    assert world.run(monkeypatch, "audit", moved, "--setting", built / "tiny.toml") == 0
