"""Adapters that are saved by PEFT alone, moved, and opened on other models."""

import json
import shutil
from pathlib import Path
from typing import Any

import adapted
import pytest
import tiny
import torch
import yaml
from cleansteer.adapters import SaeAdapterConfig, load
from cleansteer.core.errors import InputError
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from sae_lens import SAE

HOOK, MLP = "blocks.1.hook_resid_pre", "blocks.2.hook_mlp_out"


def moved(shelf: Path, folder: Path, inside: bool, hooks: tuple[str, ...] = (HOOK,)) -> Any:
    """An adapter and its SAE, saved, and then both in another place; gives the adapter's directory, the
    SAE's, and what the model said.
    """
    sae = folder / "old" / ("adapter/sae" if inside else "sae")
    shutil.copytree(adapted.target(shelf, HOOK)["sae"]["path"], sae)
    targets = [{"hook": hook, "sae": {"path": str(sae)}, "features": [1, 5]} for hook in hooks]
    model = adapted.adapt(adapted.network(), adapted.adapter(targets, "bias"))
    model.save_pretrained(folder / "old" / "adapter")
    (folder / "old").rename(folder / "new")
    return (
        folder / "new" / "adapter",
        folder / "new" / sae.relative_to(folder / "old"),
        adapted.logits(model),
    )


def test_an_sae_below_the_adapter_moves_with_it(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sae, expected = moved(shelf, tmp_path, inside=True)
    saved = json.loads((path / "adapter_config.json").read_text("utf-8"))
    assert saved["targets"][0]["sae"]["subfolder"] == "sae"
    assert str(tmp_path) not in json.dumps(saved["targets"])
    monkeypatch.chdir(path.parent)
    for given in (path, Path(path.name)):
        model = PeftModel.from_pretrained(adapted.network(), given)
        assert torch.equal(adapted.logits(model), expected)
        assert Path(model.peft_config["default"].targets[0]["sae"]["path"]) == sae
    # Whoever does not tell the directory is not sent into the wrong one.
    with pytest.raises(InputError, match="below the adapter's directory, which is not known"):
        PeftConfig.from_pretrained(str(path))


def test_an_sae_elsewhere_is_given(shelf: Path, tmp_path: Path) -> None:
    path, sae, expected = moved(shelf, tmp_path, inside=False)
    with pytest.raises(InputError, match="has no cfg"):
        PeftModel.from_pretrained(adapted.network(), path)
    config = SaeAdapterConfig.from_pretrained(str(path), sae=sae)
    model = PeftModel.from_pretrained(adapted.network(), path, config=config)
    assert torch.equal(adapted.logits(model), expected)
    in_memory = SAE.load_from_disk(str(sae))
    for given in (sae, str(sae), in_memory, {HOOK: in_memory}):
        model = load(adapted.network(), path, sae=given)
        assert torch.equal(adapted.logits(model), expected)
        assert not any(parameter.requires_grad for parameter in model.parameters())
    again = load(adapted.network(), path, sae=in_memory, is_trainable=True)
    assert sum(parameter.requires_grad for parameter in again.parameters()) == 1


def test_several_saes_are_given_by_hook(shelf: Path, tmp_path: Path) -> None:
    path, sae, expected = moved(shelf, tmp_path, inside=False, hooks=(HOOK, MLP))
    given = {HOOK: sae, MLP: SAE.load_from_disk(str(sae))}
    assert torch.equal(adapted.logits(load(adapted.network(), path, sae=given)), expected)
    with pytest.raises(InputError, match="expected a dictionary of SAEs by hook point"):
        load(adapted.network(), path, sae=sae)
    with pytest.raises(InputError, match=r"given for 'blocks.0.hook_resid_pre'"):
        load(adapted.network(), path, sae={"blocks.0.hook_resid_pre": sae})


def test_beside_an_adapter_that_is_there(shelf: Path, tmp_path: Path) -> None:
    path, sae, expected = moved(shelf, tmp_path, inside=False)
    there = adapted.adapt(adapted.network(), adapted.adapter([adapted.target(shelf, MLP)]))
    model = load(there, path, sae=sae, adapter_name="second")
    assert model is there
    model.set_adapter("second")
    assert torch.equal(adapted.logits(model), expected)


@pytest.mark.parametrize("kind", ["directory", "object"])
def test_another_sae_is_refused(kind: str, shelf: Path, tmp_path: Path) -> None:
    path, *_ = moved(shelf, tmp_path, inside=False)
    other: Any = adapted.target(shelf, HOOK, seed=7)["sae"]["path"]
    if kind == "object":
        other = tiny.sae("standard", HOOK, seed=7)
    with pytest.raises(InputError, match="the adapter is made for"):
        load(adapted.network(), path, sae=other)


def test_what_is_no_adapter_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        load(adapted.network(), tmp_path)
    get_peft_model(adapted.network(), LoraConfig(target_modules=["c_attn"])).save_pretrained(
        tmp_path
    )
    with pytest.raises(InputError, match="an adapter of type LORA"):
        load(adapted.network(), tmp_path)


# The base model


def saved(shelf: Path, folder: Path, model: Any) -> Path:
    adapted.adapt(model, adapted.adapter([adapted.target(shelf, HOOK)])).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_weights_are_taken_in_either_format(
    dtype: torch.dtype, shelf: Path, tmp_path: Path
) -> None:
    saved(shelf, tmp_path, adapted.network(dtype=dtype))
    for other in (torch.float32, torch.bfloat16):
        model = PeftModel.from_pretrained(adapted.network(dtype=other), tmp_path)
        assert len(adapted.parameters(model)) == 1


def test_other_weights_of_one_shape_are_refused(shelf: Path, tmp_path: Path) -> None:
    saved(shelf, tmp_path, adapted.network())
    other = adapted.network()
    other.transformer.h[3].mlp.c_fc.weight.data[5, 7] += 0.5
    with pytest.raises(InputError, match="the model has weights of fingerprint"):
        PeftModel.from_pretrained(other, tmp_path)
    assert not adapted.layers(other)
    there = adapted.adapt(other, adapted.adapter([adapted.target(shelf, MLP)]))
    with pytest.raises(InputError, match="the adapter is made for"):
        there.load_adapter(tmp_path, "second")
    config = SaeAdapterConfig.from_pretrained(str(tmp_path))
    config.base_fingerprint = None
    there.unload()
    assert PeftModel.from_pretrained(other, tmp_path, config=config)


def test_adapters_do_not_count(shelf: Path, tmp_path: Path) -> None:
    """A second adapter knows the same base model as the first."""
    config = adapted.adapter([adapted.target(shelf, HOOK)])
    model = adapted.adapt(adapted.network(), config)
    model.add_adapter("second", adapted.adapter([adapted.target(shelf, MLP)]))
    first, second = (model.peft_config[name].base_fingerprint for name in ("default", "second"))
    assert first == second
    assert first is not None
    # Also where an adapter is put on what was taken off a PEFT model and put on again.
    again = adapted.adapt(model.unload(), config)
    assert again.peft_config["default"].base_fingerprint == first


def test_an_older_adapter_is_opened_without_a_question(shelf: Path, tmp_path: Path) -> None:
    path = saved(shelf, tmp_path, adapted.network()) / "adapter_config.json"
    entries = json.loads(path.read_text("utf-8"))
    assert entries.pop("base_fingerprint")
    del entries["modules_to_save"]
    path.write_text(json.dumps(entries), "utf-8")
    assert PeftModel.from_pretrained(adapted.network(), tmp_path)


@pytest.mark.parametrize("kind", ["meta", "float16"])
def test_weights_that_do_not_tell_are_not_judged(kind: str, shelf: Path, tmp_path: Path) -> None:
    saved(shelf, tmp_path, adapted.network())
    model = adapted.network().to("meta") if kind == "meta" else adapted.network().half()
    config = SaeAdapterConfig.from_pretrained(str(tmp_path))
    assert get_peft_model(model, config)


# The card


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    _, head, text = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_card_of_plain_peft_says_what_it_is(shelf: Path, tmp_path: Path) -> None:
    config = adapted.adapter(
        [adapted.target(shelf, HOOK)], "lowrank", component_options={"rank": 3}
    )
    model = adapted.adapt(adapted.network(), config)
    model.add_adapter("second", adapted.adapter([adapted.target(shelf, MLP)], "bias"))
    model.save_pretrained(tmp_path)
    for folder, component in ((tmp_path, "lowrank (rank 3)"), (tmp_path / "second", "bias")):
        head, text = card_of(folder)
        assert "sparse-autoencoder" in head["tags"]
        assert f"| component | {component} |" in text
        assert "import cleansteer" in text
        assert "More Information Needed" not in text
        assert "PeftModel.from_pretrained" in text
    assert f"{len(adapted.FEATURES)} features of SAE" in card_of(tmp_path)[1]


def test_a_card_of_somebody_else_is_kept(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n\nBy hand.\n", "utf-8")
    model = adapted.adapt(adapted.network(), adapted.adapter([adapted.target(shelf, HOOK)]))
    for _ in range(2):
        model.save_pretrained(tmp_path)
        head, text = card_of(tmp_path)
        assert head["license"] == "mit"
        assert "By hand." in text
        assert text.count("import cleansteer") == 1


# What an adapter cannot be


@pytest.mark.parametrize("task", ["SEQ_CLS", "TOKEN_CLS", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"])
def test_other_tasks_are_refused(task: str, shelf: Path) -> None:
    with pytest.raises(InputError, match=f"task_type is '{task}'"):
        adapted.adapter([adapted.target(shelf, HOOK)], task_type=task)


@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
def test_its_own_task_is_taken(task: str | None, shelf: Path) -> None:
    assert adapted.adapter([adapted.target(shelf, HOOK)], task_type=task).task_type == "CAUSAL_LM"


def test_modules_beside_the_adapter_are_refused(shelf: Path) -> None:
    with pytest.raises(InputError, match=r"modules_to_save is \['lm_head'\]"):
        adapted.adapter([adapted.target(shelf, HOOK)], modules_to_save=["lm_head"])
