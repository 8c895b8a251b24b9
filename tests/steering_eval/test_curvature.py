"""The curvature of the divergence, against its definition in one piece."""

import pytest
import torch
from cleansteer.steering_eval import vocabulary
from cleansteer.steering_eval.vocabulary import VocabularyReader


@pytest.mark.parametrize("width", [1, 3, 8, 13])
@pytest.mark.parametrize("block", [1, 50, 1000])
@pytest.mark.parametrize("biased", [True, False])
def test_it_is_the_covariance_of_the_unembedding(
    width: int, block: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "_GRAM_BLOCK", block)
    generator = torch.Generator().manual_seed(width)
    rows, output = (
        torch.randn(*size, generator=generator, dtype=torch.float64)
        for size in ((131, width), (width,))
    )
    bias = torch.randn(131, generator=generator, dtype=torch.float64) if biased else None
    p = (rows @ output + (0.0 if bias is None else bias)).softmax(dim=0)
    expected = rows.T @ (p.diag() - torch.outer(p, p)) @ rows
    found = VocabularyReader(rows, bias).fisher(output)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(found.tril(), found.T.tril())
