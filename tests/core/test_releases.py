"""One SAE is one SAE, however it is named: by release, by repository, or by its directory."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import hub
import minimal
import pytest
import tiny
import torch
import world
from cleansteer.core.errors import InputError
from cleansteer.core.models import LanguageModel
from cleansteer.core.releases import load_listed
from cleansteer.core.saes import Dictionary, load_dictionary, open_sae, wrap_sae
from cleansteer.core.settings import SaeSetting
from huggingface_hub import constants
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import (
    PretrainedSAELookup,
    get_pretrained_saes_directory,
)
from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening

RELEASE, REPOSITORY, FOLDER, ID = "made-up-res", "somebody/Made-Up-SAEs", "layer_1/sae", "layer 1"
HOOK = "blocks.1.hook_resid_pre"
FACTOR = 2.37
MODES = ("expected_average_only_in", "covariance_whitening")
ROUNDED = 1e-5  # float32


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny.model()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def snapshot(cache: Path, repository: str) -> Path:
    cached = cache / f"models--{repository.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("c0ffee", "utf-8")
    return cached / "snapshots" / "c0ffee"


def save_old(folder: Path, **entries: object) -> None:
    """As SAELens before version 6 saved an SAE; there alone its list's corrections take effect."""
    world.save_sae(tiny.sae("standard", HOOK), folder)
    shape = {"d_in": tiny.WIDTH, "d_sae": 96, "dtype": "float32"}
    about = {"hook_name": HOOK, "normalize_activations": MODES[0]} | shape | entries
    (folder / "cfg.json").write_text(json.dumps(about), "utf-8")


@pytest.fixture
def listed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cached directory of an SAE that SAELens' list has, with a factor and a correction."""
    entry = PretrainedSAELookup(
        release=RELEASE,
        repo_id=REPOSITORY,
        model="gpt2",
        conversion_func=None,
        saes_map={"another": "layer_0/sae", ID: FOLDER},
        expected_var_explained={},
        expected_l0={},
        neuronpedia_id={},
        norm_scaling_factor={ID: FACTOR, "another": 9.0},
        config_overrides={"model_from_pretrained_kwargs": {"center_writing_weights": True}},
    )
    monkeypatch.setitem(get_pretrained_saes_directory(), RELEASE, entry)
    folder = snapshot(cache, REPOSITORY) / FOLDER
    save_old(folder)
    return folder


NAMES: dict[str, Callable[[Path], SaeSetting]] = {
    "release": lambda folder: SaeSetting(release=RELEASE, id=ID),
    "repository": lambda folder: SaeSetting(release=REPOSITORY, id=FOLDER),
    "repository, folder with slash": lambda folder: SaeSetting(release=REPOSITORY, id=f"{FOLDER}/"),
    "directory": lambda folder: SaeSetting(path=str(folder)),
}


def load(which: SaeSetting, model: LanguageModel) -> Dictionary:
    return load_dictionary(minimal.setting(), which, model)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_saelens_loads_by_release(name: str, listed: Path, model: LanguageModel) -> None:
    found = load(NAMES[name](listed), model)
    expected = SAE.from_pretrained(RELEASE, ID).state_dict()
    for key, tensor in found.sae.state_dict().items():
        assert torch.equal(tensor, expected[key]), key
    raw = tiny.sae("standard", HOOK)
    torch.testing.assert_close(found.decoder, raw.W_dec / FACTOR, rtol=ROUNDED, atol=ROUNDED)
    values = torch.randn(5, tiny.WIDTH, generator=torch.Generator().manual_seed(0))
    centred = values - values.mean(dim=-1, keepdim=True)
    torch.testing.assert_close(
        found.encode(values), raw.encode(centred * FACTOR), rtol=1e-4, atol=1e-4
    )
    assert found.centred
    assert found.sae.cfg.normalize_activations == "none"
    assert found.sae.cfg.metadata.hook_name == HOOK


def test_a_directory_that_is_a_link_into_the_cache(
    listed: Path, model: LanguageModel, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(listed)
    by_release = load(NAMES["release"](listed), model)
    linked = load(SaeSetting(path=str(tmp_path / "link")), model)
    assert (linked.fingerprint, linked.centred) == (by_release.fingerprint, True)


def test_the_bundled_settings_sae_by_every_name(cache: Path, tmp_path: Path) -> None:
    """GPT-2 small's: SAELens' list says that it reads a centred stream, its file does not."""
    repository, folder = "jbloom/GPT2-Small-SAEs-Reformatted", "blocks.8.hook_resid_pre"
    hub.build(tmp_path / "files", ("gpt2-small",))
    inside = snapshot(cache, repository)
    shutil.copytree(tmp_path / "files" / "models" / repository, inside)
    network = tiny.model(n_layer=12, n_embd=hub.WIDTH)
    found = [
        load(which, network)
        for which in (
            SaeSetting(release="gpt2-small-res-jb", id=folder),
            SaeSetting(release=repository, id=folder),
            SaeSetting(path=str(inside / folder)),
        )
    ]
    assert {(one.fingerprint, one.centred) for one in found} == {(found[0].fingerprint, True)}


def test_what_no_release_lists_stays_as_it_is(cache: Path, model: LanguageModel) -> None:
    folder = snapshot(cache, "somebody/Else") / FOLDER
    save_old(folder, normalize_activations="none")
    found = [
        load(which, model)
        for which in (
            SaeSetting(release="somebody/Else", id=FOLDER),
            SaeSetting(path=str(folder)),
        )
    ]
    assert {one.centred for one in found} == {False}
    for one in found:
        assert torch.equal(one.decoder, tiny.sae("standard", HOOK).W_dec)


@pytest.mark.parametrize("mode", MODES)
def test_a_scale_that_is_not_known_is_refused(
    mode: str, cache: Path, model: LanguageModel, tmp_path: Path
) -> None:
    made = tiny.sae("standard", HOOK, normalize_activations=mode)
    world.save_sae(made, tmp_path / "sae")
    world.save_sae(made, snapshot(cache, "somebody/Else") / FOLDER)
    named = SaeSetting(path="sae"), SaeSetting(release="somebody/Else", id=FOLDER)
    for which in named:
        with pytest.raises(InputError, match=mode) as caught:
            open_sae(which, tmp_path)
        assert "name its SAELens release, or fold" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=mode):
        wrap_sae(made, SaeSetting(path="tiny"), model)


def test_a_given_sae_is_taken_once_its_scale_is_folded_in(model: LanguageModel) -> None:
    made = tiny.sae("standard", HOOK, normalize_activations=MODES[0])
    made.fold_activation_norm_scaling_factor(FACTOR)
    found = wrap_sae(made, SaeSetting(path="tiny"), model)
    assert torch.equal(found.decoder, tiny.sae("standard", HOOK).W_dec / FACTOR)


def whitening() -> ActivationWhitening:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(tiny.WIDTH, tiny.WIDTH, generator=generator, dtype=torch.float64)
    mean = torch.randn(tiny.WIDTH, generator=generator, dtype=torch.float64)
    return ActivationWhitening(mean, matrix, torch.linalg.inv(matrix))


SCALERS = {
    MODES[0]: lambda: ActivationScaler(scaling_factor=FACTOR),
    MODES[1]: lambda: ActivationScaler(whitening=whitening()),
}


@pytest.mark.parametrize("mode", MODES)
def test_what_training_left_beside_a_checkpoint_is_folded_in(
    mode: str, model: LanguageModel, tmp_path: Path
) -> None:
    scaler = SCALERS[mode]()
    world.save_sae(tiny.sae("standard", HOOK, normalize_activations=mode), tmp_path)
    scaler.save(str(tmp_path / "activation_scaler.json"))
    found = load(SaeSetting(path=str(tmp_path)), model)
    values = torch.randn(5, tiny.WIDTH, generator=torch.Generator().manual_seed(0))
    expected = tiny.sae("standard", HOOK).encode(scaler.scale(values))
    torch.testing.assert_close(found.encode(values), expected, rtol=1e-3, atol=1e-3)
    assert found.sae.cfg.normalize_activations == "none"


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (_MADE,)


_MADE = "made-by-a-pickle"


@pytest.mark.parametrize("forced", [False, True])
def test_of_pickled_weights_tensors_alone_are_taken(
    forced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"W_dec": torch.ones(2), "more": _Payload()}, tmp_path / "bad.pt")
    torch.save({"W_dec": torch.ones(2)}, tmp_path / "good.pt")

    def from_pretrained(release: str, sae_id: str, device: str) -> object:
        return torch.load(tmp_path / sae_id, map_location=device, weights_only=False)

    monkeypatch.setattr(SAE, "from_pretrained", from_pretrained)
    before = torch.load
    assert torch.equal(load_listed("x", "good.pt", "cpu")["W_dec"], torch.ones(2))
    with pytest.raises(Exception, match="Weights only load failed"):
        load_listed("x", "bad.pt", "cpu")
    assert not (tmp_path / _MADE).exists()
    assert torch.load is before
