"""Triple barriers: which comes first after a decision, the target, the stop or the end of the time given to it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tradepulse_pipeline.backtest.api import bars_of
from tradepulse_pipeline.backtest.kernel import Bars
from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray, IntArray

#: What came first. Unlabelled is a bar after which nothing can be entered, or whose horizon the data do not cover.
STOP_FIRST, TARGET_FIRST, TIMEOUT, UNLABELLED = range(4)


class Labels(NamedTuple):
    """What came first after each bar, and the last bar that had to be seen to know; shape (n,)."""

    label: IntArray
    end: IntArray


def triple_barrier(frame: IndicatorFrame, bar: IntArray, side: IntArray, distance: FloatArray, horizon: int) -> Labels:
    """Label bars by what follows an entry at the open of the next one.

    Two barriers lie ``distance`` above and below the entry, a third ``horizon`` bars ahead: Lopez de Prado (2018),
    Advances in Financial Machine Learning, section 3.4. As in the backtest, the stop wins where both lie in one bar,
    unless the bar opens at or beyond the target. A bar that is filled, or that no unfilled bar follows at once, is
    unlabelled, as is a distance that is not above 0.

    Parameters
    ----------
    bar, side : int64 arrays of shape (n,)
        Bars at whose close to decide, and +1 for long, -1 for short.
    distance : float64 array of shape (n,)
        Price units.
    horizon : int
        Bars, the entry bar counted.
    """
    labels = Labels(np.empty(len(bar), dtype=np.int64), np.empty(len(bar), dtype=np.int64))
    bar, side = (np.ascontiguousarray(column, dtype=np.int64) for column in (bar, side))
    _label(bars_of(frame), bar, side, np.ascontiguousarray(distance, dtype=np.float64), horizon, *labels)
    return labels


@njit(cache=True, nogil=True)
def _label(
    bars: Bars, bar: IntArray, side: IntArray, distance: FloatArray, horizon: int, label: IntArray, end: IntArray
) -> None:
    """Write label and last bar seen of each decision."""
    for i in range(bar.shape[0]):
        label[i], end[i] = _first_barrier(bars, bar[i], side[i], distance[i], horizon)


@njit(cache=True, nogil=True)
def _first_barrier(bars: Bars, j: int, side: int, distance: float, horizon: int) -> tuple[int, int]:
    """Return which barrier comes first after bar ``j``, and at which bar."""
    n_bars, entry_bar = bars.close.shape[0], j + 1
    if not distance > 0.0 or entry_bar >= n_bars or bars.is_filled[j] or bars.is_filled[entry_bar]:
        return UNLABELLED, j
    if not bars.is_adjacent[entry_bar]:
        return UNLABELLED, j
    stop = bars.open[entry_bar] - side * distance
    target = bars.open[entry_bar] + side * distance
    for k in range(entry_bar, min(entry_bar + horizon, n_bars)):
        against = bars.low[k] if side > 0 else bars.high[k]
        towards = bars.high[k] if side > 0 else bars.low[k]
        if side * (bars.open[k] - target) >= 0.0:
            return TARGET_FIRST, k
        if side * (against - stop) <= 0.0:
            return STOP_FIRST, k
        if side * (towards - target) >= 0.0:
            return TARGET_FIRST, k
    if entry_bar + horizon > n_bars:
        return UNLABELLED, j
    return TIMEOUT, entry_bar + horizon - 1
