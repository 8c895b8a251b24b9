"""Trials of a sweep, one after the other, each recorded when it is done; the best adapter is kept."""

import gc
import importlib.metadata
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ...core.errors import InputError
from ...core.progress import Reporter
from ...core.records import TrainingRecord
from ...core.records.sweep import Point, Sampler, SearchSpace, SweepRecord, Trial
from ...core.records.training import SettingName, TrainedModel
from ...core.tables import write_table, write_text
from ...core.training import TrainingOptions
from ..asked import AUTO, RECORD, rule_of
from ..finetuning import LIBRARIES, FineTuning, Recipe
from ..opening import opened_once
from ..results import described
from ..targets import Wanted, open_wanted
from ..trainers import steps
from ..training import NotFiniteError
from .figure import draw
from .proposals import propose
from .told import markdown, shown_point, tabulate

SWEEP = "sweep.json"
TABLE, PAGE, FIGURE = "sweep.parquet", "sweep.md", "sweep.svg"
BEST, TRIALS = "best", "trials"
_LIBRARIES = (*LIBRARIES, "optuna")


@dataclass(frozen=True)
class Sweep:
    """A sweep as it is asked for."""

    job: FineTuning
    """Of every trial, with its own options and directory in the place of these; its ``evaluated`` are the
    examples that are chosen by, its ``fresh`` those that are not."""
    recipe: Recipe
    """Likewise, with the trial's own component, rule and beta2."""
    component_options: Mapping[str, Mapping[str, float]]
    """By component."""
    space: SearchSpace
    sampler: Sampler
    n_trials: int
    keep_all: bool = False
    """Whether the adapters of all trials are kept."""

    @property
    def out(self) -> Path:
        """Where it is written."""
        return self.job.out

    def run(self) -> SweepRecord:
        """Do the trials that are not done yet.

        Raises:
            InputError: something that all trials share is wrong; where no trial is done, nothing is
                written.

        """
        record = self._begin()
        with _removed_if_refused(self.out):
            self._write(record)
            self._settle(record)
            left = max(0, self.n_trials - len(record.trials))
            per_trial = steps(self.job.options, len(self.job.examples.rows))
            with self.job.reporter.bar("trials", left * per_trial) as tick:
                while len(record.trials) < self.n_trials:
                    point = propose(self.space, self.sampler, record.trials, self.job.options.seed)
                    if point is None:
                        break
                    counted = _Counted(tick, per_trial)
                    trial = self._try(len(record.trials), point, counted)
                    counted.finish()
                    record = record.model_copy(update={"trials": [*record.trials, trial]})
                    self._write(record)
                    self._settle(record)
                    best = " (best)" * (record.best == trial)
                    self.job.reporter.say(f"{shown_point(trial)}{best}")
        write_text(self.out / PAGE, markdown(record))
        if record.best is not None:
            draw(record, self.out / FIGURE)
        if not self.keep_all:
            shutil.rmtree(self.out / TRIALS, ignore_errors=True)
        return record

    def _begin(self) -> SweepRecord:
        """The plan, or what an interrupted sweep of the same plan recorded."""
        job = self.job
        with opened_once():
            places = [open_wanted(wanted) for wanted in self.recipe.targets or (self._own(),)]
        n_allowed = sum(place.n_allowed for place in places)
        for count in self.space.select:
            if isinstance(count, int) and count > n_allowed:
                raise InputError(
                    f"--select {count} does not lie between 1 and the {n_allowed} allowed features; "
                    "choose such a number"
                )
        assert job.fresh is not None
        plan = SweepRecord(
            setting=SettingName(name=job.setting.name, fingerprint=job.setting.fingerprint),
            model=TrainedModel(name=job.setting.model.name, dtype=job.setting.model.dtype),
            options=job.options,
            component_options=self.component_options,
            places=[place.record() for place in places],
            by=self.recipe.rule.by,
            data=described(job.examples).model_copy(update={"name": job.data_name}),
            evaluated=described(job.evaluated),
            fresh=described(job.fresh),
            reference=None if self.recipe.reference is None else self.recipe.reference.fingerprint,
            space=self.space,
            sampler=self.sampler,
            n_trials=self.n_trials,
            versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
            trials=[],
        )
        if not job.resume:
            return plan
        earlier = SweepRecord.read(self.out / SWEEP)
        different = plan.differences(earlier)
        if different:
            raise InputError(
                f"{self.out} holds a sweep with another {', '.join(different)}; expected the same; "
                "repeat the interrupted command with --resume, or give another --out"
            )
        return earlier.model_copy(update={"n_trials": max(self.n_trials, len(earlier.trials))})

    def _own(self) -> Wanted:
        setting = self.job.setting
        return Wanted(setting.sae, setting.folder, self.recipe.allowed)

    def _try(self, number: int, point: Point, counted: "_Counted") -> Trial:
        """Train what a trial takes."""
        out = self._folder(number)
        own = {"learning_rate": point.learning_rate}
        if point.beta2 != AUTO:
            own["beta2"] = float(point.beta2)
        options = TrainingOptions.model_validate({**self.job.options.model_dump(), **own})
        job = replace(
            self.job,
            options=options,
            out=out,
            reporter=_Inside(self.job.reporter, counted),
            resume=False,
        )
        recipe = replace(
            self.recipe,
            component=point.component,
            component_options=self.component_options[point.component],
            rule=rule_of(point.select, self.recipe.rule.by, self.recipe.reference is not None),
            auto_beta2=point.beta2 == AUTO,
        )
        begun = time.monotonic()
        gc.collect()  # the model of the trial before
        try:
            trained = job.adapter(recipe)
        except NotFiniteError as error:
            shutil.rmtree(out, ignore_errors=True)
            return Trial(
                number=number,
                point=point,
                state="failed",
                reason=str(error).partition(";")[0],
                seconds=time.monotonic() - begun,
            )
        return _told(number, point, trained, time.monotonic() - begun)

    def _folder(self, number: int) -> Path:
        return self.out / TRIALS / f"{number:03d}"

    def _write(self, record: SweepRecord) -> None:
        record.write(self.out / SWEEP)
        write_table(self.out / TABLE, tabulate(record))

    def _settle(self, record: SweepRecord) -> None:
        """Keep the best trial's adapter, and of the others none, unless asked to: of what an interruption
        left as well.
        """
        folder, best = self.out / TRIALS, record.best
        known = {self._folder(trial.number) for trial in record.trials}
        made = self._folder(best.number) if best is not None else None
        if made is not None and made.is_dir() and not _same(made, self.out / BEST):
            shutil.rmtree(self.out / BEST, ignore_errors=True)
            if self.keep_all:
                part = folder / ".best"
                shutil.rmtree(part, ignore_errors=True)
                shutil.copytree(made, part)
                part.rename(self.out / BEST)
            else:
                made.rename(self.out / BEST)
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path not in known or not self.keep_all:
                shutil.rmtree(path)


def _same(one: Path, other: Path) -> bool:
    """Whether a directory holds the training of another."""
    records = [path / RECORD for path in (one, other)]
    return all(path.is_file() for path in records) and (
        records[0].read_bytes() == records[1].read_bytes()
    )


def _told(number: int, point: Point, trained: TrainingRecord, seconds: float) -> Trial:
    kl = None if trained.effects is None else trained.effects.kl
    return Trial(
        number=number,
        point=point,
        state="complete",
        n_features=trained.n_features,
        n_parameters=trained.n_parameters,
        n_steps=trained.n_steps,
        used_beta2=trained.beta2,
        chosen_by=trained.metrics,
        fresh=trained.fresh,
        kl=None if kl is None else kl.after,
        seconds=seconds,
    )


class _Counted:
    """Steps of a trial within the bar of the sweep."""

    def __init__(self, tick: Callable[[int], object], total: int) -> None:
        self._tick, self._left = tick, total

    def __call__(self, done: int) -> None:
        done = min(done, self._left)
        self._left -= done
        self._tick(done)

    def finish(self) -> None:
        """A trial may have stopped early."""
        self(self._left)


class _Inside(Reporter):
    """Of a trial: its steps move the sweep's bar, and it has none of its own."""

    def __init__(self, outer: Reporter, counted: _Counted) -> None:
        super().__init__(quiet=True)
        self._outer, self._counted = outer, counted

    def warn(self, text: str) -> None:
        self._outer.warn(text)

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Callable[[int], object]]:
        yield self._counted if description == "training" else lambda done: None


@contextmanager
def _removed_if_refused(out: Path) -> Iterator[None]:
    """Take back what was written where the first trial is refused."""
    there = out.exists()
    before = set(out.iterdir()) if there else set()
    try:
        yield
    except InputError:
        if SweepRecord.read(out / SWEEP).trials:
            raise
        for path in set(out.iterdir()) - before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not there:
            out.rmdir()
        raise
