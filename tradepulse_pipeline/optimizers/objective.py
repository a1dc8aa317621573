"""The numbers that a search maximises, which trials may win at all, and which of them nothing beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.market.candles import BoolArray, FloatArray
from tradepulse_pipeline.optimizers.settings import Objective

#: The metric behind each objective.
OBJECTIVE_METRICS: Final[dict[Objective, str]] = {
    "net_profit": "net_profit",
    "sharpe": "sharpe_ratio",
    "sortino": "sortino_ratio",
    "calmar": "calmar_ratio",
    "profit_factor": "profit_factor",
    "expectancy": "expectancy_r",
    "drawdown": "max_drawdown",
}

#: Objectives whose metric is better the lower it is. What is maximised is its negative.
NEGATED: Final[frozenset[Objective]] = frozenset({"drawdown"})


def objective_values(metrics: FloatArray, *, objectives: Sequence[Objective], minimum_trades: int) -> FloatArray:
    """Return what each trial scored in each objective, higher being better; a row of NaN where the trial is invalid.

    A trial is invalid when it made fewer than ``minimum_trades`` trades or when one of its metrics is not finite. The
    latter covers a profit factor without any losing trade: it is infinite, says that the sample is too small, and
    would beat every honest figure.

    Parameters
    ----------
    metrics : float64 array of shape (n_trials, n_metrics)
        One row per trial in the order of ``Metrics``.

    Returns
    -------
    float64 array of shape (n_trials, n_objectives)
    """
    values = metrics[:, [METRIC_NAMES.index(OBJECTIVE_METRICS[objective]) for objective in objectives]]
    # Subtracted from zero, a drawdown of nothing scores 0.0 and not -0.0.
    values = np.where([objective in NEGATED for objective in objectives], 0.0 - values, values)
    is_valid = np.isfinite(values).all(axis=1) & (metrics[:, METRIC_NAMES.index("sample_size")] >= minimum_trades)
    return np.where(is_valid[:, None], values, np.nan)


def best_trial(objective: FloatArray) -> int | None:
    """Return the row of the highest objective, the first of equal ones; None when every trial is invalid."""
    if np.isnan(objective).all():
        return None
    return int(np.nanargmax(objective))


def pareto_front(objectives: FloatArray) -> BoolArray:
    """Return which trials no other trial dominates: equal ones are on the front together, invalid ones never.

    A trial dominates another one when it is at least as good in every objective and better in one of them.

    Parameters
    ----------
    objectives : float64 array of shape (n_trials, n_objectives)
        Higher is better; NaN marks an invalid trial.

    Returns
    -------
    bool array of shape (n_trials,)

    Examples
    --------
    >>> pareto_front(np.array([[3.0, -0.2], [1.0, -0.1], [2.0, -0.2], [np.nan, np.nan]])).tolist()
    [True, True, False, False]
    """
    is_on_front = np.zeros(len(objectives), dtype=np.bool_)
    left = np.flatnonzero(~np.isnan(objectives).any(axis=1))
    # From the best in the first objective down, ties by the next ones: what dominates a trial always comes before it.
    left = left[np.lexsort(-objectives[left].T[::-1])]
    while len(left):
        values = objectives[left]
        is_on_front[left[(values == values[0]).all(axis=1)]] = True
        left = left[(values > values[0]).any(axis=1)]
    return is_on_front
