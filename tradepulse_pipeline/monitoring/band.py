"""The band that an out-of-sample record predicts for the time after it, and whether the paper record has left it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.monitoring.paper import ROLLING_DAYS
from tradepulse_pipeline.monitoring.prediction import REACHED_BY, continuations

#: Days over which that chance is taken; a longer record has the next multiple of it.
HORIZON_DAYS: Final = 365

#: Days that a record takes to predict anything.
LEAST_DAYS: Final = 30

N_PATHS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Band:
    """Where a record that goes on as it was stays, day after day.

    Attributes
    ----------
    low, high : float64 arrays of shape (n_days,)
        Equity as a multiple of that at the start. Of the continuations, at most 2 % fall below ``low`` on any
        day of the horizon, and at most 2 % rise above ``high``.
    sharpe_floor : float
        Annual Sharpe ratio of 30 days in a row that 98 % of the continuations never fall below within the horizon.
    horizon_days : int
        Days over which these chances hold.
    """

    low: FloatArray
    high: FloatArray
    sharpe_floor: float
    horizon_days: int

    def left_below(self, equity: FloatArray) -> int | None:
        """Return the first day, from 0, on which ``equity``, shape (n_days,), lies below the band; None if none."""
        return _first(equity < self.low[: len(equity)])

    def left_above(self, equity: FloatArray) -> int | None:
        """Return the first day, from 0, on which ``equity`` lies above the band; None if none."""
        return _first(equity > self.high[: len(equity)])


def predicted_band(daily_return: FloatArray, n_days: int, *, seed: int, n_paths: int = N_PATHS) -> Band | None:
    """Return the band that a record of daily returns predicts for the ``n_days`` days after it.

    The band holds simultaneously: its two ends have, at each day, the same rank among the continuations, chosen such
    that at most 2 % of them leave through that end at any time within a year (or as many years as the days take).
    Looking every day therefore does not raise the chance of a false alarm, as it would with an interval of each day.

    Parameters
    ----------
    daily_return : float64 array of shape (n,)
        The out-of-sample record, simple returns.
    n_days : int
        Days of the paper record.
    seed : int
        Of the continuations. The same record and seed give the same band, whatever day it is asked for.

    Returns
    -------
    Band or None
        None for a record of fewer than 30 days, or one that does not vary.
    """
    if len(daily_return) < LEAST_DAYS or np.ptp(daily_return) == 0:
        return None
    horizon = max(1, -(-n_days // HORIZON_DAYS)) * HORIZON_DAYS
    returns = continuations(daily_return, horizon, n_paths=n_paths, seed=seed)
    equity: FloatArray = np.cumprod(np.maximum(1.0 + returns, 0.0), axis=1, dtype=np.float64)
    lowest = _rolling_sharpe(returns).min(axis=1)
    return Band(
        low=_lower_end(equity)[:n_days],
        high=-_lower_end(-equity)[:n_days],
        sharpe_floor=float(np.quantile(lowest, REACHED_BY)),
        horizon_days=horizon,
    )


def _lower_end(paths: FloatArray) -> FloatArray:
    """Return the highest curve of equal rank that at most ``REACHED_BY`` of the paths ever fall below."""
    from scipy.stats import rankdata

    # A path falls below the curve of position p on a day when fewer than p + 1 paths are as low or lower.
    n_as_low = rankdata(paths, method="max", axis=0)
    worst = np.sort(n_as_low.min(axis=1))
    position = int(worst[int(REACHED_BY * len(paths))]) - 1
    end: FloatArray = np.partition(paths, position, axis=0)[position]
    return end


def _rolling_sharpe(returns: FloatArray) -> FloatArray:
    """Return the annual Sharpe ratio of each 30 days in a row of each path: (n_paths, n_days - 29)."""
    from tradepulse_pipeline.backtest.metrics import DAYS_PER_YEAR, ROUNDING

    n = ROLLING_DAYS
    sums, squares = (np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1) for values in (returns, returns**2))
    mean = (sums[:, n:] - sums[:, :-n]) / n
    variance = np.maximum((squares[:, n:] - squares[:, :-n] - n * mean**2) / (n - 1), 0.0)
    varies = variance > (ROUNDING * np.abs(returns).max()) ** 2
    ratio: FloatArray = np.where(varies, mean / np.sqrt(np.where(varies, variance, 1.0)) * np.sqrt(DAYS_PER_YEAR), 0.0)
    return ratio


def _first(is_there: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int | None:
    found = np.flatnonzero(is_there)
    return int(found[0]) if len(found) else None
