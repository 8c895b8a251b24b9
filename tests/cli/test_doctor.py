"""``cleansteer doctor`` tells the truth about this machine, quickly, and keeps the token to itself."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hub
import pytest
import tiny
import world
from cleansteer.core import machine
from cleansteer.core.settings import read_setting
from cleansteer.study.catalogue import bundled, load_setting
from cleansteer.study.doctor import judge
from cleansteer.study.memory import memory_need
from safetensors.torch import load_file

SECRET = "hf_" + "s" * 34
PATIENCE = 20
"""Seconds; a run takes 3 to 5, twice that on a busy machine, and a hub's own retries 23 more."""


def doctor(home: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("cleansteer")), "doctor", *arguments],
        env=kept | {"HF_HOME": str(home), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )


def answers(home: Path, **environment: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(doctor(home, "--json", **environment).stdout)
    return found


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """With a hub that has one model, refuses another, and a token."""
    folder = tmp_path_factory.mktemp("doctor")
    for model in ("gpt2", "google/gemma-2-2b"):
        (folder / "hub" / "models" / model).mkdir(parents=True)
        (folder / "hub" / "models" / model / "config.json").write_text("{}", "utf-8")
    (folder / "home").mkdir()
    (folder / "home" / "token").write_text(SECRET, "utf-8")
    with hub.serve(folder / "hub") as served:
        served.gated["google/gemma-2-2b"] = 403
        done = doctor(folder / "home", HF_ENDPOINT=served.endpoint)
        found = answers(folder / "home", HF_ENDPOINT=served.endpoint)
    return found | {"shown": done.stdout + done.stderr, "out": done.stdout}


def test_every_bundled_setting_is_judged(asked: dict[str, Any]) -> None:
    assert set(asked["settings"]) == set(bundled())


def test_access_is_what_the_hub_says(asked: dict[str, Any]) -> None:
    settings = asked["settings"]
    told = {name: (settings[name]["access"], settings[name]["gated"]) for name in settings}
    assert told["gpt2-small"] == ("yes", False)
    assert told["gemma-2-2b"] == ("no", True)
    assert told["llama-3.1-8b"] == ("not found", None)
    assert told["mini-gpt2-relu"] == ("local", False)


def test_a_closed_model_comes_with_its_remedy(asked: dict[str, Any]) -> None:
    shown = " ".join(asked["shown"].split())
    assert "google/gemma-2-2b is gated and not open to you" in shown
    assert "`hf auth login`" in shown


def test_the_token_is_known_and_not_told(asked: dict[str, Any]) -> None:
    assert asked["hub"]["token"] is True
    assert SECRET not in asked["shown"] + json.dumps(asked)


def test_people_read_stderr(asked: dict[str, Any]) -> None:
    assert asked["out"] == ""
    for part in ("torch", "cpu", "gpt2-small", "free disk"):
        assert part in asked["shown"]


def test_offline_nobody_is_asked(tmp_path: Path) -> None:
    with hub.serve(tmp_path) as served:
        found = answers(tmp_path / "home", HF_ENDPOINT=served.endpoint, HF_HUB_OFFLINE="1")
        assert served.requests == []
    assert found["hub"]["offline"] is True
    assert found["hub"]["token"] is False
    assert {s["access"] for s in found["settings"].values()} == {"not asked", "local"}
    assert not (tmp_path / "home").exists()


def test_a_hub_that_never_answers_does_not_hold_it_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        found = answers(tmp_path, HF_ENDPOINT=endpoint)
        assert time.monotonic() - start < PATIENCE
    assert {s["access"] for s in found["settings"].values()} == {"could not ask", "local"}


def test_versions_are_compared_with_the_tested_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    tested = torch.__version__.partition("+")[0]
    assert machine.versions()["torch"].installed == torch.__version__
    for listed, same in ((f"torch=={tested}\n", True), ("torch==0.1\n", False), ("", True)):
        (tmp_path / "constraints.txt").write_text(listed, "utf-8")
        monkeypatch.setattr(machine, "_TESTED", tmp_path / "constraints.txt")
        assert machine.versions()["torch"].same is same


def test_names_are_compared_as_pip_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "constraints.txt").write_text("SAE_Lens==0.1\nhuggingface.hub==0.1\n", "utf-8")
    monkeypatch.setattr(machine, "_TESTED", tmp_path / "constraints.txt")
    found = machine.versions()
    assert found["sae-lens"].tested == found["huggingface_hub"].tested == "0.1"


def test_a_container_has_the_memory_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = machine.processor()
    for name, number in (("limit", 3 << 20), ("use", 1 << 20)):
        (tmp_path / name).write_text(f"{number}\n", "utf-8")
    monkeypatch.setattr(machine, "_CGROUP_LIMITS", (str(tmp_path / "limit"),))
    monkeypatch.setattr(machine, "_CGROUP_USE", (str(tmp_path / "use"),))
    expected = whole.model_copy(update={"memory": 3 << 20, "free_memory": 2 << 20})
    assert machine.processor() == expected
    (tmp_path / "limit").write_text("max\n", "utf-8")
    assert machine.processor().memory == whole.memory


def test_the_cpu_is_a_device_with_float32() -> None:
    first = machine.devices()[0]
    assert first.device == "cpu"
    assert "float32" in first.formats
    assert 0 < first.free_memory <= first.memory


def test_the_cache_counts_its_files_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    (tmp_path / "blob").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(tmp_path / "blob")
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    assert machine.hub().cache_size == 1000


def test_memory_is_that_of_the_weights(tmp_path: Path) -> None:
    setting = read_setting(world.build(tmp_path))
    saes = [
        load_file(tmp_path / name / "sae_weights.safetensors") for name in ("primary", "downstream")
    ]
    expected = sum(parameter.numel() for parameter in tiny.network().parameters())
    expected += sum(tensor.numel() for sae in saes for tensor in sae.values())
    assert memory_need(setting) == 4 * expected
    (tmp_path / "model" / "model.safetensors").unlink()
    assert memory_need(setting) is None


@pytest.mark.parametrize("name", list(hub.MODELS))
def test_memory_of_a_setting_is_known_before_it_is_here(name: str) -> None:
    """A wider dictionary and a wider number format need more."""
    setting = load_setting(name)
    need = memory_need(setting)
    assert need is not None
    wide = memory_need(setting.replace("model", dtype="float32"))
    assert (wide == need) if setting.model.dtype == "float32" else (wide or 0) > 1.3 * need
    if name.startswith("llama"):
        assert memory_need(load_setting("llama-3.1-8b-32x")) > memory_need(
            load_setting("llama-3.1-8b")
        )


def test_a_device_must_know_the_format_and_have_the_memory() -> None:
    setting = load_setting("gemma-2-2b")
    need = memory_need(setting)
    assert need is not None
    both = ["float32", "bfloat16"]

    def device(name: str, memory: int, formats: list[str]) -> machine.Device:
        return machine.Device(
            device=name, description="", memory=memory, free_memory=memory, formats=formats
        )

    devices = [
        device("large", 10 * need, both),
        device("small", need, both),
        device("old", 10 * need, ["float32"]),
    ]
    assert judge(setting, devices, {}).fits == {"large": True, "small": False}
