"""Trainings through several SAEs at once: they are what the untouched model computes with their edits put
in by hand, and all that holds for one holds for several.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cleansteer as cs
import full_sae
import lessons
import numpy as np
import places
import pytest
import teaching
import tiny
import torch
import world
from cleansteer.adapters.selection import fitting_beta2, survey
from cleansteer.core.tracked import read_tracking
from cleansteer.core.training import TrainingOptions
from places import BELOW, FOLDERS, HEADS, N_FEATURES, targets
from sae_lens import SAE
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROUNDING = 1e-5
"""Relative: float32 losses of padded batches against those of one text at a time."""
SHORT_HOOKS = ("1.resid_pre", "1.attn.z", "2.resid_post")
LEARNS = ("--component", "lerp", "--learning-rate", 0.1, "--max-steps", 8, "--evaluations", 2)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return places.build(tmp_path_factory.mktemp("world"))


_NAMES = {"hook_resid_pre": "entry", "attn.hook_z": "heads", "hook_resid_post": "exit"}


def edits(model: Path, out: Path, saes: dict[str, Path]) -> list[full_sae.Edit]:
    """A saved adapter's edits, from its files alone."""
    config = json.loads((out / "adapter_config.json").read_text("utf-8"))
    tensors = load_file(out / "adapter_model.safetensors")
    made = []
    for target in config["targets"]:
        hook = target["hook"]
        _, layer, place = hook.split(".", 2)
        inside = f".h.{layer}.cleansteer_{_NAMES[place]}."
        sae = SAE.load_from_disk(saes[hook])
        sae.turn_off_forward_pass_hook_z_reshaping()
        features = range(sae.cfg.d_sae) if target["features"] is None else target["features"]
        found = {n.rpartition(".")[2]: t for n, t in tensors.items() if inside in n}
        assert found
        made.append(full_sae.Edit(hook, sae, features, config["component"], found))
    return made


def by_hand(built: Path, out: Path) -> Any:
    """The losses of the untouched model without and with the edits."""
    model = AutoModelForCausalLM.from_pretrained(built / "model").eval()
    rows = lessons.texts(6, seed=9)
    before = lessons.mean_loss(model, rows)
    saes = {hook: built / folder for hook, folder in FOLDERS.items()}
    with full_sae.installed(model, edits(built, out, saes)):
        return before, lessons.mean_loss(model, rows)


@pytest.fixture(scope="module")
def taught(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("taught") / "out"
    with pytest.MonkeyPatch.context() as patch:
        held = ("--eval-data", built / "held.jsonl", *targets(built, primary=":0,3,5,8,13,21"))
        assert teaching.train(patch, built, out, *LEARNS, *held) == 0
    return out


def test_losses_are_those_of_the_untouched_model_with_the_edits_put_in_by_hand(
    built: Path, taught: Path
) -> None:
    record = teaching.record_of(taught)
    before, after = by_hand(built, taught)
    assert after < before - 0.01
    assert record["metrics"]["before"] == pytest.approx(before, rel=ROUNDING)
    assert record["metrics"]["after"] == pytest.approx(after, rel=ROUNDING)
    assert record["n_parameters"] == 2 * (6 + 64 + 80)
    assert {path.name for path in taught.iterdir()} == teaching.FILES


def test_what_is_edited_is_recorded_tracked_and_told(built: Path, taught: Path) -> None:
    record = cs.TrainingRecord.read(taught / "training.json")
    assert (record.hook, record.sae, record.features) == (None, None, None)
    assert [place.hook for place in record.places] == list(FOLDERS)
    assert record.n_features == 6 + 64 + 80
    config = json.loads((taught / "adapter_config.json").read_text("utf-8"))
    for place, target in zip(record.places, config["targets"], strict=True):
        assert place.sae.fingerprint == target["sae"]["fingerprint"]
        assert place.features == target["features"] == place.allowed
        assert place.sae.n_features == N_FEATURES[place.hook]
    tracked = read_tracking(taught)
    assert set(tracked["hook"]) == set(FOLDERS)
    card = (taught / "README.md").read_text("utf-8")
    assert f"| {BELOW} | 6 of 96 features of SAE" in card
    assert f"| {HEADS} | 64 of 64 features of SAE" in card
    assert "| features | 150 in 3 places (allowed) |" in card


def test_the_other_miniature_with_two_saes(tmp_path: Path) -> None:
    weights = Path(cs.__file__).parent / "miniatures" / "weights" / "mini-gpt2"
    saes = {
        "blocks.2.hook_resid_pre": weights / "relu" / "primary",
        "blocks.3.hook_resid_pre": weights / "relu" / "downstream",
    }
    texts = [text for text in cs.docstrings(["stdlib"], "train", seed=0) if 100 < len(text) < 200]
    rows, held = ([{"text": text} for text in part] for part in (texts[:12], texts[12:16]))
    given = [{"hook": hook, "sae": {"path": str(path)}} for hook, path in saes.items()]
    options = {"component": "switch", "max_steps": 3, "evaluations": 1, "select": 40}
    with torch.enable_grad():
        record = cs.train(
            "mini-gpt2-relu",
            rows,
            out=tmp_path / "out",
            targets=given,
            eval_data=held,
            progress=False,
            **options,
        )
    assert record.n_features == 40
    model = AutoModelForCausalLM.from_pretrained(weights / "model", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(weights / "model")

    def loss() -> float:
        found, count = 0.0, 0
        for row in held:
            ids = [tokenizer.bos_token_id, *tokenizer(row["text"])["input_ids"]]
            ids = torch.tensor([[*ids, tokenizer.eos_token_id]])
            logs = model(ids, use_cache=False).logits[0, :-1].double().log_softmax(-1)
            found -= float(logs.gather(1, ids[0, 1:, None]).sum())
            count += ids.shape[1] - 1
        return found / count

    assert record.metrics is not None
    assert record.metrics.before == pytest.approx(loss(), rel=ROUNDING)
    with full_sae.installed(model, edits(weights, tmp_path / "out", saes)):
        assert record.metrics.after == pytest.approx(loss(), rel=ROUNDING)
    assert record.metrics.after < record.metrics.before


def test_the_settings_own_sae_as_a_target_gives_the_same_adapter(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*teaching.SHORT, "--component", "mlp", "--select", 7)
    assert teaching.train(monkeypatch, built, tmp_path / "own", *options) == 0
    same = ("--target", f"{BELOW}={built / 'primary'}")
    assert teaching.train(monkeypatch, built, tmp_path / "same", *options, *same) == 0
    for name in ("adapter_model.safetensors", "adapter_config.json", "tracking.parquet"):
        assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
    assert "targets" not in teaching.record_of(tmp_path / "same"), "one is recorded as ever"


def surveyed(built: Path, hooks: Sequence[str]) -> Any:
    with torch.enable_grad():
        config = cs_config(built, hooks)
        options = TrainingOptions(batch_size=4)
        given = lessons.network(), tiny.tokenizer(), config, options, lessons.examples("sft", 24)
        return survey(*given)


def cs_config(built: Path, hooks: Sequence[str]) -> Any:
    from cleansteer.adapters import SaeAdapterConfig

    return SaeAdapterConfig(
        targets=[{"hook": hook, "sae": {"path": str(built / FOLDERS[hook])}} for hook in hooks]
    )


@pytest.mark.parametrize("count", [20, 1])
def test_all_features_compete_and_beta2_is_of_those_that_win(
    count: int, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By surveys of each place alone. Of one feature two places have none, and are not edited."""
    held = ("--eval-data", built / "held.jsonl")  # nothing of the data is held out
    options = (*teaching.SHORT, *held, "--select", count, *targets(built))
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options) == 0
    alone = {hook: surveyed(built, [hook]) for hook in FOLDERS}
    worth = [
        (abs(value), hook, feature)
        for hook, found in alone.items()
        for feature, value in enumerate(found.gradient)
    ]
    best = sorted(worth, reverse=True)[:count]
    record = cs.TrainingRecord.read(tmp_path / "out" / "training.json")
    chosen = {(place.hook, f) for place in record.places for f in place.features or []}
    assert chosen == {(hook, feature) for _, hook, feature in best}
    assert record.n_features == count
    shares = np.array([alone[hook].step_share[f] for _, hook, f in best])
    assert record.beta2 == fitting_beta2(shares, "scale")
    assert record.chosen == f"largest gradients of {sum(N_FEATURES.values())} allowed"
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text("utf-8"))
    edited = {target["hook"] for target in config["targets"]}
    assert edited == {hook for _, hook, _ in best}
    if count == 1:
        assert len(edited) == 1
        assert [place.features for place in record.places].count([]) == 2


def test_by_fisher_features_of_several_places_compete(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = ("--by", "fisher", "--reference", built / "reference.jsonl")
    options = (*teaching.SHORT, *reference, "--select", 9, "--component", "bias", *targets(built))
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options) == 0
    record = cs.TrainingRecord.read(tmp_path / "out" / "training.json")
    assert record.n_features == 9
    assert "Fisher" in str(record.chosen)


def test_drift_is_the_sum_of_what_each_edit_moves_at_its_place(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = dict.fromkeys(FOLDERS.values(), ":0,1,2,3,4,5")
    kept = ("--drift", 0.01, "--reference", built / "reference.jsonl")
    out = tmp_path / "out"
    assert teaching.train(monkeypatch, built, out, *LEARNS, *kept, *targets(built, **lists)) == 0
    model = AutoModelForCausalLM.from_pretrained(built / "model").eval()
    saes = {hook: built / folder for hook, folder in FOLDERS.items()}
    total = 0.0
    for edit in edits(built, out, saes):
        seen: list[torch.Tensor] = []
        module, is_input = full_sae.families.module_at(model, edit.hook, True)
        if is_input:
            handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # noqa: B023
        else:
            handle = module.register_forward_hook(
                lambda _, inputs, output: seen.append(  # noqa: B023
                    output[0] if isinstance(output, tuple) else output
                )
            )
        moved = []
        for row in lessons.texts(8, seed=5):
            model(lessons.tokens(row["text"])[:, :-1], use_cache=False)
            x = seen.pop()[0]
            change = edit.sae.encode(edit.apply(x)) - edit.sae.encode(x)
            others = [f for f in range(edit.sae.cfg.d_sae) if f not in edit.features]
            moved.append(change[:, others].abs().sum(dim=-1))
        handle.remove()
        total += float(torch.cat(moved).mean())
    assert total > 0
    drift = teaching.record_of(out)["effects"]["drift"]
    assert drift["before"] == 0
    assert drift["after"] == pytest.approx(total, rel=1e-3)


def test_a_budget_holds_all_edits_together(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons.write(built / "much.jsonl", lessons.texts(60, seed=5, among=599))
    more = ("--kl-budget", 0.005, "--reference", built / "much.jsonl", "--component", "bias")
    options = (*teaching.SHORT, "--learning-rate", 0.1, *more, *targets(built))
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options) == 0
    kept = teaching.record_of(tmp_path / "out")["budget"]
    assert kept["gamma"] < 1
    assert kept["kl"] == pytest.approx(0.005, rel=0.011)


def test_stopped_it_goes_on_to_the_same(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from cleansteer.adapters import finetuning

    options = (*teaching.SHORT, "--select", 30, "--component", "mlp")
    assert teaching.train(monkeypatch, built, tmp_path / "one", *options, *targets(built)) == 0

    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "save", stop)
        assert teaching.train(patch, built, tmp_path / "other", *options, *targets(built)) == 130
    capfd.readouterr()
    fewer = (*options, "--resume", *targets(built, heads=":1,2"))
    assert teaching.train(monkeypatch, built, tmp_path / "other", *fewer) == 2
    world.one_line(capfd, "holds a training with another targets")
    again = (*options, "--resume", *targets(built))
    assert teaching.train(monkeypatch, built, tmp_path / "other", *again) == 0
    teaching.assert_same(tmp_path / "one", tmp_path / "other")


def test_an_allowlist_behind_a_target_is_checked_and_told(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clean = f":{built / 'clean.json'}"
    options = (*teaching.SHORT, *targets(built, primary=clean))
    assert teaching.train(monkeypatch, built, tmp_path / "out", *options) == 0
    record = cs.TrainingRecord.read(tmp_path / "out" / "training.json")
    assert [place.trust is not None for place in record.places] == [True, False, False]
    assert record.places[0].features == cs.Allowlist.load(built / "clean.json").features
    assert f"Allowlist of {BELOW}: partly" in capfd.readouterr().err
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert f"The allowlist's verdict at {BELOW}: **partly**" in card
    assert f"Features at {HEADS} were given without an allowlist" in card
    wrong = (*teaching.SHORT, *targets(built, downstream=clean))
    assert teaching.train(monkeypatch, built, tmp_path / "wrong", *wrong) == 2
    world.one_line(capfd, "clean.json was made for the SAE", "give the allowlist of this one")
    assert not (tmp_path / "wrong").exists()


def test_features_are_called_by_the_descriptions_of_their_own_sae(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.csv"
    names.write_text("index,description\n3,of the heads\n", "utf-8")
    chosen = targets(built, **dict.fromkeys(FOLDERS.values(), ":3,5"))
    plain = ("--descriptions", names)
    assert (
        teaching.train(monkeypatch, built, tmp_path / "no", *teaching.SHORT, *chosen, *plain) == 2
    )
    world.one_line(capfd, "does not say which of 3 SAEs", f"expected HOOK={names}")
    assert not (tmp_path / "no").exists()
    named = ("--descriptions", f"{HEADS}={names}")
    out = tmp_path / "out"
    assert teaching.train(monkeypatch, built, out, *teaching.SHORT, *chosen, *named) == 0
    tracked = read_tracking(out)
    called = tracked[tracked["description"] != ""][["hook", "feature", "description"]]
    assert called.drop_duplicates().to_numpy().tolist() == [[HEADS, 3, "of the heads"]]
    capfd.readouterr()
    elsewhere = ("--descriptions", f"blocks.0.hook_mlp_out={names}")
    given = (*teaching.SHORT, *chosen, *elsewhere)
    assert teaching.train(monkeypatch, built, tmp_path / "no", *given) == 2
    world.one_line(capfd, "'blocks.0.hook_mlp_out'", "no SAE of that place", HEADS)


def test_an_audit_tells_every_place(
    built: Path,
    taught: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    names = tmp_path / "names.csv"
    names.write_text("".join(["index,description\n", *(f"{i},h{i}\n" for i in range(64))]), "utf-8")
    given = ("--data", built / "held.jsonl", "--top", 150, "--sample", 6)
    more = ("--descriptions", f"{HEADS}={names}", "--json")
    capfd.readouterr()
    assert world.run(monkeypatch, "audit", taught, *given, *more) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["n_features"] == 150
    assert {each["hook"] for each in found["features"]} == set(FOLDERS)
    record = teaching.record_of(taught)
    assert found["loss_without"] == pytest.approx(record["metrics"]["before"], rel=ROUNDING)
    assert found["loss_with"] == pytest.approx(record["metrics"]["after"], rel=ROUNDING)
    for each in found["features"]:
        assert ("promotes" in each) is (each["hook"] != HEADS), "heads write no stream themselves"
        if each["hook"] == HEADS:
            assert each["description"] == f"h{each['feature']}"
    measured = [each for each in found["features"] if "switched_off" in each]
    assert len(measured) == 6
    assert world.run(monkeypatch, "audit", taught, *given) == 0
    told = capfd.readouterr().err
    assert all(hook in told for hook in SHORT_HOOKS)


def test_watching_shows_the_hook(
    taught: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert world.run(monkeypatch, "watch", taught, "--once", "--most", 150) == 0
    told = capfd.readouterr().err
    assert all(hook in told for hook in SHORT_HOOKS)
