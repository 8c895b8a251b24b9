"""``cleansteer --help`` and ``import cleansteer`` are quick, and load no heavy library."""

import json
import resource
import subprocess
import sys

import pytest

MOST_SECONDS = 0.5
"""Of CPU time in the program itself: a busy machine stretches the clock's time, not this."""
TRIES = 5
HEAVY = {
    "torch",
    "transformers",
    "sae_lens",
    "transformer_lens",
    "peft",
    "trl",
    "optuna",
    "datasets",
    "sklearn",
    "lightgbm",
    "mapie",
    "statsmodels",
    "numba",
    "plotly",
    "matplotlib",
    "pyarrow",
    "scipy",
    "pandas",
    "numpy",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
}
STARTS = {
    "import": "import cleansteer",
    "help": "import sys; sys.argv[1:] = ['--help']; from cleansteer.cli.app import main; main()",
}
LOADED = "\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
every_start = pytest.mark.parametrize("code", STARTS.values(), ids=STARTS.keys())


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )


def user_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    run(code)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


@every_start
def test_it_starts_at_once(code: str) -> None:
    run(code)  # compiles what was never imported
    assert min(user_seconds(code) for _ in range(TRIES)) < MOST_SECONDS


@every_start
def test_it_loads_nothing_heavy(code: str) -> None:
    guarded = f"try:\n    exec({code!r})\nexcept SystemExit:\n    pass{LOADED}"
    loaded = json.loads(run(guarded).stderr.splitlines()[-1])
    assert not HEAVY & {name.partition(".")[0] for name in loaded}
