"""Stretches at another scale or another hour: units that slip, volume in the wrong currency, clocks in a time zone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from tradepulse_pipeline.market.candles import Candles, FloatArray
from tradepulse_pipeline.market.quality.outliers import LEVEL_CANDLES, slipped_decimals
from tradepulse_pipeline.market.quality.surroundings import Neighbours
from tradepulse_pipeline.market.series import MS_PER_DAY

#: A price may be anywhere after this many missing candles.
LONGEST_BREAK: Final = 10

#: Candles on each side of a step in volume. Their middle 80 % must not overlap: volume drifts, units switch at once.
VOLUME_CANDLES: Final = 100
#: The smallest step in volume that is called a slip.
LEAST_VOLUME_STEP: Final = math.log(50)
#: A market that wakes up trades fifty times as much and moves more (by a factor of 3 and up in real candles); a unit
#: that slips leaves the candles' spans (high over low) as they were. Spans of a few ticks say nothing.
MOST_SPAN_CHANGE: Final = 2.0
LEAST_SPAN: Final = 3e-4

#: Candles over which returns are compared with another series, of those at least half must be in both.
CLOCK_CANDLES: Final = 2_000
MS_PER_HOUR: Final = 3_600_000
#: The time zones of the world.
LONGEST_LAG_HOURS: Final = 14
#: Correlations of returns: at the shifted hour, and at the same time. Lags by chance stay below 5 / sqrt(1000) = 0.16.
SHIFTED_CORRELATION, UNSHIFTED_CORRELATION = 0.5, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """From ``open_time_ms`` on, ``what`` is at ``factor`` times its former scale, or ``lag_hours`` late."""

    what: Literal["price", "volume", "clock"]
    open_time_ms: int
    factor: float = 1.0
    lag_hours: int = 0
    other: str = ""


def find_unit_slips(candles: Candles) -> tuple[Slip, ...]:
    """Return where price or volume step to another scale and stay there.

    A price slips by a power of ten (within 12 %) from one candle to the next, the median of seven closes on both
    sides, with no long gap between. Volume slips where the medians of 100 candles on both sides differ by a factor of
    50 or more, no more than a tenth of either side reaches the other, and the candles span as much as before.
    """
    return tuple(sorted((*_price_slips(candles), *_volume_slips(candles)), key=lambda slip: slip.open_time_ms))


def _price_slips(candles: Candles) -> list[Slip]:
    close, n = np.log(candles.close), len(candles)
    if n <= LEVEL_CANDLES:
        return []
    step = candles.timeframe.milliseconds
    is_step = (np.abs(np.diff(close)) > math.log(10) / 2) & (
        np.diff(candles.open_time_ms) <= (LONGEST_BREAK + 1) * step
    )
    found = []
    steps = np.flatnonzero(is_step) + 1
    for at in steps[n - steps > LEVEL_CANDLES // 2].tolist():  # fewer candles at the end may be a mistake in each
        change = float(np.median(close[at : at + LEVEL_CANDLES]) - np.median(close[max(at - LEVEL_CANDLES, 0) : at]))
        if slipped_decimals(change) and slipped_decimals(float(close[at] - close[at - 1])):
            found.append(Slip(what="price", open_time_ms=int(candles.open_time_ms[at]), factor=math.exp(change)))
    return found


def _volume_slips(candles: Candles) -> list[Slip]:
    traded = np.flatnonzero(candles.volume > 0)
    if len(traded) < 2 * VOLUME_CANDLES:
        return []
    volume, span = np.log(candles.volume[traded]), np.log(candles.high[traded] / candles.low[traded])
    # Windows by their first candle; those on both sides of candle t start at t - VOLUME_CANDLES and at t.
    low, middle, high, usual_span = (
        _moving_quantile(*what) for what in ((volume, 0.1), (volume, 0.5), (volume, 0.9), (span, 0.5))
    )
    before, after = slice(None, -VOLUME_CANDLES), slice(VOLUME_CANDLES, None)
    change = middle[after] - middle[before]
    is_apart = (low[after] > high[before]) | (high[after] < low[before])
    narrow, wide = np.minimum(usual_span[after], usual_span[before]), np.maximum(usual_span[after], usual_span[before])
    is_as_volatile = (narrow >= LEAST_SPAN) & (wide <= MOST_SPAN_CHANGE * narrow)
    steps = np.flatnonzero(is_apart & is_as_volatile & (np.abs(change) >= LEAST_VOLUME_STEP))
    if not len(steps):
        return []
    summed = np.append(0.0, np.cumsum(volume))
    mean = (summed[VOLUME_CANDLES:] - summed[:-VOLUME_CANDLES]) / VOLUME_CANDLES
    difference = np.abs(mean[after] - mean[before])  # largest where the step is
    found = []
    for run in np.split(steps, np.flatnonzero(np.diff(steps) > VOLUME_CANDLES) + 1):
        best = int(run[np.argmax(difference[run])])
        time = int(candles.open_time_ms[traded[best + VOLUME_CANDLES]])
        found.append(Slip(what="volume", open_time_ms=time, factor=math.exp(float(change[best]))))
    return found


def _moving_quantile(values: FloatArray, quantile: float) -> FloatArray:
    """Return the quantile of each window of ``VOLUME_CANDLES`` values, by the index of its first one."""
    from scipy.ndimage import percentile_filter

    centred: FloatArray = percentile_filter(values, 100 * quantile, size=VOLUME_CANDLES, mode="nearest")
    return centred[VOLUME_CANDLES // 2 : len(values) - VOLUME_CANDLES // 2 + 1]


def find_clock_slip(candles: Candles, neighbours: Neighbours) -> Slip | None:
    """Return the first stretch whose returns match other series some hours away and not at the same time.

    Lags are whole hours that are multiples of the timeframe. The first of ``neighbours`` that has enough candles in
    common is asked; if it shows a lag, the others are, too: with one that matches at the same time, the clock is right.
    """
    step = candles.timeframe.milliseconds
    lags = [hours for hours in range(-LONGEST_LAG_HOURS, LONGEST_LAG_HOURS + 1) if hours * MS_PER_HOUR % step == 0]
    if len(lags) == 1 or step >= MS_PER_DAY or len(candles) < CLOCK_CANDLES:
        return None
    found = None
    for name, load in neighbours.items():
        other = load()
        if len(other) < CLOCK_CANDLES:
            continue
        start = max(int(candles.open_time_ms[0]), int(other.open_time_ms[0]))
        n_blocks = (min(candles.end_ms, other.end_ms) - start) // step // CLOCK_CANDLES
        if n_blocks < 1:
            continue
        correlation = _lagged_correlations(
            candles, other, start, int(n_blocks), [h * MS_PER_HOUR // step for h in lags]
        )
        best, unshifted = correlation.argmax(axis=0), correlation[lags.index(0)]
        is_shifted = (correlation.max(axis=0) >= SHIFTED_CORRELATION) & (unshifted < UNSHIFTED_CORRELATION)
        if not is_shifted.any():
            if (unshifted >= UNSHIFTED_CORRELATION).any() or found is None:
                return None
            continue
        if found is None:
            first = int(np.argmax(is_shifted))
            time = start + first * CLOCK_CANDLES * step
            found = Slip(what="clock", open_time_ms=time, lag_hours=lags[best[first]], other=name)
    return found


def _lagged_correlations(candles: Candles, other: Candles, start_ms: int, n_blocks: int, lags: list[int]) -> FloatArray:
    """Return the correlation of returns with those of ``other`` so many candles before, of shape (n_lags, n_blocks)."""
    n = n_blocks * CLOCK_CANDLES
    one, two = _returns_on_grid(candles, start_ms, n), _returns_on_grid(other, start_ms, n)
    correlation = np.empty((len(lags), n_blocks))
    for row, lag in enumerate(lags):
        moved = np.full(n, np.nan)
        moved[max(lag, 0) : n + min(lag, 0)] = two[max(-lag, 0) : n - max(lag, 0)]
        correlation[row] = _correlations(one.reshape(n_blocks, -1), moved.reshape(n_blocks, -1))
    return correlation


def _returns_on_grid(candles: Candles, start_ms: int, n: int) -> FloatArray:
    """Return log returns at every place of the grid, NaN where a candle or the one before is missing."""
    step = candles.timeframe.milliseconds
    prices: FloatArray = np.full(n + 1, np.nan)
    places = (candles.open_time_ms - start_ms) // step + 1
    is_within = (places >= 0) & (places <= n)
    prices[places[is_within]] = np.log(candles.close[is_within])
    return np.diff(prices)


def _correlations(one: FloatArray, two: FloatArray) -> FloatArray:
    """Return the correlation of the signs and square roots of returns, row by row; 0 where too few are in common.

    Roots keep a few extreme moves from deciding alone.
    """
    is_common = np.isfinite(one) & np.isfinite(two)
    n = is_common.sum(axis=1)
    a, b = (np.where(is_common, np.sign(x) * np.sqrt(np.abs(x)), 0.0) for x in (one, two))
    power = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    is_enough = (2 * n >= one.shape[1]) & (power > 0)
    correlations: FloatArray = np.divide((a * b).sum(axis=1), power, out=np.zeros(len(n)), where=is_enough)
    return correlations
