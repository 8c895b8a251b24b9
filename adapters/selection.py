"""What a pass over the examples tells before training: what can learn, and how often it fires."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.training import TrainingOptions
from .components.component import component_class
from .config import SaeAdapterConfig
from .examples import Examples
from .layer import component_at, find_layer
from .objective import ADAPTER
from .slices import FIRES
from .trainers import make_trainer, quiet_training

_STEPS_IN_WHICH_IT_FIRES = 100
LEAST_BETA2 = 0.99
"""The beta2 that fits parameters with a gradient in every step."""
_MOST_BETA2 = 0.9999
_LOW = 0.1


@dataclass(frozen=True)
class Pass:
    """One pass over the examples, before training."""

    gradient: NDArray[np.float64]
    """Gradient of the loss with respect to a scaling of each allowed latent, mean over all tokens that
    are learned (of pairs, over the pairs), ``[feature]``; of several targets, one behind the other."""
    step_share: NDArray[np.float64]
    """Share of the optimiser's steps in which each allowed latent fires, ``[feature]``."""


def survey(
    network: nn.Module,
    tokenizer: Any,
    config: SaeAdapterConfig,
    options: TrainingOptions,
    examples: Examples,
    tick: Callable[[int], object] = lambda _: None,
) -> Pass:
    """One pass over the examples with z' = z (1 + s) at s = 0, at all targets of an adapter.

    The gradient of the loss with respect to s_f is the sum over tokens of z_f d_f . dL/dx: 0 for a
    feature that never fires on the examples, however clean it is. A step is ``accumulation``
    batches. The model is left as it was, but that its configuration takes over the tokenizer's special
    tokens, as trainers see to.

    Args:
        network: a Hugging Face causal language model without adapters.
        tokenizer: its tokenizer.
        config: of the adapter.
        options: objective, batch size, accumulation.
        examples: that will be trained on.
        tick: called with 1 after each batch.

    """
    scaling = SaeAdapterConfig(
        targets=config.targets,
        component="scale",
        positions=config.positions,
        edit_bos=config.edit_bos,
    )
    # Layers are computed twice in training mode alone, and a trainer leaves hooks for it.
    options = options.model_copy(update={"gradient_checkpointing": False})
    with _left_as_it_was(network), TemporaryDirectory() as folder, quiet_training():
        trainer = make_trainer(network, tokenizer, scaling, options, examples, None, Path(folder))
        hooks = [target["hook"] for target in config.targets]
        result = _pass(trainer, hooks, options, tick)
        trainer.model.unload()
    return result


@contextmanager
def _left_as_it_was(network: nn.Module) -> Iterator[None]:
    """Take back what PEFT and TRL set on a model: its attributes (TRL puts a forward pass of its own
    over the model's), what is trained, and modes.
    """
    attributes = dict(vars(network))
    trained = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        vars(network).clear()
        vars(network).update(attributes)
        for parameter, flag in trained:
            parameter.requires_grad_(flag)
        for module, mode in modes:
            module.training = mode


def _pass(
    trainer: Any, hooks: list[str], options: TrainingOptions, tick: Callable[[int], object]
) -> Pass:
    model = trainer.model.eval()
    layer, _ = find_layer(model, hooks[0])  # all know the tokens that are edited
    components: list[Any] = [component_at(model, hook, ADAPTER) for hook in hooks]
    fired: list[list[Tensor]] = [[] for _ in components]
    shares, together, total = [], None, 0
    batches = trainer.get_train_dataloader()
    with ExitStack() as watches:
        for component, into in zip(components, fired, strict=True):
            watches.enter_context(_firing(component, into))
        for number, batch in enumerate(batches):
            for into in fired:
                into.clear()
            mask = batch["attention_mask"].bool()
            weight = trainer.weight(batch)
            loss = trainer.compute_loss(model, trainer._prepare_inputs(batch))
            (weight * loss).backward()
            total += weight
            edited = layer.tokens(ADAPTER)
            if edited is not None:
                mask = mask & edited.to(mask.device)
            # DPO's reference has no adapter, so there is one pass to be seen.
            passes = [fires for (fires,) in fired]
            seen = torch.cat([fires[mask.to(fires.device)].any(dim=0).cpu() for fires in passes])
            together = seen if together is None else together | seen
            if (number + 1) % options.accumulation == 0:
                shares.append(together)
                together = None
            tick(1)
    if together is not None:
        shares.append(together)
    gradient = torch.cat([component.scale.grad.double().cpu() for component in components]) / total
    return Pass(gradient.numpy(), torch.stack(shares).double().mean(dim=0).numpy())


@contextmanager
def _firing(component: nn.Module, fired: list[Tensor]) -> Any:
    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        fired.append(inputs[0] > FIRES)

    handle = component.register_forward_pre_hook(see)
    try:
        yield
    finally:
        handle.remove()


def learns_in_every_step(component: str) -> bool:
    """True for a component that has a gradient also where latents do not fire: ``bias``, which does not
    read them.
    """
    return not component_class(component).reads


def fitting_beta2(step_share: NDArray[np.float64], component: str) -> float:
    """Adam's beta2 for latents that fire in a share q of the optimiser's steps.

    Adam divides by the root of a mean of squared gradients over about 1 / (1 - beta2) steps
    (arXiv:1412.6980, section 2). Where a latent fires more rarely than that, the mean has forgotten
    its last gradients when the next one comes, and the step is (1 - beta1) / sqrt(1 - beta2) learning
    rates whatever the gradient's size. So

        beta2 = 1 - q / 100, held within [0.99, 0.9999],

    q being the share that a tenth of the latents that fire at all stay below: the mean then covers
    about 100 steps in which such a latent fires. A component that does not read latents (``bias``)
    has a gradient in every step: q = 1; of others (``mlp``, ``switch``) some parameters have, which a
    longer mean does not hurt.
    """
    fires = step_share[step_share > 0]
    if learns_in_every_step(component) or not len(fires):
        return LEAST_BETA2
    q = float(np.quantile(fires, _LOW))
    return float(np.clip(1 - q / _STEPS_IN_WHICH_IT_FIRES, LEAST_BETA2, _MOST_BETA2))
