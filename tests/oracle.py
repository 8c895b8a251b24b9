"""The slow oracle: the measuring protocol written out one definition at a time.

Every function follows the measuring protocol (E. Duan, arXiv:2606.08365) to the letter, in
float64, in the plainest way, and shares no code with the package under test.
`labels(**steer_slowly(...))` measures one feature the long way round.

Where a definition divides by zero: the cosine with a zero vector, a share of a zero total,
the effective count and the entropy of a zero vector, effect_pc1_ratio and resid_explained
without any change, and the z-score of a constant column are all 0. What needs two contexts
(pairwise_cos_*, effect_cv, final_act_std) is nan with one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

Array = NDArray[np.float64]

EPS = 1e-8
FIRING_THRESHOLD = 1e-6  # a feature fires strictly above
COSINE_FLOOR = 1e-12
ACTIVATION_FLOOR = 1e-12  # of z, of S and of the variance over tokens
TRACE_FLOOR = 1e-20
CONCENTRATION_K = (10, 50, 100, 500)


def largest(values: Array, k: int) -> list[int]:
    """Indices of the k largest values (all, if fewer), largest first, ties to the lower index."""
    return sorted(range(len(values)), key=lambda i: (-float(values[i]), i))[:k]


def cosine(a: Array, b: Array) -> float:
    """<a, b> / max(|a| |b|, 1e-12)."""
    return float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), COSINE_FLOOR)


def entropy(weights: Array) -> float:
    """-sum p ln p in nats, p = abs(weights) / their sum, 0 ln 0 = 0; 0 for a zero vector."""
    if not np.any(weights):
        return 0.0
    p = np.abs(weights) / np.abs(weights).sum()
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


def effective_count(weights: Array) -> float:
    """exp(entropy(weights)): n for n equal magnitudes; 0 for a zero vector."""
    return math.exp(entropy(weights)) if np.any(weights) else 0.0


def mass_fraction(weights: Array, k: int) -> float:
    """Share of the sum of abs(weights) in its k largest entries; 0 for a zero vector."""
    magnitudes = np.sort(np.abs(weights))[::-1]
    return float(magnitudes[:k].sum() / magnitudes.sum()) if np.any(weights) else 0.0


def kl_divergence(p_logits: Array, q_logits: Array) -> float:
    """KL(p || q) = sum p (ln p - ln q), in nats, of two rows of logits."""
    log_p, log_q = log_softmax(p_logits), log_softmax(q_logits)
    return float((np.exp(log_p) * (log_p - log_q)).sum())


def zscore(values: Array) -> Array:
    """(x - mean) / population standard deviation; zeros for a constant column."""
    x = _float64(values)
    deviation: Array = x - x.mean()
    return deviation / x.std(ddof=0) if np.ptp(x) > 0 else np.zeros_like(x)


# Feature statistics


def statistics(
    token_acts: Array,
    final_positions: NDArray[np.int64],
    W_enc: Array,
    W_dec: Array,
    W_unembed: Array,
    *,
    crowding_top_k: int = 20,
    coactivation_panel_size: int = 2048,
) -> dict[str, Array]:
    """Every column of the protocol's 'Feature statistics', each [n_features].

    token_acts [n_tokens, n_features] at all tokens of all contexts; final_positions, the rows
    that are contexts' final tokens; W_enc [d, n_features]; W_dec [n_features, d]; W_unembed
    [d, vocab] already processed. k and the panel are capped at what exists.
    """
    z_all, encoder, decoder = _float64(token_acts), _float64(W_enc), _float64(W_dec)
    fires = z_all > FIRING_THRESHOLD
    panel = largest(fires.sum(axis=0), coactivation_panel_size)
    rows = []
    for f in range(len(decoder)):
        row = geometry(f, encoder, decoder, crowding_top_k)
        row |= final_token_activation(z_all[np.asarray(final_positions), f])
        row |= all_token_activation(z_all[:, f])
        row |= coactivation(fires[:, f], fires[:, panel])
        row |= direct_logits(decoder[f] @ _float64(W_unembed))
        rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def geometry(f: int, encoder: Array, decoder: Array, top_k: int) -> dict[str, float]:
    """Norms, alignment and crowding; an only feature has crowding 0."""
    others = [abs(cosine(decoder[f], decoder[j])) for j in range(len(decoder)) if j != f]
    nearest = sorted(others, reverse=True)[:top_k] or [0.0]
    return {
        "decoder_norm": float(np.linalg.norm(decoder[f])),
        "encoder_norm": float(np.linalg.norm(encoder[:, f])),
        "encoder_decoder_cos": cosine(encoder[:, f], decoder[f]),
        "crowding_max_abs_cos": max(nearest),
        "crowding_topk_mean_abs_cos": sum(nearest) / len(nearest),
    }


def final_token_activation(z: Array) -> dict[str, float]:
    """Over the contexts' final tokens, silent ones included."""
    return {
        "final_act_freq": float(np.mean(z > FIRING_THRESHOLD)),
        "final_act_mean": float(z.mean()),
        "final_act_std": float(z.std(ddof=1)) if len(z) > 1 else math.nan,
        "final_act_max": float(z.max()),
        "final_act_q95": float(np.quantile(z, 0.95, method="linear")),
    }


def all_token_activation(z: Array) -> dict[str, float]:
    """Over all tokens, silent ones included.

    variance = max(mean (z - mean)^2, 1e-12); kurtosis = mean (z - mean)^4 / variance^2.
    token_activation_entropy_norm = (ln S - (sum z' ln z') / S) / ln n_tokens with
    S = max(sum z, 1e-12) and z' = max(z, 1e-12) in both of its places; 0 for one token.
    """
    variance = max(float(np.mean((z - z.mean()) ** 2)), ACTIVATION_FLOOR)
    freq = float(np.mean(z > FIRING_THRESHOLD))
    p = min(max(freq, EPS), 1 - EPS)
    S, floored = max(float(z.sum()), ACTIVATION_FLOOR), np.maximum(z, ACTIVATION_FLOOR)
    spread = math.log(S) - float((floored * np.log(floored)).sum()) / S
    return {
        "token_act_freq": freq,
        "token_act_mean": float(z.mean()),
        "token_act_std": math.sqrt(variance),
        "token_act_max": float(z.max()),
        "token_act_kurtosis": float(np.mean((z - z.mean()) ** 4)) / variance**2,
        "token_binary_entropy": -(p * math.log(p) + (1 - p) * math.log(1 - p)),
        "token_activation_entropy_norm": spread / math.log(len(z)) if len(z) > 1 else 0.0,
    }


def coactivation(fires: NDArray[np.bool_], panel_fires: NDArray[np.bool_]) -> dict[str, float]:
    """Joint firings with the panel, f with itself included; 0 for a feature that never fires."""
    joint = _float64(panel_fires[fires].sum(axis=0))
    return {
        "coact_entropy_norm": entropy(joint) / math.log(len(joint)) if len(joint) > 1 else 0.0,
        "coact_count_mean": float(joint.sum() / fires.sum()) if fires.any() else 0.0,
    }


def direct_logits(r: Array) -> dict[str, float]:
    """Footprint of r_f = d_f W, [vocab]."""
    return {
        "direct_logit_l2": float(np.linalg.norm(r)),
        "direct_logit_linf": float(np.abs(r).max()),
        "direct_logit_entropy": entropy(r),
        "direct_logit_effective_vocab": effective_count(r),
    } | {f"direct_top{k}_abs_mass_frac": mass_fraction(r, k) for k in CONCENTRATION_K}


def processed_unembedding(
    W_U: Array, norm_weight: Array | None, *, layer_norm: bool, soft_capped: bool, processing: str
) -> Array:
    """W [d, vocab] as TransformerLens processes it: fold, centre over d, centre over vocab.

    norm_weight [d] is the factor the final norm really applies (Gemma's is 1 + the stored
    weight), None where it has none. 'none' leaves W_U as loaded.
    """
    W = _float64(W_U).copy()
    if processing == "none":
        return W
    if processing != "default":
        raise ValueError(f"processing is {processing!r}; expected 'default' or 'none'")
    if norm_weight is not None:
        W = _float64(norm_weight)[:, None] * W
    if layer_norm:
        W = W - W.mean(axis=0, keepdims=True)
    return W if soft_capped else W - W.mean(axis=1, keepdims=True)


# Steering and its labels


def choose_contexts(
    final_acts: Array, n_per_type: int, order: NDArray[np.int64]
) -> dict[str, list[int]]:
    """One feature's contexts, given its final activations and a seeded permutation of contexts.

    top and low: the n highest and lowest, ties to the lower index, most extreme first; they
    overlap only where ties or too few contexts make them. random: the first n entries of
    `order` in neither, in that order (fewer if fewer remain). mixed: the sorted union, a set.
    """
    acts = _float64(final_acts)
    top, low = largest(acts, n_per_type), largest(-acts, n_per_type)
    random = [int(c) for c in order if c not in top and c not in low][:n_per_type]
    return {"top": top, "low": low, "random": random, "mixed": sorted({*top, *low, *random})}


def labels(
    clean_logits: Array,
    steered_logits: Array,
    clean_panel: Array,
    steered_panel: Array,
    clean_resid: Array,
    steered_resid: Array,
    clean_recon: Array,
    steered_recon: Array,
    scales: Array,
) -> dict[str, float]:
    """Every column of 'Steering and its labels' for one feature; each array [contexts, ...], scales
    [panel].

    Logits come centred over the vocabulary wherever the model's processing centres them.
    D, U, dh and dr are steered minus clean. Every column is a mean over contexts unless its
    formula says otherwise; thresholds are strict. kl_clean_steered = KL(clean || steered),
    kl_steered_clean = KL(steered || clean). Zero vectors and single contexts: see the module.
    """
    clean, steered = _float64(clean_logits), _float64(steered_logits)
    D, U = steered - clean, _float64(steered_panel) - _float64(clean_panel)
    dh = _float64(steered_resid) - _float64(clean_resid)
    dr = _float64(steered_recon) - _float64(clean_recon)
    pairs = list(zip(clean, steered, strict=True))
    changed, missed = (dh**2).sum(), ((dh - dr) ** 2).sum()
    out = stability(D) | {
        "effect_l2": np.linalg.norm(D, axis=1).mean(),
        "effect_l1": np.abs(D).sum(axis=1).mean(),
        "effect_linf": np.abs(D).max(axis=1).mean(),
        "kl_clean_steered": np.mean([kl_divergence(c, s) for c, s in pairs]),
        "kl_steered_clean": np.mean([kl_divergence(s, c) for c, s in pairs]),
        "logit_effective_vocab": np.mean([effective_count(row) for row in D]),
        "collateral_l2": np.linalg.norm(U, axis=1).mean(),
        "collateral_effective": np.mean([effective_count(row) for row in U]),
        "resid_delta_norm": np.linalg.norm(dh, axis=1).mean(),
        "resid_explained": 1 - missed / changed if changed > 0 else 0.0,
    }
    for threshold in (0.05, 0.1, 0.2, 0.5):
        out[f"logit_count_gt_{threshold}"] = (np.abs(D) > threshold).sum(axis=1).mean()
    for k in CONCENTRATION_K:
        out[f"logit_top{k}_mass_frac"] = np.mean([mass_fraction(row, k) for row in D])
    for threshold in (0.01, 0.05, 0.1):
        out[f"collateral_count_{threshold}"] = (np.abs(U) > threshold).sum(axis=1).mean()
    relative = np.abs(U) / _float64(scales)
    for threshold in (0.05, 0.2, 0.5):
        out[f"collateral_relative_count_{threshold}"] = (relative > threshold).sum(axis=1).mean()
    out["collateral_relative_mass"] = relative.sum(axis=1).mean()
    for per_effect, count in (
        ("collateral_per_effect", "collateral_count_0.05"),
        ("collateral_relative_per_effect", "collateral_relative_mass"),
    ):
        out[per_effect] = out[count] / (out["effect_l2"] + EPS)
    return {name: float(value) for name, value in out.items()}


def stability(D: Array) -> dict[str, Any]:
    """Do the contexts' logit changes D [contexts, vocab] point the same way?

    effect_cv = std / (mean + eps) of the row norms; effect_pc1_ratio = top eigenvalue / trace
    of the Gram matrix of D minus its mean row, 0 where the trace is at most 1e-20.
    """
    n, norms, centred = len(D), np.linalg.norm(D, axis=1), D - D.mean(axis=0)
    to_mean = np.array([cosine(row, D.mean(axis=0)) for row in D])
    pairwise = np.array([cosine(D[i], D[j]) for i in range(n) for j in range(n) if i != j])
    gram = centred @ centred.T
    top, trace = np.linalg.eigvalsh(gram)[-1], np.trace(gram)
    return {
        "stability_abs": np.abs(to_mean).mean(),
        "stability_signed": to_mean.mean(),
        "pairwise_cos_abs": np.abs(pairwise).mean() if n > 1 else math.nan,
        "pairwise_cos_signed": pairwise.mean() if n > 1 else math.nan,
        "effect_cv": norms.std(ddof=1) / (norms.mean() + EPS) if n > 1 else math.nan,
        "anti_aligned_frac": np.mean(to_mean < 0),
        "effect_pc1_ratio": top / trace if trace > TRACE_FLOOR else 0.0,
    }


def zscore_clean_score(stability_abs: Array, collateral_count: Array, effect_l2: Array) -> Array:
    """zscore(stability_abs) - zscore(log1p(collateral_count_0.05) / (effect_l2 + eps))."""
    per_effect = np.log1p(_float64(collateral_count)) / (_float64(effect_l2) + EPS)
    return zscore(stability_abs) - zscore(per_effect)


def steer_slowly(
    bridge: Any,
    sae: Any,
    downstream_sae: Any,
    tokens: torch.Tensor,
    feature: int,
    delta: torch.Tensor,
    *,
    hook: str,
    downstream_hook: str,
    panel: list[int],
    centred: bool,
    downstream_centred: bool,
    vocabulary_centred: bool,
) -> dict[str, Array]:
    """What `labels` takes, from a clean and a steered full forward of every context.

    The steered pass adds delta_c W_dec[feature] to the residual at `hook`, at the final
    position alone. tokens [contexts, length], no padding; delta [contexts]; `bridge` without
    compatibility mode. `centred` (what the primary SAE reads) does not enter: the direction is
    added as it is and delta is given. *_resid is what the downstream SAE reads, after centring.
    """
    del centred
    change = delta.to(sae.W_dec)[:, None] * sae.W_dec[feature].detach()
    seen: list[torch.Tensor] = []

    def steer(resid: torch.Tensor, hook: Any) -> torch.Tensor:
        steered = resid.clone()
        steered[:, -1] += change
        return steered

    def record(resid: torch.Tensor, hook: Any) -> None:
        seen.append(resid[:, -1].clone())

    out: dict[str, Array] = {}
    for run, steering in (("clean", []), ("steered", [(hook, steer)])):
        seen.clear()
        with torch.no_grad():
            logits = bridge.run_with_hooks(tokens, fwd_hooks=[*steering, (downstream_hook, record)])
            logits = logits[:, -1]
            if vocabulary_centred:
                logits = logits - logits.mean(dim=-1, keepdim=True)
            (resid,) = seen  # read exactly once
            if downstream_centred:
                resid = resid - resid.mean(dim=-1, keepdim=True)
            acts = downstream_sae.encode(resid)
            recon = downstream_sae.decode(acts)
        out[f"{run}_logits"] = _float64(logits)
        out[f"{run}_panel"] = _float64(acts)[:, panel]
        out[f"{run}_resid"] = _float64(resid)
        out[f"{run}_recon"] = _float64(recon)
    return out


def _float64(values: Any) -> Array:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
