"""The number that a search maximises, and which trials may win at all."""

from __future__ import annotations

from typing import Final

import numpy as np

from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.optimizers.settings import Objective

#: The metric behind each objective.
OBJECTIVE_METRICS: Final[dict[Objective, str]] = {
    "net_profit": "net_profit",
    "sharpe": "sharpe_ratio",
    "sortino": "sortino_ratio",
    "calmar": "calmar_ratio",
    "profit_factor": "profit_factor",
    "expectancy": "expectancy_r",
}


def objective_values(metrics: FloatArray, *, objective: Objective, minimum_trades: int) -> FloatArray:
    """Return what each trial scored, NaN where the trial is invalid.

    A trial is invalid when it made fewer than ``minimum_trades`` trades or when its metric is not finite. The latter
    covers a profit factor without any losing trade: it is infinite, says that the sample is too small, and would
    beat every honest figure.

    Parameters
    ----------
    metrics : float64 array of shape (n_trials, n_metrics)
        One row per trial in the order of ``Metrics``.

    Returns
    -------
    float64 array of shape (n_trials,)
    """
    values = metrics[:, METRIC_NAMES.index(OBJECTIVE_METRICS[objective])]
    is_valid = np.isfinite(values) & (metrics[:, METRIC_NAMES.index("sample_size")] >= minimum_trades)
    return np.where(is_valid, values, np.nan)


def best_trial(objective: FloatArray) -> int | None:
    """Return the row of the highest objective, the first of equal ones; None when every trial is invalid."""
    if np.isnan(objective).all():
        return None
    return int(np.nanargmax(objective))
