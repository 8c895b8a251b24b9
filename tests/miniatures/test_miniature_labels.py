"""On the shipped miniatures, in float32 as users run them: fast labels equal the slow oracle's."""

from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from cleansteer.core.layout import ACTIVATIONS, CONTEXTS, DOWNSTREAM
from cleansteer.core.models import wrap_model
from cleansteer.core.runs import RunDirectory
from cleansteer.steering_eval.collateral import choose_panel
from cleansteer.study.catalogue import load_setting
from cleansteer.study.entry import open_study
from cleansteer.study.inputs import Inputs
from transformers import GPT2LMHeadModel

TOLERANCE = 1e-4  # float32 against float64
CROSSINGS = 2  # entries that rounding may carry across a threshold, in all contexts of a row
N_CHECKED = 5


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk"])
def test_fast_labels_equal_the_slow_oracle(kind: str, tmp_path: Path) -> None:
    setting = load_setting(f"mini-gpt2-{kind}")
    setting = setting.replace("corpus", n_contexts=240, n_texts=400)
    setting = setting.replace("steering", n_features=60, contexts_per_type=8)
    study = open_study(setting, run=tmp_path / "run", progress=False)
    labels, run, inputs = study.labels, RunDirectory.existing(tmp_path / "run"), Inputs(setting)
    contexts = run.tokens(CONTEXTS)
    activations = run.table(ACTIVATIONS)
    panel = choose_panel(run.table(DOWNSTREAM), setting.steering.panel_size)
    order = np.random.default_rng(setting.seed).permutation(len(contexts))
    network = GPT2LMHeadModel.from_pretrained(
        setting.locate(setting.model.name), dtype=torch.float64
    )
    model = wrap_model(network, inputs.model.tokenizer)
    primary = inputs.primary.sae.to(torch.float64)
    downstream = inputs.downstream.sae.to(torch.float64)
    compared = 0
    for feature in study.sample[:: 60 // N_CHECKED]:
        own, final = activations[activations["feature"] == feature], np.zeros(len(contexts))
        final[own["context"]] = own["activation"]
        chosen = oracle.choose_contexts(final, setting.steering.contexts_per_type, order)
        for context_type, members in chosen.items():
            (row,) = labels[
                (labels["feature"] == feature) & (labels["context_type"] == context_type)
            ].to_dict("records")
            assert row["n_contexts"] == len(members)
            expected = oracle.labels(
                **oracle.steer_slowly(
                    model.bridge,
                    primary,
                    downstream,
                    contexts[sorted(members)],
                    int(feature),
                    torch.full((len(members),), row["coefficient"]),
                    hook=inputs.primary.site.hook,
                    downstream_hook=inputs.downstream.site.hook,
                    panel=panel.features.tolist(),
                    centred=False,
                    downstream_centred=False,
                    vocabulary_centred=True,
                ),
                scales=panel.scales,
            )
            crossing = CROSSINGS / len(members)
            for name, value in expected.items():
                if name == "collateral_per_effect":
                    slack = crossing / expected["effect_l2"]
                else:
                    slack = crossing if "count" in name else 1e-9
                limit = max(TOLERANCE * abs(value), slack)
                assert abs(row[name] - value) <= limit, (name, feature, context_type)
                compared += 1
    assert compared >= N_CHECKED * 4 * 29
