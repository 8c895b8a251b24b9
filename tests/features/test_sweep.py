"""Every statistic against a dense float64 reading of the protocol, and its laws."""

import numpy as np
import oracle
import pandas as pd
import pytest
import tiny
import torch
from cleansteer.core.models import LanguageModel
from cleansteer.core.saes import Dictionary, wrap_sae
from cleansteer.core.settings import SaeSetting, SteeringSetting
from cleansteer.features import sweep
from cleansteer.features.sweep import FeatureStatistics, measure_features

TOLERANCE = 1e-5  # float32 forward pass and products against float64
STEERING = SteeringSetting(crowding_top_k=7, coactivation_panel_size=30)
HOOKS = ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_post")
NOT_STATISTICS = {"feature", "direct_top_tokens", "peak_top_tokens", "input_score"}


def measure(
    model: LanguageModel, primary: Dictionary, contexts: torch.Tensor | None = None
) -> FeatureStatistics:
    downstream = tiny.dictionary("standard", model, HOOKS[1], seed=2)
    return measure_features(
        model, primary, downstream, tiny.contexts() if contexts is None else contexts, STEERING
    )


def expected(model: LanguageModel, primary: Dictionary, processing: str) -> dict[str, np.ndarray]:
    contexts = tiny.contexts()
    seen = []
    model.bridge.run_with_hooks(
        contexts, fwd_hooks=[(HOOKS[0], lambda residual, hook: seen.append(residual.clone()))]
    )
    acts = primary.encode(seen[0]).double().numpy()
    n, length, width = acts.shape
    unembedding = oracle.processed_unembedding(
        model.parameters["transformer.wte.weight"].double().numpy().T,
        model.parameters["transformer.ln_f.weight"].double().numpy(),
        layer_norm=True,
        soft_capped=False,
        processing=processing,
    )
    return oracle.statistics(
        acts.reshape(n * length, width),
        np.arange(n) * length + length - 1,
        primary.encoder.double().numpy(),
        primary.decoder.double().numpy(),
        unembedding,
        crowding_top_k=STEERING.crowding_top_k,
        coactivation_panel_size=STEERING.coactivation_panel_size,
    )


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("centred", [False, True])
def test_statistics_equal_the_dense_oracle(architecture: str, centred: bool) -> None:
    model = tiny.model()
    primary = tiny.dictionary(architecture, model, HOOKS[0], centred)
    table = measure(model, primary).table
    columns = expected(model, primary, "default")
    assert set(columns) == set(table.columns) - NOT_STATISTICS
    for name, column in columns.items():
        scale = np.abs(column).max()
        np.testing.assert_allclose(
            table[name], column, rtol=TOLERANCE, atol=TOLERANCE * 1e-2 * scale, err_msg=name
        )


def test_some_features_never_fire_and_some_always_do() -> None:
    """The comparison above covers the edges."""
    model = tiny.model()
    table = measure(model, tiny.dictionary("jumprelu", model, HOOKS[0])).table
    assert (table["token_act_freq"] == 0).any()
    assert (table["token_act_freq"] > 0.9).any()
    assert np.isfinite(table.drop(columns=[*NOT_STATISTICS]).to_numpy()).all()


def test_unprocessed_unembedding_is_as_loaded() -> None:
    network = tiny.network()
    from cleansteer.core.models import wrap_model

    model = wrap_model(network, tiny.tokenizer(), processing="none")
    primary = tiny.dictionary("standard", model, HOOKS[0])
    columns = expected(model, primary, "none")
    np.testing.assert_allclose(
        measure(model, primary).table["direct_logit_l2"],
        columns["direct_logit_l2"],
        rtol=TOLERANCE,
    )


def test_unembedding_equals_transformer_lens_processing() -> None:
    model = tiny.model()
    ours = model.processed_unembedding()
    bridge = model.bridge
    bridge.enable_compatibility_mode()
    torch.testing.assert_close(ours, bridge.W_U, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_permuting_the_dictionary_permutes_the_table(architecture: str) -> None:
    model = tiny.model()
    sae = tiny.sae(architecture, HOOKS[0])
    order = torch.randperm(sae.cfg.d_sae, generator=torch.Generator().manual_seed(5))
    permuted = tiny.sae(architecture, HOOKS[0])
    permuted.load_state_dict(
        {
            name: tensor
            if name == "b_dec"
            else tensor[:, order]
            if name == "W_enc"
            else tensor[order]
            for name, tensor in sae.state_dict().items()
        }
    )
    tables = [
        measure(model, wrap_sae(made, SaeSetting(path="tiny"), model)).table
        for made in (sae, permuted)
    ]
    # A panel of 30 has ties at its edge, which go to the lower index: they do not permute.
    columns = [
        c for c in tables[0] if not c.startswith(("coact", "feature", "direct_top", "peak_top"))
    ]
    pd.testing.assert_frame_equal(
        tables[0][columns].iloc[order.numpy()].reset_index(drop=True),
        tables[1][columns],
        rtol=1e-4,
    )


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    primary = tiny.dictionary("topk", model, HOOKS[0])
    whole = measure(model, primary).table
    monkeypatch.setattr(sweep, "_BATCH_ELEMENTS", 3 * 9 * primary.n_features)
    pd.testing.assert_frame_equal(measure(model, primary).table, whole, rtol=1e-5)


def test_promoted_tokens_are_those_with_the_largest_direct_logits() -> None:
    model = tiny.model()
    primary = tiny.dictionary("standard", model, HOOKS[0])
    table = measure(model, primary).table
    footprint = primary.decoder @ model.processed_unembedding()
    assert table["direct_top_tokens"][4][0] == f"w{int(footprint[4].argmax())}"
    assert all(len(tokens) == 10 for tokens in table["direct_top_tokens"])


def test_mean_l0_counts_firing_features() -> None:
    model = tiny.model()
    measured = measure(model, tiny.dictionary("topk", model, HOOKS[0]))
    dense = measured.final_activations.toarray()
    assert measured.mean_l0 == pytest.approx((dense > 1e-6).sum(axis=1).mean())


def test_bos_is_left_out_of_the_tokens_that_a_feature_fires_at() -> None:
    model = tiny.model()
    table = measure(model, tiny.dictionary("standard", model, HOOKS[0])).table
    bos = model.tokenizer.bos_token
    assert bos is not None
    assert not any(bos in tokens for tokens in table["peak_top_tokens"])
    assert sum(len(tokens) > 0 for tokens in table["peak_top_tokens"]) > 5


def test_massive_tokens_name_no_feature() -> None:
    """They count in every statistic, but where the stream is over ten times as long as in the median,
    half the features fire, and it says nothing of them.
    """
    massive = 7
    model = tiny.model()
    model.parameters["transformer.wte.weight"].data[massive] *= 200
    primary = tiny.dictionary("standard", model, HOOKS[0])
    contexts = tiny.contexts().clone()
    contexts[::2, 4] = massive
    measured = measure(model, primary, contexts)
    (read,) = model.read(contexts, [primary.site])
    lengths = read[:, 1:].norm(dim=-1)
    long = torch.zeros(contexts.shape, dtype=torch.bool)
    long[:, 1:] = lengths > 10 * lengths.median()
    assert torch.equal(long, contexts == massive)
    fires = primary.encode(read)
    assert float((fires[long] > 1e-6).double().mean()) > 0.3
    np.testing.assert_allclose(
        measured.table["token_act_freq"], (fires > 1e-6).double().mean(dim=(0, 1)), rtol=1e-9
    )
    found = measured.examples
    assert not long[found["context"].to_numpy(), found["position"].to_numpy()].any()
    assert not any(f"w{massive}" in tokens for tokens in measured.table["peak_top_tokens"])
    ordinary = fires.masked_fill(long[..., None], 0.0)[:, 1:]
    strongest = found[found["kind"] == "strongest"].set_index("feature")["activation"]
    largest = ordinary.amax(dim=(0, 1))
    assert set(strongest.index) == set(torch.nonzero(largest > 1e-6).flatten().tolist())
    np.testing.assert_allclose(strongest, largest[strongest.index.to_numpy()], rtol=1e-5)


@pytest.mark.parametrize(
    ("metadata", "n_skipped"),
    [
        ({}, 0),
        ({"exclude_special_tokens": False, "seqpos_slice": (None,)}, 0),
        ({"exclude_special_tokens": True}, 1),
        ({"exclude_special_tokens": [0, 2]}, 1),
        ({"seqpos_slice": [1, None]}, 1),
        ({"seqpos_slice": (3, None)}, 3),
        ({"seqpos_slice": (3, None), "exclude_special_tokens": True}, 3),
        ({"seqpos_slice": (99, None)}, 8),
    ],
)
def test_positions_that_training_left_out_are_no_tokens(
    metadata: dict[str, object], n_skipped: int
) -> None:
    """A feature that fires at BOS alone, in training unseen, is a feature that never fires."""
    model = tiny.model()
    primary = tiny.dictionary("standard", model, HOOKS[0])
    plain = measure(model, primary)
    for key, value in metadata.items():
        setattr(primary.sae.cfg.metadata, key, value)
    measured = measure(model, primary)
    (read,) = model.read(tiny.contexts(), [primary.site])
    fires = primary.encode(read)[:, n_skipped:] > 1e-6
    np.testing.assert_allclose(
        measured.table["token_act_freq"], fires.double().mean(dim=(0, 1)), rtol=1e-9
    )
    assert (measured.examples["position"] >= max(1, n_skipped)).all()
    final = [name for name in plain.table if name.startswith(("final_", "decoder", "direct_logit"))]
    pd.testing.assert_frame_equal(measured.table[final], plain.table[final])
    assert measured.residual_norm == plain.residual_norm
    assert (measured.table["token_act_mean"].equals(plain.table["token_act_mean"])) == (
        n_skipped == 0
    )
