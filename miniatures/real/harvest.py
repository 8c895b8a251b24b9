"""Token windows, and the residual streams that the model has in them."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...core.errors import InputError
from ...core.massive import is_massive
from ...core.progress import Reporter
from ...core.tables import write_atomically, write_json
from .conversations import AT_ONCE, hold, questions
from .reading import collect, is_held_back, stream, windows
from .recipe import SITES, RealRecipe

TEXTS = "texts.json"
TALKS = "conversations.json"
WINDOWS = "windows.safetensors"


def write_texts(
    folder: Path, files: Sequence[Path], recipe: RealRecipe, loaded: tuple[Any, Any], out: Reporter
) -> None:
    """Write ``windows.safetensors``: the token windows of training, in order, and of validation; and
    ``conversations.json``.

    Files are taken whole, then conversations, then docstrings until there are enough.

    Raises:
        InputError: there are not.

    """
    target = folder / WINDOWS
    if target.is_file():
        return
    model, tokenizer = loaded
    talks: list[str] = []
    asked = questions(recipe.conversations, recipe.seed)
    with out.bar("conversations", len(asked)) as advance:
        for start in range(0, len(asked), AT_ONCE):
            talks += hold(model, tokenizer, asked[start : start + AT_ONCE], recipe.seed + start)
            advance(len(asked[start : start + AT_ONCE]))
    out.say("texts")
    found, characters = collect(files, talks, recipe.seed, recipe.tokens, tokenizer)
    kept = [text for text in found if not is_held_back(text)]
    back = [text for text in found if is_held_back(text)]
    body = recipe.context_length - 1
    training = stream(kept, tokenizer, recipe.parts * recipe.part_windows * body)
    validation = stream(back, tokenizer, recipe.validation_windows * body)
    rows = {
        "training": windows(training, tokenizer, recipe.context_length),
        "validation": windows(validation, tokenizer, recipe.context_length),
    }
    if len(rows["training"]) < recipe.parts * recipe.part_windows:
        raise InputError(
            f"the texts hold {len(training):,} tokens; expected {recipe.tokens:,}; give more --texts, or "
            "ask for fewer --tokens"
        )
    write_json(folder / TALKS, {"conversations": [*talks]})
    write_json(folder / TEXTS, characters)
    write_tensors(target, rows)


@torch.no_grad()
def streams(model: Any, rows: Tensor) -> dict[str, Tensor]:
    """Residual streams ``[window, token, d]`` behind the layers of ``SITES``."""
    kept: dict[str, Tensor] = {}

    def keeper(site: str) -> Any:
        def keep(module: object, given: object, output: Any) -> None:
            kept[site] = output if isinstance(output, Tensor) else output[0]

        return keep

    layers = model.model.layers
    handles = [layers[at].register_forward_hook(keeper(site)) for site, at in SITES.items()]
    whole = model.model.layers
    model.model.layers = layers[: max(SITES.values()) + 1]
    try:
        model.model(rows, use_cache=False)
    finally:
        model.model.layers = whole
        for handle in handles:
            handle.remove()
    return kept


def harvest(folder: Path, part: int, recipe: RealRecipe, model: Any, out: Reporter) -> None:
    """Write the part's residual streams, BOS left out, in float16 shards; those that are there stay."""
    shards = folder / f"part-{part}"
    shards.mkdir(exist_ok=True)
    rows = load_file(folder / WINDOWS)["training"]
    rows = rows[part * recipe.part_windows : (part + 1) * recipe.part_windows]
    with out.bar(f"harvest, part {part + 1} of {recipe.parts}", len(rows)) as advance:
        for start in range(0, len(rows), recipe.shard_windows):
            target = shards / f"{start:06d}.safetensors"
            block = rows[start : start + recipe.shard_windows]
            if target.is_file():
                advance(len(block))
                continue
            parts: dict[str, list[Tensor]] = {site: [] for site in SITES}
            for batch in block.split(recipe.batch_windows):
                for site, values in streams(model, batch).items():
                    parts[site].append(values[:, 1:].flatten(0, 1).half())
                advance(len(batch))
            write_tensors(target, {site: torch.cat(values) for site, values in parts.items()})


def harvested(folder: Path, part: int, site: str) -> Tensor:
    """``[token, d]`` of a part, float16, without massive ones."""
    files = sorted((folder / f"part-{part}").glob("*.safetensors"))
    found = [load_file(file)[site] for file in files]
    return torch.cat([values[~is_massive(values)] for values in found])


def drop_part(folder: Path, part: int) -> None:
    """Delete a part's residual streams."""
    shutil.rmtree(folder / f"part-{part}", ignore_errors=True)


def write_tensors(target: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomically(target, lambda temporary: save_file(whole, temporary))
