"""Tokens of form: layout, punctuation and function words."""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

LAYOUT, PUNCTUATION, FUNCTION, CONTENT = range(4)
"""Kinds of tokens; all but the last are of form."""
KINDS = ("layout", "punctuation", "function_words")
"""Names of those of form."""
_WORDS = (
    "a an the",
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself",
    "she her hers herself it its itself they them their theirs themselves oneself one this that these",
    "those who whom whose which what whoever whatever whichever",
    "about above across after against along amid among around as at before behind below beneath beside",
    "besides between beyond by despite down during except for from in inside into like near of off on",
    "onto out outside over past per since through throughout till to toward towards under until up upon",
    "via with within without",
    "and or but nor so yet if because although though unless while whereas whether than when where",
    "be am is are was were been being have has had having do does did doing done can could may might",
    "must shall should will would ought cannot",
    "'s 't 're 've 'll 'd 'm",
)
FUNCTION_WORDS = frozenset(word for line in _WORDS for word in line.split())
"""English articles, pronouns, prepositions, conjunctions and auxiliaries, and what is left of the last
behind an apostrophe; a closed list."""
_APOSTROPHES = str.maketrans("\u2019", "'")
_UNREADABLE = "\ufffd"
_REMEMBERED = 1 << 16


class Kinds:
    """Tells the kinds of tokens, of one tokenizer.

    A token is ``LAYOUT`` where it is nothing but blanks and line breaks, or one of the tokenizer's
    special tokens, which chat templates are made of; ``PUNCTUATION`` where it has neither a letter nor
    a digit; ``FUNCTION`` where it is a whole word of :data:`FUNCTION_WORDS`: it begins a word, and the
    next token begins another one, or is punctuation; otherwise ``CONTENT``, as every piece of a longer
    word is.

    Args:
        tokenizer: of Hugging Face.

    """

    def __init__(self, tokenizer: Any) -> None:
        special = {at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= set(tokenizer.all_special_ids)
        if tokenizer.unk_token_id not in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            special.discard(tokenizer.unk_token_id)
        self._special = special

        def decode(*some: int) -> str:
            return str(tokenizer.decode(list(some), clean_up_tokenization_spaces=False))

        self._decode = lru_cache(_REMEMBERED)(decode)

    def of(self, ids: Sequence[int]) -> list[int]:
        """The kind of every token of a text."""
        texts = zip(ids, self.written(ids), strict=True)
        surfaces = ["" if token in self._special else text for token, text in texts]
        around = zip(["", *surfaces], surfaces, [*surfaces[1:], ""], strict=False)
        return [_kind(before, text, behind) for before, text, behind in around]

    def written(self, ids: Sequence[int]) -> list[str]:
        """What every token adds to the text, the blanks in front of it included."""
        texts = []
        for at, token in enumerate(ids):
            # Some tokenizers leave out the blank in front of a word that stands alone.
            before = self._decode(ids[at - 1]) if at else ""
            both = self._decode(ids[at - 1], token) if at else self._decode(token)
            # Parts of a character cannot be read alone.
            whole = both.startswith(before) and _UNREADABLE not in both
            texts.append(both.removeprefix(before) if whole else self._decode(token))
        return texts


def _kind(before: str, text: str, behind: str) -> int:
    word = text.strip().translate(_APOSTROPHES).lower()
    if not word:
        return LAYOUT
    if not any(_is_letter(char) for char in word):
        return PUNCTUATION
    begins = text[0].isspace() or word[0] == "'" or not _in_word(before[-1:])
    ends = text[-1].isspace() or not _in_word(behind[:1])
    return FUNCTION if begins and ends and word in FUNCTION_WORDS else CONTENT


def _is_letter(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN" or char == _UNREADABLE


def _in_word(char: str) -> bool:
    return bool(char) and (_is_letter(char) or char == "_")
