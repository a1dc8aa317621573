"""Volume: what is usual before a bar."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from tradepulse_pipeline.indicators.frame import Indicator
from tradepulse_pipeline.market.candles import Candles, FloatArray, IntArray


def mean_volume_before(candles: Candles, n: int) -> FloatArray:
    """Return V(n, i), the mean volume of the ``n`` latest unfilled candles before bar i, shape (n_candles,).

    Base currency. NaN where fewer than ``n`` unfilled candles stand before the bar, and where the mean is 0: both
    mean that no volume can be called unusual there.
    """
    traded = ~candles.is_filled
    volume = candles.volume[traded]
    means = np.full(len(volume) + 1, np.nan)
    if len(volume) >= n:
        means[n:] = np.lib.stride_tricks.sliding_window_view(volume, n).mean(axis=1)
    n_before: IntArray = np.cumsum(traded) - traded
    usual = means[n_before]
    usual[usual == 0] = np.nan
    return usual


def mean_volume(n: int) -> Indicator:
    """Return the indicator V(n, ·)."""
    return Indicator(
        f"mean_volume_{n}", f"Mean volume of the {n} latest candles before this one.", partial(mean_volume_before, n=n)
    )


MEAN_VOLUME_20: Final = mean_volume(20)
MEAN_VOLUME_50: Final = mean_volume(50)
