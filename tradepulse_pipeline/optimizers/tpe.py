"""Tree-structured Parzen estimator, by Optuna."""

from __future__ import annotations

from typing import Final

from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.optimizers.study import DistinctStudy
from tradepulse_pipeline.strategies.space import ParameterSpace

#: Combinations asked for at a time.
BATCH: Final = 10


class TpeOptimizer:
    """Asks where good trials are dense and bad ones are rare (Bergstra et al. 2011), parameters taken jointly.

    Within a batch the trials that are still out count as bad ones, so that the next proposal lies elsewhere.
    """

    def __init__(self, space: ParameterSpace, *, n_trials: int, seed: int) -> None:
        from optuna.samplers import TPESampler

        self._n_left = n_trials
        sampler = TPESampler(seed=seed, multivariate=True, constant_liar=True)
        self._study: Final = DistinctStudy(space, sampler, seed=seed)

    def ask(self) -> IntArray:
        """Return the next batch of proposals."""
        n = min(BATCH, self._n_left)
        self._n_left -= n
        return self._study.ask(n)

    def tell(self, combinations: IntArray, objectives: FloatArray) -> None:
        """Tell the study what the last batch scored."""
        self._study.tell(objectives)
