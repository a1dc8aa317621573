"""A last candle that was cut off while it was running."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tradepulse_pipeline.market.candles import Candles, FloatArray, IntArray
from tradepulse_pipeline.market.quality.surroundings import Neighbours
from tradepulse_pipeline.market.sources.times import iso_utc

#: Volumes of the same span that differ by more are not of the same trades. Sums of floats differ by far less.
VOLUME_TOLERANCE: Final = 1e-3
#: Spans before that must agree, so that a difference in the last one means something.
AGREEING_SPANS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """The last candle holds less than another series of the same market has for its time.

    Volumes and closes are those of the span from ``start_ms`` that the longer of the two timeframes covers.
    """

    open_time_ms: int
    other: str
    start_ms: int
    volume: float
    other_volume: float
    close: float
    other_close: float

    @property
    def sentence(self) -> str:
        """What a person should know."""
        return (
            f"The last candle, of {iso_utc(self.open_time_ms)}, is likely unfinished: from {iso_utc(self.start_ms)} on "
            f"the volume is {self.volume:g} and the close {self.close:g}, but {self.other_volume:g} and "
            f"{self.other_close:g} in {self.other}. Fetch or import it again."
        )


def find_unfinished(candles: Candles, timeframes: Neighbours) -> Unfinished | None:
    """Return whether the last candle is unfinished, if another timeframe of the market shows it.

    That is so where the longer candles of the last ``AGREEING_SPANS`` spans before have the summed volume of the
    shorter ones, and in the last one ours have less.
    """
    if not len(candles):
        return None
    for name, load in timeframes.items():
        other = load()
        step, other_step = candles.timeframe.milliseconds, other.timeframe.milliseconds
        longest = max(step, other_step)
        if not len(other) or longest % min(step, other_step) or step == other_step:
            continue
        start = int(candles.open_time_ms[-1]) // longest * longest
        if candles.end_ms != start + longest or other.end_ms < candles.end_ms:
            continue  # the two do not end together, so that a candle more would explain the difference
        starts = start - longest * np.arange(AGREEING_SPANS, -1, -1)
        ours, theirs = _volumes(candles, starts, longest), _volumes(other, starts, longest)
        agree = np.isclose(ours[:-1], theirs[:-1], rtol=VOLUME_TOLERANCE, atol=0.0)
        if agree.all() and ours[-1] < theirs[-1] * (1 - VOLUME_TOLERANCE):
            last = int(np.searchsorted(other.open_time_ms, candles.end_ms)) - 1
            return Unfinished(
                open_time_ms=int(candles.open_time_ms[-1]),
                other=name,
                start_ms=start,
                volume=float(ours[-1]),
                other_volume=float(theirs[-1]),
                close=float(candles.close[-1]),
                other_close=float(other.close[last]),
            )
    return None


def _volumes(candles: Candles, starts: IntArray, span: int) -> FloatArray:
    summed = np.append(0.0, np.cumsum(candles.volume))
    first, last = (np.searchsorted(candles.open_time_ms, times) for times in (starts, starts + span))
    volumes: FloatArray = summed[last] - summed[first]
    return volumes
