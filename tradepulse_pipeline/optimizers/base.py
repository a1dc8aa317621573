"""What an optimiser is: it asks for trials and is told how they did."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.strategies.space import ParameterSpace

NO_MORE: Final[IntArray] = np.empty(0, dtype=np.int64)


class Optimizer(Protocol):
    """A method of choosing which combinations of a finite parameter space to try next.

    How many combinations it asks for at a time depends on the method alone, never on the number of workers: the same
    seed asks for the same combinations everywhere.
    """

    def ask(self) -> IntArray:
        """Return the next combinations to try, shape (n,), none of them tried before; empty when finished."""
        ...

    def tell(self, combinations: IntArray, objectives: FloatArray) -> None:
        """Take what each combination that was asked for last scored, shape (n, n_objectives), higher being better.

        An invalid trial is a row of NaN. A method that knows a single objective is asked for a single one.
        """
        ...


class Untried:
    """Keeps the trials of a search distinct.

    Methods that learn tend to propose a good combination again. Backtests have no noise, so a second look shows
    nothing new: an untried combination near it takes its place, and the budget counts parameter sets.
    """

    def __init__(self, space: ParameterSpace, rng: np.random.Generator) -> None:
        self._space: Final = space
        self._rng: Final = rng
        self._tried: Final[set[int]] = set()

    def take(self, proposal: int) -> int:
        """Return ``proposal`` or the first untried combination of a random walk from it; it counts as tried now.

        A step of the walk is one grid position of one parameter. The caller sees to it that an untried combination
        exists.
        """
        combination = proposal
        position = self._space.indices(np.array([proposal]))
        last = np.array(self._space.shape) - 1
        while combination in self._tried:
            parameter = self._rng.integers(len(last))
            step = self._rng.choice((-1, 1))
            position[0, parameter] = np.clip(position[0, parameter] + step, 0, last[parameter])
            combination = int(self._space.combinations(position)[0])
        self._tried.add(combination)
        return combination
