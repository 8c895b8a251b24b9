"""How targets are asked for: what each text and dictionary stands for."""

from pathlib import Path
from typing import Any

import lessons
import pytest
import tiny
import world
from cleansteer.adapters.targets import Wanted, open_wanted, read_targets
from cleansteer.core.errors import InputError
from cleansteer.core.settings import read_setting

HOOK = lessons.HOOK
LISTED = "gemma-scope-2b-pt-res"
"""A release of SAELens' list, whose ids hold slashes."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lessons.save_sae(tmp_path / "sae")
    lessons.save_sae(tmp_path / "a:b")
    (tmp_path / "list.txt").write_text("5\n3\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one(given: Any) -> Wanted:
    (wanted,) = read_targets([given])
    assert wanted.source.hook == HOOK
    assert wanted.asked
    return wanted


@pytest.mark.parametrize(
    ("text", "path", "features"),
    [
        ("sae", "sae", None),
        ("sae/", "sae", None),
        ("sae:1,2", "sae", [1, 2]),
        ("sae:list.txt", "sae", [3, 5]),
        ("a:b", "a:b", None),
        ("a:b:7", "a:b", [7]),
    ],
)
def test_directories(text: str, path: str, features: list[int] | None, folder: Path) -> None:
    found = one(f"{HOOK}={text}")
    assert Path(str(found.source.path)) == Path(path)
    assert found.allowed.features == features
    absolute = one(f"{HOOK}={folder / text}")
    assert Path(str(absolute.source.path)) == folder / path


@pytest.mark.parametrize(
    ("text", "release", "name", "features"),
    [
        (f"gpt2-small-res-jb/{HOOK}", "gpt2-small-res-jb", HOOK, None),
        (
            f"{LISTED}/layer_20/width_16k/average_l0_71",
            LISTED,
            "layer_20/width_16k/average_l0_71",
            None,
        ),
        (f"{LISTED}/layer_20/width_16k/average_l0_71:4,9", LISTED, "layer_20/width_16k", [4, 9]),
        ("owner/repository/inside/it", "owner/repository", "inside/it", None),
    ],
)
def test_releases(
    text: str, release: str, name: str, features: list[int] | None, folder: Path
) -> None:
    found = one(f"{HOOK}={text}")
    assert (found.source.path, found.source.release) == (None, release)
    assert str(found.source.id).startswith(name)
    assert found.allowed.features == features


def test_dictionaries_say_the_same(folder: Path) -> None:
    texts = {f"{HOOK}=sae:1,2": {"features": [2, 1]}, f"{HOOK}=sae": {}}
    for text, more in texts.items():
        said = one(text)
        for sae in ("sae", Path("sae"), {"path": "sae"}):
            found = one({"hook": HOOK, "sae": sae} | more)
            assert found.allowed.features == said.allowed.features
            assert (folder / str(found.source.path)) == folder / str(said.source.path)
    first = one({"hook": HOOK, "sae": {"path": "sae", "first": 10, "centred": False}})
    assert open_wanted(first).n_features == 10


def test_allowlists(folder: Path) -> None:
    world.build(folder / "world")
    clean = lessons.allowlist(read_setting(folder / "world" / "tiny.toml"))
    clean.save("clean.json")
    by_file = one(f"{HOOK}=world/primary:clean.json")
    given = {"hook": HOOK, "sae": "world/primary", "allowlist": clean}
    for found in (by_file, one(given), one(given | {"allowlist": "clean.json"})):
        opened = open_wanted(found)
        assert opened.target.features == clean.features
        assert opened.record().trust == clean.trust
    lessons.save_sae(folder / "other", seed=8)
    with pytest.raises(InputError, match=r"clean.json was made for the SAE .* fingerprint"):
        open_wanted(one(f"{HOOK}=other:clean.json"))


@pytest.mark.parametrize(
    ("own", "accepted"),
    [
        (HOOK, True),
        ("blocks.0.hook_resid_post", True),  # the same stream
        ("", True),
        ("model.layers.4.output", True),  # says nothing that is known here
        ("blocks.2.hook_resid_pre", False),
        ("blocks.1.attn.hook_z", False),
        ("blocks.1.mlp.hook_in", False),
    ],
)
def test_an_sae_of_another_place_is_refused(own: str, accepted: bool, folder: Path) -> None:
    world.save_sae(tiny.sae("standard", own), folder / "made")
    wanted = one(f"{HOOK}=made")
    if accepted:
        assert open_wanted(wanted).target.hook == HOOK
    else:
        with pytest.raises(InputError, match=f"trained at {own}"):
            open_wanted(wanted)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "error", "part"),
    [
        ("a=b", TypeError, "expected a list of targets"),
        ({"hook": HOOK, "sae": "sae"}, TypeError, "expected a list of targets"),
        ([3], TypeError, "HOOK=SAE"),
        ([], InputError, "expected at least one"),
        ([{"hook": HOOK}], InputError, "hook, sae"),
        ([{"hook": HOOK, "sae": "sae", "layer": 3}], InputError, "hook, sae"),
        ([{"hook": 3, "sae": "sae"}], InputError, "hook, sae"),
        ([{"hook": HOOK, "sae": {"file": "x"}}], InputError, "expected {'path'"),
        (
            [{"hook": HOOK, "sae": "sae", "features": [1], "allowlist": "x.json"}],
            InputError,
            "leave one out",
        ),
        ([{"hook": HOOK, "sae": "sae", "features": []}], InputError, "no feature is listed"),
        ([{"hook": HOOK, "sae": "sae", "features": 3}], TypeError, "expected a list"),
        ([f"{HOOK}=sae:"], InputError, "no index"),
        ([f"{HOOK}=sae:3,3"], InputError, "listed twice"),
        ([f"{HOOK}=:3"], InputError, "no directory"),
    ],
)
def test_what_is_no_target(given: Any, error: type[Exception], part: str, folder: Path) -> None:
    with pytest.raises(error, match=part):
        read_targets(given)
