"""The miniatures that ship: they load, they are what their card says, and held out is held out."""

import importlib.util
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from cleansteer import miniatures
from cleansteer.core.contexts import build_contexts
from cleansteer.core.docstrings import STDLIB
from cleansteer.core.models import LanguageModel, load_model
from cleansteer.core.saes import Dictionary, load_dictionary
from cleansteer.core.settings import CorpusSetting, Setting
from cleansteer.core.texts import read_texts
from cleansteer.miniatures.__main__ import HOOKS, KINDS
from cleansteer.miniatures.card import write_card
from cleansteer.miniatures.model import ModelRecipe
from cleansteer.miniatures.saes import SaeRecipe, variant
from cleansteer.miniatures.text import (
    HELD_OUT_PACKAGES,
    MIN_CHARS,
    TRAINED_PACKAGES,
)
from cleansteer.study.catalogue import bundled, load_setting

WEIGHTS = Path(miniatures.__file__).parent / "weights"
SAE_RECIPE = SaeRecipe()
NAMES = tuple(KINDS)
EVERY = [(name, kind, site) for name in NAMES for kind in KINDS[name] for site in HOOKS]
HALF = 2.0**-11  # weights are stored as float16
# The card's figures are of 100,000 tokens of the packages as they were installed then.
VARIANCE_TOLERANCE = 0.03
L0_TOLERANCE = 0.1  # relative
LOSS_TOLERANCE = 0.35  # nats; of 30 windows instead of 400


def recipe(name: str) -> ModelRecipe:
    return ModelRecipe(name, family=name.removeprefix("mini-"))


def setting_of(name: str, kind: str) -> Setting:
    """The bundled setting that steers this SAE."""
    primary = WEIGHTS / name / kind / "primary"
    settings = [load_setting(listed) for listed in bundled() if listed.startswith("mini-")]
    (found,) = (s for s in settings if s.locate(s.sae.path or "").resolve() == primary.resolve())
    return found


@cache
def model(name: str) -> LanguageModel:
    return load_model(setting_of(name, KINDS[name][0]))


@cache
def dictionary(name: str, kind: str, site: str) -> Dictionary:
    setting = setting_of(name, kind)
    which = setting.sae if site == "primary" else setting.downstream_sae
    return load_dictionary(setting, which, model(name))


@cache
def contexts(
    name: str, packages: tuple[str, ...], split: str, n_contexts: int, length: int
) -> torch.Tensor:
    corpus = CorpusSetting(
        packages=packages,
        split=split,
        min_chars=MIN_CHARS,
        n_texts=700,
        n_contexts=n_contexts,
        context_length=length,
    )
    setting = load_setting("mini-gpt2-relu")
    texts = read_texts(setting, corpus)
    return build_contexts(texts, corpus, model(name).tokenizer, setting.seed)


@cache
def residuals(name: str, site: str) -> torch.Tensor:
    """``[token, d]`` of some 24,000 tokens of files that the miniatures were not trained on."""
    place = dictionary(name, KINDS[name][0], site).site
    tokens = contexts(name, TRAINED_PACKAGES, "validation", 500, 48)
    (residual,) = model(name).read(tokens, [place])
    return residual.flatten(0, 1)


def figures(*parts: str) -> dict[str, float]:
    data: dict[str, float] = json.loads((WEIGHTS.joinpath(*parts) / "figures.json").read_text())
    return data


def loss(name: str, packages: tuple[str, ...], split: str) -> float:
    tokens = contexts(name, packages, split, 30, recipe(name).n_positions)
    log_probabilities = model(name).bridge(tokens).log_softmax(dim=-1)[:, :-1]
    return -log_probabilities.gather(-1, tokens[:, 1:, None]).mean().item()


def test_there_is_a_setting_for_every_kind() -> None:
    expected = [setting_of(name, kind).name for name in NAMES for kind in KINDS[name]]
    assert sorted(expected) == [name for name in bundled() if name.startswith("mini-")]


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n in NAMES for k in KINDS[n] if "-" in k])
def test_a_wider_dictionary_differs_in_nothing_but_its_width(name: str, kind: str) -> None:
    narrow, wide = setting_of(name, kind.partition("-")[0]), setting_of(name, kind)
    for section in ("model", "corpus", "heldout_corpus"):
        assert getattr(narrow, section) == getattr(wide, section)
    panels = {s.steering.model_copy(update={"panel_size": 0}) for s in (narrow, wide)}
    assert len(panels) == 1
    sizes = [
        min(s.steering.panel_size, dictionary(name, k, "downstream").n_features)
        for s, k in ((narrow, kind.partition("-")[0]), (wide, kind))
    ]
    assert sizes[0] == sizes[1], "counts are of as many panel features"
    for site in HOOKS:
        one, other = (
            json.loads((WEIGHTS / name / k / site / "cfg.json").read_text("utf-8"))
            for k in (kind.partition("-")[0], kind)
        )
        assert other.pop("d_sae") == 2 * one.pop("d_sae")
        for measured in ("l0", "num_dead_features"):
            one["metadata"].pop(measured, None)
            other["metadata"].pop(measured, None)
        assert other == one


@pytest.mark.parametrize("name", NAMES)
def test_the_model_has_the_shape_of_its_recipe(name: str) -> None:
    made, planned = model(name), recipe(name)
    assert (made.n_layers, made.width) == (planned.n_layer, planned.n_embd)
    assert made.n_positions == planned.n_positions
    assert len(made.tokenizer) == planned.vocab_size == made.unembedding().shape[1]
    parameters = sum(tensor.numel() for tensor in made.parameters.values())
    assert parameters == figures(name, "model")["parameters"]


@pytest.mark.parametrize(("name", "kind", "site"), EVERY)
def test_saes_have_unit_directions_at_their_hooks(name: str, kind: str, site: str) -> None:
    sae = dictionary(name, kind, site)
    architecture, widened = variant(kind, SAE_RECIPE)
    assert sae.architecture == {"relu": "standard"}.get(architecture, architecture)
    assert sae.decoder.shape == (widened.n_features, model(name).width)
    assert sae.site.hook == f"blocks.{HOOKS[site]}.hook_resid_pre"
    assert sae.centred is False
    assert (sae.decoder.norm(dim=1) - 1).abs().max() < HALF


@pytest.mark.parametrize(("name", "kind", "site"), EVERY)
def test_saes_are_as_good_as_the_card_says(name: str, kind: str, site: str) -> None:
    sae, said = dictionary(name, kind, site), figures(name, kind, site)
    x = residuals(name, site)
    activations = sae.encode(x)
    error = (sae.sae.decode(activations) - x).double().square().sum()
    explained = 1 - (error / (x - x.mean(dim=0)).double().square().sum()).item()
    fires = activations > 1e-6
    assert explained > 0.8
    assert explained == pytest.approx(said["explained_variance"], abs=VARIANCE_TOLERANCE)
    assert fires.sum(dim=1).double().mean().item() == pytest.approx(said["l0"], rel=L0_TOLERANCE)
    assert (~fires.any(dim=0)).double().mean().item() < 0.1
    assert said["dead_share"] < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_the_figures_say(name: str, tmp_path: Path) -> None:
    folder = WEIGHTS / name
    card = (folder / "README.md").read_text("utf-8")
    places = [(kind, site) for kind in KINDS[name] for site in HOOKS]
    for kind, site in places:
        said = figures(name, kind, site)
        line = re.search(rf"^\| {kind}/{site} \|(.*)\|$", card, re.MULTILINE)
        assert line is not None
        hook, features, variance, l0, dead = (cell.strip() for cell in line[1].split("|"))
        assert hook == dictionary(name, kind, site).site.hook
        assert int(features.replace(",", "")) == dictionary(name, kind, site).n_features
        assert float(variance) == pytest.approx(said["explained_variance"], abs=5e-4)
        assert float(l0) == pytest.approx(said["l0"], abs=0.05)
        assert float(dead.rstrip("%")) / 100 == pytest.approx(said["dead_share"], abs=5e-4)
    for path in [folder / "model", *(folder / kind / site for kind, site in places)]:
        copy = tmp_path / path.relative_to(folder)
        copy.mkdir(parents=True)
        for file in ("figures.json", "cfg.json"):
            if (path / file).exists():
                (copy / file).write_bytes((path / file).read_bytes())
    write_card(tmp_path, recipe(name), SAE_RECIPE)
    assert (tmp_path / "README.md").read_text("utf-8") == card, "the card is written anew"


@pytest.mark.parametrize("name", NAMES)
def test_the_model_reads_what_it_was_trained_on_better_than_what_was_held_out(name: str) -> None:
    said = json.loads((WEIGHTS / name / "model" / "figures.json").read_text("utf-8"))
    validation = loss(name, TRAINED_PACKAGES, "validation")
    assert validation == pytest.approx(said["validation_loss"], abs=LOSS_TOLERANCE)
    assert validation < 0.6 * np.log(recipe(name).vocab_size), "far from guessing"
    for package in HELD_OUT_PACKAGES:
        held_out = loss(name, (package,), "train")
        assert held_out == pytest.approx(said["held_out_package_loss"][package], abs=LOSS_TOLERANCE)
        assert held_out > validation


def test_held_out_packages_were_not_trained_on_nor_lie_inside_those_that_were() -> None:
    assert not set(HELD_OUT_PACKAGES) & set(TRAINED_PACKAGES)
    assert len(set(TRAINED_PACKAGES) | set(HELD_OUT_PACKAGES)) == 20
    for name in bundled():
        for corpus in (load_setting(name).corpus, load_setting(name).heldout_corpus):
            assert not set(corpus.packages or ()) & set(HELD_OUT_PACKAGES)


@pytest.mark.parametrize(
    "package", [p for p in (*TRAINED_PACKAGES, *HELD_OUT_PACKAGES) if p != STDLIB]
)
def test_packages_are_named_as_they_are_imported(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
