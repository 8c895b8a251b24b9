"""Whether adapters edit what was screened, over every causal language model class of transformers.

Of each class a tiny random model is made (``benchmarks.tiny``). At each place of two of its layers the
adapter's values are compared with the evaluator's own reading of the same hook point, and where
TransformerLens' bridge does not know the class, with what Hugging Face itself gives: its hidden states,
the sum of what attention and MLP add; then a push is written there, and
has to move what the layer gives by itself: ``python -m cleansteer.benchmarks.places [MODEL_TYPE ...]``.
"""

import argparse
import copy
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters.places import NAMES, Place, find_place
from ..adapters.proof import base_layer
from ..adapters.taps import tap
from ..core.errors import InputError
from ..core.hub import no_network
from ..core.models import LanguageModel
from ..core.networks import quiet_libraries
from ..core.sites import parse_site
from .tiny import LAYERS, classes, tiny_network, tiny_tokenizer

HOOKS = {
    "entry": "hook_resid_pre",
    "heads": "attn.hook_z",
    "attention": "hook_attn_out",
    "mlp": "hook_mlp_out",
    "exit": "hook_resid_post",
}
_LAYERS = (1, LAYERS - 1)
"""Of a model that mixes kinds of layers, one of each mostly."""
_CLOSE = 1e-4
_WORST_FIRST = ("WRONG", "half", "right", "refused")
_TOKENS = torch.arange(1, 17).reshape(2, 8)


@dataclass(frozen=True)
class Row:
    """A class and what was found at each place: right, refused (why), WRONG (how far), or half, where
    only reading or only writing could be judged by anything but the place itself.
    """

    model_type: str
    judge: str
    """``evaluator``, or ``model`` where the bridge does not know the class."""
    found: Mapping[str, str]


def sweep(model_type: str, evaluator: Any = None, **changes: object) -> Row:
    """Try all places of a class.

    Args:
        model_type: Hugging Face's name of the architecture.
        evaluator: makes a LanguageModel of a network; None: through the bridge, where it can.
        changes: entries of its configuration.

    Raises:
        InputError: the class cannot be built small.

    """
    network: Any = tiny_network(model_type, **changes)
    judge = _judge(network) if evaluator is None else evaluator(copy.deepcopy(network))
    found = {}
    for name in NAMES:
        told = [_tried(network, judge, name, layer) for layer in _LAYERS]
        worst = min(told, key=lambda text: _WORST_FIRST.index(text.split()[0]))
        found[name] = worst
    return Row(model_type, "model" if judge is None else "evaluator", found)


def _judge(network: nn.Module) -> LanguageModel | None:
    from ..core.models import wrap_model

    try:
        with quiet_libraries(), no_network():
            return wrap_model(copy.deepcopy(network), tiny_tokenizer())
    except Exception:  # whatever the bridge does with a class that it does not know
        return None


def _tried(network: Any, judge: LanguageModel | None, name: str, layer: int) -> str:
    hook = f"blocks.{layer}.{HOOKS[name]}"
    try:
        place = find_place(network, hook)
    except InputError as error:
        return f"refused ({str(error).partition(': ')[2].partition(';')[0]})"
    values = _values(network, [place])[0]
    expected = _read(judge, hook)
    if expected is None or expected.numel() != values.numel():
        expected = _own(network, place, layer)
    if expected is not None:
        difference = _relative(values.reshape(expected.shape), expected)
        if not difference < _CLOSE:
            return f"WRONG (reads {difference:.2g} off)"
    moved = _written(network, place, layer)
    if moved is not None and not moved < _CLOSE:
        return f"WRONG (writes {moved:.2g} off)"
    if expected is None:
        return "half (writes as it should; no one else reads it)"
    return "right" if moved is not None else "half (reads as it should; no MLP to write before)"


def _read(judge: LanguageModel | None, hook: str) -> Tensor | None:
    if judge is None:
        return None
    site = parse_site(hook, LAYERS)
    try:
        return judge.read(_TOKENS, [site])[0] if judge.has_site(site) else None
    except Exception:  # the bridge of a class may lack what its table names
        return None


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-9))


def _values(network: Any, places: Sequence[Place], push: Tensor | None = None) -> list[Tensor]:
    """What stands at places, in units of what is added to the stream; with a push at the first."""
    seen: dict[int, Tensor] = {}

    def keep(number: int, values: Tensor) -> Tensor | None:
        changed = None
        if number == 0 and push is not None:
            changed = values + push / places[0].factor
        seen[number] = places[number].factor * (values if changed is None else changed)
        return changed

    handles = []
    for number, place in enumerate(places):
        module = place.module_in(network.get_submodule(place.layer))
        handles.append(tap(module, place.at_input, lambda v, n=number: keep(n, v)))  # type: ignore[misc]
    try:
        with torch.no_grad():
            network(input_ids=_TOKENS, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return [seen[number] for number in range(len(places))]


def _ends(place: Place) -> tuple[Place, Place]:
    return Place(place.layer, "entry", place.width, ""), Place(place.layer, "exit", place.width, "")


def _own(network: Any, place: Place, layer: int) -> Tensor | None:
    """What Hugging Face's own says stands at a place; None of heads, of which it says nothing."""
    if place.name in ("entry", "exit"):
        with torch.no_grad():
            output = network(input_ids=_TOKENS, use_cache=False, output_hidden_states=True)
        states = output.hidden_states
        if place.name == "entry" or layer + 1 < LAYERS:
            state: Tensor = states[layer + (place.name == "exit")]
            return state
        return _values(network, [_ends(place)[1]])[0]
    if place.name == "heads":
        return None
    other = find_place(network, f"blocks.{layer}.{HOOKS['mlp']}")
    if place.name == "mlp":
        other = find_place(network, f"blocks.{layer}.{HOOKS['attention']}")
    entry, leaving, added = _values(network, [*_ends(place), other])
    return leaving - entry - added


def _written(network: Any, place: Place, layer: int) -> float | None:
    """How far off a push moves the layer's exit, relative to it: beside what the push makes later
    modules do, it arrives there as it is. None where these cannot be told from it.
    """
    generator = torch.Generator().manual_seed(0)
    push = torch.randn(place.width, generator=generator)
    entry, leaving = _ends(place)
    watched = [place, entry, leaving]
    expected = push
    if place.name == "heads":
        module: Any = place.module_in(base_layer(network.get_submodule(place.layer)))
        with torch.no_grad():
            expected = module(push) - module(torch.zeros_like(push))
        watched = [place, Place(place.layer, "exit", place.width, place.module)]
    elif place.name == "attention":
        try:
            watched.append(find_place(network, f"blocks.{layer}.{HOOKS['mlp']}"))
        except InputError:
            return None
    elif place.name in ("entry", "exit"):
        watched = [place, place]
    before, after = _values(network, watched), _values(network, watched, push)
    change = [b - a for a, b in zip(before, after, strict=True)]
    if place.name == "attention":
        moved = change[2] - change[3]
    else:
        moved = change[2] if place.name == "mlp" else change[1]
    return _relative(moved, expected.expand_as(moved))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_types", nargs="*", help="default: all")
    chosen = parser.parse_args().model_types or classes()
    counts: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    _say(f"| class | judge | {' | '.join(NAMES)} |")
    _say(f"|---|---|{'---|' * len(NAMES)}")
    for model_type in chosen:
        try:
            row = sweep(model_type)
        except InputError as error:
            reasons[model_type] = str(error)
            continue
        except Exception as error:  # one class shall not end the sweep
            row = Row(model_type, "none", {"entry": f"WRONG ({type(error).__name__}: {error})"})
        counts.update(told.split()[0] for told in row.found.values())
        _say(f"| {model_type} | {row.judge} | {' | '.join(row.found.values())} |")
    for reason in reasons.values():
        _say(reason)
    _say(f"{len(chosen) - len(reasons)} classes, {len(reasons)} not built; places: {dict(counts)}")
    return 1 if counts["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
