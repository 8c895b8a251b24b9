"""What each feature's edit is, and does, on data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..adapters.layer import component_at, find_layer, fresh_component, part_at
from ..adapters.objective import ADAPTER
from ..adapters.slices import FIRES
from .gates import Gate, gated
from .replay import Replay
from .subject import Subject
from .task import Task, losses

ORDERS = ("attribution", "residual", "latent", "size")
"""What changed features may be ordered by; columns of the table."""
CHANGED = 1e-12
"""Size above which a parameter counts as changed."""


@dataclass(frozen=True)
class Losses:
    """Of the task, in nats a token."""

    without: float
    """Of the model without the adapter."""
    with_all: float


def list_features(subject: Subject) -> pd.DataFrame:
    """The features that an adapter may edit, a row each: ``hook``, ``feature``, every parameter, and
    ``size``, the largest absolute change of any of them since training began.
    """
    tables = []
    for target in subject.targets:
        place = (subject.model, target.hook, ADAPTER)
        part = part_at(*place)
        now, begun = component_at(*place).by_feature(), fresh_component(*place).by_feature()
        moved = [(now[name].cpu() - begun[name]).abs() for name in now]
        features = target.features or list(range(part.n_features))
        values = {name: value.detach().float().cpu().numpy() for name, value in now.items()}
        size = torch.stack(moved).amax(dim=0).detach().numpy()
        tables.append(
            pd.DataFrame({"hook": target.hook, "feature": features} | values | {"size": size})
        )
    return pd.concat(tables, ignore_index=True)


@dataclass
class _Sums:
    """Sums over tokens, by feature."""

    latent: Tensor
    fires: Tensor
    edited: Tensor
    attribution: Tensor

    @classmethod
    def zeros(cls, n_features: int) -> "_Sums":
        return cls(*(torch.zeros(n_features, dtype=torch.float64) for _ in range(4)))


def measure(
    subject: Subject, task: Task, tick: Callable[[int], object] = lambda _: None
) -> tuple[pd.DataFrame, Losses]:
    """What the edit of every feature does on the task, from one pass with gradients.

    Columns, beside those of :func:`list_features`:

    - ``latent``: mean over tokens of abs(z' - z), the change of the feature's activation;
    - ``residual``: mean over tokens of its norm in the residual stream, abs(z' - z) |d_f| (of an SAE
      that normalises its input, in the units that it decodes to);
    - ``fires``: share of tokens at which the feature fires before the edit (NaN where the component does
      not read it); ``edited``: share at which z' differs from z;
    - ``attribution``: dL/dm at m = 1, L being the task's loss and m a factor of the feature's edit: to
      first order what the edit adds to the loss, negative where it helps. Source: attribution patching,
      A. Syed et al., "Attribution Patching Outperforms Automated Circuit Discovery", arXiv:2310.10348,
      section 3.1.

    Args:
        subject: the adapter.
        task: what it is looked at on.
        tick: called with the number of examples done.

    """
    table = list_features(subject)
    hooks = [target.hook for target in subject.targets]
    total, n_counted = 0.0, 0
    with gated(subject.model, hooks) as gates:
        sums = {hook: _Sums.zeros(len(gate.open)) for hook, gate in gates.items()}
        for gate in gates.values():
            gate.open.requires_grad_(True)
        with torch.enable_grad():
            for given, loss in task.passes(subject.model):
                loss.backward()
                total += float(loss.detach())
                mask = given["attention_mask"].bool()
                n_counted += int(mask.sum())
                for hook, gate in gates.items():
                    layer, _ = find_layer(subject.model, hook)
                    chosen = layer.tokens(ADAPTER)
                    counted = mask if chosen is None else mask & chosen.to(mask.device)
                    _add(sums[hook], gate, counted)
                tick(len(mask))
    columns: dict[str, list[np.ndarray]] = {name: [] for name in vars(_Sums.zeros(1))}
    for hook, found in sums.items():
        for name, values in vars(found).items():
            per = task.n_tokens if name == "attribution" else n_counted
            mean = values / per
            if name == "fires" and not component_at(subject.model, hook, ADAPTER).reads:
                mean = torch.full_like(mean, float("nan"))
            columns[name].append(mean.numpy())
    for name, parts in columns.items():
        table[name] = np.concatenate(parts)
    norms = [
        part_at(subject.model, hook, ADAPTER).decoder.norm(dim=-1).cpu().numpy() for hook in hooks
    ]
    table["residual"] = table["latent"] * np.concatenate(norms)
    with subject.model.disable_adapter():
        without = task.loss(subject.model)
    return table, Losses(without, total / task.n_tokens)


def _add(sums: _Sums, gate: Gate, counted: Tensor) -> None:
    """Add a batch."""
    assert gate.edit is not None
    assert gate.open.grad is not None
    edit = gate.edit.expand(*counted.shape, -1)[counted].abs()
    sums.latent += edit.sum(dim=0).double().cpu()
    sums.edited += (edit > 0).sum(dim=0).double().cpu()
    if gate.latents is not None:
        sums.fires += (gate.latents[counted] > FIRES).sum(dim=0).double().cpu()
    sums.attribution += gate.open.grad.double().cpu()
    gate.open.grad = None


@torch.no_grad()
def switch_off(
    subject: Subject,
    task: Task,
    rows: pd.DataFrame,
    tick: Callable[[int], object] = lambda _: None,
) -> np.ndarray:
    """What each of some features' edits adds to the loss: the task's loss with all of them, less that
    with this one switched off.

    Of texts in which a feature's edit changes nothing the loss is not computed again, and of the others
    only from the lowest edited layer on (see :mod:`.replay`).

    Args:
        subject: the adapter.
        task: what the loss is of.
        rows: features, with ``hook`` and ``position``, their index within the target.
        tick: called with the number of batches done.

    """
    hooks = [target.hook for target in subject.targets]
    chosen = list(zip(rows["hook"], rows["position"], strict=True))
    found = np.zeros(len(chosen))
    with gated(subject.model, hooks) as gates:
        replay = Replay(subject.model, hooks, losses)
        for given in task.given(subject.model):
            whole = replay.begin(given)
            acts = [_acts(gates[hook], int(at), given) for hook, at in chosen]
            for number, (hook, at) in enumerate(chosen):
                texts = acts[number]
                if not bool(texts.any()):
                    continue
                gates[hook].open[int(at)] = 0.0
                without = replay.again(given, texts)
                gates[hook].open[int(at)] = 1.0
                found[number] += float((whole[texts] - without).double().sum())
            tick(1)
    return found / task.n_tokens


def _acts(gate: Gate, position: int, given: Mapping[str, Tensor]) -> Tensor:
    """In which texts of a batch a feature's edit is other than 0, ``[row]``."""
    assert gate.edit is not None
    mask = given["attention_mask"].bool()
    edit = gate.edit[..., position].expand(mask.shape)
    acts: Tensor = ((edit != 0) & mask.to(edit.device)).any(dim=1)
    return acts.to(mask.device)
