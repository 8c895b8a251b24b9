"""Targets of trainings that are refused: one line, exit code 2, and nothing written."""

from pathlib import Path
from typing import Any

import places
import pytest
import teaching
import tiny
import world
from cleansteer.adapters import finetuning
from places import BELOW, HEADS


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return places.build(tmp_path_factory.mktemp("world"))


SAE_BELOW = f"{BELOW}=primary"
REFUSED: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "no SAE": (("--target", BELOW), (BELOW, "HOOK=SAE[:ALLOWLIST]")),
    "nothing behind": (("--target", f"{BELOW}="), ("HOOK=SAE[:ALLOWLIST]",)),
    "hook": (("--target", "blocks.x.hook_resid_pre=primary"), ("blocks.x", "attn.hook_z")),
    "site": (("--target", "blocks.1.hook_q=primary"), ("blocks.1.hook_q", "attn.hook_z")),
    "SAE nowhere": (
        ("--target", f"{BELOW}=nowhere"),
        ("'nowhere'", "no directory", "RELEASE/ID", "registry"),
    ),
    "SAE of a path nowhere": (("--target", f"{BELOW}=./no/where/at/all"), ("no directory",)),
    "release without id": (("--target", f"{BELOW}=gpt2-small-res-jb"), ("no RELEASE/ID",)),
    "hook twice": (("--target", SAE_BELOW) * 2, (BELOW, "twice", "put its features into one")),
    "place twice": (
        ("--target", SAE_BELOW, "--target", "blocks.0.hook_resid_post=primary"),
        ("blocks.0.hook_resid_post", f"beside {BELOW}, which is the same place"),
    ),
    "another hook": (
        ("--target", "blocks.3.hook_resid_pre=primary"),
        ("blocks.3.hook_resid_pre", f"was trained at {BELOW}", "another SAE"),
    ),
    "another kind of hook": (
        ("--target", "blocks.1.hook_mlp_out=primary"),
        (f"was trained at {BELOW}",),
    ),
    "feature": (("--target", f"{SAE_BELOW}:3,96"), ("feature 96", "0 to 95")),
    "features": (("--target", f"{SAE_BELOW}:3,x"), ("'x'", "no index")),
    "allowlist nowhere": (("--target", f"{SAE_BELOW}:no.json"), ("no.json", "does not exist")),
    "allowlist beside": (
        ("--target", SAE_BELOW, "--allowlist", "clean.json"),
        ("--allowlist", "setting's SAE", "HOOK=SAE:ALLOWLIST"),
    ),
    "features beside": (("--target", SAE_BELOW, "--features", "1"), ("--features", "setting's")),
    "baseline": (("--target", SAE_BELOW, "--baseline", "lora"), ("--target", "lora")),
    "select": (
        ("--target", f"{SAE_BELOW}:1,2", "--target", f"{HEADS}=heads", "--select", 67),
        ("--select 67", "between 1 and the 66"),
    ),
    "descriptions twice": (
        ("--target", SAE_BELOW, "--descriptions", "a.csv", "--descriptions", "b.csv"),
        ("'a.csv'", "HOOK=SOURCE"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_refused_before_a_model_is_loaded(
    case: str,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def unexpected(*given: Any, **named: Any) -> Any:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(finetuning, "load_network", unexpected)
    monkeypatch.chdir(built)
    arguments, expected = REFUSED[case]
    capfd.readouterr()
    assert teaching.train(monkeypatch, built, tmp_path / "out", *arguments) == 2
    world.one_line(capfd, *expected)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("hook", "changes", "part"),
    [
        (BELOW, {"width": 16}, "16 dimensions, the model has 32"),
        ("blocks.7.hook_resid_pre", {}, "layers 0 to 3"),
        ("blocks.1.hook_resid_mid", {}, "no module of the model gives"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    hook: str,
    changes: dict[str, Any],
    part: str,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    world.save_sae(tiny.sae("standard", hook, **changes), tmp_path / "sae")
    given = ("--target", f"{hook}={tmp_path / 'sae'}", "--target", f"{HEADS}={built / 'heads'}")
    capfd.readouterr()
    assert teaching.train(monkeypatch, built, tmp_path / "out", *given) == 2
    world.one_line(capfd, part)
    assert not (tmp_path / "out").exists()
