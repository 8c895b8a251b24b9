"""What an adapter does to latents: one module a component, registered by name."""

from . import bias, lerp, lowrank, mlp, scale, sparse, switch
from .component import Component, Option, build, component_class, names

__all__ = [
    "Component",
    "Option",
    "bias",
    "build",
    "component_class",
    "lerp",
    "lowrank",
    "mlp",
    "names",
    "scale",
    "sparse",
    "switch",
]
