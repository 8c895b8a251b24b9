"""The card beside the SAEs: what they are, what they saw, how good they are."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.massive import MASSIVE
from ...core.tables import read_json, write_text
from ..text import HELD_OUT_PACKAGES, TRAINED_PACKAGES
from .passages import FILES as PASSAGES
from .passages import FRESH_EVERY
from .reading import HELD_BACK
from .recipe import PACKAGE, SITES, RealRecipe, hook

FIGURES = {
    "explained_variance": ("explained variance", "{:.3f}"),
    "explained_variance_without_widest": ("the same without the two widest dimensions", "{:.3f}"),
    "l0": ("features that fire at a token (L0)", "{:.1f}"),
    "dead_share": ("features that never fire (dead)", "{:.1%}"),
    "recovered": ("loss recovered when spliced in", "{:.3f}"),
    "loss": ("loss of the model (nats a token)", "{:.3f}"),
    "spliced_loss": ("loss with the reconstruction", "{:.3f}"),
    "zeroed_loss": ("loss with zeros", "{:.3f}"),
}
"""Keys of ``figures.json``, and how the card's table has them."""


def write_real_card(
    folder: Path,
    recipe: RealRecipe,
    parts: int,
    characters: Mapping[str, Any],
    shown: Sequence[str],
) -> None:
    """Write ``README.md`` from the figures beside the SAEs.

    Args:
        folder: that they lie in.
        recipe: of their training.
        parts: how many of its parts are done.
        characters: of each source of text.
        shown: names of the files that passages are shipped of.

    """
    figures: dict[str, Any] = {site: read_json(folder / site / "figures.json") for site in SITES}
    body = recipe.context_length - 1
    texts = [f"| {name} | {count:,} |" for name, count in characters.items()]
    lines = [
        "# SAEs of SmolLM2-135M-Instruct",
        "",
        _paragraph(
            "Two sparse autoencoders of the residual stream of SmolLM2-135M-Instruct (Hugging Face,",
            f"Apache-2.0), as the package `{PACKAGE}` carries it: weights of 4 bits (GGUF, Q4_1),",
            "multiplied out to float32. The SAEs are shipped here, the model is not.",
        ),
        "",
        "## Training",
        "",
        _paragraph(
            f"BatchTopK (k = {recipe.first_k} in the first part, {recipe.k} in the others) by SAELens,",
            f"saved as JumpReLU; {recipe.n_features:,} features; weights as float16.",
            f"{parts * recipe.part_windows * body:,} tokens in windows of {recipe.context_length}, read",
            f"in {recipe.parts} parts of which {parts} are done; {parts * recipe.samples:,} samples for",
            f"each SAE in batches of {recipe.batch_size:,}, on streams scaled to a mean norm of sqrt(d);",
            "the scale is folded in at the end.",
        ),
        "",
        _paragraph(*_massive(figures)),
        "",
        "Texts, in characters:",
        "",
        "| source | characters |",
        "|---|---|",
        *texts,
        "",
        _paragraph(
            f"Docstrings are those of {', '.join(TRAINED_PACKAGES)}: 92 % of their source files, by a",
            f"hash of the file's name. None of {', '.join(HELD_OUT_PACKAGES)} was read. Conversations",
            f"are questions with the model's own answers. {HELD_BACK} % of the documents, by a hash of",
            "their text, were kept for the figures.",
        ),
        "",
        _paragraph(
            f"{' and '.join(f'`{name}`' for name in PASSAGES)}, the texts of the setting, are",
            f"passages of the model's answers and of {', '.join(shown)}, all of which are in the public",
            f"domain; every {FRESH_EVERY}th document's are the fresh ones.",
        ),
        "",
        "## Figures",
        "",
        _paragraph(
            f"On {recipe.validation_windows * body:,} tokens of the documents kept back; losses on",
            f"{recipe.spliced_windows * body:,} of them. Recovered: (loss with zeros - loss with the",
            "reconstruction) / (loss with zeros - loss of the model).",
        ),
        "",
        _row("", *(f"{site}: after layer {SITES[site] + 1} of 30" for site in SITES)),
        "|---" * (len(SITES) + 1) + "|",
        _row("hook", *map(hook, SITES)),
    ]
    for key, (title, form) in FIGURES.items():
        lines.append(_row(title, *(form.format(figures[site][key]) for site in SITES)))
    lines += ["", f"Written by `python -m cleansteer.miniatures smollm2`, seed {recipe.seed}.", ""]
    write_text(folder / "README.md", "\n".join(lines))


def _massive(figures: Mapping[str, Any]) -> list[str]:
    primary = figures["primary"]
    widest = " and ".join(f"{figures[site]['widest_share']:.0%} ({site})" for site in SITES)
    return [
        "BOS is left out of training and of every figure: the stream is",
        f"{primary['first_norm']:,.0f} long there, in the median {primary['norm']:,.0f} elsewhere",
        "(primary), and the same in every text. So are other tokens with massive activations, whose",
        f"stream is over {MASSIVE:.0f} times as long as the median: {primary['massive_share']:.2%} of",
        f"the tokens. No dimension is left out; the two widest carry {widest} of the variance.",
    ]


def _paragraph(*lines: str) -> str:
    text = " ".join(lines)
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
