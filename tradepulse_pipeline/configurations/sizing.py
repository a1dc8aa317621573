"""How large a position a configuration's evidence allows."""

from __future__ import annotations

from typing import Final

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.validation.lifecycle import Stage

#: Stages in which anything is known about the mean trade.
_SIZED_STAGES: Final[tuple[Stage, ...]] = ("VALIDATION", "MATURE")

#: Share of the full Kelly bet.
KELLY_SHARE: Final = 0.25

N_RESAMPLES: Final = 10_000


def kelly_fraction(trade_returns: FloatArray, stage: Stage, *, seed: int) -> float:
    """Return ``0.25 * max(0, m / s^2)``, a cautious share of the Kelly bet; 0 outside VALIDATION and MATURE.

    m is the lower 5 % bound of the mean trade return by the percentile bootstrap (Efron 1979; 10,000 resamples of the
    trades), s^2 the variance of the trade returns (ddof 1). 0 where the returns do not vary.

    Parameters
    ----------
    trade_returns : float64 array of shape (n_trades,)
        Result of each trade as a fraction of the equity before it.
    """
    if stage not in _SIZED_STAGES or len(trade_returns) < 2:
        return 0.0
    variance = float(np.var(trade_returns, ddof=1))
    if variance <= (1e-12 * float(np.abs(trade_returns).max())) ** 2:
        return 0.0
    return KELLY_SHARE * max(0.0, mean_lower_bound(trade_returns, seed=seed) / variance)


def mean_lower_bound(values: FloatArray, *, seed: int, probability: float = 0.05) -> float:
    """Return the ``probability`` quantile of the means of bootstrap resamples of ``values``."""
    rng = np.random.default_rng(seed)
    n = len(values)
    means = np.array([values[rng.integers(0, n, n)].mean() for _ in range(N_RESAMPLES)])
    return float(np.quantile(means, probability))
