"""Small random SAEs of the tiny model."""

import numpy as np
import tiny
import torch
from cleansteer.core.models import LanguageModel
from cleansteer.core.saes import Dictionary, wrap_sae
from cleansteer.core.settings import SaeSetting
from cleansteer.core.sites import Site
from sae_lens import SAE

HOOK = "blocks.1.hook_resid_pre"
HOOK_SITE = Site(HOOK, 1)
FEATURES = np.array([77, 3, 11, 3, 95, 0])
"""Some of its features, out of order and one of them twice."""
INDEPENDENT = ("standard", "jumprelu", "gated")


def random_sae(architecture: str, seed: int = 0, **config: object) -> SAE:
    """Every tensor of it drawn at random, the threshold among them."""
    generator = torch.Generator().manual_seed(seed)
    made = SAE.from_dict(
        {
            "architecture": architecture,
            "d_in": tiny.WIDTH,
            "d_sae": 96,
            "dtype": "float64",
            "metadata": {"hook_name": HOOK},
        }
        | config
    )
    state = made.state_dict()
    for name in state:
        state[name] = torch.randn(state[name].shape, generator=generator, dtype=torch.float64)
    made.load_state_dict(state)
    return made


def wrap(sae: SAE, model: LanguageModel, **setting: object) -> Dictionary:
    return wrap_sae(sae, SaeSetting(**{"path": "tiny"} | setting), model)


def residual(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, tiny.WIDTH, generator=generator, dtype=torch.float64) + 0.7
