"""Decoder geometry: norms, alignment of encoder and decoder, crowding."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.saes import Dictionary

_BLOCK = 512


def measure_norms(dictionary: Dictionary) -> dict[str, Float[Tensor, " feature"]]:
    """Measure decoder_norm, encoder_norm and encoder_decoder_cos = cos(e_f, d_f).

    Source: docs/protocol.md, Feature statistics (arXiv:2606.08365).
    """
    decoder, encoder = dictionary.decoder.cpu().double(), dictionary.encoder.cpu().double().T
    return {
        "decoder_norm": decoder.norm(dim=1),
        "encoder_norm": encoder.norm(dim=1),
        "encoder_decoder_cos": torch.nn.functional.cosine_similarity(encoder, decoder, dim=1),
    }


def measure_crowding(
    decoder: Float[Tensor, "feature d"], top_k: int
) -> dict[str, Float[Tensor, " feature"]]:
    """Measure how close other decoder directions lie, in blocks of features.

    crowding_max_abs_cos: max over j != f of abs cos(d_f, d_j); crowding_topk_mean_abs_cos: mean of
    the ``top_k`` largest of those. A dictionary of one feature has crowding 0.

    Source: docs/protocol.md, Feature statistics (arXiv:2606.08365).
    """
    directions = torch.nn.functional.normalize(decoder, dim=1)
    count = len(directions)
    k = min(top_k, count - 1)
    largest, mean = directions.new_zeros(count), directions.new_zeros(count)
    if k > 0:
        for start in range(0, count, _BLOCK):
            cosines = (directions[start : start + _BLOCK] @ directions.T).abs_()
            rows = torch.arange(len(cosines), device=cosines.device)
            cosines[rows, rows + start] = -1.0
            nearest = torch.topk(cosines, k, dim=1).values
            largest[start : start + _BLOCK] = nearest[:, 0]
            mean[start : start + _BLOCK] = nearest.mean(dim=1)
    return {"crowding_max_abs_cos": largest, "crowding_topk_mean_abs_cos": mean}
