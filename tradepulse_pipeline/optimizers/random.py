"""Random search."""

from __future__ import annotations

from typing import Final

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray, IntArray

#: Combinations asked for at a time.
CHUNK: Final = 256


class RandomOptimizer:
    """Asks for combinations drawn uniformly without replacement; with enough trials that is the whole grid."""

    def __init__(self, space_size: int, *, n_trials: int, seed: int) -> None:
        self._draws: Final[IntArray] = np.random.default_rng(seed).choice(space_size, n_trials, replace=False)
        self._next = 0

    def ask(self) -> IntArray:
        """Return the next draws."""
        first, self._next = self._next, self._next + CHUNK
        return self._draws[first : self._next]

    def tell(self, combinations: IntArray, objectives: FloatArray) -> None:
        """Learn nothing: the draws were made before."""
