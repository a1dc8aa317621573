"""The driver of every search: ask, evaluate, tell, until the budget is spent or the time is over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.errors import SearchLimitError
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.optimizers.base import NO_MORE, Optimizer
from tradepulse_pipeline.optimizers.bayesian import BayesianOptimizer
from tradepulse_pipeline.optimizers.deadline import Deadline
from tradepulse_pipeline.optimizers.genetic import GeneticOptimizer
from tradepulse_pipeline.optimizers.grid import GridOptimizer
from tradepulse_pipeline.optimizers.objective import best_trial, objective_values
from tradepulse_pipeline.optimizers.pace import Pace
from tradepulse_pipeline.optimizers.random import RandomOptimizer
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.optimizers.tpe import TpeOptimizer
from tradepulse_pipeline.progress import Progress, ProgressListener, ignore_progress
from tradepulse_pipeline.strategies.space import ParameterSpace

if TYPE_CHECKING:
    from tradepulse_pipeline.backtest.evaluators import Evaluator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trials:
    """Trials of one search, in the order in which they were made.

    Attributes
    ----------
    combination : int64 array of shape (n_trials,)
    metrics : float64 array of shape (n_trials, n_metrics), in the order of ``Metrics``
    objective : float64 array of shape (n_trials,)
        The one that chooses, NaN for an invalid trial. What a trial scored in further ones, its metrics tell.
    """

    combination: IntArray
    metrics: FloatArray
    objective: FloatArray

    @classmethod
    def none(cls) -> Self:
        """Return no trials."""
        return cls(combination=NO_MORE, metrics=np.empty((0, len(METRIC_NAMES))), objective=np.empty(0))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the trials of all ``parts``, one after the other."""
        if len(parts) == 1:
            return parts[0]
        every = [cls.none(), *parts]
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in every]) for name in cls.__dataclass_fields__}
        )

    def take(self, rows: IntArray | slice) -> Self:
        """Return the trials of some rows, in that order."""
        return type(self)(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    def __len__(self) -> int:
        return len(self.combination)

    @property
    def best(self) -> int | None:
        """Row of the best valid trial, the first of equal ones; None when there is no valid trial."""
        return best_trial(self.objective)


def search(
    evaluator: Evaluator,
    window: BarRange,
    settings: SearchSettings,
    *,
    deadline: Deadline,
    on_progress: ProgressListener = ignore_progress,
    initial: IntArray = NO_MORE,
) -> Trials:
    """Return all trials of ``search_batches`` together."""
    return Trials.joined(
        list(
            search_batches(
                evaluator, window, settings, deadline=deadline, pace=Pace(), on_progress=on_progress, initial=initial
            )
        )
    )


def search_batches(
    evaluator: Evaluator,
    window: BarRange,
    settings: SearchSettings,
    *,
    deadline: Deadline,
    pace: Pace,
    on_progress: ProgressListener = ignore_progress,
    initial: IntArray = NO_MORE,
) -> Iterator[Trials]:
    """Search the evaluator's space over the bars of ``window``; yield the trials as they are made.

    The pace says how many are evaluated between two looks at the deadline; no trial depends on it. A genetic search
    starts from the combinations in ``initial``.

    Raises
    ------
    SearchLimitError
        If it would make more trials than ``max_combinations``; nothing has been evaluated then.
    """
    check_limit(evaluator.space, settings)
    optimizer = make_optimizer(evaluator.space, settings, initial)
    planned = settings.planned_trials(evaluator.space.size)
    done, best = 0, -np.inf
    while not deadline.has_passed and len(batch := optimizer.ask()):
        scored: list[FloatArray] = []
        for part in pace.parts(batch):
            if scored and deadline.has_passed:
                return
            metrics = evaluator.evaluate(part, window)
            objectives = objective_values(
                metrics, objectives=settings.objectives, minimum_trades=settings.minimum_trades
            )
            scored.append(objectives)
            objective = objectives[:, 0]
            done += len(part)
            best = max(best, float(np.nanmax(objective, initial=-np.inf)))
            on_progress(
                Progress(
                    phase="search",
                    done=done,
                    total=planned,
                    unit="trials",
                    best=best if np.isfinite(best) else None,
                    measure=settings.objective.replace("_", " "),
                )
            )
            yield Trials(combination=part, metrics=metrics, objective=objective)
        optimizer.tell(batch, np.concatenate(scored))


def check_limit(space: ParameterSpace, settings: SearchSettings) -> None:
    """Refuse a search that would make more trials than it may.

    Raises
    ------
    SearchLimitError
        If so; the message gives its size and the limit.
    """
    if settings.method == "auto":
        return  # a grid beyond the limit is not chosen
    planned = settings.planned_trials(space.size)
    if planned > settings.max_combinations:
        raise SearchLimitError(
            f"The {settings.method} search would try {planned:,} combinations; the limit max_combinations is "
            f"{settings.max_combinations:,}. Take a method with a budget (random, bayesian, tpe, genetic), a "
            "smaller budget, or raise the limit."
        )


def make_optimizer(space: ParameterSpace, settings: SearchSettings, initial: IntArray = NO_MORE) -> Optimizer:
    """Return the optimiser that ``settings`` name, at its start; ``initial`` is for a genetic one."""
    if settings.method == "grid":
        return GridOptimizer(space.size)
    n_trials = settings.planned_trials(space.size)
    if settings.method == "random":
        return RandomOptimizer(space.size, n_trials=n_trials, seed=settings.seed)
    if settings.method == "bayesian":
        return BayesianOptimizer(space, n_trials=n_trials, seed=settings.seed)
    if settings.method == "genetic":
        n_objectives = len(settings.objectives)
        return GeneticOptimizer(
            space, n_trials=n_trials, seed=settings.seed, n_objectives=n_objectives, initial=initial
        )
    return TpeOptimizer(space, n_trials=n_trials, seed=settings.seed)
