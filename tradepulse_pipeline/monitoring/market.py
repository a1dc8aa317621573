"""Measures of the market that tell whether it is still the one that was trained on, from candles alone."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY

_MS_PER_HOUR: Final = 3_600_000

#: Distances between two sets of returns take so many candles on either side.
LEAST_CANDLES: Final = 100

#: Days on which an unusual move is measured.
MOVE_DAYS: Final = 30


def kolmogorov_distance(first: FloatArray, second: FloatArray) -> float:
    """Return the largest difference between two empirical distribution functions, from 0 to 1.

    Examples
    --------
    >>> kolmogorov_distance(np.array([1.0, 2.0]), np.array([1.5, 3.0]))
    0.5
    """
    first, second = np.sort(first), np.sort(second)
    at = np.concatenate([first, second])
    shares = (np.searchsorted(values, at, side="right") / len(values) for values in (first, second))
    return float(np.abs(np.subtract(*shares)).max())


def absolute_returns(frame: IndicatorFrame) -> FloatArray:
    """Return ``|close / close before - 1|`` of each candle, NaN for the first, filled ones and those after a gap."""
    returns = np.full(len(frame), np.nan)
    returns[1:] = np.abs(frame.close[1:] / frame.close[:-1] - 1.0)
    returns[frame.is_filled | ~frame.is_adjacent] = np.nan
    return returns


def regime_distance(returns: FloatArray, reference: tuple[int, int], recent: tuple[int, int]) -> float | None:
    """Return how far the sizes of returns in two ranges of bars lie apart: their Kolmogorov distance.

    0.3 is about what separates a market from one that is 2.3 times as volatile. None with fewer than 100 returns on
    either side.

    Parameters
    ----------
    returns : float64 array of shape (n_bars,)
        Absolute returns; what is NaN is left out.
    reference, recent : pairs of int
        Half-open ranges of bars.
    """
    before, now = (part[~np.isnan(part)] for part in (returns[slice(*reference)], returns[slice(*recent)]))
    if min(len(before), len(now)) < LEAST_CANDLES:
        return None
    return kolmogorov_distance(before, now)


def volume_by_part(frame: IndicatorFrame, start: int, stop: int) -> FloatArray:
    """Return the volume of bars ``[start, stop)`` by hour of the day, or by weekday for candles of a day.

    Shape (24,) or (7,), base currency.
    """
    times = frame.open_time_ms[start:stop]
    if frame.timeframe.milliseconds < MS_PER_DAY:
        part, n_parts = times // _MS_PER_HOUR % 24, 24
    else:
        part, n_parts = times // MS_PER_DAY % 7, 7
    volume = np.bincount(part, weights=frame.volume[start:stop], minlength=n_parts)
    return volume.astype(np.float64)


def share_distance(first: FloatArray, second: FloatArray) -> float | None:
    """Return what share of one profile would have to move to make it the other's: total variation distance, 0 to 1.

    None where either holds nothing.

    Examples
    --------
    >>> share_distance(np.array([1.0, 1.0]), np.array([3.0, 1.0]))
    0.25
    """
    if first.sum() <= 0 or second.sum() <= 0:
        return None
    return float(np.abs(first / first.sum() - second / second.sum()).sum() / 2)


def daily_market_returns(frame: IndicatorFrame) -> tuple[IntArray, FloatArray]:
    """Return the UTC days with candles, and what holding the market returned on each: NaN on the first."""
    day = frame.open_time_ms // MS_PER_DAY
    is_last = np.append(np.diff(day) != 0, True)[: len(day)]
    close = frame.close[is_last]
    returns = np.full(len(close), np.nan)
    returns[1:] = close[1:] / close[:-1] - 1.0
    return day[is_last], returns


def correlation_to_market(day: IntArray, daily_return: FloatArray, frame: IndicatorFrame) -> float | None:
    """Return the correlation of a strategy's daily returns with the market's on the same days.

    None where either does not vary.
    """
    market_day, market_return = daily_market_returns(frame)
    place = np.searchsorted(market_day, day)
    other = market_return[place]
    is_there = ~np.isnan(other)
    own, other = daily_return[is_there], other[is_there]
    if len(own) < 2 or np.ptp(own) == 0 or np.ptp(other) == 0:
        return None
    # Scaled, lest the squares of an absurd move overflow.
    found = np.corrcoef(own / np.abs(own).max(), other / np.abs(other).max())[0, 1]
    return float(np.clip(found, -1.0, 1.0))


def unusual_move(frame: IndicatorFrame, bar: int) -> float | None:
    """Return the move of the 24 hours up to the close of a bar, in standard deviations of such moves before.

    Those of the 30 times 24 hours before it. None where the history is shorter, or nothing moved in it.
    """
    step = max(1, MS_PER_DAY // frame.timeframe.milliseconds)
    bars = bar - step * np.arange(MOVE_DAYS + 2)
    if bars[-1] < 0:
        return None
    close = frame.close[bars]
    moves = close[:-1] / close[1:] - 1.0
    deviation = float(np.std(moves[1:], ddof=1))
    return abs(float(moves[0])) / deviation if deviation > 0 and math.isfinite(deviation) else None
