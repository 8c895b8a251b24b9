"""Tokens of form as a reader tells them, and the share of an edit that is on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lessons
import pytest
import tiny
import torch
import world
from cleansteer.adapters import SaeAdapterConfig
from cleansteer.auditing.form import Kinds
from peft import get_peft_model
from sae_lens import SAE
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoTokenizer, PreTrainedTokenizerFast

Command = Callable[..., Any]
HOOK = "blocks.0.hook_resid_pre"
FORM = {".": 1, ",": 2, "the": 3, "of": 4}
LOUD = 6.0
LAST, OTHERS = slice(-1, None), slice(-1)


# Tokens of form


def pieces() -> PreTrainedTokenizerFast:
    """A tokenizer of word pieces, which writes blanks in front of words as bytes do."""
    weights = Path(world.__file__).parents[1] / "miniatures" / "weights"
    found: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(weights / "mini-gpt2" / "model")
    return found


def told(tokenizer: Any, text: str) -> list[tuple[str, str]]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    kinds = Kinds(tokenizer)
    letters = ["LPFC"[kind] for kind in kinds.of(ids)]
    return list(zip(kinds.written(ids), letters, strict=True))


@pytest.mark.parametrize(
    ("text", "word", "kind"),
    [
        ("all of them", " of", "F"),
        ("of the", " the", "F"),
        ("one of, or", " of", "F"),
        ("the theory", " the", "C"),  # the + ory
        ("it is_valid", " is", "C"),
        ("it isn't", " is", "C"),  # is + n + 't
        ("it isn't", "'t", "F"),
        ("a cat's", "'s", "F"),
        ("3 and 4", "3", "C"),
        ("ab ).", ").", "P"),
        ("a_b", "_", "P"),
        ("a\n\nb", "\n", "L"),
        ("a  b", " ", "L"),
        ("<|endoftext|>a", "<|endoftext|>", "L"),
        ("\u4e2d.", "\ufffd", "C"),  # no part of a character is punctuation
    ],
)
def test_kinds_are_those_a_reader_tells(text: str, word: str, kind: str) -> None:
    found = [each for piece, each in told(pieces(), text) if piece == word]
    assert found, told(pieces(), text)
    assert set(found) == {kind}


def test_what_is_written_is_the_text() -> None:
    text = 'In-place "sums" of  x_1, it\'s 3.5 times\n\n    faster (see Theorem 2).'
    assert "".join(piece for piece, _ in told(pieces(), text)) == text


# The share of an edit


def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<eos>": 0} | FORM | {f"w{i}": i for i in range(5, tiny.VOCABULARY)}
    made = Tokenizer(WordLevel(words, unk_token="<eos>"))
    made.pre_tokenizer = WhitespaceSplit()
    special = {"eos_token": "<eos>", "unk_token": "<eos>", "pad_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


@pytest.fixture(scope="module")
def texts() -> lessons.Rows:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(1, 12, (9, 14), generator=draw).tolist()
    names = {index: word for word, index in FORM.items()}
    return [{"text": " ".join(names.get(i, f"w{i}") for i in row)} for row in rows]


@pytest.fixture(scope="module")
def spelled(tmp_path_factory: pytest.TempPathFactory, texts: lessons.Rows) -> Path:
    """A world in which features read tokens: 0 punctuation, 1 other words than the and of, 2 both."""
    folder = world.build(tmp_path_factory.mktemp("spelled")).parent
    tokenizer().save_pretrained(folder / "model")
    lessons.write(folder / "some.jsonl", texts)
    model = tiny.network()
    embedding = model.transformer.wte.weight.data
    embedding[:, :2] = 0.0
    model.transformer.wpe.weight.data[:, :2] = 0.0
    embedding[1:3, 0] = LOUD
    embedding[5:, 1] = LOUD
    embedding[0, :2] = LOUD  # BOS is left out
    model.save_pretrained(folder / "model")
    made = tiny.sae("standard", HOOK, n_features=40)
    encoder = made.W_enc.data
    encoder[:, :3], made.b_enc.data[:3] = 0.0, 0.0
    made.b_dec.data.zero_()
    encoder[0, 0] = encoder[1, 1] = encoder[0, 2] = encoder[1, 2] = 1.0
    world.save_sae(made, folder / "spelling")
    return folder


def plant(folder: Path, out: Path, component: str, values: dict[int, float]) -> Path:
    target = {"hook": HOOK, "sae": {"path": str(folder / "spelling")}, "features": [*values]}
    network = tiny.network()
    network.load_state_dict(load(folder).state_dict())
    network.requires_grad_(False)
    model = get_peft_model(network, SaeAdapterConfig(targets=[target], component=component))
    (parameter,) = (p for p in model.parameters() if p.requires_grad)
    parameter.data = torch.tensor(list(values.values()))
    model.peft_config["default"].base_model_name_or_path = str(folder / "model")
    model.save_pretrained(out)
    return out


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder / "model").eval()


def activations(folder: Path, texts: lessons.Rows) -> list[tuple[list[int], torch.Tensor]]:
    """Of every text tokens and latents, behind BOS, by SAELens over plain Hugging Face."""
    sae, model, found = SAE.load_from_disk(str(folder / "spelling")), load(folder), []
    for row in texts:
        ids = [0, *(FORM.get(w) or int(w[1:]) for w in row["text"].split()), 0]
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[0]
        found.append((ids[1:], sae.encode(states[0, 1:])))
    return found


@pytest.mark.parametrize("values", [{0: 0.5}, {1: 0.5}])
def test_planted_features_are_of_what_they_fire_on(
    spelled: Path, tmp_path: Path, texts: lessons.Rows, audit: Command, values: dict[int, float]
) -> None:
    """0 on punctuation, 1 on content, and both on EOS, which ends a text and is layout."""
    (index,) = values
    seen = activations(spelled, texts)
    ends, words = (
        float(torch.cat([z[part, index] for _, z in seen]).sum()) for part in (LAST, OTHERS)
    )
    expected = 1.0 if index == 0 else ends / (ends + words)
    found = audit(
        plant(spelled, tmp_path / "adapter", "scale", values), "--data", spelled / "some.jsonl"
    )
    (feature,) = found["features"]
    assert feature["form"] == pytest.approx(expected, abs=1e-6)
    told = found["form"]
    assert told["edit"]["form"] == pytest.approx(expected)
    punctuation = words / (ends + words) if index == 0 else 0.0
    assert told["edit"]["punctuation"] == pytest.approx(punctuation, abs=1e-6)
    assert told["covered"] == pytest.approx(1.0)


def test_figures_are_those_of_plain_loops(
    spelled: Path, tmp_path: Path, texts: lessons.Rows, audit: Command
) -> None:
    values = {0: 0.4, 1: -0.2, 2: 0.3, 11: 0.8, 17: -1.0}
    adapter = plant(spelled, tmp_path / "adapter", "scale", values)
    found = audit(adapter, "--data", spelled / "some.jsonl")
    sae = SAE.load_from_disk(str(spelled / "spelling"))
    norms = sae.W_dec.norm(dim=1)
    kinds = {
        0: "layout",
        1: "punctuation",
        2: "punctuation",
        3: "function_words",
        4: "function_words",
    }
    sums = {
        kind: torch.zeros(40) for kind in ("layout", "punctuation", "function_words", "content")
    }
    counts = dict.fromkeys(sums, 0)
    for ids, latents in activations(spelled, texts):
        for token, z in zip(ids, latents, strict=True):
            sums[kinds.get(token, "content")] += z
            counts[kinds.get(token, "content")] += 1
    total = sum(sums.values())
    chosen = [f for f in values if total[f] > 0]
    assert len(chosen) == 5
    weight = {f: abs(values[f]) * float(total[f] * norms[f]) for f in chosen}
    told = found["form"]
    for kind in ("layout", "punctuation", "function_words"):
        edit = sum(weight[f] * float(sums[kind][f] / total[f]) for f in chosen)
        assert told["edit"][kind] == pytest.approx(edit / sum(weight.values()), rel=1e-4)
        usual = float((sums[kind] * norms).sum() / (total * norms).sum())
        assert told["dictionary"][kind] == pytest.approx(usual, rel=1e-4)
        assert told["tokens"][kind] == pytest.approx(counts[kind] / sum(counts.values()))
    for name, share in (("edit", told["edit"]), ("dictionary", told["dictionary"])):
        interval = told[f"{name}_interval"]
        assert interval["low"] < interval["value"] < interval["high"]
        assert interval["value"] == pytest.approx(share["form"])
    assert told["difference"]["value"] == pytest.approx(
        told["edit"]["form"] - told["dictionary"]["form"]
    )


def test_a_push_has_the_share_of_what_its_features_fire_on(
    spelled: Path, tmp_path: Path, audit: Command, shown: Command
) -> None:
    """And the reference stands in for the data; a feature that never fires is not told of."""
    adapter = plant(spelled, tmp_path / "adapter", "bias", {0: 1.0, 1: 1.0})
    found = audit(adapter, "--reference", spelled / "some.jsonl")["form"]
    norms = SAE.load_from_disk(str(spelled / "spelling")).W_dec.norm(dim=1)
    share = float(norms[0] / (norms[0] + norms[1]))  # references have no EOS
    assert found["edit"]["form"] == pytest.approx(share, rel=1e-5)
    assert found["edit"]["punctuation"] == pytest.approx(share, rel=1e-5)
    one = lessons.write(tmp_path / "one.jsonl", [{"text": ". , . ."}])
    alone = audit(adapter, "--reference", one)["form"]
    assert alone["edit"]["form"] == 1
    assert alone["covered"] == pytest.approx(share, rel=1e-5)
    assert "edit_interval" not in alone
    assert "100% of the edit, of the" in " ".join(shown(adapter, "--reference", one).split())
