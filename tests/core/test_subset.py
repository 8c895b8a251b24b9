"""Parts of SAEs: what some features encode is what the whole encodes of them."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from cleansteer.adapters.config import Target
from cleansteer.adapters.opening import open_shared, opened_once
from cleansteer.core.errors import InputError
from cleansteer.core.models import LanguageModel
from cleansteer.core.saes import open_sae
from cleansteer.core.settings import SaeSetting
from dictionaries import FEATURES, HOOK, HOOK_SITE, INDEPENDENT, random_sae, residual, wrap

EXACT = 1e-12  # float64: only the order of sums differs
SINGLE = 1e-5  # float32
VARIANTS = (
    {},
    {"apply_b_dec_to_input": False},
    {"normalize_activations": "layer_norm"},
    {"normalize_activations": "constant_norm_rescale"},
)
LEVEL = 24


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny.model()


@pytest.mark.parametrize("architecture", INDEPENDENT)
@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("centred", [False, True])
def test_columns_encode_as_columns_of_the_whole(
    architecture: str, config: dict[str, object], centred: bool, model: LanguageModel
) -> None:
    whole = wrap(random_sae(architecture, **config), model, centred=centred)
    part = whole.columns(FEATURES)
    expected = whole.encode(residual(5, 4))[..., FEATURES]
    assert (expected > 0).any()
    assert (expected == 0).any()
    torch.testing.assert_close(part.encode(residual(5, 4)), expected, rtol=EXACT, atol=EXACT)
    assert (part.site, part.centred, part.fingerprint) == (HOOK_SITE, centred, whole.fingerprint)


@pytest.mark.parametrize("architecture", INDEPENDENT)
def test_columns_of_columns(architecture: str, model: LanguageModel) -> None:
    whole = wrap(random_sae(architecture), model)
    chosen = np.array([4, 0, 2])
    twice = whole.columns(FEATURES).columns(chosen)
    once = whole.columns(FEATURES[chosen])
    assert torch.equal(twice.encode(residual(9)), once.encode(residual(9)))
    assert torch.equal(twice.decoder, whole.decoder[FEATURES[chosen]])
    assert torch.equal(twice.encoder, whole.encoder[:, FEATURES[chosen]])
    assert twice.n_features == 3


@pytest.mark.parametrize("architecture", INDEPENDENT)
def test_columns_share_nothing_with_the_whole(architecture: str, model: LanguageModel) -> None:
    whole = wrap(random_sae(architecture), model)
    before = whole.encode(residual(9))
    part = whole.columns(FEATURES)
    for tensor in part.sae.state_dict().values():
        tensor.zero_()
    assert torch.equal(whole.encode(residual(9)), before)


@pytest.mark.filterwarnings("error::UserWarning")
def test_columns_keep_what_an_sae_is_told_about_its_model_to_themselves(
    model: LanguageModel,
) -> None:
    """SAELens warns of such metadata whenever it makes an SAE."""
    sae = random_sae("standard")
    kwargs = {"center_writing_weights": True}
    sae.cfg.metadata.model_from_pretrained_kwargs = kwargs
    whole = wrap(sae, model)
    part = whole.columns(FEATURES)
    assert (whole.centred, part.centred) == (True, True)
    assert sae.cfg.metadata.model_from_pretrained_kwargs == kwargs


def test_latents_of_topk_cannot_be_taken_alone(model: LanguageModel) -> None:
    whole = wrap(random_sae("topk", k=12), model)
    assert not whole.independent
    with pytest.raises(ValueError, match="topk SAE cannot be computed alone"):
        whole.columns(FEATURES)


def saved(sae: object, folder: Path) -> Path:
    sae.save_model(folder)
    return folder


@pytest.mark.parametrize("architecture", INDEPENDENT)
@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_a_level_reconstructs_by_its_features_alone(
    architecture: str, config: dict[str, object], tmp_path: Path
) -> None:
    folder = str(saved(random_sae(architecture, **config), tmp_path))
    whole, _ = open_sae(SaeSetting(path=folder), tmp_path)
    level, _ = open_sae(SaeSetting(path=folder, first=LEVEL), tmp_path)
    x = residual(7).float()
    latents, found = whole.encode(x), level.encode(x)
    torch.testing.assert_close(found, latents[:, :LEVEL], rtol=SINGLE, atol=SINGLE)
    latents[:, LEVEL:] = 0
    torch.testing.assert_close(level.decode(found), whole.decode(latents), rtol=SINGLE, atol=SINGLE)
    assert level.cfg.metadata.hook_name == HOOK


def test_levels_are_dictionaries_of_their_own(tmp_path: Path) -> None:
    """Fingerprints, and what is opened once, tell them apart; the label says which it is."""
    folder = str(saved(random_sae("jumprelu"), tmp_path))
    settings = [SaeSetting(path=folder, first=first) for first in (None, 24, 48)]
    with opened_once():
        opened = [open_shared(setting, tmp_path) for setting in settings]
    assert [sae.cfg.d_sae for sae, _ in opened] == [96, 24, 48]
    assert len({fingerprint for _, fingerprint in opened}) == 3
    assert settings[1].label.endswith("(its first 24 features)")


def test_what_the_setting_says_reaches_adapters(tmp_path: Path) -> None:
    setting = SaeSetting(path=str(tmp_path), first=24)
    target = Target.of(setting, tmp_path, HOOK, [3], "f")
    assert Target.parse(target.to_dict()).sae.first == 24
    assert target.reading(tmp_path / "elsewhere").sae.first == 24


def test_no_level_beyond_the_dictionary(tmp_path: Path) -> None:
    folder = str(saved(random_sae("standard"), tmp_path))
    with pytest.raises(InputError, match=r"`first` is 97, SAE .* has 96 features"):
        open_sae(SaeSetting(path=folder, first=97), tmp_path)


def test_no_level_of_latents_that_depend_on_each_other(tmp_path: Path) -> None:
    folder = str(saved(random_sae("topk", k=12), tmp_path))
    with pytest.raises(InputError, match=r"in a topk SAE .* which features fire depends on all"):
        open_sae(SaeSetting(path=folder, first=24), tmp_path)
