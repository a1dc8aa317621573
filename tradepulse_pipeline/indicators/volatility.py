"""Volatility: true range and average true range."""

from __future__ import annotations

from typing import Final

import numpy as np

from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.indicators.frame import Indicator
from tradepulse_pipeline.market.candles import Candles, FloatArray

ATR_PERIOD: Final = 14


def true_range(candles: Candles) -> FloatArray:
    """Return the true range of each candle, shape (n_candles,), price units; NaN at bar 0.

    ``max(high - low, |high - previous close|, |low - previous close|)``: Wilder (1978), New Concepts in Technical
    Trading Systems.
    """
    ranges = np.full(len(candles), np.nan)
    high, low, previous = candles.high[1:], candles.low[1:], candles.close[:-1]
    ranges[1:] = np.maximum(high - low, np.maximum(np.abs(high - previous), np.abs(low - previous)))
    return ranges


def average_true_range(candles: Candles) -> FloatArray:
    """Return Wilder's average true range over 14 candles, shape (n_candles,), price units; NaN before bar 14.

    TA-Lib's convention: the first value is the mean of the true ranges of bars 1..14, from then on
    ``(13 * previous + true range) / 14``.
    """
    return wilder_average(true_range(candles), ATR_PERIOD)


@njit(cache=True)
def wilder_average(values: FloatArray, period: int) -> FloatArray:
    """Return Wilder's average of ``values[1:]``, shape (n,); NaN before index ``period``. ``values[0]`` is not read.

    TA-Lib's convention: the first is the mean of ``values[1..period]``, from then on
    ``((period - 1) * previous + value) / period``.
    """
    n = values.shape[0]
    average = np.full(n, np.nan)
    if n <= period:
        return average
    total = 0.0
    for i in range(1, period + 1):
        total += values[i]
    average[period] = total / period
    for i in range(period + 1, n):
        average[i] = ((period - 1) * average[i - 1] + values[i]) / period
    return average


ATR: Final = Indicator("atr_14", "Average true range over 14 candles (Wilder), in price units.", average_true_range)
