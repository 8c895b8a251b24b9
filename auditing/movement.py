"""How each feature of an adapter moved over the checkpoints of its training."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..adapters.components.component import Component
from ..core.progress import Reporter
from ..core.records.audit import AuditRecord
from ..core.records.movement import MovedAdapter, MovedFeature, MovementRecord
from ..naming.several import Source
from .changes import CHANGED
from .known import names_by_feature
from .states import State


def compare_checkpoints(
    states: Sequence[State],
    top: int,
    descriptions: Source | None,
    last: AuditRecord | None,
    out: Reporter,
) -> MovementRecord:
    """The parameters of every feature in each of some adapters, and by how much they have changed since
    training began; ordered by that in the last one, then by its largest in any.

    Args:
        states: the adapters, in order; of the same places, features and component.
        top: how many features are told.
        descriptions: of the features.
        last: what an audit of the last one says, whose names hold where there are no descriptions.
        out: told what of the descriptions is of no use.

    Raises:
        InputError: the descriptions cannot be used.

    """
    sizes = {target.hook: _sizes(states, target.hook) for target in states[0].targets}
    order = sorted(
        (
            (-ends[at], -most[at], hook, at)
            for hook, size in sizes.items()
            for ends, most in [(size[-1].tolist(), size.amax(dim=0).tolist())]
            for at in range(size.shape[1])
            if most[at] > CHANGED
        ),
        key=lambda each: each[:2],
    )
    features = {target.hook: target.features for target in states[0].targets}
    values = {hook: [_values(state.learnt[hook]) for state in states] for hook in features}
    shown = [
        MovedFeature(
            hook=hook,
            feature=at if (listed := features[hook]) is None else listed[at],
            parameters={
                name: [float(each[name][at]) for each in values[hook]] for name in values[hook][0]
            },
            size=sizes[hook][:, at].tolist(),
        )
        for _, _, hook, at in order[:top]
    ]
    names = _names(states, shown, descriptions, last, out)
    return MovementRecord(
        component=states[0].config.component,
        n_features=sum(size.shape[1] for size in sizes.values()),
        adapters=[
            MovedAdapter(
                path=str(state.folder),
                step=state.step,
                n_changed=sum(int((size[at] > CHANGED).sum()) for size in sizes.values()),
            )
            for at, state in enumerate(states)
        ],
        features=[
            each.model_copy(update={"description": names.get((each.hook, each.feature))})
            for each in shown
        ],
        last=last,
    )


def _sizes(states: Sequence[State], hook: str) -> Tensor:
    """Largest absolute change of a parameter of each feature, ``[adapter, feature]``."""
    found = []
    for state in states:
        now, begun = _values(state.learnt[hook]), _values(state.begun[hook])
        found.append(torch.stack([(now[name] - begun[name]).abs() for name in now]).amax(dim=0))
    return torch.stack(found)


def _values(component: Component) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in component.by_feature().items()}


def _names(
    states: Sequence[State],
    shown: Sequence[MovedFeature],
    descriptions: Source | None,
    last: AuditRecord | None,
    out: Reporter,
) -> Mapping[tuple[str, int], str]:
    known = () if last is None else last.features
    names = {(each.hook, each.feature): each.description for each in known if each.description}
    wanted = [(each.hook, each.feature) for each in shown]
    return names | names_by_feature(states[0].targets, wanted, descriptions, out)
