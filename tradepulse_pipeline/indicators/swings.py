"""Swing lows: resting levels under the market, and the bars that pierce them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.market.candles import BoolArray, FloatArray, IntArray

#: Bars on each side that make a low a swing, and bars that must close before it is confirmed.
SWING_STRENGTH: Final = 3


class PiercedLevels(NamedTuple):
    """For each bar that trades through live levels: which levels, nearest (and highest) first.

    ``bar`` has shape (n_piercings,) and is ascending; the levels pierced at the same bar stand together, from the
    latest swing to the earliest. ``level`` is the price of the level, ``age`` the number of bars since its swing.
    """

    bar: IntArray
    level: FloatArray
    age: IntArray


def swing_lows(low: FloatArray) -> BoolArray:
    """Return where ``low`` is a swing: below the 3 lows before it and not above the 3 after it, shape (n_bars,).

    Of equal lows the first is the swing. A swing at bar k is known only after bar k + 3 has closed.
    """
    n = len(low)
    swing = np.zeros(n, dtype=np.bool_)
    if n > 2 * SWING_STRENGTH:
        middle = slice(SWING_STRENGTH, n - SWING_STRENGTH)
        swing[middle] = True
        for m in range(1, SWING_STRENGTH + 1):
            before = low[SWING_STRENGTH - m : n - SWING_STRENGTH - m]
            after = low[SWING_STRENGTH + m : n - SWING_STRENGTH + m]
            swing[middle] &= (low[middle] < before) & (low[middle] <= after)
    return swing


def pierced_levels(low: FloatArray, max_lookback: int) -> PiercedLevels:
    """Return every live level that a bar's low trades through.

    A level is live at bar s if it is the low of a swing j with ``s - max_lookback <= j <= s - 4`` and no low between
    j and s is below it.
    """
    swing = swing_lows(low)
    n = _count_piercings(low, swing, max_lookback)
    found = PiercedLevels(np.empty(n, np.int64), np.empty(n, np.float64), np.empty(n, np.int64))
    _write_piercings(low, swing, max_lookback, found.bar, found.level, found.age)
    return found


@njit(cache=True)
def _count_piercings(low: FloatArray, swing: BoolArray, max_lookback: int) -> int:
    nothing_f, nothing_i = np.empty(0, np.float64), np.empty(0, np.int64)
    return _walk_levels(low, swing, max_lookback, nothing_i, nothing_f, nothing_i)


@njit(cache=True)
def _write_piercings(
    low: FloatArray, swing: BoolArray, max_lookback: int, bar: IntArray, level: FloatArray, age: IntArray
) -> None:
    _walk_levels(low, swing, max_lookback, bar, level, age)


@njit(cache=True)
def _walk_levels(
    low: FloatArray, swing: BoolArray, max_lookback: int, bar: IntArray, level: FloatArray, age: IntArray
) -> int:
    """Count the piercings, and write them where there is room.

    The live levels form a stack: of two live swings the later cannot be lower, else it would have traded through the
    earlier. A bar's low therefore pierces a run from the stack's top, and what it pierces is live no longer.
    """
    n = low.shape[0]
    stack = np.empty(n, np.int64)
    depth = 0
    n_piercings = 0
    for s in range(n):
        confirmed = s - 1 - SWING_STRENGTH
        if confirmed >= 0 and swing[confirmed]:
            stack[depth] = confirmed
            depth += 1
        while depth > 0 and low[s] < low[stack[depth - 1]]:
            depth -= 1
            j = stack[depth]
            if s - j <= max_lookback:
                if n_piercings < bar.shape[0]:
                    bar[n_piercings] = s
                    level[n_piercings] = low[j]
                    age[n_piercings] = s - j
                n_piercings += 1
    return n_piercings
