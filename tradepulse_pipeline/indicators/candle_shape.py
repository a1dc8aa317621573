"""The shape of a candle: where in its range it closes."""

from __future__ import annotations

from typing import Final

import numpy as np

from tradepulse_pipeline.indicators.frame import Indicator
from tradepulse_pipeline.market.candles import Candles, FloatArray


def close_location_value(candles: Candles) -> FloatArray:
    """Return the close location value of each candle, shape (n_candles,): 0 at the low, 1 at the high.

    ``(close - low) / (high - low)``, 0.5 where high equals low.
    """
    height = candles.high - candles.low
    location = np.full(len(candles), 0.5)
    np.divide(candles.close - candles.low, height, out=location, where=height > 0)
    return location


def _seen_from_the_high(location: FloatArray) -> FloatArray:
    return 1.0 - location


CLOSE_LOCATION: Final = Indicator(
    "close_location",
    "Where in its range the candle closes: 0 at the low, 1 at the high.",
    close_location_value,
    mirror=_seen_from_the_high,
)
