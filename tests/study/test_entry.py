"""How a study begins: what it is refused for, and settings that contradict themselves."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cleansteer as cs
import pytest
import tiny
import torch
import world
from cleansteer.core.errors import InputError


@pytest.fixture(scope="module")
def held(screened_world: Path) -> dict[str, Any]:
    return world.memory(screened_world)


@pytest.fixture(scope="module")
def named(screened_world: Path) -> cs.Study:
    return cs.load_study(screened_world / "run", progress=False)


@pytest.mark.parametrize(
    ("changed", "kind", "parts"),
    [
        ({"model": "gpt2"}, TypeError, ["model= is a str", "PreTrainedModel"]),
        ({"tokenizer": "gpt2"}, TypeError, ["tokenizer= is a str"]),
        ({"tokenizer": None}, cs.InputError, ["model= was given without tokenizer="]),
        ({"sae": {"W_dec": 1}}, TypeError, ["sae= is a dict", "SAELens"]),
        ({"texts": "one text"}, TypeError, ["texts= is a str, expected a list of str"]),
        ({"texts": ["short"]}, cs.InputError, ["holds no text of at least"]),
        ({"texts": ["w1 w2 w3 w4 w5 w6 w7 w8 w9"]}, cs.InputError, ["contexts", "give more text"]),
        ({"heldout_texts": None}, cs.InputError, ["heldout_texts= missing"]),
        ({"sae": "narrow"}, cs.InputError, ["reads 16 dimensions, the model has 32"]),
        ({"sae": "deep"}, cs.InputError, ["does not exist: the model has layers 0 to 3"]),
        ({"sae": "above"}, cs.InputError, ["lies below the steered"]),
        ({"model": "half"}, cs.InputError, ["float16", "expected float32 or bfloat16"]),
        ({"tokenizer": "bare"}, cs.InputError, ["neither BOS nor EOS"]),
    ],
    ids=str,
)
def test_wrong_objects_are_refused_in_one_line(
    held: dict[str, Any], changed: dict[str, Any], kind: type[Exception], parts: list[str]
) -> None:
    made: dict[Any, Any] = {
        "narrow": lambda: tiny.sae("standard", "blocks.1.hook_resid_pre", width=16),
        "deep": lambda: tiny.sae("standard", "blocks.9.hook_resid_pre"),
        "above": lambda: tiny.sae("standard", "blocks.3.hook_resid_post"),
        "half": lambda: tiny.network(torch.float16),
        "bare": bare_tokenizer,
    }
    given = {
        name: made.get(value, lambda value=value: value)() if isinstance(value, str) else value
        for name, value in changed.items()
    }
    with pytest.raises(kind) as caught:
        cs.screen(**held | given, changes=world.CHANGES, progress=False)
    assert len(str(caught.value).splitlines()) == 1
    for part in parts:
        assert part in str(caught.value)


def bare_tokenizer() -> Any:
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.unk_token = None
    return tokenizer


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda s: s.evaluate([]), "no feature is listed"),
        (lambda s: s.evaluate([96]), "expected 0 to 95"),
        (lambda s: s.evaluate([1], sample=2), "exclude each other"),
        (lambda s: s.evaluate(sample=0), "--sample 0"),
        (lambda s: s.evaluate([1], alpha=0), "not a strength"),
        (lambda s: s.evaluate([1], alpha=2, mode="clamp_q95"), "takes no strength"),
        (lambda s: s.evaluate([1], kl_budget=0.1), "several strengths"),
        (lambda s: s.allowlist(top=0), "--top 0"),
        (lambda s: s.allowlist(top=5, min_score=0.0), "--top and --min-score exclude"),
        (lambda s: s.allowlist(min_stability=2.0), "no eligible feature has a predicted stability"),
        (lambda s: s.screen(top=0), "--top 0"),
        (lambda s: cs.screen("nothing"), "unknown setting 'nothing'"),
        (lambda s: cs.screen(), "expected a setting, or model="),
        (lambda s: cs.screen("mini-pythia", changes={"alpha": 2}), "'alpha' is not"),
        (
            lambda s: cs.screen("mini-pythia", changes={"steering.alfa": 2}),
            "unknown key 'steering.alfa'",
        ),
        (lambda s: cs.screen("mini-pythia", device="tpu"), "device 'tpu'"),
        (lambda s: cs.load_study("nowhere"), "nowhere holds no run"),
        (lambda s: cs.open_study("mini-pythia").ranking, "not ranked yet"),
        (lambda s: cs.open_study("mini-pythia").verdict, "not screened yet"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(named: cs.Study, call: Any, part: str) -> None:
    with pytest.raises(cs.InputError) as caught:
        call(named)
    assert len(str(caught.value).splitlines()) == 1
    assert part in str(caught.value)


def test_a_file_may_not_claim_objects_in_memory(screened_world: Path, tmp_path: Path) -> None:
    text = (screened_world / "tiny.toml").read_text("utf-8")
    (tmp_path / "odd.toml").write_text(
        text.replace('path = "primary"', 'in_memory = "abc"'), "utf-8"
    )
    with pytest.raises(cs.InputError, match=r"sae\.in_memory is for objects"):
        cs.load_setting(tmp_path / "odd.toml")


WRONG_TYPES = """
import sys
import cleansteer as cs

study = cs.load_study(sys.argv[1], progress=False)
calls = {
    "setting is a int": lambda: cs.screen(3),
    "texts= holds a int": lambda: cs.screen("mini-pythia", texts=[1, 2]),
    "sequence of indices": lambda: study.evaluate("1,2"),
    "no index, expected whole numbers": lambda: study.evaluate([1.5]),
    "expected numbers": lambda: study.evaluate([1], alpha="2"),
    "steering.mode": lambda: study.evaluate([1], mode="push"),
    "--contexts 'some'": lambda: study.evaluate([1], contexts="some"),
}
for part, call in calls.items():
    try:
        call()
    except (TypeError, cs.InputError) as error:
        assert part in str(error), (part, str(error))
        assert len(str(error).splitlines()) == 1, str(error)
    else:
        raise AssertionError(part)
print("refused", len(calls))
"""


def test_wrong_types_are_refused_at_the_door(screened_world: Path) -> None:
    """In a program of its own: here, signatures are checked before the door is reached."""
    program = [sys.executable, "-c", WRONG_TYPES, str(screened_world / "run")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.stdout == "refused 7\n", done.stderr


FILES = {
    "without response": (
        "n_features = 0\n",
        ("`n_features` is 0", "`response = true`", "in the file"),
    ),
    "with reliability": (
        "n_features = 0\nreliability = 0.8\n",
        ("`reliability` = 0.8", "`n_features` is 0", "in the file"),
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_contradict_themselves(
    case: str, screened_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    more, parts = FILES[case]
    path = tmp_path / "bad.toml"
    text = (screened_world / "tiny.toml").read_text("utf-8").replace("n_features = 60\n", more)
    path.write_text(text.replace("= false", "= true") if "reliability" in more else text, "utf-8")
    assert world.run(monkeypatch, "screen", path, "--run", tmp_path / "run") == 2
    world.one_line(capsys, *parts)


def test_response_is_asked_for_where_no_label_is(screened_world: Path) -> None:
    setting = screened_world / "tiny.toml"
    for given in ({"labels": 0}, {"changes": {"steering.n_features": 0}}):
        assert cs.open_study(setting, **given, progress=False).setting.steering.response
    assert not cs.open_study(setting, labels=30, progress=False).setting.steering.response
    with pytest.raises(InputError, match="`n_features` is 0"):
        cs.open_study(setting, labels=0, changes={"steering.response": False}, progress=False)


def test_too_few_eligible_features(screened_world: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    world.save_sae(tiny.sae("jumprelu", "blocks.1.hook_resid_pre", 16), small)
    changes = {"sae.path": str(small)}
    with pytest.raises(InputError, match=r"^\d+ eligible features are too few .* at least 15"):
        cs.screen(screened_world / "tiny.toml", labels=0, changes=changes, progress=False)
