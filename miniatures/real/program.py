"""``python -m cleansteer.miniatures smollm2 [--texts FILE...] [--work DIR] [--out DIR] [--parts N]``."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import InputError
from ...core.progress import Reporter
from ...core.tables import read_json, write_json
from .card import write_real_card
from .figures import measure
from .harvest import TEXTS, drop_part, harvest, write_texts
from .passages import write_passages
from .recipe import SITES, RealRecipe, check_recipe, load_real
from .training import train

NAME = "smollm2"
WEIGHTS = Path(__file__).parent.parent / "weights" / "smollm2-135m"


def run(words: Sequence[str]) -> int:
    """Train the SAEs of SmolLM2, or go on where an earlier call was stopped; the exit code."""
    recipe = RealRecipe()
    parser = argparse.ArgumentParser(
        prog=f"python -m cleansteer.miniatures {NAME}",
        description="Train the SAEs of SmolLM2-135M-Instruct; a call that was stopped is gone on with.",
    )
    parser.add_argument(
        "--texts", type=Path, nargs="*", default=[], help="UTF-8 files of a paragraph a line"
    )
    parser.add_argument(
        "--passages",
        type=Path,
        nargs="*",
        default=[],
        help="those, in the public domain, of which passages are shipped as texts of the setting",
    )
    parser.add_argument("--tokens", type=int, default=recipe.tokens)
    parser.add_argument("--work", type=Path, default=Path("smollm2-work"), help="8 GB at most")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--parts", type=int, default=recipe.parts, help="stop behind so many")
    asked = parser.parse_args(words)
    recipe = replace(recipe, tokens=asked.tokens)
    try:
        train_real(recipe, asked.texts, asked.passages, asked.work, asked.out, asked.parts)
    except InputError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def train_real(
    recipe: RealRecipe,
    texts: Sequence[Path],
    shown: Sequence[Path],
    work: Path,
    out: Path,
    parts: int,
) -> None:
    """Texts, then part by part harvest and training, figures and card after each.

    Raises:
        InputError: texts cannot be read or are too short, the model's package is not installed, or
            ``work`` holds another training.

    """
    reporter = Reporter()
    check_recipe(work, recipe, texts)
    loaded = load_real()
    write_texts(work, texts, recipe, loaded, reporter)
    for part in range(min(parts, recipe.parts)):
        done = [(work / f"{site}-{part}").is_dir() for site in SITES]
        if not all(done):
            harvest(work, part, recipe, loaded[0], reporter)
            for site in SITES:
                train(work, part, site, recipe, reporter)
        drop_part(work, part)
    publish(work, min(parts, recipe.parts), recipe, loaded, shown, out)


def publish(
    work: Path,
    parts: int,
    recipe: RealRecipe,
    loaded: tuple[Any, Any],
    texts: Sequence[Path],
    out: Path,
) -> None:
    """Copy the SAEs to where the package keeps them, with their figures and a card."""
    saved = {site: work / f"{site}-{parts - 1}" for site in SITES}
    for site, figures in measure(work, saved, recipe, loaded[0]).items():
        shutil.rmtree(out / site, ignore_errors=True)
        shutil.copytree(saved[site], out / site)
        write_json(out / site / "figures.json", dict(figures))
    write_passages(work, texts, recipe, loaded[1].eos_token, out)
    write_real_card(out, recipe, parts, read_json(work / TEXTS), [path.name for path in texts])
