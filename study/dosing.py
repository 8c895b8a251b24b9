"""A dose forecast of a study's features: linear response, corrected on measured doses of a few."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.layout import DOSE_FORECAST, RESPONSE_DOSES, RESPONSE_NOISE
from ..core.progress import Reporter
from ..core.settings import Setting
from ..features.dosed import COUNT, count_by_dose, measured_by_context, resample_contexts
from ..features.response import CURVATURE, PREFIX
from ..predictor.model.dosing import FORECAST, KL, SCALES
from ..predictor.model.forecast import DoseForecast, FirstOrder, dose_strengths
from ..steering_eval.choice import eligible_features, evenly
from .inputs import Inputs
from .labelling import Labelling
from .response import Response
from .steering import Steering
from .store import Store

DEFAULT_LABELS = 100
LEAST_LABELS = 20
"""Fewest dose features: 5 folds of which each is worth the name, and ends of a 90 % interval."""
_NOISE_FEATURES = 100

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Dosing:
    """Measured doses and linear response of a study, and the forecast made of them."""

    inputs: Inputs
    store: Store
    steering: Steering
    response: Response
    labelling: Labelling
    reporter: Reporter

    def forecast(self, labels: int, budget: float) -> DoseForecast:
        """Fit a forecast on the doses of some features, measured where they are missing.

        Args:
            labels: how many of the setting's sample are measured at every dose, at even places.
            budget: of KL, in nats; the doses are laid around it.

        Raises:
            InputError: fewer features can be labelled than a forecast needs.

        """
        setting, sample = self.inputs.setting, self.labelling.sample()
        if len(sample) < LEAST_LABELS:
            raise InputError(
                f"setting {setting.name!r} labels {len(sample)} features, and a dose forecast needs "
                f"{LEAST_LABELS} measured ones or more; raise `n_features`, or give more contexts"
            )
        strengths = self.strengths(budget)
        chosen = sample[evenly(len(sample), labels)]
        measured = self.measured(chosen, strengths)
        return self.fit(measured, strengths, setting.seed)

    def fit(self, measured: pd.DataFrame, strengths: Array, seed: int) -> DoseForecast:
        """A forecast from the doses of some features.

        Contexts are noise of which labels and linear response have a draw each: the level of KL is
        averaged over both, as many contexts as there are, and new labels are another draw.
        """
        first, noise = self.first_order(strengths)
        n_labels = float(measured["n_contexts"].mean())
        both = n_labels + self.inputs.setting.steering.response_contexts
        draws = {
            label: 1 / n_labels + 1 / (both if label == KL else n_labels) for label in FORECAST
        }
        shared = {label: noise[label] * np.sqrt(draws[label]) for label in FORECAST}
        return DoseForecast(first, measured, shared, seed, n_labels / both)

    def measured(self, features: NDArray[np.int64], strengths: Array) -> pd.DataFrame:
        """Labels of some features at every dose in contexts of type mixed, steered where they are
        missing.
        """
        steering = self.inputs.setting.steering
        signed = np.sign(steering.alpha) * strengths
        parts = [
            self.labelling.labels_of(
                features, steering.model_copy(update={"alpha": float(strength)})
            )
            for strength in signed
        ]
        table = pd.concat(parts, ignore_index=True)
        return table[table["context_type"] == "mixed"]

    def write(self, forecast: DoseForecast, budget: float) -> None:
        """Keep what a forecast recommends for every feature."""
        self.store.run.write_table(DOSE_FORECAST, forecast.recommend(budget))

    def strengths(self, budget: float) -> Array:
        """The magnitudes of the doses."""
        features = self.response.table()
        kl = features[PREFIX + KL].to_numpy(dtype=np.float64)[eligible_features(features)]
        return dose_strengths(kl, self.inputs.setting.steering.alpha, budget)

    def first_order(self, strengths: Array) -> tuple[FirstOrder, dict[str, Array]]:
        """What linear response says, and of each label at every dose the noise of one context."""
        features = self.response.table()
        steering = self.inputs.setting.steering
        sign = float(np.sign(steering.alpha))
        unit = sign * self.steering.units(steering)
        counts, noise = self._at_doses(features, strengths, unit)
        columns = features.rename(columns=lambda name: name.removeprefix(PREFIX))
        first = FirstOrder(
            features=features["feature"].to_numpy(),
            strength=abs(steering.alpha),
            unit=unit,
            kl=columns[KL].to_numpy(dtype=np.float64),
            stability=columns["stability_abs"].to_numpy(dtype=np.float64),
            effect=columns["effect_l2"].to_numpy(dtype=np.float64),
            strengths=strengths,
            counts=counts.pivot(
                index="feature", columns="strength", values=PREFIX + COUNT
            ).to_numpy(),
            covariates=covariates(features),
        )
        by_label = noise.sort_values("strength").groupby("label")["noise"]
        return first, {name: by_label.get_group(name).to_numpy() for name in FORECAST}

    def _at_doses(
        self, features: pd.DataFrame, strengths: Array, unit: Array
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Collateral counts of every feature at every dose, and the noise of a context."""
        run = self.store.run
        names = (RESPONSE_DOSES, RESPONSE_NOISE)
        if all(run.has(name) for name in names):
            tables = [run.table(name, ("strength",)) for name in names]
            if all(set(table["strength"]) == set(strengths) for table in tables):
                return tables[0], tables[1]
        for name, table in zip(names, self._measure(features, strengths, unit), strict=True):
            run.write_table(name, table)
        return run.table(RESPONSE_DOSES), run.table(RESPONSE_NOISE)

    def _measure(
        self, features: pd.DataFrame, strengths: Array, unit: Array
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        n_contexts = len(self.store.response_contexts(self.inputs))
        decoder, eligible = self.inputs.primary.decoder, eligible_features(features)
        pushes = decoder * torch.as_tensor(unit).to(decoder)[:, None]
        bar = self.reporter.bar("linear response to doses", 2 * n_contexts)
        with self.store.run.timed("response_doses"), bar as progress:
            jacobians, evaluator, reader = self.response.jacobians(progress)
            counts = count_by_dose(jacobians, pushes, strengths, reader, progress)
            some = eligible[evenly(len(eligible), _NOISE_FEATURES)]
            by_context = measured_by_context(
                jacobians, pushes[some.tolist()], strengths, reader, evaluator.vocabulary
            )
        drawn = resample_contexts(*by_context, strengths, self.inputs.setting.seed)
        noise = pd.concat(
            pd.DataFrame(
                {
                    "label": label,
                    "strength": strengths,
                    "noise": np.sqrt(n_contexts) * _shared(SCALES[label].to(drawn[label])),
                }
            )
            for label in FORECAST
        )
        table = pd.DataFrame(
            {
                "feature": np.repeat(np.arange(len(features)), len(strengths)),
                "strength": np.tile(strengths, len(features)),
                PREFIX + COUNT: counts.ravel(),
            }
        )
        return table, noise


def _shared(drawn: Array) -> Array:
    """Standard deviation over draws of the mean over features, ``[dose]``."""
    return np.asarray(drawn.mean(axis=1).std(axis=0, ddof=1))


def covariates(features: pd.DataFrame) -> Array:
    """Statistics that a correction may depend on, ``[feature, column]``; none depends on how a
    feature is scaled: KL of a push of unit length, cv and stability of the effect, and how often and how
    strongly the feature fires by itself, in units of length.
    """
    norm = features["decoder_norm"].to_numpy(dtype=np.float64)
    size = np.maximum(norm, 1e-12)
    columns = [
        _log(features[CURVATURE] / size**2),
        features[f"{PREFIX}effect_cv"].to_numpy(dtype=np.float64),
        features[f"{PREFIX}stability_abs"].to_numpy(dtype=np.float64),
        _log(features["token_act_freq"]),
        _log(features["token_act_mean"] * size),
        _log(features["token_act_max"] * size),
    ]
    return np.stack(columns, axis=1)


def _log(values: pd.Series) -> Array:
    return np.asarray(np.log(values.to_numpy(dtype=np.float64) + 1e-6))


def check_labels(labels: int) -> None:
    """Refuse too few dose features."""
    if labels < LEAST_LABELS:
        raise InputError(
            f"--labels {labels} is too few for a dose forecast; expected {LEAST_LABELS} measured "
            "features or more; raise it"
        )


def check_setting(setting: Setting) -> None:
    """Refuse a setting that doses cannot be forecast in.

    Raises:
        InputError: it measures no linear response or no KL, or steers in another mode than ``add``.

    """
    steering = setting.steering
    for wrong, told, remedy in (
        (not steering.response, "response = false", "response = true"),
        (not steering.vocabulary_labels, "vocabulary_labels = false", "vocabulary_labels = true"),
        (steering.mode != "add", f"mode = {steering.mode!r}", "mode = 'add'"),
    ):
        if wrong:
            raise InputError(
                f"setting {setting.name!r} has {told}, and a dose forecast needs {remedy}; set it in "
                "[steering]"
            )
