"""Tokenizers that differ in how a text begins and ends, over the words of the tiny model."""

import tiny
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    " <{{ message['role'] }}> {{ message['content'] }} <end>{% endfor %}"
    "{% if add_generation_prompt %} <assistant>{% endif %}"
)
"""A chat template that puts BOS itself, as Llama's and Gemma's do."""
WITHOUT_BOS = TEMPLATE.removeprefix("{{ bos_token or '' }}")
SPECIAL = {
    "<eos>": 0,
    "<bos>": 590,
    "<user>": 591,
    "<assistant>": 592,
    "<end>": 593,
    "<system>": 594,
}
ONE = "<eos>"
KINDS = {
    "puts nothing": ("<bos>", ""),
    "puts BOS": ("<bos>", "<bos> $A"),
    "puts BOS and EOS": ("<bos>", "<bos> $A <eos>"),
    "puts EOS": ("<bos>", "$A <eos>"),
    "BOS is EOS": (ONE, ""),
    "BOS is EOS, put": (ONE, "<eos> $A"),
    "no BOS": (None, ""),
    "no BOS, EOS put": (None, "$A <eos>"),
}
"""BOS, and what the tokenizer makes of a text."""


def tokenizer(
    kind: str, template: str | None = TEMPLATE, **more: object
) -> PreTrainedTokenizerFast:
    bos, put = KINDS[kind]
    words = {f"w{i}": i for i in range(1, 590)} | SPECIAL
    made = Tokenizer(WordLevel(words, unk_token="w1"))
    made.pre_tokenizer = WhitespaceSplit()
    made.add_special_tokens(list(SPECIAL))
    if put:
        tokens = [(token, SPECIAL[token]) for token in put.split() if token != "$A"]
        made.post_processor = TemplateProcessing(single=put, special_tokens=tokens)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=bos,
        eos_token="<eos>",
        pad_token="<eos>",
        chat_template=template,
        **more,
    )


def ids(text: str) -> list[int]:
    """Of words and special tokens between blanks."""
    return [SPECIAL[word] if word in SPECIAL else int(word[1:]) for word in text.split()]


def start(kind: str) -> int:
    """The token that a text begins with: BOS, or EOS."""
    bos = KINDS[kind][0]
    return SPECIAL[bos] if bos else SPECIAL["<eos>"]


assert max(SPECIAL.values()) < tiny.VOCABULARY
