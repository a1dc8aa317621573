"""What the market was like at a bar: measures known at its close, ranked against the past alone."""

from __future__ import annotations

from typing import Final

import numpy as np

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.indicators.volatility import average_true_range
from tradepulse_pipeline.indicators.volume import mean_volume_before
from tradepulse_pipeline.market.candles import Candles, FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY

#: Thirds of what a measure was in the past.
THIRDS: Final = ("low", "middle", "high")

#: The past that a value is ranked in, and the fewest values of it for a rank.
LOOKBACK_DAYS: Final = 90
LEAST_HISTORY: Final = 100

TREND_BARS: Final = 200
VOLUME_BARS: Final = 20


def atr_of(frame: IndicatorFrame) -> FloatArray:
    """Return the average true range of a frame, whatever indicators it has; shape (n_bars,), price units."""
    return average_true_range(candles_of(frame))


def volatility(frame: IndicatorFrame) -> FloatArray:
    """Return ATR / close, shape (n_bars,); NaN where the ATR is undefined."""
    return atr_of(frame) / frame.close


def trend(frame: IndicatorFrame) -> FloatArray:
    """Return how far the close lies above its mean over 200 bars, in ATR; shape (n_bars,).

    NaN where either is undefined or the ATR is 0.
    """
    mean = np.full(len(frame), np.nan)
    if len(frame) >= TREND_BARS:
        windows = np.lib.stride_tricks.sliding_window_view(frame.close, TREND_BARS)
        mean[TREND_BARS - 1 :] = windows.mean(axis=1)
    atr = atr_of(frame)
    atr[atr == 0] = np.nan
    above: FloatArray = (frame.close - mean) / atr
    return above


def volume_multiple(frame: IndicatorFrame) -> FloatArray:
    """Return volume over the mean of the 20 bars before, shape (n_bars,); NaN where that is undefined.

    Stands for the strength of a signal: decisions carry none, and every strategy looks for unusual volume.
    """
    return frame.volume / mean_volume_before(candles_of(frame), VOLUME_BARS)


def thirds(values: FloatArray, open_time_ms: IntArray, bars: IntArray) -> IntArray:
    """Return in which third of its own past the value at each of ``bars`` lies: 0 to 2, and 3 where that is unknown.

    The past of bar t is the 90 days before it, t left out; equal values count half. A threshold therefore never knows
    what came after. Unknown is a value that is undefined or has fewer than 100 defined ones before it.

    Parameters
    ----------
    values : float64 array of shape (n_bars,)
    open_time_ms : int64 array of shape (n_bars,)
    bars : int64 array of shape (n,)
    """
    found = np.full(len(bars), len(THIRDS), dtype=np.int64)
    first = np.searchsorted(open_time_ms, open_time_ms[bars] - LOOKBACK_DAYS * MS_PER_DAY)
    for i, t in enumerate(bars.tolist()):
        past = values[first[i] : t]
        n_below, n_equal = np.count_nonzero(past < values[t]), np.count_nonzero(past == values[t])
        n_past = np.count_nonzero(past == past)
        if n_past >= LEAST_HISTORY and not np.isnan(values[t]):
            found[i] = min(int(len(THIRDS) * (n_below + 0.5 * n_equal) / n_past), len(THIRDS) - 1)
    return found


def candles_of(frame: IndicatorFrame) -> Candles:
    """Return the candles of a frame that shows the market as it is, not mirrored."""
    columns = (frame.open, frame.high, frame.low, frame.close, frame.volume, frame.is_filled, frame.calendar)
    return Candles(frame.timeframe, frame.open_time_ms, *columns)
