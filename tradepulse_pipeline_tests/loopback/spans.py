"""What the venues share that answer with the candles of a span, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import Market, SeriesKey, Timeframe

Query = Mapping[str, str]
Series = Mapping[SeriesKey, Candles]
Rows = list[Any]
#: Status, reply and the list in the reply that holds the candles.
Answer = tuple[int, object, Rows]


def markets_of(series: Series, exchange: str) -> list[Market]:
    """Return what an exchange trades."""
    return sorted({key.market for key in series if key.exchange == exchange})


def candles_of(series: Series, market: Market, timeframe: str) -> Candles | None:
    """Return a series; daily candles are made from the shortest ones where there are none."""
    at_hand = {key.timeframe: candles for key, candles in series.items() if key.market == market}
    if not at_hand or timeframe not in {"1d", *map(str, at_hand)}:
        return None
    wanted = Timeframe(timeframe)
    return at_hand[wanted] if wanted in at_hand else daily(at_hand[min(at_hand, key=lambda one: one.minutes)])


def daily(candles: Candles) -> Candles:
    """Return the candles of whole days."""
    day = Timeframe("1d")
    days = candles.open_time_ms // day.milliseconds
    first = np.flatnonzero(np.diff(days, prepend=-1))
    last = np.append(first[1:], len(candles)) - 1
    return Candles.from_arrays(
        day,
        days[first] * day.milliseconds,
        candles.open[first],
        np.maximum.reduceat(candles.high, first),
        np.minimum.reduceat(candles.low, first),
        candles.close[last],
        np.add.reduceat(candles.volume, first),
    )
