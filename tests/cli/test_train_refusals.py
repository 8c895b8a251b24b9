"""What `cleansteer train` refuses: one line, exit code 2, no model loaded and nothing written."""

import json
import shutil
from pathlib import Path
from typing import Any

import lessons
import pytest
import world
from cleansteer.adapters import finetuning


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world.build(folder)
    lessons.write(folder / "sft.jsonl", lessons.texts(12))
    lessons.write(folder / "dpo.jsonl", lessons.preferences(12))
    lessons.write(folder / "pairs.jsonl", lessons.completions(12))
    lessons.write(folder / "single.jsonl", lessons.texts(1))
    (folder / "folder.jsonl").mkdir()
    rows: dict[str, bytes] = {
        "latin": b'{"text": "caf\xe9"}\n',
        "empty": b"",
        "blank": b"\n \n",
        "words": b"no JSON\n",
        "late": b'{"text": "w1 w2"}\n{"text"\n',
        "list": b'["w1 w2"]\n',
        "number": b'{"text": 3}\n',
        "blanktext": b'{"text": " "}\n',
        "null": b'{"text": "w1"}\n{"text": null}\n',
        "other": b'{"words": "w1 w2"}\n',
        "nocolumn": b"{}\n",
        "missing": b'{"prompt": "w1", "completion": " w2"}\n{"prompt": "w1"}\n',
        "unfinished": b'{"prompt": "w1", "chosen": " w2"}\n',
        "alike": b'{"prompt": "w1", "chosen": " w2", "rejected": " w3"}\n'
        b'{"prompt": "w4", "chosen": " w5", "rejected": " w5"}\n',
    }
    for name, content in rows.items():
        (folder / f"{name}.jsonl").write_bytes(content)
    return folder


def data(name: str) -> tuple[str, str]:
    return "--data", f"{name}.jsonl"


DATA: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "missing": (data("nowhere"), ("nowhere.jsonl", "does not exist")),
    "a directory": (data("folder"), ("folder.jsonl", "is a directory")),
    "not UTF-8": (data("latin"), ("latin.jsonl", "no UTF-8", "byte 0xe9")),
    "empty": (data("empty"), ("empty.jsonl", "holds no example")),
    "blank": (data("blank"), ("blank.jsonl", "holds no example")),
    "no JSON": (data("words"), ("words.jsonl, line 1", "'no JSON'", "JSON object")),
    "no JSON later": (data("late"), ("late.jsonl, line 2", "JSON object")),
    "no object": (data("list"), ("list.jsonl, line 1", "JSON object")),
    "no text": (data("number"), ("number.jsonl, line 1", "'text' is 3")),
    "blank text": (data("blanktext"), ("line 1", "'text' is ' '")),
    "null later": (data("null"), ("line 2", "'text' is None")),
    "other columns": (data("other"), ("'words'", "sft", "text or prompt, completion")),
    "no columns": (data("nocolumn"), ("no column", "text or prompt, completion")),
    "column missing later": (data("missing"), ("line 2", "'completion' is missing")),
    "columns of dpo": (data("dpo"), ("'chosen'", "sft", "text or prompt, completion")),
    "columns of sft": ((*data("sft"), "--objective", "dpo"), ("'text'", "prompt, chosen")),
    "dpo of the same": (
        (*data("alike"), "--objective", "dpo"),
        ("alike.jsonl", "line 2", "the same", "' w5'", "remove"),
    ),
    "dpo without rejected": (
        (*data("unfinished"), "--objective", "dpo"),
        ("'chosen'", "prompt, chosen, rejected"),
    ),
    "one example": (data("single"), ("1 examples leave none to train on", "--eval-data")),
    "share that leaves none": (("--eval-share", 0.99), ("12 examples leave none",)),
    "evaluated of other columns": (
        ("--eval-data", "pairs.jsonl"),
        ("pairs.jsonl", "other columns", "text"),
    ),
    "evaluated of another objective": (("--eval-data", "dpo.jsonl"), ("dpo.jsonl", "'chosen'")),
    "evaluated missing": (("--eval-data", "nowhere.jsonl"), ("nowhere.jsonl", "not exist")),
    "reference missing": (
        ("--drift", 1, "--reference", "nowhere.jsonl"),
        ("nowhere.jsonl", "not exist"),
    ),
    "reference without text": (
        ("--drift", 1, "--reference", "dpo.jsonl"),
        ("dpo.jsonl", "'chosen'"),
    ),
}
ARGUMENTS: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "component": (("--component", "magic"), ("'magic'", "lerp", "sparse")),
    "option that does not apply": (("--option", "rank=2"), ("'rank'", "'scale'", "takes none")),
    "option of another component": (
        ("--component", "mlp", "--option", "rank=2"),
        ("'rank'", "'mlp'", "hidden"),
    ),
    "option out of range": (
        ("--component", "lowrank", "--option", "rank=0"),
        ("'rank'", "is 0", "at least 1"),
    ),
    "option not whole": (
        ("--component", "mlp", "--option", "hidden=2.5"),
        ("'hidden'", "2.5", "whole number"),
    ),
    "option infinite": (
        ("--component", "sparse", "--option", "l1=inf"),
        ("'l1'", "inf", "a finite number"),
    ),
    "option NaN": (
        ("--component", "sparse", "--option", "l1=nan"),
        ("'l1'", "nan", "a finite number"),
    ),
    "option no number": (("--component", "mlp", "--option", "hidden=x"), ("hidden", "'x'")),
    "option without value": (("--option", "hidden"), ("'hidden'", "KEY=NUMBER")),
    "objective": (("--objective", "ppo"), ("--objective", "ppo", "sft")),
    "baseline": (("--baseline", "prompt"), ("'prompt'", "lora or ia3")),
    "baseline and component": (("--baseline", "lora", "--component", "bias"), ("--component",)),
    "baseline and option": (("--baseline", "lora", "--option", "r=2"), ("--option",)),
    "baseline and allowlist": (("--baseline", "ia3", "--allowlist", "a"), ("--allowlist", "ia3")),
    "baseline and features": (("--baseline", "lora", "--features", "1"), ("--features", "lora")),
    "baseline and select": (("--baseline", "lora", "--select", 3), ("--select", "lora")),
    "baseline and l1": (("--baseline", "lora", "--l1", 1), ("--l1", "lora")),
    "baseline and drift": (("--baseline", "lora", "--drift", 1), ("--drift", "lora")),
    "rank without baseline": (("--rank", 4), ("--rank 4", "lora", "--option rank=4")),
    "rank of ia3": (("--baseline", "ia3", "--rank", 4), ("--rank 4", "lora")),
    "rank 0": (("--baseline", "lora", "--rank", 0), ("--rank 0", "from 1")),
    "share 0": (("--eval-share", 0), ("--eval-share 0", "between 0 and 1")),
    "share 1": (("--eval-share", 1), ("--eval-share 1", "between 0 and 1")),
    "share 2": (("--eval-share", 2), ("--eval-share 2", "between 0 and 1")),
    "share NaN": (("--eval-share", "nan"), ("--eval-share nan", "between 0 and 1")),
    "select 0": (("--select", 0), ("--select 0", "between 1 and the 96")),
    "select too many": (("--select", 97), ("--select 97", "between 1 and the 96")),
    "select more than allowed": (
        ("--select", 4, "--features", "1,2,3"),
        ("--select 4", "between 1 and the 3"),
    ),
    "select a word": (
        ("--select", "most"),
        ("--select 'most'", "a number of features, all or auto"),
    ),
    "by a word": (("--by", "luck"), ("--by 'luck'", "gradient or fisher")),
    "fisher without reference": (
        ("--by", "fisher"),
        ("--by fisher", "expected --reference as well"),
    ),
    "baseline and by": (("--baseline", "lora", "--by", "fisher"), ("--by", "lora")),
    "drift without reference": (("--drift", 1), ("--drift 1", "expected --reference as well")),
    "budget without reference": (
        ("--kl-budget", 0.1),
        ("--kl-budget 0.1", "expected --reference as well"),
    ),
    "budget 0": (("--kl-budget", 0, "--reference", "r"), ("--kl-budget 0", "greater than 0")),
    "beta2 no number": (("--beta2", "x"), ("--beta2", "'x'", "number")),
    "beta2 1": (("--beta2", "1"), ("--beta2 1", "less than 1")),
    "beta2 negative": (("--beta2", "-1"), ("--beta2 -1",)),
    "learning rate 0": (("--learning-rate", 0), ("--learning-rate 0", "greater than 0")),
    "learning rate NaN": (("--learning-rate", "nan"), ("--learning-rate nan",)),
    "epochs 0": (("--epochs", 0), ("--epochs 0", "greater than 0")),
    "epochs infinite": (("--epochs", "inf"), ("--epochs inf", "finite")),
    "steps 0": (("--max-steps", 0), ("--max-steps 0", "greater than or equal to 1")),
    "batch 0": (("--batch-size", 0), ("--batch-size 0",)),
    "accumulation 0": (("--accumulation", 0), ("--accumulation 0",)),
    "length 0": (("--max-length", 0), ("--max-length 0",)),
    "length 1": (("--max-length", 1), ("--max-length 1", "2")),
    "dpo beta 0": (("--dpo-beta", 0), ("--dpo-beta 0",)),
    "l1 negative": (("--l1", -1), ("--l1 -1",)),
    "l1 infinite": (("--l1", "inf"), ("--l1 inf",)),
    "drift negative": (("--drift", -1), ("--drift -1",)),
    "drift NaN": (("--drift", "nan"), ("--drift nan",)),
    "evaluations 0": (("--evaluations", 0), ("--evaluations 0",)),
    "patience 0": (("--patience", 0), ("--patience 0",)),
    "seed negative": (("--seed", -1), ("--seed -1",)),
    "report": (("--report-to", "paper"), ("--report-to", "paper", "tensorboard")),
    "device": (("--device", "tpu"), ("'tpu'", "cpu", "--device")),
    "allowlist and features": (
        ("--allowlist", "a", "--features", "1"),
        ("--allowlist", "--features", "exclude each other"),
    ),
    "DPO's completions": (
        ("--no-completion-only", "--objective", "dpo", "--data", "dpo.jsonl"),
        ("--no-completion-only", "--objective sft", "leave it out"),
    ),
    "DPO's beta": (("--dpo-beta", 0.5), ("--dpo-beta 0.5", "--objective dpo", "leave it out")),
    "a seed too large": (("--seed", 2**32), ("--seed 4294967296", "less than 4294967296")),
    "features of words": (("--features", "1,x"), ("--features", "'x'", "whole numbers")),
    "features with nothing": (("--features", ","), ("--features", "''", "whole numbers")),
    "a long list": (
        ("--features", ",".join(map(str, range(97)))),
        ("feature 96", "0 to 95"),
    ),
    "features not whole": (("--features", "1.5"), ("--features", "1.5", "whole numbers")),
    "features negative": (("--features", "1,-2"), ("--features", "'-2'", "whole numbers")),
    "features twice": (("--features", "1,2,1"), ("--features", "1 is listed twice")),
    "features out of range": (("--features", "5,96"), ("feature 96", "0 to 95")),
}


def refused(
    built: Path,
    folder: Path,
    arguments: tuple[object, ...],
    expected: tuple[str, ...],
    patch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    setting: object = "tiny.toml",
) -> None:
    def unexpected(*given: Any, **named: Any) -> Any:
        raise AssertionError("a model is loaded")

    patch.chdir(built)
    patch.setattr(finetuning, "load_network", unexpected)
    before = sorted(built.rglob("*"))
    given = () if "--data" in arguments else ("--data", "sft.jsonl")
    capfd.readouterr()
    code = world.run(patch, "train", setting, "--out", folder / "out", *given, *arguments)
    assert code == 2
    world.one_line(capfd, *expected)
    assert not (folder / "out").exists()
    assert sorted(built.rglob("*")) == before


@pytest.mark.parametrize("case", DATA)
def test_data(
    case: str,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    refused(built, tmp_path, *DATA[case], monkeypatch, capfd)


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(
    case: str,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    refused(built, tmp_path, *ARGUMENTS[case], monkeypatch, capfd)


def test_settings(
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    missing = tmp_path / "nowhere.toml"
    refused(built, tmp_path, (), ("nowhere.toml", "not exist"), monkeypatch, capfd, missing)
    copy = shutil.copytree(built, tmp_path / "copy")
    config = copy / "primary" / "cfg.json"
    found = json.loads(config.read_text("utf-8"))
    del found["metadata"]["hook_name"]
    config.write_text(json.dumps(found), "utf-8")
    refused(copy, tmp_path, (), ("does not name its hook point", "`hook`"), monkeypatch, capfd)
    shutil.rmtree(copy / "primary")
    refused(copy, tmp_path, (), ("primary", "cfg.json"), monkeypatch, capfd)


def test_out(
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("kept", "utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept", "utf-8")
    given = ("train", built / "tiny.toml", "--data", built / "sft.jsonl", "--out")
    for resume in ((), ("--resume",)):
        assert world.run(monkeypatch, *given, tmp_path / "file", *resume) == 2
        world.one_line(capfd, "file", "is a file", "expected a directory")
    assert world.run(monkeypatch, *given, tmp_path / "full") == 2
    world.one_line(capfd, "full", "not empty", "--resume")
    assert world.run(monkeypatch, *given, tmp_path / "file" / "deep" / "er") == 2
    world.one_line(capfd, "deep/er", "lies in", "which is a file", "change it")
    data = built / "sft.jsonl"
    assert world.run(monkeypatch, *given, tmp_path / "new", "--eval-data", data) == 2
    world.one_line(capfd, "sft.jsonl are in", "expected others", "remove them")
    for path in ("file", "full/file"):
        assert (tmp_path / path).read_text("utf-8") == "kept"


@pytest.mark.parametrize("baseline", [(), ("--baseline", "lora")])
def test_a_model_that_is_not_there(
    baseline: tuple[str, ...],
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    setting = tmp_path / "tiny.toml"
    text = (built / "tiny.toml").read_text("utf-8").replace('name = "model"', 'name = "./nowhere"')
    setting.write_text(text.replace('"primary"', f'"{built / "primary"}"'), "utf-8")
    given = ("train", setting, "--data", built / "sft.jsonl", "--out", tmp_path / "out")
    assert world.run(monkeypatch, *given, *baseline) == 2
    world.one_line(capfd, "nowhere", "does not exist")
    assert not (tmp_path / "out").exists()


def test_an_sae_of_a_place_that_the_model_does_not_have(
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(built, tmp_path / "copy")
    import tiny

    for sae, parts in (
        (tiny.sae("standard", "blocks.7.hook_resid_pre"), ("blocks.7", "layers 0 to 3")),
        (tiny.sae("standard", lessons.HOOK, width=16), ("16 dimensions", "32")),
    ):
        world.save_sae(sae, copy / "primary")
        given = ("train", copy / "tiny.toml", "--data", copy / "sft.jsonl")
        assert world.run(monkeypatch, *given, "--out", tmp_path / "out") == 2
        world.one_line(capfd, *parts)
        assert not (tmp_path / "out").exists()
