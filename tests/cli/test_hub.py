"""The bundled settings through the ordinary command, from a stand-in hub with tiny models.

Then the same without a network, and what is said where the hub refuses or is not there.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import hub
import lessons
import pandas as pd
import pytest
from cleansteer.core.tables import read_table
from cleansteer.study.catalogue import bundled

LABELS = 20
OTHERS = [name for name in hub.MODELS if name != "gpt2-small"]
TESTS = Path(hub.__file__).parent


def cleansteer(
    environment: dict[str, str], *arguments: object
) -> "subprocess.CompletedProcess[str]":
    """The program as a person starts it."""
    program = Path(sys.executable).with_name("cleansteer")
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def several(environment: dict[str, str], **asked: Any) -> dict[str, Any]:
    """Commands in one process (see several.py)."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "several.py")],
        input=json.dumps(asked | {"gemma_shape": hub.GEMMA_SHAPE}),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class World:
    """A hub that has answered once for every setting and then stopped, and what was made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        hub.build(folder / "hub")
        with hub.serve(folder / "hub") as served:
            self.environment = served.environment(folder / "home")
            arguments = (
                "screen",
                "gpt2-small",
                "--labels",
                LABELS,
                "--run",
                self.run("gpt2-small"),
            )
            self.first = cleansteer(self.environment, *arguments)
            commands = [
                ["screen", name, "--labels", str(LABELS), "--run", str(self.run(name))]
                for name in OTHERS
            ]
            made = several(self.environment, commands=commands, small=True)["commands"]
            self.others = dict(zip(OTHERS, made, strict=True))

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name

    def variant(self, name: str, old: str, new: str) -> str:
        """A setting like gpt2-small that names something else."""
        text = bundled()["gpt2-small"].read_text("utf-8")
        assert old in text
        path = self.folder / f"{name}.toml"
        path.write_text(text.replace(old, new, 1), "utf-8")
        return str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def blocked(world: World) -> dict[str, Any]:
    """The hub is gone and the network blocked: what is cached is run and loaded again."""
    no_sae = world.variant("no-sae", "blocks.8.hook_resid_pre", "blocks.7.hook_resid_pre")
    no_texts = world.variant("no-texts", "Salesforce/wikitext", "no-one/no-texts")
    again = ["--run", str(world.run("again"))]
    data = lessons.write(world.folder / "data.jsonl", lessons.texts(12))
    hooks = ("blocks.8.hook_resid_pre", "blocks.10.hook_resid_pre")
    targets = [word for hook in hooks for word in ("--target", f"{hook}=gpt2-small-res-jb/{hook}")]
    trained = ["--max-steps", "2", "--evaluations", "1", "--out", str(world.folder / "adapter")]
    commands = {
        "screen": ["screen", "gpt2-small", "--labels", str(LABELS), *again],
        "settings": ["settings", "--json"],
        "no SAE": ["features", no_sae, "--run", str(world.run("no-sae"))],
        "train": ["train", "gpt2-small", "--data", str(data), *targets, *trained],
        "no texts": ["features", no_texts, "--run", str(world.run("no-texts"))],
    }
    found = several(
        world.environment, blocked=True, commands=list(commands.values()), prepare=OTHERS
    )
    return dict(zip(commands, found["commands"], strict=True)) | {"prepared": found["prepared"]}


@pytest.fixture(scope="module")
def empty(world: World) -> dict[str, Any]:
    """Neither network nor cache."""
    environment = world.environment | {"HF_HOME": str(world.folder / "empty")}
    run = str(world.run("empty"))
    commands = [["settings", "--json"], ["screen", "gpt2-small", "--run", run]]
    found = several(environment, blocked=True, commands=commands)["commands"]
    return {"settings": found[0], "screen": found[1]}


@pytest.fixture(scope="module")
def refused(world: World) -> dict[str, Any]:
    """A hub that refuses: models that are gated, and one that it does not have."""
    with hub.serve(world.folder / "hub") as served:
        served.gated |= {"google/gemma-2-2b": 401, "meta-llama/Llama-3.1-8B": 403}
        unknown = world.variant("unknown", 'name = "gpt2"', 'name = "no/such-model"')
        names = {401: "gemma-2-2b", 403: "llama-3.1-8b", 404: unknown}
        commands = [["screen", name, "--run", str(world.run("refused"))] for name in names.values()]
        environment = served.environment(world.folder / "refused")
        found = several(environment, commands=commands)["commands"]
    return dict(zip(names, found, strict=True))


def line(done: dict[str, Any]) -> str:
    """The one line of a refusal."""
    assert done["code"] == 2, done
    assert done["out"] == ""
    assert len(done["err"].splitlines()) == 1, done["err"]
    return str(done["err"])


def test_gpt2_small_is_screened_from_the_hub(world: World) -> None:
    assert world.first.returncode == 0, world.first.stderr
    manifest = json.loads((world.run("gpt2-small") / "manifest.json").read_text("utf-8"))
    assert manifest["hooks"]["sae"] == "blocks.8.hook_resid_pre"
    assert manifest["centred"] == {"sae": True, "downstream_sae": True}
    assert len(read_table(world.run("gpt2-small") / "ranking.parquet")) == hub.FEATURES


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_settings_too(world: World, name: str) -> None:
    assert world.others[name]["code"] == 0, world.others[name]["err"]
    manifest = json.loads((world.run(name) / "manifest.json").read_text("utf-8"))
    assert manifest["centred"]["sae"] is name.startswith("pythia")
    layer = {"pythia-70m-deduped": 4, "gemma-2-2b": 12}.get(name, 16)
    assert manifest["hooks"]["sae"] == f"blocks.{layer}.hook_resid_post"
    labels = read_table(world.run(name) / "labels.parquet")
    assert labels["feature"].nunique() == LABELS


def test_the_fresh_check_steers_in_512_of_1024_contexts(world: World) -> None:
    fresh = read_table(world.run("gpt2-small") / "fresh_labels.parquet")
    assert set(fresh["n_contexts"]) == {512}


def test_what_is_cached_needs_no_network(world: World, blocked: dict[str, Any]) -> None:
    assert blocked["screen"]["code"] == 0, blocked["screen"]["err"]
    assert [done["attempts"] for done in (blocked["screen"], *blocked["prepared"])] == [[]] * 5
    assert [done["code"] for done in blocked["prepared"]] == [0] * 4
    for table in ("features", "labels", "ranking"):
        one, other = (
            read_table(world.run(run) / f"{table}.parquet") for run in ("gpt2-small", "again")
        )
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_saes_of_a_release_are_trained_through(world: World, blocked: dict[str, Any]) -> None:
    """Named by release and id, both at once, without a network. (PEFT, as it saves, asks the hub for
    the model's configuration, and does without.)
    """
    assert blocked["train"]["code"] == 0, blocked["train"]["err"]
    record = json.loads((world.folder / "adapter" / "training.json").read_text("utf-8"))
    hooks = ["blocks.8.hook_resid_pre", "blocks.10.hook_resid_pre"]
    assert [place["hook"] for place in record["targets"]] == hooks
    labels = [place["sae"]["label"] for place in record["targets"]]
    assert labels == [f"gpt2-small-res-jb/{hook}" for hook in hooks]


def test_hf_hub_offline_is_obeyed(world: World) -> None:
    """Not even what is missing is asked for."""
    environment = world.environment | {"HF_HUB_OFFLINE": "1"}
    unknown = world.variant("offline", 'name = "gpt2"', 'name = "no/such-model"')
    commands = [["features", unknown, "--run", str(world.run("offline"))]]
    found = several(environment, commands=commands, prepare=["gpt2-small"])
    told = line(found["commands"][0])
    assert "model 'no/such-model' is not on this machine" in told
    assert "HF_HUB_OFFLINE is set; unset it" in told
    assert [done["code"] for done in found["prepared"]] == [0]
    assert not any(done["attempts"] for done in found["commands"] + found["prepared"])


def test_settings_says_what_is_here_and_asks_nobody(
    empty: dict[str, Any], blocked: dict[str, Any]
) -> None:
    assert empty["settings"]["attempts"] == blocked["settings"]["attempts"] == []
    before, after = (json.loads(found["settings"]["out"]) for found in (empty, blocked))
    for name in hub.MODELS:
        assert not any(before[name]["here"].values())
        assert all(after[name]["here"].values())


def test_nothing_cached_and_no_network(world: World, empty: dict[str, Any]) -> None:
    """The attempts also show that those counted elsewhere would be noticed."""
    told = line(empty["screen"])
    assert empty["screen"]["attempts"]
    assert "model 'gpt2' is not on this machine" in told
    assert f"the hub at {world.environment['HF_ENDPOINT']} cannot be reached; connect" in told
    assert not world.run("empty").exists()


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("no SAE", "SAE 'gpt2-small-res-jb/blocks.7.hook_resid_pre' is not on this machine"),
        ("no texts", "dataset 'no-one/no-texts' is not on this machine"),
    ],
)
def test_what_is_not_cached_is_named(blocked: dict[str, Any], case: str, expected: str) -> None:
    told = line(blocked[case])
    assert expected in told
    assert "cannot be reached" in told


@pytest.mark.parametrize(
    ("status", "model"), [(401, "google/gemma-2-2b"), (403, "meta-llama/Llama-3.1-8B")]
)
def test_a_gated_model_names_the_commands(refused: dict[Any, Any], status: int, model: str) -> None:
    told = line(refused[status])
    assert f"model '{model}' is gated" in told
    for part in (f"https://huggingface.co/{model}", "`hf auth login`", f"`hf download {model}"):
        assert part in told


def test_a_model_that_is_not_on_the_hub(refused: dict[Any, Any]) -> None:
    assert "model 'no/such-model' is not on the hub" in line(refused[404])


def test_the_commands_that_are_named_exist() -> None:
    program = str(Path(sys.executable).with_name("hf"))
    for command in (["auth", "login"], ["download"]):
        subprocess.run([program, *command, "--help"], check=True, capture_output=True)
