"""Shapes and types of signatures are checked in tests, and cost nothing outside them."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable

import checking
import numpy as np
import pytest
import torch
from cleansteer.core.concentration import count_above
from cleansteer.features.geometry import measure_crowding
from cleansteer.steering_eval.choice import choose_contexts
from cleansteer.steering_eval.forward import push_queries
from cleansteer.steering_eval.parts import MeasuredPairs
from cleansteer.steering_eval.vocabulary import VocabularyReader
from jaxtyping import TypeCheckError

QUERIES, CONTEXTS, WIDTH, VOCABULARY = 4, 2, 3, 50


def measure(width: int = WIDTH, n_owners: int = QUERIES, dtype: torch.dtype = torch.long) -> None:
    VocabularyReader(torch.ones(VOCABULARY, WIDTH)).measure(
        torch.zeros(QUERIES, WIDTH),
        torch.zeros(CONTEXTS, width),
        torch.zeros(n_owners, dtype=dtype),
    )


def pairs(n_vectors: int = QUERIES, n_clean: int = CONTEXTS) -> None:
    MeasuredPairs(
        torch.arange(QUERIES),
        torch.zeros(n_vectors, WIDTH),
        torch.zeros(QUERIES, 5),
        torch.arange(CONTEXTS),
        torch.zeros(n_clean, WIDTH),
    )


def test_what_fits_is_taken() -> None:
    measure()
    pairs()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: measure(width=WIDTH + 1),
        lambda: measure(n_owners=QUERIES + 1),
        lambda: measure(dtype=torch.float32),
        lambda: pairs(n_vectors=QUERIES + 1),
        lambda: pairs(n_clean=CONTEXTS + 1),
        lambda: push_queries(torch.zeros(2, WIDTH), torch.zeros(3, 1, WIDTH)),
        lambda: push_queries(torch.ones(2, 3).long(), torch.ones(2, 1, 3).long()),
        lambda: measure_crowding(torch.zeros(3), 2),
        lambda: count_above(torch.zeros(2, 3, 4), (0.1,)),
        lambda: choose_contexts(np.zeros(4), 1, np.arange(5)),
        lambda: choose_contexts(np.zeros(4), 1.5, np.arange(4)),
    ],
)
def test_what_does_not_fit_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(TypeCheckError):
        wrong()


@pytest.mark.parametrize("room", checking.ROOMS)
def test_no_module_of_a_checked_room_escapes(room: str) -> None:
    """As one would that was imported before the hook was there."""
    name = f"cleansteer.{room}"
    assert importlib.util.find_spec(name) is not None
    loaded = [module for key, module in sys.modules.items() if f"{key}.".startswith(f"{name}.")]
    for module in loaded:
        assert type(module.__spec__.loader).__name__ == "_JaxtypingLoader", module.__name__


@pytest.mark.parametrize("room", ["features", "steering_eval"])
def test_no_function_of_these_rooms_has_a_type_that_cannot_be_checked(room: str) -> None:
    assert not [name for name in checking.unchecked if name.startswith(f"cleansteer.{room}.")]


def test_nothing_is_checked_outside_tests() -> None:
    program = (
        "import sys, torch\n"
        "import cleansteer.steering_eval.evaluation, cleansteer.features.sweep\n"
        "from cleansteer.steering_eval.forward import push_queries\n"
        "assert not any('jaxtyping' in type(hook).__module__ for hook in sys.meta_path)\n"
        "assert 'beartype' not in sys.modules\n"
        "assert not hasattr(push_queries, '__wrapped__')\n"
        "whole = torch.ones(2, 1, 3, dtype=torch.long)\n"  # no floats, as the signature wants them
        "push_queries(whole[:, 0], whole)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
