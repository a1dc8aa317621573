"""Bayesian optimisation: a Gaussian process over the grid positions, by scikit-optimize."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.optimizers.base import NO_MORE, Untried
from tradepulse_pipeline.strategies.space import ParameterSpace

#: Combinations asked for at a time once the process has something to learn from.
BATCH: Final = 4

#: Random points among which the maximisation of the expected improvement finds its starts.
N_STARTS: Final = 1_000


class BayesianOptimizer:
    """Asks where a Gaussian process, fitted to all trials so far, expects the largest improvement.

    The process sees each parameter's position in its grid (0, 1, 2, …), scaled to [0, 1]. It starts from a uniform
    random design of two trials per parameter and one more. Within a batch every proposal is told to the process with
    the mean objective so far as its outcome ("constant liar": Ginsbourger, Le Riche, Carraro 2010), so that the
    next proposal lies elsewhere.
    """

    def __init__(self, space: ParameterSpace, *, n_trials: int, seed: int) -> None:
        self._space: Final = space
        self._n_trials: Final = n_trials
        self._rng: Final = np.random.default_rng(seed)
        self._untried: Final = Untried(space, self._rng)
        # A parameter with one value has nothing to be searched, and scikit-optimize refuses such a dimension.
        self._searched: Final = np.flatnonzero(np.array(space.shape) > 1)
        self._combinations = NO_MORE
        self._objective: FloatArray = np.empty(0, dtype=np.float64)

    def ask(self) -> IntArray:
        """Return the random design first, then batches of proposals."""
        n_left = self._n_trials - len(self._combinations)
        if n_left == 0:
            return NO_MORE
        if not len(self._combinations):
            n_initial = min(2 * len(self._searched) + 1, n_left)
            draws = self._rng.choice(self._space.size, n_initial, replace=False)
            return np.array([self._untried.take(int(draw)) for draw in draws], dtype=np.int64)
        return self._proposals(min(BATCH, n_left))

    def tell(self, combinations: IntArray, objectives: FloatArray) -> None:
        """Remember the trials."""
        self._combinations = np.concatenate([self._combinations, combinations])
        self._objective = np.concatenate([self._objective, objectives[:, 0]])

    def _proposals(self, n: int) -> IntArray:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        costs = costs_of(self._objective)
        proposals: list[int] = []
        # The matrices are small: more threads make linear algebra slower, and its rounding depends on their number.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")  # scikit-optimize warns of its own repeats, its fits and its dependencies
            process = self._process()
            process.tell(self._points(self._combinations), costs.tolist())
            while True:
                proposals.append(self._untried.take(self._combination(process.ask())))
                if len(proposals) == n:
                    return np.array(proposals, dtype=np.int64)
                process.tell(self._points(np.array(proposals[-1:]))[0], float(costs.mean()))

    def _process(self) -> Any:
        from skopt import Optimizer
        from skopt.space import Integer
        from skopt.utils import cook_estimator

        dimensions = [Integer(0, self._space.shape[k] - 1) for k in self._searched]
        seed = int(self._rng.integers(2**31))
        estimator = cook_estimator("GP", space=dimensions, random_state=seed, n_restarts_optimizer=0)
        return Optimizer(
            dimensions,
            estimator,
            n_initial_points=1,
            acq_func="EI",
            acq_optimizer_kwargs={"n_points": N_STARTS},
            avoid_duplicates=False,  # it would put a point drawn anywhere in the place of a repeat; see Untried
            random_state=seed,
        )

    def _points(self, combinations: IntArray) -> list[list[int]]:
        points: list[list[int]] = self._space.indices(combinations)[:, self._searched].tolist()
        return points

    def _combination(self, point: list[int]) -> int:
        indices = np.zeros((1, len(self._space.shape)), dtype=np.int64)
        indices[0, self._searched] = point
        return int(self._space.combinations(indices)[0])


def costs_of(objective: FloatArray) -> FloatArray:
    """Return what the process minimises: the negated objective, and for an invalid trial more than the worst cost.

    An invalid trial costs as much more than the worst valid one as that costs more than the best. Without any valid
    trial all cost the same.

    Examples
    --------
    >>> costs_of(np.array([5.0, np.nan, -1.0])).tolist()
    [-5.0, 7.0, 1.0]
    """
    valid = objective[~np.isnan(objective)]
    if not len(valid):
        return np.zeros(len(objective))
    worst = -float(valid.min())
    spread = float(np.ptp(valid)) or max(1.0, abs(worst))
    return np.where(np.isnan(objective), worst + spread, -objective)
