"""The bundled settings: every one can be found, read, and has what it names."""

from itertools import combinations
from pathlib import Path

import pytest
import world
from cleansteer.core.errors import InputError
from cleansteer.core.settings import SaeSetting, read_setting
from cleansteer.core.texts import read_texts
from cleansteer.study.catalogue import bundled, load_setting

NAMES = sorted(bundled())


def test_there_are_some() -> None:
    assert {"mini-gpt2-relu", "mini-gpt2-jumprelu", "mini-gpt2-topk"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_is_called_like_its_file_and_found_by_name_or_path(name: str) -> None:
    setting = load_setting(name)
    assert setting.name == name
    assert load_setting(str(bundled()[name])) == setting
    assert setting.folder == bundled()[name].parent


@pytest.mark.parametrize("name", NAMES)
def test_where_one_is_does_not_matter(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_setting(name)
    monkeypatch.chdir(tmp_path)
    assert load_setting(name) == before


@pytest.mark.parametrize("name", NAMES)
def test_local_files_that_it_names_are_there(name: str) -> None:
    setting = load_setting(name)

    def files(source: SaeSetting) -> list[Path]:
        folder = setting.locate(source.path or "")
        return [folder / "cfg.json", folder / "sae_weights.safetensors"] if source.path else []

    wanted = files(setting.sae) + files(setting.downstream_sae)
    if setting.model.name.startswith("."):
        wanted += [setting.locate(setting.model.name) / "model.safetensors"]
    assert [path for path in wanted if not path.is_file()] == []


@pytest.mark.parametrize("name", NAMES)
def test_it_has_contexts_enough_and_fresh_ones_of_other_texts(name: str) -> None:
    setting = load_setting(name)
    assert setting.corpus.n_contexts >= 3 * setting.steering.contexts_per_type
    source = {"dataset", "config", "path", "packages", "split"}
    assert setting.heldout_corpus.model_dump(include=source) != setting.corpus.model_dump(
        include=source
    )
    assert setting.heldout_corpus.context_length == setting.corpus.context_length


def test_no_two_differ_in_their_name_alone() -> None:
    for one, other in combinations(map(load_setting, NAMES), 2):
        assert one.model_dump(exclude={"name"}) != other.model_dump(exclude={"name"})


def test_fresh_texts_are_fresh() -> None:
    """A docstring may stand in two files, of two splits: one fresh text in twenty at most."""
    setting = load_setting("mini-gpt2-relu")
    texts, fresh = (
        set(read_texts(setting, corpus.model_copy(update={"n_texts": 600})))
        for corpus in (setting.corpus, setting.heldout_corpus)
    )
    assert len(texts) == len(fresh) == 600
    assert len(texts & fresh) < 0.05 * len(fresh)


def test_a_setting_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(world.SETTING, "utf-8")
    assert load_setting(str(path)) == read_setting(path)
    assert load_setting(str(path)).name == "tiny"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt3", "unknown setting 'gpt3'; expected one of "),
        ("", "setting . is a directory"),
        ("nowhere.toml", r"nowhere\.toml does not exist"),
        ("folder", "setting folder is a directory"),
    ],
)
def test_what_is_not_there_is_named(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_setting(name)
    if name == "gpt3":
        assert all(known in str(caught.value) for known in NAMES)


def test_a_file_does_not_hide_a_bundled_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / NAMES[0]).write_text("nonsense")
    monkeypatch.chdir(tmp_path)
    assert load_setting(NAMES[0]).name == NAMES[0]
