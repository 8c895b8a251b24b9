"""The parts of a study, each made from those that it builds on."""

from dataclasses import dataclass
from typing import Self

from ..core.progress import Reporter
from ..core.runs import RunDirectory
from ..core.settings import Setting
from .dosing import Dosing
from .inputs import Inputs
from .labelling import Labelling
from .prediction import Prediction
from .response import Response
from .statistics import Statistics
from .steering import Steering
from .store import Store


@dataclass(frozen=True)
class Parts:
    """What a study is put together from, from its inputs up."""

    setting: Setting
    inputs: Inputs
    store: Store
    statistics: Statistics
    response: Response
    labelling: Labelling
    prediction: Prediction
    dosing: Dosing

    @classmethod
    def of(cls, setting: Setting, run: RunDirectory, inputs: Inputs, reporter: Reporter) -> Self:
        """The parts of one setting's study, kept in one run directory."""
        store = Store(run)
        statistics = Statistics(inputs, store, reporter)
        steering = Steering(inputs, store, statistics, reporter)
        response = Response(inputs, store, statistics, steering, reporter)
        labelling = Labelling(inputs, store, statistics, steering, response)
        prediction = Prediction(store, statistics, response, labelling, reporter, setting.seed)
        dosing = Dosing(inputs, store, steering, response, labelling, reporter)
        return cls(setting, inputs, store, statistics, response, labelling, prediction, dosing)
