"""Seconds to fit, cross-validate and rank a dictionary of 24,576 features, beside the paper's ridge.

    python benchmarks/speed/predictor.py [--labels 300 3000]

Statistics and labels are made up (skewed, correlated, partly predictable): time does not depend on
what they say. Ours: five targets, five folds and the whole, weights chosen in each, predictions of
all features, conformal intervals and reasons for the clean score. The ridge: the same folds and
targets, predictions only.
"""

import argparse
import time

import numpy as np
import pandas as pd
from cleansteer.predictor.evidence.scores import out_of_fold
from cleansteer.predictor.evidence.validation import validate
from cleansteer.predictor.model.baselines import paper_ridge
from cleansteer.predictor.model.models import ModularityPredictor
from cleansteer.predictor.model.ranking import rank_features
from cleansteer.predictor.model.targets import ABSOLUTE

N_FEATURES, N_STATISTICS = 24_576, 27


def dictionary(generator: np.random.Generator) -> pd.DataFrame:
    """Statistics that share factors, lognormal."""
    factors = generator.normal(size=(N_FEATURES, 6)) @ generator.normal(size=(6, N_STATISTICS))
    values = np.exp((factors + generator.normal(size=factors.shape)) / 3)
    names = ["final_act_freq", "final_act_mean", *(f"direct_{i}" for i in range(N_STATISTICS - 2))]
    return pd.DataFrame(values, columns=names)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, nargs="+", default=[300, 3000])
    generator = np.random.default_rng(0)
    statistics = dictionary(generator)
    signal = np.log(statistics.to_numpy()) @ generator.normal(
        size=(N_STATISTICS, len(ABSOLUTE.targets))
    )
    noise = signal.std(axis=0) * generator.normal(size=signal.shape)
    labels = pd.DataFrame(signal + noise, columns=list(ABSOLUTE.targets))
    features = statistics.assign(feature=statistics.index, direct_top_tokens="")
    for n in parser.parse_args().labels:
        rows = np.sort(generator.choice(N_FEATURES, n, replace=False))
        known, y = statistics.loc[rows], labels.loc[rows]
        start = time.perf_counter()
        predictor = ModularityPredictor().fit(known, y)
        fitted = time.perf_counter()
        validate(known, y, {0: predictor.out_of_fold_})
        validated = time.perf_counter()
        rank_features(features, y, predictor, set(range(N_FEATURES)))
        ranked = time.perf_counter()
        for target in ABSOLUTE.targets:
            values = y[target].to_numpy()
            out_of_fold(paper_ridge, known.to_numpy(), values, 0)
            paper_ridge(known.to_numpy(), values, statistics.to_numpy())
        ridge = time.perf_counter() - ranked
        print(
            f"{n} labels: {ranked - start:.1f} s (fit and cross-validate {fitted - start:.1f}, skill "
            f"beside ridge, boosting and baselines {validated - fitted:.1f}, rank with intervals and "
            f"reasons {ranked - validated:.1f}); ridge alone {ridge:.2f} s"
        )


if __name__ == "__main__":
    main()
