"""What a dose forecast is worth: on features, strengths and contexts that it was not fitted on.

For runs whose settings ask for linear response. All of a run's sample are steered at every dose, and in
as many other contexts of the corpus, behind those of linear response, at strengths halfway between the
doses (kept in the run as held_out_doses.parquet). Again and again a forecast is fitted on some features
of the sample, drawn at random, and compared with what was measured of the others in the other contexts:
``python -m cleansteer.benchmarks.doses RUN...``.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.contexts import build_contexts
from ..core.tables import write_table
from ..core.texts import read_texts
from ..features.sweep import final_activations
from ..predictor.model.dosing import FORECAST, KL
from ..steering_eval.choice import plan_typed
from ..steering_eval.doses import DEFAULT_BUDGET
from ..study.dosing import DEFAULT_LABELS
from ..study.entry import load_study
from ..study.parts import Parts
from ..study.study import Study

HELD_OUT = "held_out_doses.parquet"
SPLITS = 20
KEYS = ["feature", "alpha"]


def held_out(study: Study, parts: Parts, strengths: NDArray[np.float64]) -> pd.DataFrame:
    """Labels of the sample in contexts that nothing else uses, at strengths between the doses."""
    run, setting, inputs = parts.store.run, study.setting, parts.inputs
    middle = np.sqrt(strengths[1:] * strengths[:-1])
    if run.has(HELD_OUT):
        return run.table(HELD_OUT)
    n, more = setting.corpus.n_contexts, setting.steering.response_contexts
    texts = read_texts(setting, setting.corpus)
    contexts = build_contexts(
        texts, setting.corpus, inputs.model.tokenizer, setting.seed, more + n
    )[n + more :]
    activations = final_activations(inputs.model, inputs.primary, contexts)
    per_type = parts.labelling.contexts_per_type()
    plan = plan_typed(np.array(study.sample), activations, per_type, setting.seed)
    tables = []
    for strength in middle * np.sign(setting.steering.alpha):
        steering = setting.steering.model_copy(update={"alpha": float(strength)})
        tables.append(
            parts.labelling.steering.evaluate(
                plan, contexts, activations, steering, "held_out", f"held out, {strength:.3g}"
            )
        )
    run.write_table(HELD_OUT, pd.concat(tables, ignore_index=True))
    return run.table(HELD_OUT)


def compare(run: Path, labels: int, splits: int, budget: float) -> pd.DataFrame:
    """Forecasts and measured labels side by side: a row for every split, test feature and strength."""
    study = load_study(run)
    parts = study._parts
    dosing = parts.dosing
    strengths = dosing.strengths(budget)
    measured = dosing.measured(np.array(study.sample), strengths)
    first, _ = dosing.first_order(strengths)
    fresh = held_out(study, parts, strengths)
    fresh = fresh[fresh["context_type"] == "mixed"]
    asked = sorted(fresh["alpha"].unique())
    tables = []
    for split in range(splits):
        order = np.random.default_rng([study.setting.seed, split]).permutation(study.sample)
        own = measured[measured["feature"].isin(order[:labels])]
        forecast = dosing.fit(own, strengths, split)
        table = forecast.at(asked, abstain=False)
        table = table[table["feature"].isin(order[labels:])]
        more = forecast.recommend(budget)[["feature", "recommended_alpha", "cautious_alpha"]]
        plain = pd.DataFrame(
            {
                "feature": np.tile(first.features, len(asked)),
                "alpha": np.repeat(asked, len(first.features)),
                "first_order_kl": np.concatenate([first.forecast(KL, abs(a)) for a in asked]),
            }
        )
        truth = fresh[[*KEYS, *FORECAST]].rename(
            columns={name: f"true_{name}" for name in FORECAST}
        )
        table = table.rename(
            columns=lambda name: name.replace("kl", KL) if name[:2] == "kl" else name
        )
        tables.append(
            table.merge(truth, on=KEYS)
            .merge(plain, on=KEYS)
            .merge(more, on="feature")
            .assign(split=split)
        )
    return pd.concat(tables, ignore_index=True).assign(setting=study.setting.name)


def summarise(found: pd.DataFrame, budget: float) -> dict[str, float]:
    """Errors, coverage and what abstention costs, of one setting."""
    truth, within = found[f"true_{KL}"], found["within_radius"]
    small = truth <= budget
    error = (found[KL] / truth - 1).abs()
    plain = (found["first_order_kl"] / truth - 1).abs()
    told: dict[str, float] = {
        "first_order": float(plain[small].median()),
        "error": float(error[small].median()),
        "error_within": float(error[small & within].median()),
        "error_all": float(error.median()),
        "abstained": float(1 - within.mean()),
        "abstained_small": float(1 - within[small].mean()),
        "features": found["feature"].nunique(),
    }
    for label in FORECAST:
        inside = (found[f"{label}_low"] <= found[f"true_{label}"]) & (
            found[f"true_{label}"] <= found[f"{label}_high"]
        )
        told[f"covered_{label}"] = float(inside.mean())
        told[f"within_{label}"] = float(inside[within].mean())
        by_strength = inside.groupby(found["alpha"]).mean()
        told[f"least_{label}"] = float(by_strength.min())
        told[f"most_{label}"] = float(by_strength.max())
        told[f"spread_{label}"] = float(inside.groupby(found["split"]).mean().std())
        scale = (found[label] - found[f"true_{label}"]).abs() / found[f"true_{label}"].abs()
        told[f"error_{label}"] = float(scale[np.isfinite(scale)].median())
    told |= _recommended(found)
    return told


def _recommended(found: pd.DataFrame) -> dict[str, float]:
    """What KL was measured at recommended strengths, between the strengths measured."""
    measured: dict[str, list[float]] = {"recommended_alpha": [], "cautious_alpha": []}
    none = []
    for _, own in found.groupby(["split", "feature"]):
        own = own.sort_values("alpha", key=lambda alpha: alpha.abs())
        none.append(bool(own["recommended_alpha"].isna().iloc[0]))
        for name, kept in measured.items():
            at = abs(float(own[name].iloc[0]))
            if np.isfinite(at):
                known = np.log(own["alpha"].abs()), np.log(own[f"true_{KL}"])
                kept.append(float(np.exp(np.interp(np.log(at), *known))))
    told = {"none": float(np.mean(none))}
    for name, kept in measured.items():
        low, middle, high = np.quantile(kept, [0.05, 0.5, 0.95]) if kept else [np.nan] * 3
        told |= {f"{name}_low": low, name: middle, f"{name}_high": high}
    return told


def _binomial(share: float, n: float) -> str:
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(share * n, n, method="wilson")
    return f"{share:.1%} [{low:.1%}, {high:.1%}]"


def _markdown(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(headings)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tell(found: dict[str, dict[str, float]], budget: float) -> str:
    """The tables as Markdown; binomial intervals count each test feature as one trial."""
    kl = _markdown(
        [
            "setting",
            "first order alone",
            "corrected",
            "where it holds",
            "pairs abstained",
            "of those within the budget",
            "features without a recommendation",
            "measured KL at the recommended (5 %, 95 %)",
            "at the cautious one",
        ],
        (
            [
                name,
                *(f"{t[part]:.1%}" for part in ("first_order", "error", "error_within")),
                *(f"{t[part]:.1%}" for part in ("abstained", "abstained_small", "none")),
                *(
                    f"{t[part]:.3f} ({t[f'{part}_low']:.3f}, {t[f'{part}_high']:.3f})"
                    for part in ("recommended_alpha", "cautious_alpha")
                ),
            ]
            for name, t in found.items()
        ),
    )
    coverage = _markdown(
        ["setting", *FORECAST],
        (
            [
                name,
                *(
                    f"{_binomial(t[f'covered_{label}'], t['features'])}; {t[f'least_{label}']:.0%} to "
                    f"{t[f'most_{label}']:.0%}"
                    for label in FORECAST
                ),
            ]
            for name, t in found.items()
        ),
    )
    errors = _markdown(
        ["setting", *FORECAST],
        (
            [name, *(f"{t[f'error_{label}']:.1%}" for label in FORECAST)]
            for name, t in found.items()
        ),
    )
    return "\n\n".join(
        [
            f"Median relative error of KL where it is at most {budget:g} nats, and abstention:",
            kl,
            "Coverage of 90 % intervals without abstention, and its range over strengths:",
            coverage,
            "Median relative error of each label, all strengths, without abstention:",
            errors,
        ]
    )


def main() -> None:
    """Compare the runs that were given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--labels", type=int, default=DEFAULT_LABELS)
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--kl-budget", type=float, default=DEFAULT_BUDGET)
    parser.add_argument("--out", type=Path, help="Directory for all pairs as Parquet.")
    given = parser.parse_args()
    found = {}
    for run in given.runs:
        table = compare(run, given.labels, given.splits, given.kl_budget)
        name = str(table["setting"].iloc[0])
        found[name] = summarise(table, given.kl_budget)
        if given.out is not None:
            write_table(given.out / f"{name}.parquet", table)
    sys.stdout.write(tell(found, given.kl_budget) + "\n")


if __name__ == "__main__":
    main()
