"""Examples as tokens: what reaches the model begins with BOS once, whatever the tokenizer does."""

from itertools import product
from pathlib import Path
from typing import Any

import beginnings
import families
import lessons
import pytest
import tiny
import torch
from cleansteer.adapters.encoding import IGNORED, encode, reference_texts, usable_length
from cleansteer.adapters.examples import gather
from cleansteer.adapters.trainers import make_trainer, quiet_training
from cleansteer.core.errors import InputError
from cleansteer.core.training import TrainingOptions
from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

LONG = 1000
ANSWER = [{"role": "assistant", "content": "w4 w5"}]
OTHER = [{"role": "assistant", "content": "w6"}]
ASKED = [{"role": "user", "content": "w3"}]
CHAT = {
    "messages": {"messages": ASKED + ANSWER},
    "chat completion": {"prompt": ASKED, "completion": ANSWER},
    "chat pair": {"prompt": ASKED, "chosen": ANSWER, "rejected": OTHER},
}
CHAT_BODY = "<user> w3 <end> <assistant> w4 w5 <end>"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lessons.save_sae(tmp_path_factory.mktemp("sae"))


def plain(front: str) -> dict[str, dict[str, str]]:
    """Rows of text, of which what comes first begins with ``front``."""
    return {
        "text": {"text": f"{front}w3 w4 w5"},
        "completion": {"prompt": f"{front}w3", "completion": " w4 w5"},
        "pair": {"prompt": f"{front}w3", "chosen": " w4 w5", "rejected": " w6"},
    }


def options(name: str, **more: Any) -> TrainingOptions:
    objective = "dpo" if "pair" in name else "sft"
    return TrainingOptions(objective=objective, batch_size=1, **more)  # type: ignore[arg-type]


def ids(row: dict[str, list[int]]) -> list[int]:
    """Of pairs those of the chosen."""
    return row["input_ids"] if "input_ids" in row else row["prompt_ids"] + row["chosen_ids"]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("kind", beginnings.KINDS)
def test_texts_begin_with_bos_once_and_end_with_eos_once(kind: str, bos: bool) -> None:
    made, start = beginnings.tokenizer(kind), beginnings.start(kind)
    word = made.bos_token or made.eos_token
    for n_bos, name in product(range(3), ("text", "completion", "pair")):
        front = f"{word} " * n_bos
        (row,) = encode([plain(front)[name]], made, options(name, bos=bos), LONG).rows
        expected = [start] * (1 if bos else n_bos)
        assert ids(row) == [*expected, 3, 4, 5, 0], (n_bos, name)
        if name == "completion":
            assert row["labels"] == [IGNORED] * (len(expected) + 1) + [4, 5, 0]
        elif name == "text":
            assert row["labels"] == row["input_ids"]
        else:
            assert row["chosen_ids"] == [4, 5, 0]
            assert row["rejected_ids"] == [6, 0]
        ended = {column: f"{text} <eos>" for column, text in plain(front)[name].items()}
        ended |= {"prompt": plain(front)[name]["prompt"]} if name != "text" else {}
        assert encode([ended], made, options(name, bos=bos), LONG).rows == [row]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("template", [beginnings.TEMPLATE, beginnings.WITHOUT_BOS])
@pytest.mark.parametrize("kind", beginnings.KINDS)
def test_conversations_are_what_the_template_makes_of_them(
    kind: str, template: str, bos: bool
) -> None:
    made = beginnings.tokenizer(kind, template)
    has, puts = made.bos_token is not None, template == beginnings.TEMPLATE
    front = [beginnings.start(kind)] if has and (bos or puts) else []
    expected = [*front, *beginnings.ids(CHAT_BODY)]
    for name, row in CHAT.items():
        (found,) = encode([row], made, options(name, bos=bos), LONG).rows
        assert ids(found) == expected, name
    if puts:
        known = made.apply_chat_template(ASKED + ANSWER, return_dict=True)["input_ids"]
        assert known == expected
    assert found["rejected_ids"] == beginnings.ids("w6 <end>")


@pytest.mark.parametrize("kind", beginnings.KINDS)
def test_those_tokens_reach_the_model(kind: str, path: Path, tmp_path: Path) -> None:
    """In training and in evaluation, as the collator has them; and the texts' tokens are those that the
    tokenizer itself makes, where it puts BOS.
    """
    made = beginnings.tokenizer(kind)
    front = beginnings.start(kind)
    word = made.bos_token or made.eos_token
    for name, row in {**plain(f"{word} "), **CHAT}.items():
        chat = name in CHAT
        with quiet_training():
            trainer = make_trainer(
                lessons.network(),
                made,
                lessons.config(path),
                options(name),
                gather([row]),
                gather([row]),
                tmp_path,
            )
        body = beginnings.ids(CHAT_BODY) if chat else [3, 4, 5, 0]
        expected = body if chat and made.bos_token is None else [front, *body]
        for batches in (trainer.get_train_dataloader(), trainer.get_eval_dataloader()):
            (batch,) = batches
            found = batch["input_ids"][0][batch["attention_mask"][0].bool()]
            assert found.tolist() == expected, name
    if kind == "puts BOS":
        assert made("w3 w4 w5")["input_ids"] == [front, 3, 4, 5]


ASSISTANT_MARKED = (
    "{{ bos_token or '' }}{% for message in messages %} <{{ message['role'] }}> "
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }} <end>"
    "{% endgeneration %}{% else %}{{ message['content'] }} <end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} <assistant>{% endif %}"
)
TURNS = [
    {"role": "system", "content": "w9"},
    {"role": "user", "content": "w3"},
    {"role": "assistant", "content": "w4 w5"},
    {"role": "user", "content": "w6"},
    {"role": "assistant", "content": "w7"},
]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("kind", ["puts nothing", "puts BOS", "BOS is EOS", "no BOS"])
@pytest.mark.parametrize(
    "template", [beginnings.TEMPLATE, beginnings.WITHOUT_BOS, ASSISTANT_MARKED]
)
def test_the_assistants_turns_are_learned(template: str, kind: str, bos: bool) -> None:
    made = beginnings.tokenizer(kind, template)
    (row,) = encode([{"messages": TURNS}], made, options("messages", bos=bos), LONG).rows
    learned = [token for token in row["labels"] if token != IGNORED]
    assert learned == beginnings.ids("w4 w5 <end> w7 <end>")
    assert all(label in (IGNORED, token) for token, label in zip(*row.values(), strict=True))
    whole = options("messages", bos=bos, completion_only=False)
    (row,) = encode([{"messages": TURNS}], made, whole, LONG).rows
    assert row["labels"] == row["input_ids"]


FORGETFUL = (
    "{% for message in messages %} <{{ message['role'] }}> {{ message['content'] }}"
    "{% if message['role'] == 'assistant' and not loop.last %} w1{% endif %} <end>{% endfor %}"
    "{% if add_generation_prompt %} <assistant>{% endif %}"
)


def test_a_turn_ends_where_the_template_writes_on_otherwise() -> None:
    made = beginnings.tokenizer("puts BOS", FORGETFUL)
    (row,) = encode([{"messages": TURNS}], made, options("messages"), LONG).rows
    learned = [token for token in row["labels"] if token != IGNORED]
    assert learned == beginnings.ids("w4 w5 w7 <end>")


@pytest.mark.parametrize(
    ("who", "told"),
    [
        ("message['role'] == 'assistant'", "message 3 of .* otherwise where others follow"),
        ("message['role'] == 'user'", "'w9'.*answer's beginning cannot be told"),
    ],
)
def test_a_turn_that_cannot_be_told_is_refused(who: str, told: str) -> None:
    """Some templates write earlier turns otherwise, such as without their reasoning."""
    told_apart = "{{ 'w8' if loop.last or not (" + who + ") else 'w9' }}"
    template = FORGETFUL.replace("{{ message['content'] }}", told_apart)
    made = beginnings.tokenizer("puts BOS", template)
    with pytest.raises(InputError, match=told):
        encode([{"messages": TURNS}], made, options("messages"), LONG)
    others = ("chat completion", "chat pair") if "user" in who else ()
    for name in others:
        with pytest.raises(InputError, match="answer's beginning cannot be told"):
            encode([CHAT[name]], made, options(name), LONG)


def test_prompts_are_learned_where_asked_for() -> None:
    for row, name in ((plain("")["completion"], "text"), (CHAT["chat completion"], "chat")):
        (found,) = encode(
            [row], beginnings.tokenizer("puts BOS"), options(name, completion_only=False), LONG
        ).rows
        assert found["labels"] == found["input_ids"]


def test_a_conversation_without_template_is_refused() -> None:
    made = beginnings.tokenizer("puts BOS", None)
    for name, row in CHAT.items():
        with pytest.raises(InputError, match=r"has no chat template.*instruction-tuned"):
            encode([row], made, options(name), LONG)
    with pytest.raises(InputError, match="has no chat template"):
        reference_texts([CHAT["messages"]], made)


def test_a_conversation_that_the_template_refuses_is_told() -> None:
    made = beginnings.tokenizer("puts BOS", "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InputError, match=r"refuses .*'w3'.*: roles must alternate; expected"):
        encode([CHAT["messages"]], made, options("messages"), LONG)


# Cutting


@pytest.mark.parametrize("max_length", [3, 5, 7, LONG])
@pytest.mark.parametrize("name", ["text", "completion", "pair"])
def test_without_bos_it_is_what_trl_makes_of_them(
    name: str, max_length: int, path: Path, tmp_path: Path
) -> None:
    """Where the tokenizer puts nothing."""
    rows: Any = {
        "text": lessons.texts,
        "completion": lessons.completions,
        "pair": lessons.preferences,
    }[name](12)
    trainer, arguments = (DPOTrainer, DPOConfig) if name == "pair" else (SFTTrainer, SFTConfig)
    args = arguments(output_dir=str(tmp_path), max_length=max_length, report_to="none", bf16=False)
    with quiet_training():
        known = trainer(
            model=tiny.network(),
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tiny.tokenizer(),
            peft_config=lessons.config(path),
        )
    found = encode(rows, tiny.tokenizer(), options(name, bos=False), max_length)
    columns = ["prompt_ids", "chosen_ids", "rejected_ids"]
    columns = columns if name == "pair" else ["input_ids", "labels"]
    # TRL's collator cuts pairs.
    expected = [{column: row[column] for column in columns} for row in known.train_dataset]
    if name == "pair":
        for row in expected:
            room = max_length - len(row["prompt_ids"])
            row |= {kind: row[kind][:room] for kind in ("chosen_ids", "rejected_ids")}
    assert found.rows == expected


@pytest.mark.parametrize("name", ["text", "completion", "pair", "messages"])
def test_what_is_cut_off_is_counted(name: str) -> None:
    made = beginnings.tokenizer("puts BOS")
    rows: Any = {
        "text": lessons.texts(30),
        "completion": lessons.completions(30),
        "pair": lessons.preferences(30),
        "messages": [
            {"messages": [*ASKED, {"role": "assistant", "content": row["text"]}]}
            for row in lessons.texts(30)
        ],
    }[name]
    whole = encode(rows, made, options(name), LONG)
    assert (whole.n_cut, whole.n_tokens_lost, len(whole.rows)) == (0, 0, 30)

    def sizes(row: dict[str, list[int]]) -> list[int]:
        if name != "pair":
            return [len(row["input_ids"])]
        return [len(row["prompt_ids"] + row[kind]) for kind in ("chosen_ids", "rejected_ids")]

    lengths = [sizes(row) for row in whole.rows]
    assert whole.n_tokens == sum(map(sum, lengths))
    for max_length in (4, 6, 8):
        cut = encode(rows, made, options(name), max_length)
        assert cut.n_tokens == whole.n_tokens
        assert cut.n_cut == sum(max(length) > max_length for length in lengths) > 0
        left = sum(sum(sizes(row)) for row in cut.rows)
        assert cut.n_tokens_lost == whole.n_tokens - left > 0
        assert all(max(sizes(row)) <= max_length for row in cut.rows)


def test_no_more_is_used_than_the_model_takes() -> None:
    assert [usable_length(tiny.network(), length) for length in (10, 64, 1024)] == [10, 64, 64]
    unlimited = families.network(families.UNKNOWN, torch.float32)
    known = getattr(unlimited.config, "max_position_embeddings", None)
    assert usable_length(unlimited, 1024) == (known or 1024)


def test_a_tokenizer_that_cuts_and_pads_does_neither() -> None:
    made: PreTrainedTokenizerFast = beginnings.tokenizer("puts BOS")
    known = encode([{"text": "w3 w4 w5"}, {"text": "w6"}], made, options("text"), LONG)
    made.backend_tokenizer.enable_truncation(2)
    made.backend_tokenizer.enable_padding(length=12)
    assert encode([{"text": "w3 w4 w5"}, {"text": "w6"}], made, options("text"), LONG) == known
