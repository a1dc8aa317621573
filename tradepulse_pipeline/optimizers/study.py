"""An Optuna study over a parameter space, as its samplers need it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.optimizers.base import NO_MORE, Untried
from tradepulse_pipeline.strategies.space import ParameterSpace

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class DistinctStudy:
    """Asks for the combinations in ``initial``, then a sampler for trials, all different.

    Trials are points of integer grid positions. A repeat is told as failed, and an untried combination near it takes
    its place. Invalid trials are told as failed too: samplers leave them out.
    """

    def __init__(
        self,
        space: ParameterSpace,
        sampler: BaseSampler,
        *,
        seed: int,
        n_objectives: int = 1,
        initial: IntArray = NO_MORE,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space: Final = space
        self._untried: Final = Untried(space, np.random.default_rng(seed))
        self._distributions: Final[dict[str, optuna.distributions.BaseDistribution]] = {
            parameter.name: optuna.distributions.IntDistribution(0, len(parameter.grid) - 1)
            for parameter in space.parameters
        }
        self._study: Final = optuna.create_study(directions=["maximize"] * n_objectives, sampler=sampler)
        self._initial: Final = deque(initial.tolist())
        self._out: list[Any] = []

    def ask(self, n: int) -> IntArray:
        """Return the next ``n`` combinations; the caller sees to it that so many are untried."""
        return np.array([self._propose() for _ in range(n)], dtype=np.int64)

    def tell(self, objectives: FloatArray) -> None:
        """Tell the sampler what the combinations that were asked for last scored, shape (n, n_objectives).

        A row with NaN marks an invalid trial.
        """
        from optuna.trial import TrialState

        for trial, values in zip(self._out, objectives, strict=True):
            if np.isnan(values).any():
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, values.tolist())
        self._out = []

    def _propose(self) -> int:
        from optuna.trial import TrialState

        if self._initial:
            combination = self._untried.take(self._initial.popleft())
            self._out.append(self._trial_of(combination))
            return combination
        trial = self._study.ask(self._distributions)
        proposal = self._combination(trial)
        combination = self._untried.take(proposal)
        if combination != proposal:
            self._study.tell(trial, state=TrialState.FAIL)
            trial = self._trial_of(combination)
        self._out.append(trial)
        return combination

    def _trial_of(self, combination: int) -> Any:
        position = self._space.indices(np.array([combination]))[0].tolist()
        self._study.enqueue_trial(dict(zip(self._distributions, position, strict=True)))
        return self._study.ask(self._distributions)

    def _combination(self, trial: Any) -> int:
        position = np.array([[trial.params[name] for name in self._distributions]], dtype=np.int64)
        return int(self._space.combinations(position)[0])
