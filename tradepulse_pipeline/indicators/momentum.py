"""Momentum: the relative strength index."""

from __future__ import annotations

from typing import Final

import numpy as np

from tradepulse_pipeline.indicators.frame import Indicator
from tradepulse_pipeline.indicators.volatility import wilder_average
from tradepulse_pipeline.market.candles import Candles, FloatArray

RSI_PERIOD: Final = 14


def relative_strength_index(candles: Candles) -> FloatArray:
    """Return Wilder's relative strength index over 14 candles, shape (n_candles,), 0 to 100; NaN before bar 14.

    ``100 * gain / (gain + loss)``, the Wilder averages of the rises and of the falls of the close: Wilder (1978), New
    Concepts in Technical Trading Systems. TA-Lib's convention: the first averages are the means of bars 1..14, and
    the index is 0 where the close has never moved.
    """
    change = np.diff(candles.close, prepend=np.nan)
    gain = wilder_average(np.maximum(change, 0.0), RSI_PERIOD)
    loss = wilder_average(np.maximum(-change, 0.0), RSI_PERIOD)
    movement = gain + loss
    share = np.where(np.isnan(movement), np.nan, 0.0)
    np.divide(gain, movement, out=share, where=movement > 0)
    return 100.0 * share


def _seen_from_above(index: FloatArray) -> FloatArray:
    return 100.0 - index


RSI: Final = Indicator(
    "rsi_14",
    "Relative strength index over 14 candles (Wilder), 0 to 100.",
    relative_strength_index,
    mirror=_seen_from_above,
)
