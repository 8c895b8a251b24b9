"""Bad input is told in one line and changes nothing; the method's place in PEFT."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapted
import numpy as np
import pytest
import tiny
import torch
import world
from cleansteer.adapters import SaeAdapterConfig, register
from cleansteer.core.errors import InputError
from peft import LoraConfig, PeftModel, get_peft_model

HOOK = "blocks.1.hook_resid_pre"


@pytest.fixture
def good(shelf: Path) -> dict[str, Any]:
    return adapted.target(shelf, HOOK)


def refused(text: tuple[str, ...], make: Callable[[], Any]) -> None:
    """One line that holds the value, what was expected and the remedy."""
    with pytest.raises(InputError) as caught:
        make()
    line = str(caught.value)
    assert "\n" not in line
    assert len(line.split("; ")) >= 2, line
    for part in text:
        assert part in line, line


def sae_with(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda good: good | {"sae": good["sae"] | changes}


def with_(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda good: good | changes


TARGETS: dict[str, tuple[Callable[[dict[str, Any]], Any], tuple[str, ...]]] = {
    "unknown key": (with_(hoook="x"), ("hoook", "hook, sae, features", "correct it")),
    "no SAE": (lambda good: {"hook": HOOK}, (HOOK, "hook, sae, features", "correct it")),
    "no hook": (lambda good: {"sae": good["sae"]}, ("hook, sae, features", "correct it")),
    "no dictionary": (lambda good: HOOK, (HOOK, "expected a dictionary", "correct it")),
    "hook no text": (with_(hook=5), ("hook is 5", "blocks.2.hook_resid_pre", "change it")),
    "SAE no dictionary": (with_(sae="x"), (HOOK, "'x'", "'path'", "correct it")),
    "unknown key of SAE": (sae_with(pth=1), ("pth", "'path'", "correct it")),
    "no source": (with_(sae={}), ("expected either `path`", "correct it")),
    "two sources": (sae_with(release="a", id="b"), ("expected either `path`", "correct it")),
    "half a source": (with_(sae={"release": "a"}), ("belong together", "correct it")),
    "path no text": (sae_with(path=3), ("'path': 3", "valid string", "correct it")),
    "centred no truth": (sae_with(centred="yes"), ("yes", "True, False or 'auto'", "correct it")),
    "empty": (with_(features=[]), (HOOK, "at least one", "list some")),
    "repeated": (with_(features=[4, 1, 4]), ("feature 4", "once", "remove it")),
    "negative": (with_(features=[1, -1]), ("feature -1", "whole numbers from 0", "remove it")),
    "fraction": (with_(features=[1.5]), ("feature 1.5", "whole numbers from 0", "remove it")),
    "truth": (with_(features=[True]), ("feature True", "whole numbers from 0", "remove it")),
    "text for a number": (with_(features=["1"]), ("feature '1'", "whole numbers", "remove it")),
    "text": (with_(features="12"), ("'12'", "list of indices", "change it")),
    "number": (with_(features=3), ("3", "list of indices", "change it")),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", TARGETS)
def test_bad_target(name: str, good: dict[str, Any]) -> None:
    change, text = TARGETS[name]
    refused(text, lambda: SaeAdapterConfig(targets=[change(good)]))


CONFIGURATIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no targets": ({"targets": []}, ("no target", "at least one", "`targets`")),
    "None": ({"targets": None}, ("None", "list of targets", "change")),
    "text": ({"targets": "x"}, ("'x'", "list of targets", "change")),
    "component": ({"component": "scal"}, ("'scal'", "lowrank, mlp, scale", "choose one")),
    "components": ({"component": ["scale"]}, ("['scale']", "lowrank, mlp, scale", "choose one")),
    "option": ({"component_options": {"rank": 3}}, ("'rank'", "'scale'", "none", "leave it out")),
    "another's option": (
        {"component": "lowrank", "component_options": {"l1": 3}},
        ("'l1'", "'lowrank'", "takes rank", "leave it out"),
    ),
    "options": ({"component_options": [3]}, ("[3]", "dictionary", "change")),
    "too small": (
        {"component": "lowrank", "component_options": {"rank": 0}},
        ("'rank'", "0", "whole number of at least 1", "change it"),
    ),
    "too large": (
        {"component": "lowrank", "component_options": {"rank": 10**11}},
        ("'rank'", "100000000000", "at least 1 and at most 16384", "change it"),
    ),
    "not whole": (
        {"component": "mlp", "component_options": {"hidden": 1.5}},
        ("'hidden'", "1.5", "whole number of at least 1", "change it"),
    ),
    "truth": (
        {"component": "mlp", "component_options": {"hidden": True}},
        ("'hidden'", "True", "whole number of at least 1", "change it"),
    ),
    "no number": (
        {"component": "sparse", "component_options": {"l1": "a"}},
        ("'l1'", "'a'", "number of at least 0.0", "change it"),
    ),
    "not a number": (
        {"component": "sparse", "component_options": {"l1": float("nan")}},
        ("'l1'", "nan", "number of at least 0.0", "change it"),
    ),
    "infinite": (
        {"component": "switch", "component_options": {"temperature": float("inf")}},
        ("'temperature'", "inf", "number of at least 0.001", "change it"),
    ),
    "minus infinity": (
        {"component": "switch", "component_options": {"threshold": float("-inf")}},
        ("'threshold'", "-inf", "finite number", "change it"),
    ),
    "seed": ({"seed": "x"}, ("'x'", "whole number from 0", "change it")),
    "seed fraction": ({"seed": 1.5}, ("1.5", "whole number from 0", "change it")),
    "negative seed": ({"seed": -1}, ("-1", "whole number from 0", "change it")),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_bad_configuration(name: str, good: dict[str, Any]) -> None:
    changes, text = CONFIGURATIONS[name]
    refused(text, lambda: SaeAdapterConfig(**({"targets": [good]} | changes)))


def test_a_hook_twice(good: dict[str, Any]) -> None:
    refused(
        (HOOK, "twice", "each once", "put its features into one"),
        lambda: SaeAdapterConfig(targets=[good, good | {"features": [90]}]),
    )


def test_features_are_sorted_plain_numbers(good: dict[str, Any]) -> None:
    for features in ([7, 3], (7, 3), {7, 3}, np.array([7, 3]), torch.tensor([7, 3])):
        config = SaeAdapterConfig(targets=[good | {"features": features}])
        assert config.targets[0]["features"] == [3, 7]
        assert {type(feature) for feature in config.targets[0]["features"]} == {int}


def test_a_relative_path_is_kept_from_where_it_was_given(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = adapted.target(shelf, HOOK)
    folder = Path(target["sae"]["path"])
    monkeypatch.chdir(folder.parent)
    config = SaeAdapterConfig(targets=[target | {"sae": {"path": folder.name}}])
    monkeypatch.chdir(tmp_path)
    adapted.adapt(adapted.network(), config)


def of_model(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], dict[str, Any]]:
    return lambda shelf: change(adapted.target(shelf, HOOK))


MODELS: dict[str, tuple[Callable[[Path], dict[str, Any]], tuple[str, ...]]] = {
    "no such hook": (
        of_model(with_(hook="blocks.1.hook_nothing")),
        ("hook_nothing", "hook_mlp_out", "use another SAE"),
    ),
    "no such layer": (
        of_model(with_(hook="blocks.4.hook_resid_pre")),
        ("blocks.4.", "layers 0 to 3", "correct `hook`"),
    ),
    "middle": (
        of_model(with_(hook="blocks.1.hook_resid_mid")),
        ("hook_resid_mid", "expected hook_resid_pre", "use an SAE"),
    ),
    "no such feature": (
        of_model(with_(features=[3, 96])),
        ("feature 96", "0 to 95", "remove it"),
    ),
    "no directory": (
        of_model(sae_with(path="/nowhere")),
        ("/nowhere", "cfg.json", "correct `path`"),
    ),
    "another width": (
        lambda shelf: adapted.target(shelf, HOOK, width=48),
        ("48", "32", HOOK, "use an SAE trained on this model"),
    ),
    "another width of heads": (
        lambda shelf: adapted.target(shelf, "blocks.1.attn.hook_z", width=48),
        ("48", "32", "attn.hook_z", "use an SAE trained on this model"),
    ),
    "centred heads": (
        lambda shelf: adapted.target(shelf, "blocks.1.attn.hook_z", centred=True),
        ("heads", "residual stream", "remove it"),
    ),
    "normalisation": (
        lambda shelf: adapted.target(shelf, HOOK, normalize_activations="covariance_whitening"),
        ("covariance_whitening", "neither folded", "name its SAELens release"),
    ),
    "scaled activations": (
        lambda shelf: adapted.target(shelf, HOOK, normalize_activations="expected_average_only_in"),
        ("expected_average_only_in", "neither folded", "name its SAELens release"),
    ),
    "another SAE": (
        of_model(sae_with(fingerprint="0123456789abcdef")),
        ("0123456789abcdef", "expected the same SAE", "give that one"),
    ),
}


@pytest.mark.parametrize("beside", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("name", MODELS)
def test_what_does_not_fit_the_model_changes_nothing(name: str, beside: bool, shelf: Path) -> None:
    """Also where the first of two targets is good, and where the model has an adapter already."""
    make, text = MODELS[name]
    network = adapted.network()
    other = adapted.target(shelf, "blocks.2.hook_mlp_out")
    config = SaeAdapterConfig(targets=[other, make(shelf)])
    if beside:
        model = adapted.adapt(network, adapted.adapter([adapted.target(shelf, HOOK)]))
        before = state(model), adapted.logits(model)
        refused(text, lambda: model.add_adapter("second", config))
        after = state(model), adapted.logits(model)
        assert list(model.peft_config) == ["default"]
    else:
        before = state(network), adapted.logits(network)
        refused(text, lambda: get_peft_model(network, config))
        after = state(network), adapted.logits(network)
        assert not hasattr(network, "peft_config")
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])


def state(model: Any) -> tuple[Any, ...]:
    """Modules, hooks, and what is trained."""
    modules = {name: id(module) for name, module in model.named_modules()}
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    return modules, trained, len(adapted.hooks_of(model))


@pytest.mark.parametrize("tensor", ["W_enc", "W_dec", "b_enc", "b_dec"])
def test_another_sae_than_at_training_is_refused(tensor: str, tmp_path: Path) -> None:
    target = adapted.target(tmp_path, HOOK)
    model = adapted.adapt(adapted.network(), adapted.adapter([target]))
    model.save_pretrained(tmp_path / "adapter")
    sae = tiny.sae("standard", "")
    changed = sae.state_dict()[tensor].clone()
    changed.view(-1)[-1] += 1e-3  # also of a feature that is not allowed
    folder = Path(target["sae"]["path"])
    world.overwrite_tensor(folder, **{tensor: changed})
    network = adapted.network()
    refused(
        (str(folder), "fingerprint", "expected the same SAE", "give that one"),
        lambda: PeftModel.from_pretrained(network, tmp_path / "adapter"),
    )
    assert not adapted.layers(network)
    world.save_sae(sae, folder)
    loaded = PeftModel.from_pretrained(network, tmp_path / "adapter")
    assert torch.equal(adapted.logits(loaded), adapted.logits(model))


def test_a_model_that_is_none(good: dict[str, Any]) -> None:
    refused(
        ("Linear", "expected a causal language model", "use one"),
        lambda: get_peft_model(torch.nn.Linear(3, 3), SaeAdapterConfig(targets=[good])),
    )


@pytest.mark.parametrize("merge", ["merge_and_unload", "merge_adapter", "unmerge_adapter"])
def test_merging_is_refused(merge: str, good: dict[str, Any]) -> None:
    model = adapted.adapt(adapted.network(), adapted.adapter([good]))
    before = state(model), adapted.logits(model)
    with pytest.raises(ValueError, match=r"cannot be merged into weights.* keep it as an adapter"):
        getattr(model, merge)()
    assert state(model) == before[0]
    assert torch.equal(adapted.logits(model), before[1])


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_cleansteer_imports_neither_torch_nor_peft() -> None:
    code = "import sys, cleansteer; print(sorted({'torch', 'peft', 'aenum'} & set(sys.modules)))"
    assert python(code) == "[]"


@pytest.mark.parametrize("order", [("cleansteer", "peft"), ("peft", "cleansteer")])
def test_peft_knows_the_method_in_either_order(
    order: tuple[str, str], shelf: Path, tmp_path: Path
) -> None:
    model = adapted.adapt(adapted.network(), adapted.adapter([adapted.target(shelf, HOOK)]))
    model.save_pretrained(tmp_path / "adapter")
    adapted.network().save_pretrained(tmp_path / "model")
    code = f"""
import {order[0]}, {order[1]}
import torch
torch.set_num_threads(1)
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained({str(tmp_path / "model")!r})
model = peft.PeftModel.from_pretrained(base, {str(tmp_path / "adapter")!r}).eval()
tokens = torch.arange(1, 10)[None]
with torch.no_grad():
    print(float(model(tokens, use_cache=False).logits.double().square().sum()))
"""
    expected = adapted.logits(model, torch.arange(1, 10)[None]).double().square().sum()
    assert float(python(code)) == pytest.approx(float(expected), rel=1e-6)


def test_registering_again_is_harmless(good: dict[str, Any]) -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
    from peft.utils import PeftType

    members = list(PeftType)
    configurations = dict(PEFT_TYPE_TO_CONFIG_MAPPING)
    tuners = dict(PEFT_TYPE_TO_TUNER_MAPPING)
    register()
    register()
    assert list(PeftType) == members
    assert configurations == PEFT_TYPE_TO_CONFIG_MAPPING
    assert tuners == PEFT_TYPE_TO_TUNER_MAPPING
    adapted.adapt(adapted.network(), adapted.adapter([good]))


def test_other_methods_are_as_they_were() -> None:
    code = """
import peft
from peft import mapping
from peft.utils import PeftType
def tables():
    return {
        name: {str(key): value for key, value in table.items()}
        for name, table in vars(mapping).items()
        if name.startswith("PEFT_TYPE_TO")
    }
before, members = tables(), list(PeftType)
import cleansteer
after = tables()
assert len(before) >= 3, before.keys()
for name, table in before.items():
    assert {k: v for k, v in after[name].items() if k in table} == table
    assert all(key.endswith("CLEANSTEER") for key in after[name].keys() - table)
assert list(PeftType)[:len(members)] == members
assert [member.value for member in list(PeftType)[len(members):]] == ["CLEANSTEER"]
print("as it was")
"""
    assert python(code) == "as it was"


def test_lora_works_beside() -> None:
    torch.manual_seed(0)
    model = get_peft_model(
        adapted.network("llama"), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    assert torch.equal(adapted.logits(model), adapted.base_logits("llama"))
    assert not adapted.layers(model)
