"""Candles of a longer timeframe from those of a shorter one."""

from __future__ import annotations

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import Candles, IntArray
from tradepulse_pipeline.market.series import Timeframe


def span_starts(time_ms: IntArray, timeframe: Timeframe) -> IntArray:
    """Return the indices at which ascending times enter another candle of ``timeframe``, the first index included.

    Examples
    --------
    >>> span_starts(np.array([0, 59_999, 60_000, 200_000]), Timeframe("1m")).tolist()
    [0, 2, 3]
    """
    return np.flatnonzero(np.diff(time_ms // timeframe.milliseconds, prepend=-1))


def resample(
    candles: Candles, timeframe: Timeframe, *, start_ms: int | None = None, end_ms: int | None = None
) -> Candles:
    """Return the candles of a longer timeframe: first open, highest high, lowest low, last close, summed volume.

    Spans are closed on the left, labelled by their left end and aligned to UTC days, as exchanges do. A longer candle
    is made only where its whole span is covered by ``[start_ms, end_ms)``, so that a history that begins or ends in
    the middle of a span makes no candle that the exchange does not have. Within the covered time a candle that is
    missing, or was only filled forward, stands for 'no trade': the longer candle is made of those that there are, and
    is absent where there is none.

    Parameters
    ----------
    candles : Candles
        Candles of a timeframe that divides ``timeframe``.
    timeframe : Timeframe
        The span of the candles to make; the same timeframe as that of ``candles`` only drops what was filled.
    start_ms, end_ms : int or None
        The time that the candles are known to cover, in UTC milliseconds; None for the open time of the first candle
        and the close time of the last.

    Raises
    ------
    InvalidInputError
        If ``timeframe`` is not a multiple of the candles' own.
    """
    if timeframe.milliseconds % candles.timeframe.milliseconds:
        raise InvalidInputError(
            f"{candles.timeframe} candles cannot be resampled to {timeframe}: expected a multiple of "
            f"{candles.timeframe}."
        )
    if len(candles):
        step = timeframe.milliseconds
        start = int(candles.open_time_ms[0]) if start_ms is None else start_ms
        end = candles.end_ms if end_ms is None else end_ms
        candles = candles.between(-(-start // step) * step, end // step * step)
    kept = np.flatnonzero(~candles.is_filled)
    starts = span_starts(candles.open_time_ms[kept], timeframe)
    first = kept[starts]
    if not len(first):
        return Candles.joined(timeframe, [])
    last = kept[np.append(starts[1:], len(kept)) - 1]
    return Candles.from_arrays(
        timeframe,
        candles.open_time_ms[first] // timeframe.milliseconds * timeframe.milliseconds,
        candles.open[first],
        np.maximum.reduceat(candles.high[kept], starts),
        np.minimum.reduceat(candles.low[kept], starts),
        candles.close[last],
        np.add.reduceat(candles.volume[kept], starts),
    )
