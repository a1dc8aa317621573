"""Tree-structured Parzen estimator, by Optuna."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.optimizers.base import Untried
from tradepulse_pipeline.strategies.space import ParameterSpace

#: Combinations asked for at a time.
BATCH: Final = 10


class TpeOptimizer:
    """Asks where good trials are dense and bad ones are rare (Bergstra et al. 2011), parameters taken jointly.

    Trials are points of integer grid positions. Within a batch the trials that are still out count as bad ones, so
    that the next proposal lies elsewhere. Invalid trials are told as failed: the estimator leaves them out.
    """

    def __init__(self, space: ParameterSpace, *, n_trials: int, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space: Final = space
        self._n_left = n_trials
        self._untried: Final = Untried(space, np.random.default_rng(seed))
        self._distributions: Final[dict[str, optuna.distributions.BaseDistribution]] = {
            parameter.name: optuna.distributions.IntDistribution(0, len(parameter.grid) - 1)
            for parameter in space.parameters
        }
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        self._study: Final = optuna.create_study(direction="maximize", sampler=sampler)
        self._out: list[Any] = []

    def ask(self) -> IntArray:
        """Return the next batch of proposals."""
        n = min(BATCH, self._n_left)
        self._n_left -= n
        return np.array([self._propose() for _ in range(n)], dtype=np.int64)

    def tell(self, combinations: IntArray, objective: FloatArray) -> None:
        """Tell the study what the last batch scored."""
        from optuna.trial import TrialState

        for trial, value in zip(self._out, objective, strict=True):
            if np.isnan(value):
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, float(value))
        self._out = []

    def _propose(self) -> int:
        from optuna.trial import TrialState

        trial = self._study.ask(self._distributions)
        proposal = self._combination(trial)
        combination = self._untried.take(proposal)
        if combination != proposal:
            self._study.tell(trial, state=TrialState.FAIL)
            position = self._space.indices(np.array([combination]))[0].tolist()
            self._study.enqueue_trial(dict(zip(self._distributions, position, strict=True)))
            trial = self._study.ask(self._distributions)
        self._out.append(trial)
        return combination

    def _combination(self, trial: Any) -> int:
        position = np.array([[trial.params[name] for name in self._distributions]], dtype=np.int64)
        return int(self._space.combinations(position)[0])
