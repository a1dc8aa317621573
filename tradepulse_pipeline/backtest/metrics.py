"""Metrics of a run, from its bar-by-bar equity and its trades."""

from __future__ import annotations

from typing import Final

import numpy as np

from tradepulse_pipeline.backtest.kernel import TradeColumns
from tradepulse_pipeline.backtest.result import METRIC_NAMES, Metrics
from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY

DAYS_PER_YEAR: Final = 365.0

#: Deviations below this share of the largest value are rounding, not variation; so are drawdowns below it.
ROUNDING: Final = 1e-12

#: No metric is infinite: a return over minutes, annualised, may ask for more than a float holds.
LARGEST: Final = float(np.finfo(np.float64).max)

N_METRICS: Final = len(METRIC_NAMES)


@njit(cache=True, nogil=True)
def measure(
    trades: TradeColumns,
    n_trades: int,
    equity: FloatArray,
    open_time_ms: IntArray,
    initial_capital: float,
    days: float,
    metrics: FloatArray,
) -> None:
    """Write the metrics of one run into ``metrics``, shape (n_metrics,), in the order of ``Metrics``."""
    metrics[:] = 0.0
    n_bars = equity.shape[0]
    if n_trades == 0 or n_bars == 0:
        return
    net_profit = equity[n_bars - 1] - initial_capital
    total_return = equity[n_bars - 1] / initial_capital - 1.0
    annualized_return = -1.0
    if equity[n_bars - 1] > 0.0:
        annualized_return = min((1.0 + total_return) ** (DAYS_PER_YEAR / days) - 1.0, LARGEST)
    sharpe_ratio, sortino_ratio = daily_ratios(equity, open_time_ms, initial_capital)
    drawdown = largest_drawdown(equity, initial_capital)
    n_wins, n_gross_wins, won, lost = 0, 0, 0.0, 0.0
    r_total, adverse_total, bars_held = 0.0, 0.0, 0
    for t in range(n_trades):
        side, pnl = trades.side[t], trades.pnl[t]
        risk = side * (trades.entry_price[t] - trades.stop_price[t])
        if pnl > 0.0:
            n_wins += 1
            won += pnl
        else:
            lost += pnl
        if side * (trades.exit_price[t] - trades.entry_price[t]) > 0.0:
            n_gross_wins += 1
        r_total += pnl / (trades.quantity[t] * risk)
        adverse = side * (trades.entry_price[t] - trades.entry_bar_close[t]) / risk
        adverse_total += min(max(adverse, 0.0), 1.0)
        bars_held += trades.exit_bar[t] - trades.entry_bar[t] + 1
    profit_factor = 0.0
    if lost < 0.0:
        profit_factor = won / -lost
    elif won > 0.0:
        profit_factor = np.nan
    metrics[0] = net_profit
    metrics[1] = total_return
    metrics[2] = annualized_return
    metrics[3] = sharpe_ratio
    metrics[4] = sortino_ratio
    metrics[5] = drawdown
    metrics[6] = min(annualized_return / drawdown, LARGEST) if drawdown > ROUNDING else 0.0
    metrics[7] = n_trades
    metrics[8] = n_wins / n_trades
    metrics[9] = n_gross_wins / n_trades
    metrics[10] = won / n_wins if n_wins > 0 else 0.0
    metrics[11] = lost / (n_trades - n_wins) if n_wins < n_trades else 0.0
    metrics[12] = profit_factor
    metrics[13] = r_total / n_trades
    metrics[14] = bars_held / n_trades
    metrics[15] = bars_held / n_bars
    metrics[16] = adverse_total / n_trades
    metrics[17] = 1.0  # every order of the bar model is filled


@njit(cache=True, nogil=True)
def daily_returns(equity: FloatArray, open_time_ms: IntArray, initial_capital: float) -> FloatArray:
    """Return the returns of UTC days, shape (n_days,): equity at a day's last candle over that of the day before.

    A candle belongs to the day of its open time; a day without candles has no return; the first day is measured
    against ``initial_capital``. A return on equity that is spent (at or below 0) is 0.
    """
    n_bars = equity.shape[0]
    returns = np.empty(n_bars, np.float64)
    n_days = 0
    before = initial_capital
    for k in range(n_bars):
        is_last_of_day = k == n_bars - 1 or open_time_ms[k + 1] // MS_PER_DAY != open_time_ms[k] // MS_PER_DAY
        if is_last_of_day:
            returns[n_days] = equity[k] / before - 1.0 if before > 0.0 else 0.0
            before = equity[k]
            n_days += 1
    return returns[:n_days].copy()


@njit(cache=True, nogil=True)
def daily_ratios(equity: FloatArray, open_time_ms: IntArray, initial_capital: float) -> tuple[float, float]:
    """Return Sharpe and Sortino ratio of the daily returns, annualised with 365 days, risk-free rate 0."""
    returns = daily_returns(equity, open_time_ms, initial_capital)
    n_days = returns.shape[0]
    mean = 0.0
    for value in returns:
        mean += value
    mean /= n_days
    squares, downside, largest = 0.0, 0.0, 0.0
    for value in returns:
        squares += (value - mean) ** 2
        downside += min(value, 0.0) ** 2
        largest = max(largest, abs(value))
    sharpe_ratio = 0.0
    if n_days > 1:
        deviation = np.sqrt(squares / (n_days - 1))
        if deviation > ROUNDING * largest:
            sharpe_ratio = mean / deviation * np.sqrt(DAYS_PER_YEAR)
    sortino_ratio = 0.0
    downside_deviation = np.sqrt(downside / n_days)
    if downside_deviation > ROUNDING * largest:
        sortino_ratio = mean / downside_deviation * np.sqrt(DAYS_PER_YEAR)
    return sharpe_ratio, sortino_ratio


@njit(cache=True, nogil=True)
def largest_drawdown(equity: FloatArray, initial_capital: float) -> float:
    """Return the largest fall below the running maximum, as a fraction of it."""
    peak, worst = initial_capital, 0.0
    for value in equity:
        peak = max(peak, value)
        worst = max(worst, 1.0 - value / peak)
    return worst


def as_metrics(row: FloatArray) -> Metrics:
    """Name the values of one row of metrics."""
    return Metrics._make(float(value) for value in row)
