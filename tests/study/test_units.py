"""Units: strengths as shares of the residual stream, and collateral in each panel feature's own scale."""

import shutil
from pathlib import Path

import cleansteer as cs
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import world
from cleansteer.core.layout import MANIFEST
from cleansteer.features.activation import firing_medians
from cleansteer.predictor.model.targets import RELATIVE
from cleansteer.steering_eval.collateral import choose_panel
from safetensors.torch import load_file

MATCHED = {
    "steering.mode": "matched",
    "steering.alpha": 1.0,
    "steering.target_kl": 0.02,
    "steering.collateral": "relative",
}
MEASURED = {"steering.response": True, "steering.response_contexts": 12}
RESIDUAL = {
    "steering.alpha_units": "residual",
    "steering.alpha": 0.25,
    "steering.collateral": "relative",
} | MEASURED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world whose setting labels 30 features; not to be changed."""
    made = tmp_path_factory.mktemp("units")
    setting = world.build(made, "jumprelu")
    setting.write_text(setting.read_text("utf-8").replace("n_features = 60", "n_features = 30"))
    return made


@pytest.mark.parametrize(("alpha", "told"), [(1e-3, True), (0.3, False), (3.0, True)])
def test_a_push_that_is_hardly_one_or_too_long_is_told(
    alpha: float, told: bool, folder: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    changes = {"steering.alpha_units": "residual", "steering.alpha": alpha}
    study = cs.open_study(
        folder / "tiny.toml", changes=changes, run=tmp_path / "run", progress=False
    )
    labels = world.mixed(study.evaluate(sample=5))
    push = study._parts.prediction.push(labels)
    assert push.share == pytest.approx(alpha)
    assert push.kl == pytest.approx(labels["kl_clean_steered"].median())
    said = [str(w.message) for w in recwarn if "residual stream's length" in str(w.message)]
    assert bool(said) == told


def test_scales_are_medians_where_a_feature_fires() -> None:
    generator = np.random.default_rng(0)
    values = generator.lognormal(size=(40, 30)) * (generator.random((40, 30)) < 0.3)
    values[:, 7] = 0.0
    values[:, 8] = 0.0
    values[3, 8] = 2.5
    found = firing_medians(scipy.sparse.csc_array(values))
    expected = [np.median(v[v > 0]) if (v > 0).any() else np.nan for v in values.T]
    np.testing.assert_allclose(found, expected)
    frequency = (values > 0).mean(axis=0)
    table = {"feature": range(30), "final_act_freq": frequency, "final_firing_median": found}
    panel = choose_panel(pd.DataFrame(table), 30)
    silent = panel.features.tolist().index(7)
    assert panel.scales[silent] == pytest.approx(np.nanmedian(found))
    assert np.delete(panel.scales, silent) == pytest.approx(
        np.delete(found[panel.features], silent)
    )


def scaled(folder: Path, path: Path, factor: float) -> None:
    """The SAE in ``folder`` with activations ``factor`` times as large, and the same reconstructions."""
    shutil.copytree(folder, path)
    state = load_file(folder / "sae_weights.safetensors")
    changed = {name: state[name] * factor for name in ("W_enc", "b_enc")}
    changed["W_dec"] = state["W_dec"] / factor
    if "threshold" in state:
        changed["threshold"] = state["threshold"] * factor
    world.overwrite_tensor(path, **{name: value.contiguous() for name, value in changed.items()})


@pytest.mark.parametrize("changes", [RESIDUAL, MATCHED | MEASURED], ids=["residual", "matched"])
def test_the_size_of_activations_is_a_convention(
    folder: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    """Dictionaries with ten times the activations and the same reconstructions: the same relative
    labels, the same ranking, linear response among what it is fitted on, and the same verdict.
    """
    factor = 10.0
    made = tmp_path / "scaled"
    shutil.copytree(folder / "model", made / "model")
    for name in ("primary", "downstream"):
        scaled(folder / name, made / name, factor)
    for name in ("tiny.toml", "texts.txt", "fresh.txt"):
        shutil.copy(folder / name, made / name)
    plain, other = (
        cs.screen(at / "tiny.toml", changes=changes, run=tmp_path / name, progress=False)
        for at, name in ((folder, "plain"), (made, "other"))
    )
    ours, theirs = world.mixed(plain.labels), world.mixed(other.labels)
    assert theirs.index.tolist() == ours.index.tolist()
    assert theirs["coefficient"].to_numpy() == pytest.approx(factor * ours["coefficient"], rel=1e-3)
    for name in ("stability_abs", "collateral_relative_mass", "collateral_relative_count_0.2"):
        np.testing.assert_allclose(theirs[name], ours[name], rtol=2e-3, atol=0.05)
    absolute = theirs["collateral_l2"].to_numpy() / ours["collateral_l2"].to_numpy()
    assert absolute == pytest.approx(factor, rel=1e-2)
    assert {n: j.usable for n, j in other.screening.labels.items()} == {
        n: j.usable for n, j in plain.screening.labels.items()
    }
    assert other.verdict.overall == plain.verdict.overall
    a, b = (s.ranking.set_index("feature")["predicted_clean_score"] for s in (plain, other))
    np.testing.assert_allclose(a, b.reindex(a.index), atol=1e-3)


def test_residual_units_push_every_feature_equally_far(folder: Path, tmp_path: Path) -> None:
    changes = {"steering.alpha_units": "residual", "steering.alpha": 0.25}
    study = cs.open_study(
        folder / "tiny.toml", changes=changes, run=tmp_path / "run", progress=False
    )
    labels = world.mixed(study.evaluate(sample=10))
    norms = study.features.set_index("feature").loc[labels.index, "decoder_norm"]
    lengths = labels["coefficient"] * norms / study._run.manifest.residual_norm
    assert lengths.to_numpy() == pytest.approx(0.25)
    inputs, tokens = study._parts.inputs, load_file(tmp_path / "run" / "contexts.safetensors")
    (values,) = inputs.model.read(tokens["tokens"].long(), [inputs.primary.site])
    with torch.no_grad():
        exact = float(values[:, 1:].norm(dim=-1).median())
    assert study._run.manifest.residual_norm == pytest.approx(exact, rel=1e-3)


def test_relative_collateral_in_mode_add(folder: Path, tmp_path: Path) -> None:
    changes = {"steering.collateral": "relative"}
    study = cs.screen(folder / "tiny.toml", changes=changes, run=tmp_path / "run", progress=False)
    assert tuple(study.screening.skill) == RELATIVE.targets
    labels = world.mixed(study.labels)
    expected = labels["collateral_relative_mass"] / (labels["effect_l2"] + 1e-8)
    assert labels["collateral_relative_per_effect"].to_numpy() == pytest.approx(expected)
    assert study.report(tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steering.target_kl": 0.1}, "`target_kl` is 0.1 with `mode` 'add'"),
        ({"steering.mode": "matched", "steering.target_kl": 0.0}, "greater than 0"),
        ({"steering.mode": "matched"}, "`alpha` is 0.7 with `mode` 'matched'"),
        (
            {
                "steering.mode": "clamp_global",
                "steering.alpha": 1.0,
                "steering.alpha_units": "residual",
            },
            "`alpha_units` is 'residual' with `mode` 'clamp_global'",
        ),
        ({"steering.alpha_units": "norms"}, "'global' or 'residual'"),
        ({"steering.collateral": "some"}, "'absolute' or 'relative'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    changes: dict[str, object], told: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(cs.InputError, match="steering") as error:
        cs.open_study(folder / "tiny.toml", changes=changes, run=tmp_path / "run", progress=False)
    assert told in str(error.value)
    assert not (tmp_path / "run" / MANIFEST).exists()
