"""Exhaustive search."""

from __future__ import annotations

from typing import Final

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray, IntArray

#: Combinations asked for at a time.
CHUNK: Final = 262_144


class GridOptimizer:
    """Asks for every combination once, in order, without ever holding them all."""

    def __init__(self, space_size: int) -> None:
        self._space_size: Final = space_size
        self._next = 0

    def ask(self) -> IntArray:
        """Return the next combinations in order."""
        first, self._next = self._next, min(self._next + CHUNK, self._space_size)
        return np.arange(first, self._next, dtype=np.int64)

    def tell(self, combinations: IntArray, objectives: FloatArray) -> None:
        """Learn nothing: every combination is tried anyway."""
