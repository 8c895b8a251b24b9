"""English passages that ship beside the SAEs: the texts of the setting."""

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.tables import read_json, write_text
from .conversations import answer_of
from .harvest import TALKS
from .reading import documents
from .recipe import RealRecipe

FILES = {"english.txt": False, "english-fresh.txt": True}
"""And whether its passages are those of fresh contexts."""
FRESH_EVERY = 7
MOST = 200
"""Passages of one file of texts."""
_CHARACTERS = 120


def passages(text: str) -> list[str]:
    """Whole sentences or lines of a text, joined until they are 120 characters or more (about 27 tokens);
    what is left over at the end is left out.
    """
    found, kept = [], ""
    for sentence in re.split(r"(?<=[.!?])\s+|\n+", text):
        kept = f"{kept} {sentence.strip()}".strip()
        if len(kept) >= _CHARACTERS:
            found.append(kept)
            kept = ""
    return found


def write_passages(
    work: Path, files: Sequence[Path], recipe: RealRecipe, end: str, out: Path
) -> None:
    """Write passages of what the model answered in its conversations, and of some files of texts, a
    passage a line in a seeded order; every seventh document's are the fresh ones.

    Args:
        work: the folder of the training.
        files: of texts.
        recipe: has the seed.
        end: what ends a turn of a conversation.
        out: where they are written.

    """
    talks: Any = read_json(work / TALKS)["conversations"]
    sources = [[answer_of(talk, end) for talk in talks]]
    sources += [list(documents(path)) for path in files]
    for name, fresh in FILES.items():
        chooser, lines = random.Random(recipe.seed), []
        for number, source in enumerate(sources):
            some = [text for at, text in enumerate(source) if (at % FRESH_EVERY == 0) == fresh]
            found = list(dict.fromkeys(line for text in some for line in passages(text)))
            most = len(found) if number == 0 else MOST // FRESH_EVERY if fresh else MOST
            lines += chooser.sample(found, min(most, len(found)))
        chooser.shuffle(lines)
        write_text(out / name, "\n".join(lines) + "\n")
