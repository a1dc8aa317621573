"""Trials kept in memory: what files should give back."""

from __future__ import annotations

from typing import Final

import polars as pl

from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.optimizers.search import Trials
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.trials import blocks_table, trials_table


class TrialsInMemory:
    """Keeps trials for as long as it lives, and recalls them."""

    def __init__(self, space: ParameterSpace) -> None:
        self._space: Final = space
        self._trials: Final[dict[int, list[Trials]]] = {}
        self._blocks: Final[list[pl.DataFrame]] = []

    def recall(self, window: int) -> Trials | None:
        """Return the trials of a window so far."""
        return Trials.joined(self._trials[window]) if window in self._trials else None

    def keep(self, window: int, trials: Trials) -> None:
        """Keep more trials of a window."""
        self._trials.setdefault(window, []).append(trials)

    def keep_blocks(self, combination: IntArray, sums: FloatArray, squares: FloatArray) -> None:
        """Keep the sums of daily returns and of their squares by block."""
        self._blocks.append(blocks_table(combination, sums, squares))

    def table(self) -> pl.DataFrame:
        """Return all trials, ordered by window and trial."""
        return pl.concat(
            [
                trials_table(window, 0, Trials.joined(self._trials[window]), self._space)
                for window in sorted(self._trials)
            ]
        )

    def blocks(self) -> pl.DataFrame:
        """Return the sums and squares by block of all combinations."""
        return pl.concat(self._blocks)
