"""What is here is what loading would find: every file counts, and a name alone counts nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import hub
import minimal
import pytest
import world
from cleansteer.core.cache import PARTS, present, summary
from cleansteer.core.settings import Setting, parse_setting, read_setting
from cleansteer.study.catalogue import bundled, load_setting
from huggingface_hub import constants

FILES = {
    "model": ["model/config.json", "model/model.safetensors", "model/tokenizer.json"],
    "sae": ["primary/cfg.json", "primary/sae_weights.safetensors"],
    "downstream_sae": ["downstream/cfg.json", "downstream/sae_weights.safetensors"],
    "corpus": ["texts.txt", "fresh.txt"],
}


@pytest.fixture
def local(tmp_path: Path) -> Setting:
    return read_setting(world.build(tmp_path))


@pytest.mark.parametrize(("part", "path"), [(p, f) for p, files in FILES.items() for f in files])
def test_every_local_file_counts(local: Setting, part: str, path: str) -> None:
    assert present(local) == dict.fromkeys(PARTS, True)
    local.locate(path).unlink()
    assert present(local) == dict.fromkeys(PARTS, True) | {part: False}


def test_every_shard_counts(local: Setting) -> None:
    folder = local.locate("model")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    assert not present(local)["model"]
    (folder / "model-2.safetensors").touch()
    assert present(local)["model"]


@pytest.mark.parametrize(
    ("packages", "here"),
    [(["stdlib", "numpy"], True), (["numpy", "no_such_package"], False)],
)
def test_packages_count_where_they_are_installed(packages: list[str], here: bool) -> None:
    corpus = {"packages": packages}
    data = minimal.data() | {"corpus": corpus, "heldout_corpus": corpus | {"split": "validation"}}
    assert present(parse_setting(data, "test"))["corpus"] is here


def test_summary_names_what_is_here() -> None:
    assert summary(dict.fromkeys(PARTS, True)) == "all"
    assert summary(dict.fromkeys(PARTS, False)) == "nothing"
    assert summary(dict.fromkeys(PARTS, False) | {"model": True, "corpus": True}) == "model, corpus"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    hub.build(folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path, repositories: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, filled by hand in its own layout: blobs, links to them, one commit."""
    home = tmp_path / "home"
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    models = repositories / "models"
    for path in sorted(path for path in models.rglob("*") if path.is_file()):
        parts = path.relative_to(models).parts
        n = 1 if parts[0] == "gpt2" else 2
        cached = home / "hub" / f"models--{'--'.join(parts[:n])}"
        link = cached.joinpath("snapshots", "abc", *parts[n:])
        blob = cached / "blobs" / "-".join(parts)
        for folder in (link.parent, blob.parent, cached / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        (cached / "refs" / "main").write_text("abc", "utf-8")
        shutil.copy(path, blob)
        link.symlink_to(blob)
    prepared = home / "datasets" / "Salesforce___wikitext" / "wikitext-103-raw-v1" / "0.0.0" / "abc"
    prepared.mkdir(parents=True)
    for name in ("dataset_info.json", "wikitext-train.arrow", "wikitext-validation.arrow"):
        (prepared / name).touch()
    return home


@pytest.mark.parametrize("name", list(hub.MODELS))
def test_a_cached_setting_is_all_here(cache: Path, name: str) -> None:
    assert present(load_setting(name)) == dict.fromkeys(PARTS, True)


@pytest.mark.parametrize("name", list(hub.MODELS))
def test_an_empty_cache_holds_nothing(cache: Path, name: str) -> None:
    shutil.rmtree(cache)
    assert present(load_setting(name)) == dict.fromkeys(PARTS, False)


@pytest.mark.parametrize(
    ("name", "lost", "part"),
    [
        ("gpt2-small", "models--gpt2/**/model.safetensors", "model"),
        ("gpt2-small", "models--gpt2/blobs/*config.json", "model"),
        ("gemma-2-2b", "models--google--gemma-2-2b/**/model-00002-*", "model"),
        ("gpt2-small", "models--jbloom*/**/blocks.8.*/sae_weights.safetensors", "sae"),
        ("pythia-70m-deduped", "models--ctigges*/**/5-res-sm/cfg.json", "downstream_sae"),
        ("gemma-2-2b", "models--google--gemma-scope*/**/layer_12/**/params.npz", "sae"),
        ("llama-3.1-8b", "models--fnlp*-8x/**/*L20R-8x/**/final.safetensors", "downstream_sae"),
        ("llama-3.1-8b-32x", "models--fnlp*-32x/**/*L16R-32x/hyperparams.json", "sae"),
        ("gpt2-small", "../datasets/**/wikitext-validation.arrow", "corpus"),
        ("gpt2-small", "../datasets/**/dataset_info.json", "corpus"),
    ],
)
def test_every_cached_file_counts(cache: Path, name: str, lost: str, part: str) -> None:
    base = cache / "datasets" if lost.startswith("../datasets") else cache / "hub"
    paths = list(base.glob(lost.removeprefix("../datasets/")))
    assert paths
    for path in paths:
        path.unlink()
    assert present(load_setting(name)) == dict.fromkeys(PARTS, True) | {part: False}


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: (cache / "hub" / "models--gpt2" / "refs" / "main").unlink(),
        lambda cache: (cache / "hub" / "models--gpt2" / "refs" / "main").write_text("other"),
    ],
)
def test_another_commit_is_not_here(cache: Path, change: Callable[[Path], object]) -> None:
    change(cache)
    assert not present(load_setting("gpt2-small"))["model"]


def test_an_sae_that_is_not_listed_is_not_here(cache: Path) -> None:
    setting = load_setting("gpt2-small")
    for changes in ({"release": "no-such-release"}, {"id": "blocks.99.hook_resid_pre"}):
        assert not present(setting.replace("sae", **changes))["sae"]


@pytest.mark.parametrize("name", sorted(bundled()))
def test_saelens_own_list_agrees(name: str) -> None:
    """The list is read without SAELens; it must be read as SAELens reads it."""
    from cleansteer.core.cache import _registered
    from sae_lens.loading.pretrained_saes_directory import (
        get_pretrained_saes_directory,
        get_repo_id_and_folder_name,
    )

    setting = load_setting(name)
    for which in (setting.sae, setting.downstream_sae):
        if which.release is not None:
            listed = get_pretrained_saes_directory()[which.release]
            assert _registered(which.release, str(which.id)) == (
                *get_repo_id_and_folder_name(which.release, str(which.id)),
                listed.conversion_func,
            )
