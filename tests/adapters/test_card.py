"""The model card: everything that a reader must know of an adapter."""

from typing import Any

import pytest
import yaml
from cleansteer.adapters.card import card
from cleansteer.core.records import TrainingRecord

TRUST: dict[str, Any] = {
    "overall": "trusted",
    "axes": {
        "stability": {"verdict": "trusted", "reasons": []},
        "collateral": {"verdict": "not trusted", "reasons": ["rho is 0.1"]},
    },
    "fresh_check": True,
}
RECORD: dict[str, Any] = {
    "baseline": None,
    "setting": {"name": "small", "fingerprint": "ab"},
    "model": {"name": "gpt2", "source": "openai-community/gpt2", "dtype": "float32"},
    "component": {"component": "lowrank", "rank": 4},
    "n_parameters": 1234,
    "options": {"objective": "sft", "bos": True},
    "data": {"name": "letters.jsonl", "n": 80, "n_used": 78, "fingerprint": "00aa11bb22cc33dd"},
    "evaluated": {"n": 9, "n_used": 8, "fingerprint": "ff"},
    "n_steps": 30,
    "hook": "blocks.5.hook_resid_pre",
    "sae": {"label": "release/id", "fingerprint": "aabb", "n_features": 24576},
    "features": [1, 5, 7],
    "chosen": "allowed",
    "metrics": {"before": 3.25, "after": 2.123456},
    "trust": TRUST,
    "versions": {"cleansteer": "9.8.7"},
}


def made(**changes: Any) -> str:
    return card(TrainingRecord.model_validate(RECORD | changes))


def rows_of(text: str) -> dict[str, str]:
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {line[0].strip(): line[1].strip() for line in lines if line[0].strip()}


def test_everything_is_named() -> None:
    text = made()
    assert rows_of(text) == {
        "setting": "small",
        "model": "gpt2",
        "component": "lowrank (rank 4)",
        "parameters": "1234",
        "objective": "sft",
        "examples": "78 of letters.jsonl, fingerprint 00aa11bb22cc33dd, BOS in front",
        "held out": "8 of 9",
        "steps": "30",
        "hook point": "blocks.5.hook_resid_pre",
        "edited tokens": "all",
        "SAE": "release/id, fingerprint aabb",
        "features": "3 of 24576 (allowed)",
    }
    for part in ("3.2500", "2.1235", "nats a token", "8 examples", "import cleansteer", "9.8.7"):
        assert part in text


def test_what_was_not_used_is_told() -> None:
    """Tokens that were cut off, conversations, and prompts that are on both sides."""
    counts = {"n_tokens": 900, "n_cut": 3, "n_tokens_lost": 120, "n_prompts": 40}
    text = made(
        options=RECORD["options"] | {"max_length": 64},
        data=RECORD["data"] | counts | {"chat": True},
        evaluated=RECORD["evaluated"] | counts | {"n_shared": 2, "n_tokens_lost": 0},
    )
    found = rows_of(text)
    assert "conversations, BOS in front; 120 of 900 tokens not used" in found["examples"]
    assert "more than 64 an example" in found["examples"]
    assert found["held out"] == "8 of 9, 40 prompts, 2 examples of one trained on too"
    assert "made text of by the model's chat template" in text
    assert "chat template" not in made()


def test_the_head_is_yaml_that_the_hub_reads() -> None:
    _, head, _ = made().split("---", 2)
    found = yaml.safe_load(head)
    assert found["base_model"] == "openai-community/gpt2"
    assert found["library_name"] == "peft"
    assert "cleansteer" in found["tags"]


def test_a_verdict_of_no_trust_is_a_warning() -> None:
    trusted, not_trusted = made(), made(trust=TRUST | {"overall": "not trusted"})
    assert "**trusted** (stability trusted, collateral not trusted)" in trusted
    assert "were not trusted" not in trusted
    assert "**not trusted** (stability trusted" in not_trusted
    assert "The allowlist's predictions were not trusted" in not_trusted


def test_what_the_features_were_ranked_by_is_told() -> None:
    assert "collateral not trusted)." in made() == made(ranked_by="labels")
    free = made(ranked_by="linear response")
    assert "collateral not trusted), ranked by linear response without labels." in free


def test_without_an_allowlist_that_is_said() -> None:
    for features, count in (([1, 2], "2 of 24576"), (None, "24576 of 24576")):
        text = made(trust=None, features=features)
        assert "without an allowlist: nothing is known of how cleanly they steer" in text
        assert "verdict" not in text
        assert count in rows_of(text)["features"]


def test_dpo_names_its_own_loss() -> None:
    text = made(options={"objective": "dpo", "bos": True})
    assert "DPO's loss" in text
    assert rows_of(text)["objective"] == "dpo"


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_a_baseline_has_no_features(name: str) -> None:
    record = {key: RECORD[key] for key in RECORD if key not in ("hook", "sae", "features")}
    changes = {"baseline": name, "component": {"component": name}, "trust": None}
    text = card(TrainingRecord.model_validate(record | changes))
    assert f"A baseline, {name} of PEFT" in text
    for part in ("import cleansteer", "allowlist", "SAE"):
        assert part not in text
    assert not {"features", "hook point", "SAE"} & set(rows_of(text))


def test_an_adapter_that_is_no_better_than_none_says_so() -> None:
    worse = made(metrics={"before": 3.25, "after": 3.25})
    assert "No adapter was better than none" in worse
    assert "No adapter was better than none" not in made()


def test_the_number_format_is_that_of_the_measurement() -> None:
    bfloat = made(model=RECORD["model"] | {"dtype": "bfloat16"})
    assert "dtype=torch.bfloat16)" in bfloat
    assert "dtype=torch.float32)" in made()


@pytest.mark.parametrize("bos", [True, False])
def test_how_prompts_begin_is_said_where_examples_began_with_bos(bos: bool) -> None:
    text = made(options={"objective": "sft", "bos": bos})
    assert ("begin prompts so too" in text) is bos
    assert ("BOS in front" in rows_of(text)["examples"]) is bos


def test_attention_is_named_where_the_model_needs_it() -> None:
    capped = made(model=RECORD["model"] | {"attention": "eager"})
    assert 'dtype=torch.float32, attn_implementation="eager")' in capped
    assert "attn_implementation" not in made()


def test_what_changes_beside_the_loss_is_told() -> None:
    effects = {
        "edit": {"before": 0.0, "after": 1.25},
        "drift": {"before": 0.0, "after": 3.5},
        "kl": {"before": 0.0, "after": 0.0625},
        "objective": {"before": 3.25, "after": 2.5},
    }
    text = made(effects=effects)
    for name, after in (("Sum of the edits", 1.25), ("Drift", 3.5), ("KL", 0.0625)):
        assert any(
            line.startswith(f"| {name}") and f"| 0 | {after} |" in line
            for line in text.splitlines()
        )
    assert "with all penalties, by which this adapter was chosen | 3.25 | 2.5 |" in text
    same = made(effects={"objective": RECORD["metrics"]})
    assert "penalties" not in same
    assert "| before |" not in same


def test_a_training_that_is_not_finished_has_none() -> None:
    with pytest.raises(ValueError, match="not finished"):
        made(metrics=None)


def test_tokens_that_are_not_edited_are_told() -> None:
    text = made(options={"objective": "sft", "positions": "last", "edit_bos": False})
    assert (
        rows_of(text)["edited tokens"] == "last (from which the next token is drawn), but not BOS"
    )
