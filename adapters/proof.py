"""The proof that a module of a layer gives what a hook point names, by running the model."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .taps import tap

_TOKENS = 8
_ROUNDINGS = 4
"""So many roundings a value takes on its way through a layer, at most."""
_SURE = 4
"""Standard errors within which a measured factor counts as the one that is meant."""
_LEAST_CLOSE = 1e-4
_LARGEST_ERROR = 0.05
"""Standard error of a factor, relative to it, above which rounding hides what is added."""
_ATTENTION = ("attn", "attention")
_MLP = ("mlp", "feed_forward", "feedforward", "ffn", "moe", "fc2")
_PROJECTIONS = ("c_proj", "o_proj", "dense", "out_proj", "wo", "resid_proj")
_REMEDY = "use an SAE of hook_resid_pre or hook_resid_post"


def prove(
    model: Any, layers: nn.ModuleList, number: int, name: str, width: int, hook: str
) -> tuple[str, float]:
    """Find a place's module in a layer, and show that it is the place.

    On a few tokens, with entry e and exit x of the layer: ``attention`` and ``mlp`` are the two modules
    whose outputs a and m satisfy x - e = r a + s m, r and s constants (1 in most models), by least
    squares up to the model's own rounding; ``heads`` is the input of the projection whose output is
    that of the attention module; and ``entry`` and ``exit`` are what leaves the layer before and enters
    the layer behind, in the stream's shape. The model is left as it was.

    Args:
        model: a Hugging Face causal language model with values.
        layers: its layers.
        number: of the layer.
        name: of the place.
        width: of the stream.
        hook: for messages.

    Returns:
        The module's name in the layer (empty: the layer itself), and its factor r or s.

    Raises:
        InputError: there is no such module, or it gives something else.

    """
    layer = base_layer(layers[number])
    kind = type(layer).__name__
    names = _candidates(layer, name, hook)
    run = _Run()
    try:
        run.watch("entry", layer, True)
        run.watch("exit", layer, False)
        for each in names:
            run.watch(each, layer.get_submodule(each), False)
        if number:
            run.watch("before", base_layer(layers[number - 1]), False)
        if number + 1 < len(layers):
            run.watch("behind", base_layer(layers[number + 1]), True)
        run.forward(model)
    finally:
        run.end()
    ends = []
    for end in ("entry", "exit"):
        shapes = [tuple(values.shape) for values in run.seen[end]]
        if shapes != [(1, _TOKENS, width)]:
            raise InputError(
                f"hook {hook}: at {_TOKENS} tokens a {kind} has as {end} values of shape "
                f"{' and '.join(map(str, shapes)) or 'unknown'}; expected {(1, _TOKENS, width)} once; "
                "use another model"
            )
        ends.append(run.seen[end][0])
    if name == "heads":
        return _heads(run, names, hook, kind), 1.0
    if name in ("attention", "mlp"):
        numbers = [1.0, *_numbers(model.config.get_text_config())]
        found = _added(run, _sides(names), name, ends, numbers)
        if found is None:
            raise InputError(
                f"hook {hook}: what attention and MLP of a {kind} give is not what the layer adds to its "
                f"stream, nor a constant multiple of it; {_REMEDY}"
            )
        return found
    other, neighbour = ("before", ends[0]) if name == "entry" else ("behind", ends[1])
    if other in run.seen:
        values = run.one(other, neighbour.shape)
        if values is None or not torch.equal(values.to(neighbour), neighbour):
            raise InputError(
                f"hook {hook}: what leaves a {kind} is not what enters the next layer; expected one "
                "stream through all layers; use another model"
            )
    return "", 1.0


class _Run:
    """One forward pass in which modules are watched."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Tensor]] = {}
        self._handles: list[Any] = []

    def watch(self, key: str, module: nn.Module, at_input: bool) -> None:
        seen = self.seen.setdefault(key, [])

        def see(values: object) -> None:
            if isinstance(values, Tensor):
                seen.append(values.detach().clone())

        self._handles.append(tap(module, at_input, see))

    def forward(self, model: Any) -> None:
        embedding = model.get_input_embeddings().weight
        tokens = torch.arange(_TOKENS, device=embedding.device)[None] % len(embedding)
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with torch.no_grad():
                model(input_ids=tokens, use_cache=False)
        finally:
            for module, mode in modes:
                module.training = mode

    def one(self, key: str, shape: torch.Size) -> Tensor | None:
        """What a module gave, if it ran once and gave values of a shape."""
        seen = self.seen[key]
        return seen[0] if len(seen) == 1 and seen[0].shape == shape else None

    def end(self) -> None:
        for handle in self._handles:
            handle.remove()


def _candidates(layer: nn.Module, name: str, hook: str) -> list[str]:
    """Modules of a layer that a place's may be, by their names there."""
    if name in ("entry", "exit"):
        return []
    children = layer.named_children()
    attention, mlp = _sides(
        child for child, module in children if not isinstance(module, nn.Dropout)
    )
    if name == "heads":
        found = [
            part
            for child in attention
            for inner, module in layer.get_submodule(child).named_modules()
            if inner.rpartition(".")[2] in _PROJECTIONS and hasattr(module, "weight")
            for part in (child, f"{child}.{inner}")
        ]
    else:
        found = [*attention, *mlp] if attention and mlp else []
    if not found:
        raise InputError(
            f"hook {hook}: it is not known where that lies in a {type(layer).__name__}; {_REMEDY}"
        )
    return list(dict.fromkeys(found))


def _sides(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of a layer's modules those that may give what attention adds, and what the MLP adds."""
    sides: tuple[list[str], list[str]] = ([], [])
    for name in names:
        if "linear" in name:  # a recurrence in attention's stead, which has no heads of its kind
            continue
        if any(part in name for part in _ATTENTION):
            sides[0].append(name)
        elif any(part in name for part in _MLP):
            sides[1].append(name)
    return sides


def _heads(run: _Run, names: Sequence[str], hook: str, kind: str) -> str:
    for name in names:
        attention, *inner = name.split(".")
        whole = run.seen[attention]
        if inner and len(whole) == len(run.seen[name]) == 1:
            flat = run.seen[name][0].reshape(-1)
            if flat.numel() == whole[0].numel() and torch.equal(flat, whole[0].reshape(-1)):
                return name
    raise InputError(
        f"hook {hook}: no output projection of a {kind} gives what its attention does; {_REMEDY}"
    )


def _added(
    run: _Run,
    sides: tuple[list[str], list[str]],
    name: str,
    ends: Sequence[Tensor],
    numbers: Sequence[float],
) -> tuple[str, float] | None:
    """The module that adds to the stream, and its factor; None: none does."""
    entry, leaving = ends
    found: list[tuple[bool, str, float]] = []
    unit = torch.finfo(entry.dtype).eps
    e, x = entry.double().flatten(), leaving.double().flatten()
    for first, second in product(*sides):
        seen = [run.seen[part] for part in (first, second)]
        if any(len(values) != 1 or values[0].numel() != entry.numel() for values in seen):
            continue
        if seen[name == "mlp"][0].shape != entry.shape:
            continue
        a, m = (values[0].double().flatten().to(e.device) for values in seen)
        rounding = _ROUNDINGS * unit * (e.abs() + x.abs())
        factors = _fit(torch.stack([a, m], dim=1), x - e, rounding, numbers)
        if factors is None:
            continue
        r, s = factors
        rounding += _ROUNDINGS * unit * ((r * a).abs() + (s * m).abs())
        if bool(((x - e - r * a - s * m).abs() <= rounding).all()):
            chosen = (first, r) if name == "attention" else (second, s)
            found.append((r != 1 or s != 1, *chosen))
    if not found:
        return None
    _, module, factor = min(found, key=lambda each: each[0])
    return module, factor


def _numbers(config: Any) -> list[float]:
    return [value for value in config.to_dict().values() if isinstance(value, float) and value]


def _fit(
    parts: Tensor, added: Tensor, rounding: Tensor, numbers: Sequence[float]
) -> list[float] | None:
    """Factors of two parts by least squares, ``parts`` being ``[value, 2]``: one of some numbers exactly,
    where it is within the standard error that rounding gives; None: rounding hides them.
    """
    products = parts.T @ parts
    if not bool(torch.linalg.matrix_rank(products, hermitian=True) == len(products)):
        return None
    inverse = torch.linalg.inv(products)
    measured = (inverse @ (parts.T @ added)).tolist()
    errors = (inverse.diagonal().sqrt() * rounding.square().mean().sqrt()).tolist()
    factors = []
    for factor, error in zip(measured, errors, strict=True):
        if error > _LARGEST_ERROR * abs(factor):
            return None
        near = min(numbers, key=lambda value: (abs(value - factor), value != 1.0))
        is_near = abs(near - factor) <= max(_LEAST_CLOSE, _SURE * error)
        factors.append(near if is_near else factor)
    return factors


def base_layer(layer: nn.Module) -> nn.Module:
    """A layer without what an adapter put around it."""
    return getattr(layer, "base_layer", layer)
