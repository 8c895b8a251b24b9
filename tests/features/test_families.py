"""Statistics of every family at every site, against a dense reading of plain Hugging Face."""

import copy

import families
import numpy as np
import oracle
import pytest
import tiny
import torch
from cleansteer.core.models import wrap_model
from cleansteer.core.settings import SteeringSetting
from cleansteer.features.sweep import measure_features

TOLERANCE = 1e-5
STEERING = SteeringSetting(crowding_top_k=7, coactivation_panel_size=30)
ARCHITECTURES = ("standard", "jumprelu", "topk", "gated")
CASES = [
    (family, place, ARCHITECTURES[number % len(ARCHITECTURES)])
    for family in families.FAMILIES
    for number, place in enumerate(families.sites_of(family))
]


def unembedding_of(network: torch.nn.Module) -> np.ndarray:
    """The unembedding as the protocol processes it, from Hugging Face's own parts."""
    soft_capped = getattr(network.config, "final_logit_softcapping", None) is not None
    norm = families.final_norm_of(network)
    weight = norm.weight + 1 if "gemma" in network.config.model_type else norm.weight
    return oracle.processed_unembedding(
        network.get_output_embeddings().weight.numpy().T,
        weight.numpy(),
        layer_norm=isinstance(norm, torch.nn.LayerNorm),
        soft_capped=soft_capped,
        processing="default",
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["64", "32"])
@pytest.mark.parametrize(("family", "place", "architecture"), CASES)
def test_statistics_equal_the_dense_oracle(
    family: str, place: str, architecture: str, dtype: torch.dtype
) -> None:
    network = families.network(family)
    model = wrap_model(copy.deepcopy(network).to(dtype), tiny.tokenizer())
    hook, contexts = f"blocks.1.{place}", tiny.contexts(30)
    width = families.width_at(network, hook)
    primary = tiny.dictionary(architecture, model, hook, dtype=dtype, width=width)
    downstream = tiny.dictionary("standard", model, "blocks.3.hook_resid_post", dtype=dtype)
    found = measure_features(model, primary, downstream, contexts, STEERING).table

    exact = copy.deepcopy(primary.sae).to(torch.float64)
    acts = exact.encode(families.read_all(network, contexts, hook)).numpy()
    n, length, _ = acts.shape
    W = unembedding_of(network)
    if place == "attn.hook_z":
        W = families.head_projection_of(network, 1).numpy() @ W
    expected = oracle.statistics(
        acts.reshape(n * length, -1),
        np.arange(n) * length + length - 1,
        exact.W_enc.numpy(),
        exact.W_dec.numpy(),
        W,
        crowding_top_k=STEERING.crowding_top_k,
        coactivation_panel_size=STEERING.coactivation_panel_size,
    )
    assert (expected["token_act_freq"] > 0).mean() > 0.2
    for name, column in expected.items():
        scale = np.abs(column).max()
        np.testing.assert_allclose(
            found[name], column, rtol=TOLERANCE, atol=TOLERANCE * scale, err_msg=name
        )
