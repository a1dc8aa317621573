"""Genetic evolution: NSGA-II with one objective or several, by Optuna."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.optimizers.base import NO_MORE
from tradepulse_pipeline.optimizers.study import DistinctStudy
from tradepulse_pipeline.strategies.space import ParameterSpace

#: Valid trials of a generation.
POPULATION: Final = 30

#: Of the first generation, how many may be given; the others are drawn, so that there is something to choose from.
MOST_GIVEN: Final = POPULATION // 2


class GeneticOptimizer:
    """Breeds each generation from the best half of the two before it (Deb et al. 2002): crossover and mutation.

    With several objectives the best are the Pareto front, then the front of what is left, and so on; of the last front
    that finds room, the trials furthest from their neighbours, so that the population spreads along it.

    The first generation starts with the combinations in ``initial`` and goes on with random ones. An invalid trial has
    no place in its generation: what a batch lacks to a whole population is asked for in the next one.

    Raises
    ------
    InvalidInputError
        If ``initial`` has a combination that ``space`` does not have.
    """

    def __init__(
        self, space: ParameterSpace, *, n_trials: int, seed: int, n_objectives: int = 1, initial: IntArray = NO_MORE
    ) -> None:
        from optuna.samplers import NSGAIISampler

        if strange := [combination for combination in initial.tolist() if not 0 <= combination < space.size]:
            raise InvalidInputError(
                f"initial: found combinations {strange}, the grid has 0 to {space.size - 1:,}. It has changed since."
            )
        self._n_left = n_trials
        self._n_missing = POPULATION
        sampler = NSGAIISampler(population_size=POPULATION, seed=seed)
        self._study: Final = DistinctStudy(space, sampler, seed=seed, n_objectives=n_objectives, initial=initial)

    def ask(self) -> IntArray:
        """Return a generation, or what it still lacks of valid trials."""
        n = min(self._n_missing, self._n_left)
        self._n_left -= n
        return self._study.ask(n)

    def tell(self, combinations: IntArray, objectives: FloatArray) -> None:
        """Tell the study what the last batch scored."""
        self._study.tell(objectives)
        self._n_missing -= int(np.isfinite(objectives).all(axis=1).sum())
        if self._n_missing == 0:
            self._n_missing = POPULATION


def initial_combinations(space: ParameterSpace, parameters: Iterable[Mapping[str, object]]) -> tuple[int, ...]:
    """Return the combinations of the first ``MOST_GIVEN`` different parameter sets that are on the grid."""
    found = dict.fromkeys(space.combination_of(values) for values in parameters)
    return tuple(combination for combination in found if combination is not None)[:MOST_GIVEN]
