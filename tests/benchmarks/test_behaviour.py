"""The behaviour benchmark: what it measures of texts, what it concludes, and how it goes on."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import world
from cleansteer.benchmarks.behaviour.__main__ import behave, main
from cleansteer.benchmarks.behaviour.correlations import correlate, detectable, holm, p_value
from cleansteer.benchmarks.behaviour.experiment import Design, Experiment, choose
from cleansteer.benchmarks.behaviour.measures import (
    MEASURES,
    UNSTEERED,
    Continuations,
    mean_cosine,
    repetition,
)
from cleansteer.benchmarks.behaviour.telling import PREDICTED, sentence
from cleansteer.core.errors import InputError
from cleansteer.core.progress import Reporter
from cleansteer.predictor.evidence.scores import spearman
from cleansteer.study.entry import load_study

QUIET = Reporter(quiet=True)
PROMPTS = ("w1 w2 w3", "w4 w5", "w6 w7 w8", "w9 w10", "w11 w12")
DESIGN = Design(
    PROMPTS, n_features=9, n_tokens=6, target_kl=0.05, temperature=0.1, matched_tokens=4
)
PLAIN = ["cats sleep", "dogs run", "birds sing", "fish swim"]


def texts(**steered: list[str]) -> Continuations:
    """Texts of the prompts 0 to 3, by the name of a feature: ``f3``."""
    rows = [(UNSTEERED, p, text, 3.0, 0.0, 0.0) for p, text in enumerate(PLAIN)]
    for name, own in steered.items():
        number = int(name[1:])
        rows += [(number, p, t, 3.0 + number, 0.1 * p, 0.2) for p, t in enumerate(own)]
    columns = ["feature", "prompt", "text", "surprisal", "repetition", "promoted"]
    return Continuations(pd.DataFrame(rows, columns=columns))


def test_repetition_counts_what_came_before() -> None:
    assert repetition([1, 2, 3, 4, 5, 6]) == 0.0
    assert repetition([1] * 10) == pytest.approx(1 - 1 / 7)
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert repetition([1, 2]) == 0.0


def test_cosines_are_of_all_pairs() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 4))
    rows[2] = 0.0
    pairs = []
    for i in range(6):
        for j in range(i):
            length = np.linalg.norm(rows[i]) * np.linalg.norm(rows[j])
            pairs.append(rows[i] @ rows[j] / length if length else 0.0)
    assert mean_cosine(rows) == pytest.approx(np.mean(pairs))


def test_a_feature_that_changes_nothing_measures_nothing() -> None:
    found = texts(f0=PLAIN).measure(range(4)).loc[0]
    assert found["surprise"] == 0.0
    assert found["drift"] == pytest.approx(0.0)
    assert found["agreement"] == pytest.approx(0.0)


def test_measures_are_those_of_their_definitions() -> None:
    same = ["the king rules"] * 4
    others = ["apples", "pears", "plums", "grapes"]
    found = texts(f1=same, f2=others, f3=PLAIN).measure(range(4))
    assert list(found) == list(MEASURES)
    assert found.loc[[1, 2, 3], "surprise"].tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert found["repetition"].tolist() == pytest.approx([0.15] * 3)
    assert found["promoted"].tolist() == pytest.approx([0.2] * 3)
    assert found.loc[[1, 2], "drift"].tolist() == pytest.approx([1.0, 1.0])
    assert found.loc[3, "drift"] == pytest.approx(0.0)
    # All four texts change towards the same words; the other feature's share none, gained or lost.
    assert found.loc[1, "agreement"] == pytest.approx(0.5)
    assert found.loc[2, "agreement"] == pytest.approx(0.0)
    half = texts(f1=same, f2=others).measure([1, 3])
    assert half["repetition"].tolist() == pytest.approx([0.2, 0.2])


def test_holm_is_the_step_down_procedure() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        p = generator.uniform(size=5) ** 3
        for level in (0.01, 0.05, 0.3):
            believed = set()
            for at, which in enumerate(np.argsort(p)):
                if p[which] > level / (5 - at):
                    break
                believed.add(int(which))
            assert set(np.flatnonzero(holm(p) <= level)) == believed


def test_p_values_and_power_are_what_they_say() -> None:
    """Of 3,000 tables without a tie one in twenty is below .05; of as strong a tie as is detectable,
    four in five.
    """
    generator = np.random.default_rng(1)
    n, tables = 40, 3000
    wanted = detectable(n)
    pearson = 2 * np.sin(np.pi * wanted / 6)  # of normal variables whose Spearman correlation it is
    for rho, expected in ((0.0, 0.05), (pearson, 0.8)):
        a = generator.normal(size=(tables, n))
        b = rho * a + np.sqrt(1 - rho**2) * generator.normal(size=(tables, n))
        below = np.mean([p_value(spearman(x, y), n) < 0.05 for x, y in zip(a, b, strict=True)])
        assert below == pytest.approx(expected, abs=0.025)
    assert detectable(400) < detectable(40) < detectable(40, 0.01)


def planted(n: int, tie: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    generator = np.random.default_rng(2)
    score = generator.normal(size=n)
    measured = pd.DataFrame(generator.normal(size=(n, len(MEASURES))), columns=list(MEASURES))
    measured["repetition"] -= tie * score
    return pd.DataFrame({PREDICTED: score, "other": generator.normal(size=n)}), measured


def test_a_tie_is_found_and_said_and_none_is_not() -> None:
    found = correlate(*planted(60, 2.0), seed=0)
    own = found[found["score"] == PREDICTED].set_index("measure")
    assert own.loc["repetition", "high"] < -0.5
    assert (own["low"] <= own["rho"]).all()
    assert (own["p_holm"] >= own["p"]).all()
    sure = dict.fromkeys(MEASURES, 0.8)
    told = sentence(found, 60, sure)
    assert "goes with less repetition" in told
    assert "no difference seen in surprise, promoted, drift, agreement" in told
    assert "does not repeat" not in told
    told = sentence(correlate(*planted(60, 0.0), seed=0), 60, sure | {"drift": 0.1})
    assert "with none of these measures" in told
    assert "(reliability below 0.3: drift) can show no tie" in told
    assert f"{detectable(60):.2f}" in told
    told = sentence(correlate(*planted(60, 0.0), seed=0), 60, dict.fromkeys(MEASURES, 0.1))
    assert f"{detectable(60):.2f}" not in told


def test_features_span_the_scores_of_those_that_the_predictor_has_not_seen() -> None:
    n = 50
    ranking = pd.DataFrame(
        {
            "feature": np.arange(n),
            "eligible": np.arange(n) % 5 > 0,
            "measured": np.arange(n) % 2 == 0,
            "predicted_clean_score": np.random.default_rng(0).permutation(n).astype(float),
        }
    )
    usable = ranking[ranking["eligible"] & ~ranking["measured"]].sort_values(PREDICTED)
    chosen = choose(ranking, 5)
    places = [usable["feature"].tolist().index(f) for f in chosen]
    assert places[0] == 0
    assert places[-1] == len(usable) - 1
    assert max(np.diff(places)) - min(np.diff(places)) <= 1
    with pytest.raises(InputError, match=r"20 eligible features .* ask for fewer --features"):
        choose(ranking, 21)


@pytest.fixture(scope="module")
def ranked_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ranked by linear response: no feature is used up by labels."""
    folder = tmp_path_factory.mktemp("ranked")
    setting = world.build(folder, "jumprelu")
    with pytest.MonkeyPatch.context() as patch:
        assert world.run(patch, "screen", setting, "--labels", 0, "--run", folder / "run") == 0
    return folder


@pytest.fixture(scope="module")
def behaved(ranked_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("behaviour") / "out"
    behave(ranked_world / "run", DESIGN, out, QUIET)
    return out


def test_every_feature_moves_predictions_by_the_same_divergence(
    behaved: Path, ranked_world: Path
) -> None:
    """KL(unsteered || steered), mean over the unsteered texts' first tokens, by passes of the bridge."""
    study = load_study(ranked_world / "run", progress=False)
    table = pd.read_parquet(behaved / "behaviour.parquet")
    texts = pd.read_parquet(behaved / "texts.parquet")
    assert len(table) == DESIGN.n_features
    inputs = study._parts.inputs
    model, primary = inputs.model, inputs.primary
    plain = texts[texts["feature"] == UNSTEERED].set_index("prompt")["tokens"]
    for row in table.itertuples():
        push = row.coefficient * primary.decoder[row.feature]

        def steer(values: torch.Tensor, hook: object, push: torch.Tensor = push) -> torch.Tensor:
            changed = values.clone()
            changed[:, 1:] += push
            return changed

        divergences = []
        for prompt, text in enumerate(PROMPTS):
            words = [int(word[1:]) for word in text.split()]
            tokens = torch.tensor([[0, *words, *plain[prompt]]])
            clean = model.bridge(tokens)[0].log_softmax(-1).double()
            steered = model.bridge.run_with_hooks(tokens, fwd_hooks=[(primary.site.hook, steer)])[
                0
            ].log_softmax(-1)
            each = (clean.exp() * (clean - steered.double())).sum(-1)
            divergences += each[len(words) :][: DESIGN.matched_tokens].tolist()
        assert np.mean(divergences) == pytest.approx(DESIGN.target_kl, rel=0.025)
        assert row.kl == pytest.approx(np.mean(divergences), rel=1e-3)


def test_texts_are_scored_by_the_unsteered_model(behaved: Path, ranked_world: Path) -> None:
    study = load_study(ranked_world / "run", progress=False)
    model, primary = study._parts.inputs.model, study._parts.inputs.primary
    texts = pd.read_parquet(behaved / "texts.parquet")
    plain = texts[texts["feature"] == UNSTEERED].set_index("prompt")["tokens"]
    steered = texts[texts["feature"] != UNSTEERED]
    assert (steered["promoted"] != 0).any()
    for row in steered.iloc[::7].itertuples():
        words = [int(word[1:]) for word in PROMPTS[row.prompt].split()]
        tokens = torch.tensor([[0, *words, *row.tokens]])
        probabilities = model.bridge(tokens)[0].log_softmax(-1)
        chosen = probabilities[:-1].gather(1, tokens[0, 1:, None])[-DESIGN.n_tokens :]
        assert row.surprisal == pytest.approx(-float(chosen.mean()), rel=1e-4)
        assert row.repetition == repetition(list(row.tokens))
        assert row.text == " ".join(f"w{token}" for token in row.tokens)
        own = set(model.promoted(primary.decoder[[row.feature]])[0].tolist())
        shares = [np.mean([t in own for t in each]) for each in (row.tokens, plain[row.prompt])]
        assert row.promoted == pytest.approx(shares[0] - shares[1])


def test_texts_differ_from_the_unsteered_ones_by_the_push_alone(
    behaved: Path, ranked_world: Path, tmp_path: Path
) -> None:
    """Pushed by nothing a feature's texts are the unsteered ones: noise goes by prompt and step. The
    first token is the largest of logits / temperature + noise.
    """
    study = load_study(ranked_world / "run", progress=False)
    experiment = Experiment(study, DESIGN, tmp_path / "out", QUIET)
    texts = pd.read_parquet(behaved / "texts.parquet")
    plain = texts[texts["feature"] == UNSTEERED].set_index("prompt")["tokens"]
    still = experiment._written(experiment.features[:3], np.zeros(3))
    for row in still.itertuples():
        assert row.tokens == plain[row.prompt].tolist()
    steered = texts[texts["feature"] != UNSTEERED]
    assert any(row.tokens.tolist() != plain[row.prompt].tolist() for row in steered.itertuples())
    model = study._parts.inputs.model
    draws, others = [], []
    for prompt, text in enumerate(PROMPTS):
        tokens = torch.tensor([[0, *(int(word[1:]) for word in text.split())]])
        logits = model.bridge(tokens)[0, -1]
        noise = experiment._noise([prompt], 0, len(logits))[0]
        logits[0] = -torch.inf  # EOS is never drawn
        assert int((logits / DESIGN.temperature + noise).argmax()) == plain[prompt][0]
        draws.append(noise)
        others.append(int((logits + noise).argmax()) != plain[prompt][0])
    assert any(others)  # at temperature 1
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], experiment._noise([0], 1, len(draws[0]))[0])


def test_reliability_is_of_two_halves_of_the_prompts(behaved: Path) -> None:
    texts = Continuations(pd.read_parquet(behaved / "texts.parquet"))
    halves = [texts.measure(some) for some in ([0, 2, 4], [1, 3])]
    order = pd.read_parquet(behaved / "behaviour.parquet")["feature"]
    told = (behaved / "behaviour.md").read_text("utf-8").splitlines()
    for measure in MEASURES:
        half = max(spearman(*(h.loc[order, measure].to_numpy() for h in halves)), 0.0)
        (row,) = (line for line in told if line.startswith(f"| {measure} |"))
        assert row.split("|")[-2].strip() == f"{2 * half / (1 + half):.2f}"


def test_a_stopped_experiment_goes_on_to_the_same_texts(
    behaved: Path, ranked_world: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    study = load_study(ranked_world / "run", progress=False)
    first = Experiment(study, DESIGN, again, QUIET).texts()
    blocks = sorted((again / "blocks").iterdir())
    before = blocks[0].read_bytes()
    blocks[0].unlink()
    second = Experiment(study, DESIGN, again, QUIET).texts()
    pd.testing.assert_frame_equal(
        first.astype({"tokens": str}), second.astype({"tokens": str}), check_dtype=False
    )
    assert blocks[0].read_bytes() == before
    kept = pd.read_parquet(behaved / "texts.parquet")
    assert kept["text"].tolist() == first["text"].tolist()


def test_the_program_and_its_refusals(
    behaved: Path, ranked_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n\n", "utf-8")
    same = ["--features", "9", "--tokens", "6", "--matched-tokens", "4", "--temperature", "0.1"]
    same += ["--target-kl", "0.05", "--prompts", str(prompts)]
    run = str(ranked_world / "run")
    assert main([run, *same, "--out", str(behaved)]) == 0
    told = capsys.readouterr().out
    assert "At equal KL" in told
    assert told == (behaved / "behaviour.md").read_text("utf-8")
    design = json.loads((behaved / "design.json").read_text("utf-8"))
    assert design["prompts"] == list(PROMPTS)
    wrong = {
        "another design": [run, *same, "--seed", "1", "--out", str(behaved)],
        "n_tokens = 3; expected 4": [run, "--tokens", "3"],
        "target_kl = 0; expected a finite number above 0": [run, "--target-kl", "0"],
        "temperature = nan": [run, "--temperature", "nan"],
        "cannot be read": [run, "--prompts", str(tmp_path / "none.txt")],
        "ask for fewer --features": [run, "--features", "500", "--out", str(tmp_path / "x")],
        "none": [str(tmp_path / "none")],
    }
    for message, words in wrong.items():
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()
    prompts.write_text("one\n", "utf-8")
    assert main([run, "--prompts", str(prompts)]) == 2
    assert "1 prompts, expected 4 or more" in capsys.readouterr().err
