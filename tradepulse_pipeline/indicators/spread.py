"""The bid-ask spread, estimated from candles."""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray

#: Bars that an estimate is made from.
SPREAD_WINDOW: Final = 100


def spread_estimate(frame: IndicatorFrame) -> FloatArray:
    """Return the EDGE estimate of the spread from the 100 latest bars, as a fraction of the price, shape (n_bars,).

    NaN for the first 99 bars, and where prices move too little to tell; 0 where every bar opens at the close before it,
    as simulated ones do. The size of a negative estimate counts: what asks for a small spread errs on the side of
    caution. In the mirror the spread is that of the market. Costly, and no column of the catalogue for that reason.

    Ardia, Guidotti and Kroencke (2024), Journal of Financial Economics 161, by the package ``bidask``.
    """
    if len(frame) < SPREAD_WINDOW:
        return np.full(len(frame), np.nan)
    import bidask
    import pandas as pd

    market = frame if frame.sign > 0 else frame.mirrored()
    prices = pd.DataFrame({"open": market.open, "high": market.high, "low": market.low, "close": market.close})
    with warnings.catch_warnings():
        # bidask names an argument of DataFrame.rename that pandas is going to drop.
        warnings.filterwarnings("ignore", message="The inplace keyword in DataFrame.rename")
        estimate: FloatArray = bidask.edge_rolling(prices, window=SPREAD_WINDOW).to_numpy()
    return estimate
