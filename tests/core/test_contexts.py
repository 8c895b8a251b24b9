"""Contexts: cut from the texts as the protocol says, nothing lost, nothing invented."""

import random
from pathlib import Path

import minimal
import pytest
import tiny
import torch
from cleansteer.core import contexts as contexts_module
from cleansteer.core.contexts import build_contexts, prompt_tokens, tokenised, without_start
from cleansteer.core.errors import InputError
from cleansteer.core.texts import read_texts
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

LENGTH = 7
WORDS = 600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus of distinct texts of 1 to 15 words."""
    draw = random.Random(0)
    lines = {
        " ".join(f"w{draw.randrange(4, WORDS)}" for _ in range(draw.randint(1, 15)))
        for _ in range(150)
    }
    (tmp_path / "texts.txt").write_text("\n".join(sorted(lines)) + "\n", "utf-8")
    return tmp_path


def texts(folder: Path) -> list[list[int]]:
    """Tokens of every text, in the file's order."""
    lines = (folder / "texts.txt").read_text("utf-8").splitlines()
    return [[int(word[1:]) for word in line.split()] for line in lines]


def tokenizer(**special: str | None) -> PreTrainedTokenizerFast:
    """Words w4, w5, ... are the tokens 4, 5, ...; BOS 1, EOS 2, padding 3 unless said otherwise."""
    words = {"<u>": 0, "<b>": 1, "<e>": 2, "<p>": 3} | {f"w{i}": i for i in range(4, WORDS)}
    made = Tokenizer(WordLevel(words, unk_token="<u>"))
    made.pre_tokenizer = WhitespaceSplit()
    tokens = {"bos_token": "<b>", "eos_token": "<e>", "pad_token": "<p>"} | special
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<u>", **tokens)


def adding_tokenizer() -> PreTrainedTokenizerFast:
    """One that puts BOS and EOS around a text itself."""
    made = tokenizer()
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<b> $A <e>", special_tokens=[("<b>", 1), ("<e>", 2)]
    )
    return made


def build(
    folder: Path,
    n_contexts: int = 60,
    made: PreTrainedTokenizerFast | None = None,
    seed: int = 0,
    **corpus: object,
) -> torch.Tensor:
    setting = minimal.setting(
        folder,
        seed=seed,
        **{"min_chars": 1, "context_length": LENGTH, "n_contexts": n_contexts} | corpus,
    )
    texts = read_texts(setting, setting.corpus)
    return build_contexts(texts, setting.corpus, made or tokenizer(), setting.seed)


def most(folder: Path, kind: str) -> int:
    """How many contexts the corpus gives."""
    if kind == "stream":
        return sum(len(text) + 1 for text in texts(folder)) // (LENGTH - 1)
    return sum(len(text) >= LENGTH - 1 for text in texts(folder))


@pytest.mark.parametrize("kind", ["stream", "text-start"])
def test_shape_start_and_no_padding(folder: Path, kind: str) -> None:
    made = build(folder, contexts=kind)
    assert made.shape == (60, LENGTH)
    assert made.dtype == torch.long
    assert (made[:, 0] == 1).all()
    assert not (made == 3).any()
    assert not (made[:, 1:] == 1).any()


def test_the_stream_is_whole_texts_joined_by_eos(folder: Path) -> None:
    """Read back, the bodies are texts of the corpus, each once, the last one cut."""
    stream = build(folder, most(folder, "stream"))[:, 1:].flatten().tolist()
    pieces: list[list[int]] = [[]]
    for token in stream:
        if token == 2:
            pieces.append([])
        else:
            pieces[-1].append(token)
    *whole, last = pieces
    remaining = texts(folder)
    for piece in whole:
        remaining.remove(piece)
    assert any(text[: len(last)] == last for text in remaining)
    assert len(remaining) <= 2


def test_the_stream_is_shuffled_by_the_seed(folder: Path) -> None:
    first, again, other = build(folder), build(folder), build(folder, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    in_file_order = [t for text in texts(folder) for t in (*text, 2)]
    assert first[:, 1:].flatten().tolist() != in_file_order[: first[:, 1:].numel()]


def test_text_start_takes_the_first_tokens_of_every_long_text_in_order(folder: Path) -> None:
    expected = [text[: LENGTH - 1] for text in texts(folder) if len(text) >= LENGTH - 1]
    made = build(folder, len(expected), contexts="text-start")
    assert made[:, 1:].tolist() == expected
    assert len(expected) < len(texts(folder))


@pytest.mark.parametrize("kind", ["stream", "text-start"])
def test_fewer_contexts_are_the_first_of_them(folder: Path, kind: str) -> None:
    assert torch.equal(build(folder, 9, contexts=kind), build(folder, 60, contexts=kind)[:9])


@pytest.mark.parametrize("kind", ["stream", "text-start"])
def test_a_corpus_gives_what_it_holds_and_not_one_more(folder: Path, kind: str) -> None:
    limit = most(folder, kind)
    assert len(build(folder, limit, contexts=kind)) == limit
    with pytest.raises(InputError, match=f"gives {limit} contexts of {LENGTH} .*= {limit + 1}"):
        build(folder, limit + 1, contexts=kind)


@pytest.mark.parametrize("kind", ["stream", "text-start"])
def test_batches_of_the_tokenizer_do_not_matter(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(folder, contexts=kind)
    monkeypatch.setattr(contexts_module, "_TOKENIZER_BATCH", 3)
    assert torch.equal(build(folder, contexts=kind), whole)


@pytest.mark.parametrize("kind", ["stream", "text-start"])
def test_eos_starts_where_there_is_no_bos(folder: Path, kind: str) -> None:
    with_bos = build(folder, contexts=kind)
    without = build(folder, contexts=kind, made=tokenizer(bos_token=None))
    assert (without[:, 0] == 2).all()
    assert torch.equal(without[:, 1:], with_bos[:, 1:])


@pytest.mark.parametrize("kind", ["stream", "text-start"])
def test_special_tokens_that_the_tokenizer_adds_are_not_doubled(folder: Path, kind: str) -> None:
    adding = adding_tokenizer()
    assert adding("w9")["input_ids"] == [1, 9, 2]
    made = build(folder, contexts=kind, made=adding)
    assert torch.equal(made, build(folder, contexts=kind))


def test_a_tokenizer_without_end_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="neither BOS nor EOS"):
        build(folder, made=tokenizer(bos_token=None, eos_token=None))
    with pytest.raises(InputError, match="neither BOS nor EOS"):
        prompt_tokens("w9", tokenizer(bos_token=None, eos_token=None))


@pytest.mark.parametrize("kind", ["stream", "text-start"])
@pytest.mark.parametrize("made", [tokenizer(), tokenizer(bos_token=None), adding_tokenizer()])
def test_a_bos_that_texts_begin_with_is_not_doubled(
    folder: Path, kind: str, made: PreTrainedTokenizerFast
) -> None:
    known = build(folder, contexts=kind, made=made)
    start = "<b>" if made.bos_token else "<e>"
    path = folder / "texts.txt"
    lines = path.read_text("utf-8").splitlines()
    for front in (f"{start} ", f"{start} {start} "):
        path.write_text("".join(f"{front}{line}\n" for line in lines), "utf-8")
        assert torch.equal(build(folder, contexts=kind, made=made), known)


def test_half_a_character_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="half of a character") as caught:
        prompt_tokens("w1 \ud800 w2", tiny.tokenizer())
    assert "\n" not in str(caught.value)
    corpus = minimal.setting(n_contexts=2, context_length=3).corpus
    with pytest.raises(InputError, match="half of a character"):
        build_contexts(["w1 w2", "w3 \udfff"], corpus, tiny.tokenizer(), 0)


@pytest.mark.parametrize("made", [tokenizer(), tokenizer(bos_token=None), adding_tokenizer()])
def test_a_prompt_begins_with_bos_once(made: PreTrainedTokenizerFast) -> None:
    start = made.bos_token or made.eos_token
    expected = [made.convert_tokens_to_ids(start), 9, 5]
    for text in ("w9 w5", f"{start} w9 w5", f"{start}{start} w9 w5"):
        assert prompt_tokens(text, made).tolist() == [expected]
    for text, expected_row in (
        (f"{start}", []),
        (f" {start} {start} w9 {start}", [9, expected[0]]),
        ("w9", [9]),
    ):
        (row,) = tokenised([text], made)
        assert without_start(text, row, made) == expected_row
    assert list(tokenised([f"{start} w9 {start}"], made)) == [[expected[0], 9, expected[0]]]


def test_an_unknown_word_that_reads_as_bos_is_no_bos() -> None:
    made = tokenizer(bos_token=None, eos_token="<u>")
    assert prompt_tokens("unheard w9", made).tolist() == [[0, 0, 9]]
    assert prompt_tokens("<u> unheard w9", made).tolist() == [[0, 0, 9]]
