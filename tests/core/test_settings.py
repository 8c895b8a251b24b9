"""A setting's file means what it says, every key of it counts, and every mistake is named."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import minimal
import pytest
import world
from cleansteer.core.errors import InputError
from cleansteer.core.sections import IN_MEMORY
from cleansteer.core.settings import (
    Setting,
    SettingSection,
    field_texts,
    parse_setting,
    read_setting,
)
from pydantic import ValidationError
from pydantic.fields import FieldInfo

TOML = """
name = "minimal"
[model]
name = "model"
[sae]
path = "primary"
[downstream_sae]
path = "downstream"
[corpus]
path = "texts.txt"
[heldout_corpus]
path = "fresh.txt"
"""


def leaves() -> list[tuple[str, str, FieldInfo]]:
    """Section ("" for the file itself), key and field of everything that a file can say."""
    found = []
    for name, field in Setting.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, SettingSection):
            found += [
                (name, key, inner)
                for key, inner in section.model_fields.items()
                if key != IN_MEMORY
            ]
        else:
            found.append(("", name, field))
    return found


LEAVES = leaves()
NAMES = [f"{section}.{key}".lstrip(".") for section, key, _ in LEAVES]


def another(field: FieldInfo, value: object) -> object:
    """A value of the field's type that differs from the one given."""
    kinds = [field.annotation, *get_args(field.annotation)]
    choices = [c for kind in kinds if get_origin(kind) is Literal for c in get_args(kind)]
    choices += [True, False] * (bool in kinds)
    if choices:
        return next(choice for choice in choices if choice != value)
    if isinstance(value, (int, float)):
        return value + 1
    if "[int" in str(field.annotation):
        return 2
    if "[float" in str(field.annotation):
        return 0.5
    return ("other",) if "tuple" in str(field.annotation) else "other"


def changed(setting: Setting, section: str, key: str, value: object) -> Setting:
    """A copy that differs in one key, unvalidated: some keys exclude each other."""
    if not section:
        return setting.model_copy(update={key: value})
    inner = getattr(setting, section).model_copy(update={key: value})
    return setting.model_copy(update={section: inner})


def write(folder: Path, text: str) -> Path:
    path = folder / "setting.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(("section", "key", "field"), LEAVES, ids=NAMES)
def test_every_key_counts_in_the_fingerprint_and_is_named_as_the_difference(
    section: str, key: str, field: FieldInfo
) -> None:
    setting = minimal.setting()
    here = getattr(setting, section) if section else setting
    other = changed(setting, section, key, another(field, getattr(here, key)))
    assert other.fingerprint != setting.fingerprint
    named = other.differences(setting)
    assert [line.split(":")[0] for line in named] == [f"{section}.{key}".lstrip(".")]


def test_nothing_differs_from_itself() -> None:
    setting = minimal.setting()
    assert setting.differences(setting) == []


def test_a_difference_tells_both_values() -> None:
    setting = minimal.setting()
    other = setting.replace("steering", alpha=2.5)
    assert other.differences(setting) == ["steering.alpha: 1.0 -> 2.5"]


def test_order_comments_and_defaults_written_out_change_nothing(tmp_path: Path) -> None:
    plain = read_setting(write(tmp_path, TOML))
    sections = [f"[{part}" for part in TOML.strip().split("\n[")[1:]]
    reordered = 'name = "minimal" # a comment\nseed = 0\n' + "\n".join(reversed(sections))
    reordered += '\n[steering]\nalpha = 1.0\nmode = "add"\nvocabulary_labels = true\n'
    again = read_setting(write(tmp_path, reordered))
    assert again == plain
    assert again.fingerprint == plain.fingerprint


def test_what_is_saved_is_read_back() -> None:
    setting = minimal.setting(path=None, packages=["json", "ast"], n_texts=7)
    again = parse_setting(setting.model_dump(mode="json"), "saved")
    assert again.corpus.packages == ("json", "ast")
    assert again.fingerprint == setting.fingerprint


def test_folder_places_relative_paths_and_is_no_part_of_the_setting(tmp_path: Path) -> None:
    setting = read_setting(write(tmp_path, TOML))
    assert setting.locate("model") == tmp_path / "model"
    assert setting.locate("/somewhere/model") == Path("/somewhere/model")
    moved = setting.placed_in(tmp_path / "elsewhere")
    assert moved.locate("model") == tmp_path / "elsewhere" / "model"
    assert setting.folder == tmp_path
    assert moved.fingerprint == setting.fingerprint
    assert moved.replace("steering", alpha=3.0).folder == moved.folder


def test_settings_are_frozen() -> None:
    setting = minimal.setting()
    with pytest.raises(ValidationError, match="frozen"):
        setting.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        setting.steering.alpha = 3.0  # type: ignore[misc]


def test_replace_leaves_the_original_and_refuses_what_a_file_may_not_say() -> None:
    setting = minimal.setting()
    before = setting.fingerprint
    assert setting.replace("steering", n_features=7).steering.n_features == 7
    assert setting.fingerprint == before
    with pytest.raises(InputError, match="steers nothing"):
        setting.replace("steering", alpha=0)
    with pytest.raises(InputError, match="takes no strength"):
        setting.replace("steering", alpha=2.0, mode="clamp_q95")


@pytest.mark.parametrize(
    "section", sorted({section for section, _, _ in LEAVES}), ids=lambda s: s or "file"
)
def test_unknown_keys_are_refused_with_the_known_ones(section: str) -> None:
    data: dict[str, Any] = minimal.data() | {"steering": {}}
    (data[section] if section else data)["nonsense"] = 1
    with pytest.raises(InputError) as caught:
        parse_setting(data, "f.toml")
    known = [key for other, key, _ in LEAVES if other == section]
    assert f"unknown key '{section}{'.' * bool(section)}nonsense'" in str(caught.value)
    assert all(key in str(caught.value) for key in known)


@pytest.mark.parametrize(
    ("section", "key", "least"),
    [
        ("", "seed", 0),
        ("corpus", "n_texts", 1),
        ("corpus", "min_chars", 1),
        ("heldout_corpus", "n_contexts", 2),
        ("heldout_corpus", "n_evaluated", 2),
        ("corpus", "context_length", 3),
        ("steering", "n_features", 0),
        ("steering", "contexts_per_type", 2),
        ("steering", "most_contexts_per_type", 2),
        ("steering", "panel_size", 1),
        ("steering", "crowding_top_k", 1),
        ("steering", "coactivation_panel_size", 1),
    ],
)
def test_the_least_value_is_taken_and_the_one_below_refused(
    section: str, key: str, least: int
) -> None:
    data: dict[str, Any] = minimal.data() | {"steering": {}}
    place = data[section] if section else data
    if key == "n_features":
        place["response"] = True
    if key == "most_contexts_per_type":
        place |= {"reliability": 0.5, "contexts_per_type": 2}
    place[key] = least
    setting = parse_setting(data, "f.toml")
    assert getattr(getattr(setting, section) if section else setting, key) == least
    place[key] = least - 1
    with pytest.raises(InputError, match=f"{key} = {least - 1}"):
        parse_setting(data, "f.toml")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("corpus", "n_contexts", "96"),
        ("corpus", "n_contexts", 96.0),
        ("corpus", "n_contexts", True),
        ("corpus", "packages", "numpy"),
        ("corpus", "packages", []),
        ("corpus", "contexts", "random"),
        ("steering", "alpha", "1"),
        ("steering", "alpha", True),
        ("steering", "alpha", float("inf")),
        ("steering", "alpha", float("nan")),
        ("steering", "mode", "push"),
        ("steering", "vocabulary_labels", 1),
        ("steering", "sample", "greedy"),
        ("steering", "reliability", "0.8"),
        ("steering", "reliability", float("nan")),
        ("steering", "reliability", 0.0),
        ("steering", "reliability", 1.0),
        ("steering", "most_contexts_per_type", 12.0),
        ("model", "dtype", "float16"),
        ("sae", "hook", 3),
        ("sae", "centred", "maybe"),
    ],
)
def test_values_are_not_coerced(section: str, key: str, value: object) -> None:
    data: dict[str, Any] = minimal.data() | {"steering": {}}
    data[section][key] = value
    with pytest.raises(InputError) as caught:
        parse_setting(data, "f.toml")
    message = str(caught.value)
    assert message.startswith(f"f.toml: {section}.{key}")
    assert repr(value) in message
    assert "\n" not in message


def test_a_budget_is_of_a_reliability_and_no_less_than_it_starts_with() -> None:
    setting = minimal.setting().replace("steering", reliability=0.8, contexts_per_type=6)
    assert setting.steering.most_contexts_per_type is None
    assert setting.replace("steering", most_contexts_per_type=6).steering.reliability == 0.8
    with pytest.raises(InputError, match=r"= 5 .* is less than"):
        setting.replace("steering", most_contexts_per_type=5)
    with pytest.raises(InputError, match="`reliability`, which is not given"):
        minimal.setting().replace("steering", most_contexts_per_type=50)


def test_the_remedy_is_where_the_value_came_from() -> None:
    data: dict[str, Any] = minimal.data() | {"steering": {"n_features": -1}}
    with pytest.raises(InputError, match=r"n_features = -1.*; change it in the file$"):
        parse_setting(data, "f.toml")
    with pytest.raises(InputError, match=r"n_features = -1.*; give another value$"):
        minimal.setting().replace("steering", n_features=-1)


@pytest.mark.parametrize("alpha", [-2.0, 3])
def test_strength_may_be_negative_or_whole(alpha: float) -> None:
    assert minimal.setting().replace("steering", alpha=alpha).steering.alpha == alpha


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "either `path`"),
        ({"path": "p", "release": "r", "id": "i"}, "either `path`"),
        ({"release": "r"}, "belong together"),
        ({"path": "p", "id": "i"}, "belong together"),
    ],
)
def test_an_sae_has_one_source(source: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_setting(minimal.data() | {"sae": source}, "f.toml")


@pytest.mark.parametrize("given", [(), ("path", "dataset"), ("dataset", "packages")])
def test_a_corpus_has_one_source(given: tuple[str, ...]) -> None:
    values = {"path": "p", "dataset": "d", "packages": ["json"]}
    with pytest.raises(InputError, match="exactly one of"):
        parse_setting(minimal.data() | {"corpus": {k: values[k] for k in given}}, "f.toml")


def test_keys_left_out_of_the_heldout_corpus_are_as_in_the_corpus(tmp_path: Path) -> None:
    corpus = (
        '[corpus]\ndataset = "d"\nconfig = "c"\nsplit = "s"\nfield = "f"\ncontexts = "text-start"\n'
        "n_texts = 11\nmin_chars = 12\nn_contexts = 13\ncontext_length = 14\n"
    )
    head = TOML.split("[corpus]")[0] + corpus
    without = read_setting(write(tmp_path, head))
    assert without.heldout_corpus == without.corpus
    fewer = read_setting(write(tmp_path, head + "[heldout_corpus]\nn_contexts = 5\n"))
    assert fewer.heldout_corpus == fewer.corpus.model_copy(update={"n_contexts": 5})
    split = read_setting(write(tmp_path, head + '[heldout_corpus]\nsplit = "validation"\n'))
    assert split.heldout_corpus == split.corpus.model_copy(update={"split": "validation"})
    moved = read_setting(write(tmp_path, head + '[heldout_corpus]\npath = "fresh.txt"\n'))
    assert moved.heldout_corpus == moved.corpus.model_copy(
        update={"path": "fresh.txt", "dataset": None, "config": None, "split": "train"}
    )


def test_no_more_contexts_are_evaluated_than_there_are() -> None:
    data = minimal.data()
    data["heldout_corpus"] |= {"n_contexts": 8, "n_evaluated": 8}
    assert parse_setting(data, "f.toml").heldout_corpus.n_evaluated == 8
    data["heldout_corpus"]["n_evaluated"] = 9
    with pytest.raises(InputError, match="`n_evaluated` = 9 is more than `n_contexts` = 8"):
        parse_setting(data, "f.toml")


def test_every_key_is_documented_once_with_its_default() -> None:
    texts = field_texts()
    assert list(texts) == NAMES
    for (_, _, field), text in zip(LEAVES, texts.values(), strict=True):
        assert len(text["meaning"]) > 10
        assert text["default"] == ("required" if field.is_required() else repr(field.default))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"name = [\n", "not valid TOML"), (b"name = '\xff'\n", "not valid TOML")],
)
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "setting.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_setting(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_setting(tmp_path / "nowhere.toml")
    with pytest.raises(InputError, match="is a directory"):
        read_setting(tmp_path)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "not ended"])
def test_however_an_editor_saves_a_file(
    start: bytes, end: bytes, last: bool, tmp_path: Path
) -> None:
    lines = world.SETTING.strip().encode().split(b"\n")
    (tmp_path / "plain.toml").write_text(world.SETTING, "utf-8")
    (tmp_path / "saved.toml").write_bytes(start + end.join(lines) + end * last)
    assert read_setting(tmp_path / "saved.toml") == read_setting(tmp_path / "plain.toml")


NO_NAMES = ("", ".", "..", "../up", "a/b", "/tmp/x", "a\\b", "a\nb", "a\0b", " a", "a ", "x" * 201)


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(InputError, match=r"name: .* cannot name the run's directory") as caught:
        parse_setting(minimal.data() | {"name": name}, "file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a", "a.b", "a b", "...", "GPT-2 (8)", "\u00fc", "x" * 200])
def test_other_names_are_directories_in_runs(name: str, tmp_path: Path) -> None:
    made = parse_setting(minimal.data() | {"name": name}, "file").name
    (tmp_path / made).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [name]
