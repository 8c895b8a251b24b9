"""A study from Python: the same tables whatever names its inputs, and nothing that is not drawn in it."""

import json
import shutil
from pathlib import Path
from typing import Any

import cleansteer as cs
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import world
from cleansteer.core.layout import RANKING, SAMPLE, SCREENING
from transformers import LlamaConfig, LlamaForCausalLM

TABLES = ("features", "labels", "ranking", "fresh_labels")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world with a screened run in ``run``; not to be changed."""
    folder = tmp_path_factory.mktemp("studied")
    cs.screen(world.build(folder, "jumprelu"), run=folder / "run", progress=False)
    return folder


@pytest.fixture(scope="module")
def named(built: Path) -> cs.Study:
    return cs.load_study(built / "run", progress=False)


@pytest.fixture(scope="module")
def held(built: Path) -> dict[str, Any]:
    return world.memory(built)


@pytest.fixture(scope="module")
def inside(held: dict[str, Any]) -> cs.Study:
    return cs.screen(**held, changes=world.CHANGES, progress=False)


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> cs.Study:
    """A screened study that a test may change."""
    shutil.copytree(built / "run", tmp_path / "run")
    return cs.load_study(tmp_path / "run", progress=False)


def assert_same_tables(one: cs.Study, other: cs.Study) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)
    # The largest difference is one over all pairs that were ever compared.
    left_out = {"setting", "setting_fingerprint", "self_check"}
    first, second = (study.screening.model_dump(exclude=left_out) for study in (one, other))
    assert first == second


def test_objects_in_memory_give_the_tables_of_the_setting_that_names_them(
    named: cs.Study, inside: cs.Study
) -> None:
    assert_same_tables(named, inside)


def test_parts_of_a_setting_may_be_given(
    named: cs.Study, held: dict[str, Any], built: Path
) -> None:
    some = {name: held[name] for name in ("sae", "heldout_texts")}
    study = cs.screen(built / "tiny.toml", **some, progress=False)
    assert study.setting.sae.in_memory is not None
    assert study.setting.downstream_sae == named.setting.downstream_sae
    assert_same_tables(named, study)


def test_objects_stay_as_they_were(built: Path, inside: cs.Study) -> None:
    """A model in training mode, with gradients and a hook, is the same afterwards."""
    given = world.memory(built)
    model, sae = given["model"].train(), given["sae"]
    calls: list[int] = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    kinds = {name: type(module) for name, module in model.named_modules()}
    tensors = {name: t.clone() for name, t in model.state_dict().items()}
    latents = {name: t.clone() for name, t in sae.state_dict().items()}
    study = cs.open_study(**given, changes=world.CHANGES, progress=False)
    study.evaluate(sample=3)
    hook.remove()
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in sae.parameters())
    for before, after in ((tensors, model.state_dict()), (latents, sae.state_dict())):
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_was_never_saved_can_be_screened() -> None:
    """Of another family, without a name, its SAEs at other kinds of sites."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=tiny.WIDTH,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
    )
    draw = np.random.default_rng(0)
    texts, more = (
        [" ".join(f"w{n}" for n in row) for row in draw.integers(1, tiny.VOCABULARY, (120, 20))]
        for _ in range(2)
    )
    study = cs.screen(
        model=LlamaForCausalLM(config),
        tokenizer=tiny.tokenizer(),
        sae=tiny.sae("topk", "blocks.1.hook_mlp_out"),
        downstream_sae=tiny.sae("topk", "blocks.2.hook_resid_post", 80, 2),
        texts=texts,
        heldout_texts=more,
        changes=world.CHANGES,
        progress=False,
    )
    assert study.screening.self_check.method == "resumed"
    assert len(study.ranking) == 96
    assert study.setting.model.name == "llama"


def test_without_a_directory_nothing_stays(held: dict[str, Any]) -> None:
    study = cs.open_study(**held, changes=world.CHANGES, progress=False)
    study.measure_features()
    folder = study.path
    assert (folder / "features.parquet").is_file()
    del study
    assert not folder.exists()


def test_a_saved_study_is_the_same(inside: cs.Study, held: dict[str, Any], tmp_path: Path) -> None:
    kept = cs.load_study(inside.save(tmp_path / "kept"), progress=False)
    assert_same_tables(inside, kept)
    outside = next(feature for feature in range(96) if feature not in inside.sample)
    with pytest.raises(cs.InputError, match="kept is not empty; give another directory"):
        inside.save(tmp_path / "kept")
    with pytest.raises(
        cs.InputError, match=r"was given in memory; give it again \(model=, tokenizer"
    ):
        kept.evaluate([outside])
    again = cs.load_study(tmp_path / "kept", **held, progress=False)
    measured = again.evaluate([outside])
    pd.testing.assert_frame_equal(measured, inside.evaluate([outside]), check_exact=True)
    other = held | {"sae": tiny.sae("jumprelu", "blocks.1.hook_resid_pre", seed=9)}
    with pytest.raises(cs.InputError, match="made with another sae"):
        cs.load_study(tmp_path / "kept", **other, progress=False)


def test_what_was_measured_by_hand_enters_nothing(copied: cs.Study, named: cs.Study) -> None:
    outside = sorted(set(range(96)) - set(named.sample))[:5]
    assert len(copied.evaluate([*outside, named.sample[0]])) == 6
    copied.evaluate([3], alpha=2.5)
    copied.evaluate(sample=3, mode="clamp_global")
    pd.testing.assert_frame_equal(copied.labels, named.labels, check_exact=True)
    pd.testing.assert_frame_equal(copied.rank(), named.ranking, check_exact=True)
    (table,) = cs.validate(copied, repeats=1, shuffles=0, progress=False).tables
    assert table.n_features == len(named.sample)


def test_hand_measured_features_before_a_screening_enter_nothing(
    built: Path, named: cs.Study, tmp_path: Path
) -> None:
    study = cs.open_study(built / "tiny.toml", run=tmp_path / "run", progress=False)
    outside = sorted(set(range(96)) - set(named.sample))[:5]
    study.evaluate(outside)
    study.screen()
    assert_same_tables(named, study)


def test_no_other_ranking_is_put_beside_a_verdict(copied: cs.Study) -> None:
    before = (copied.path / RANKING).read_bytes()
    labels = pd.read_parquet(copied.path / "labels.parquet")
    attributes = labels.attrs
    labels["stability_abs"] = labels["stability_abs"].to_numpy()[::-1]
    labels.attrs = attributes
    labels.to_parquet(copied.path / "labels.parquet", index=False)
    with pytest.raises(
        cs.InputError, match="another ranking than the one that its verdict is about"
    ):
        copied.rank()
    assert (copied.path / RANKING).read_bytes() == before


def test_runs_of_earlier_versions_are_read(copied: cs.Study, named: cs.Study) -> None:
    """They have no sample.parquet, and no fingerprint of their ranking."""
    (copied.path / SAMPLE).unlink()
    record = json.loads((copied.path / SCREENING).read_text("utf-8"))
    del record["ranking_fingerprint"], record["shuffled_floor"], record["reliability"]
    (copied.path / SCREENING).write_text(json.dumps(record), "utf-8")
    old = cs.load_study(copied.path, progress=False)
    assert old.verdict == named.verdict
    pd.testing.assert_frame_equal(old.rank(), named.ranking, check_exact=True)


def test_the_real_caller_is_recorded(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/ipykernel_launcher.py", "-f", "kernel.json"])
    study = cs.screen(built / "tiny.toml", run=tmp_path / "run", labels=40, progress=False)
    study.evaluate([1, 2], alpha=0.5)
    monkeypatch.undo()
    arguments = ("evaluate", built / "tiny.toml", "--run", tmp_path / "run")
    assert world.run(monkeypatch, *arguments, "--features", "3") == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))
    first, second, third = (entry["command"] for entry in manifest["commands"])
    assert first[0].startswith("cleansteer.screen(")
    assert "labels=40" in first[0]
    assert second == ["cleansteer.Study.evaluate([1, 2], alpha=0.5)"]
    assert third == ["cleansteer", *map(str, arguments), "--features", "3"]


def test_results_show_themselves_without_a_script(named: cs.Study, tmp_path: Path) -> None:
    unscreened = cs.open_study("mini-gpt2-relu", run=tmp_path / "none", progress=False)
    shown = {
        "study": named._repr_html_(),
        "verdict": named.verdict._repr_html_(),
        "allowlist": named.allowlist(top=5)._repr_html_(),
        "unscreened": unscreened._repr_html_(),
    }
    assert not (tmp_path / "none").exists()
    for name, html in shown.items():
        assert "<script" not in html.lower(), name
        assert html.count("<div") == html.count("</div>"), name
    assert named.verdict.overall in shown["study"]
    assert "not screened yet" in shown["unscreened"]
    assert str(named.verdict).splitlines()[0] == f"Ranking: {named.verdict.overall}"


def test_text_of_tokens_is_text(copied: cs.Study) -> None:
    ranking = pd.read_parquet(copied.path / RANKING)
    attributes = ranking.attrs
    ranking["direct_top_tokens"] = [["<img src=x onerror=alert(1)>"]] * len(ranking)
    ranking.attrs = attributes
    ranking.to_parquet(copied.path / RANKING, index=False)
    html = cs.load_study(copied.path)._repr_html_()
    assert "<img" not in html
    assert "&lt;img" in html


def test_silence_is_one_argument(
    built: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    cs.screen(built / "tiny.toml", run=tmp_path / "run", progress=False)
    assert capfd.readouterr() == ("", "")
    loud = cs.open_study(built / "tiny.toml", run=tmp_path / "loud")
    loud.measure_features()
    out, err = capfd.readouterr()
    assert out == ""
    assert "statistics" in err


def test_allowlists_go_out_and_come_back(named: cs.Study, tmp_path: Path) -> None:
    made = named.allowlist(top=7)
    path = made.save(tmp_path / "clean.json")
    assert cs.Allowlist.load(path) == made
    eligible = named.ranking[named.ranking["eligible"]]["feature"]
    assert made.features == sorted(eligible.head(7))
    assert made.trust == named.verdict
    assert len(named.allowlist()) == min(100, len(eligible))
