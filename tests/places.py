"""The tiny world with SAEs at three places, one of them of attention heads."""

from pathlib import Path

import lessons
import teaching
import tiny
import world
from cleansteer.core.settings import read_setting

BELOW, HEADS, ABOVE = lessons.HOOK, "blocks.1.attn.hook_z", "blocks.2.hook_resid_post"
FOLDERS = {BELOW: "primary", HEADS: "heads", ABOVE: "downstream"}
N_FEATURES = {BELOW: 96, HEADS: 64, ABOVE: 80}


def build(folder: Path) -> Path:
    """The world, and an allowlist of the SAE below."""
    teaching.build(folder)
    heads = tiny.sae("standard", HEADS, n_features=64, seed=4, reshape_activations="hook_z")
    world.save_sae(heads, folder / "heads")
    lessons.allowlist(read_setting(folder / "tiny.toml")).save(folder / "clean.json")
    return folder


def targets(built: Path, **features: str) -> tuple[object, ...]:
    """Options that name the three places; ``features`` are what follows their SAEs."""
    words = []
    for hook, folder in FOLDERS.items():
        words += ["--target", f"{hook}={built / folder}{features.get(folder, '')}"]
    return tuple(words)
