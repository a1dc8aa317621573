"""The engine's front: one run with given decisions or parameters, and the metrics of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from tradepulse_pipeline.backtest.kernel import (
    TARGET_NONE,
    TARGET_PRICE,
    TARGET_R,
    Account,
    Bars,
    DecisionColumns,
    ExitRule,
    TradeColumns,
    simulate,
)
from tradepulse_pipeline.backtest.metrics import N_METRICS, as_metrics, measure
from tradepulse_pipeline.backtest.result import TAKE_PROFIT, BacktestResult, Metrics, Trades
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.strategies.base import SignalSource, Strategy
from tradepulse_pipeline.strategies.decisions import Decisions, Exits, Side

_TARGET_RULES: Final = {"none": TARGET_NONE, "r": TARGET_R, "price": TARGET_PRICE}


def run_backtest(
    frame: IndicatorFrame,
    decisions: Decisions,
    exits: Exits,
    account: AccountSettings,
    window: BarRange | None = None,
    *,
    initial_capital: float | None = None,
) -> BacktestResult:
    """Run ``decisions`` over the bars of ``window`` (all bars without one), one position at a time.

    Parameters
    ----------
    frame : IndicatorFrame
        The market as it is, not mirrored.
    window : BarRange, optional
        Signals before it are not taken; what is open at its last bar is closed there. Trades carry bars of ``frame``;
        the equity curve has one value per bar of the window.
    initial_capital : float, optional
        Equity at the start where it is another than the account's, as in a chain of runs.

    Raises
    ------
    InvalidInputError
        If the window is empty or lies outside the frame, or the decisions are not in bar order.
    """
    start, stop = checked_window(window, frame)
    if (np.diff(decisions.bar) < 0).any():
        raise InvalidInputError("Decisions: 'bar' must be ascending.")
    bars, columns = bars_of(frame), DecisionColumns(*(getattr(decisions, name) for name in DecisionColumns._fields))
    capital = account_of(account)
    if initial_capital is not None:
        capital = capital._replace(initial_capital=float(initial_capital))
    first, last = np.searchsorted(decisions.bar, (start, stop))
    trades = _empty_trades(int(last - first))
    equity = np.empty(stop - start, dtype=np.float64)
    n_trades = int(simulate(bars, columns, exit_rule_of(exits, account), capital, start, stop, trades, equity))
    trades = TradeColumns._make(column[:n_trades] for column in trades)
    metrics = np.empty(N_METRICS, dtype=np.float64)
    times = frame.open_time_ms[start:stop]
    measure(trades, n_trades, equity, times, capital.initial_capital, days_covered(frame, start, stop), metrics)
    return BacktestResult(Trades(*trades), equity, as_metrics(metrics))


def backtest_strategy(
    frame: IndicatorFrame,
    strategy: Strategy,
    parameters: Mapping[str, object],
    *,
    side: Side = "long",
    account: AccountSettings | None = None,
    window: BarRange | None = None,
) -> BacktestResult:
    """Check ``parameters`` and run ``strategy`` with them.

    Raises
    ------
    InvalidInputError
        If a parameter is unknown, missing or out of its range, or the window lies outside the frame.
    """
    checked = strategy.check(parameters)
    decisions = SignalSource(strategy, frame, side).decisions(checked)
    return run_backtest(frame, decisions, strategy.exits(checked), account or AccountSettings(), window)


def metrics_of(
    equity: FloatArray, open_time_ms: IntArray, trades: Trades, *, initial_capital: float, days: float
) -> Metrics:
    """Return the metrics of a record that was put together from several runs.

    Parameters
    ----------
    equity : float64 array of shape (n_bars,)
        Marked-to-market equity at the close of each bar, one run after the other.
    open_time_ms : int64 array of shape (n_bars,)
    trades : Trades
        All trades, sized by that same equity.
    initial_capital : float
        Equity before the first bar, quote currency.
    days : float
        Days that the record covers.
    """
    metrics = np.empty(N_METRICS, dtype=np.float64)
    columns = TradeColumns(*(getattr(trades, name) for name in TradeColumns._fields))
    measure(columns, len(trades), equity, open_time_ms, float(initial_capital), float(days), metrics)
    return as_metrics(metrics)


def cost_per_trade_r(trades: Trades, account: AccountSettings) -> float:
    """Return what fees and slippage take from the mean trade, in R; 0 without trades.

    The difference between the result at the prices before slippage and without fees, and the actual result.
    """
    if not len(trades):
        return 0.0
    slips = trades.exit_reason != TAKE_PROFIT
    exit_reference = np.where(slips, trades.exit_price / (1.0 - trades.side * account.slippage), trades.exit_price)
    entry_reference = trades.entry_price / (1.0 + trades.side * account.slippage)
    slippage = trades.side * ((trades.entry_price - entry_reference) + (exit_reference - trades.exit_price))
    fees = account.fee_rate * (trades.entry_price + trades.exit_price)
    return float(np.mean((slippage + fees) / trades.risk))


def checked_window(window: BarRange | None, frame: IndicatorFrame) -> tuple[int, int]:
    """Return the window's bounds, those of the whole frame without one."""
    start, stop = window or (0, len(frame))
    if not 0 <= start < stop <= len(frame):
        raise InvalidInputError(
            f"Backtest window [{start}, {stop}): expected a range of at least one bar within the {len(frame)} candles."
        )
    return start, stop


def days_covered(frame: IndicatorFrame, start: int, stop: int) -> float:
    """Return the length of bars ``[start, stop)`` in days, gaps included."""
    first, last = int(frame.open_time_ms[start]), int(frame.open_time_ms[stop - 1])
    return (last + frame.timeframe.milliseconds - first) / MS_PER_DAY


def bars_of(frame: IndicatorFrame) -> Bars:
    """Return the frame's candles as the kernels read them."""
    return Bars(frame.open, frame.high, frame.low, frame.close, frame.is_filled, frame.is_adjacent)


def exit_rule_of(exits: Exits, account: AccountSettings) -> ExitRule:
    """Return the exits as the kernels read them, with the account's time limit taken in."""
    limits = [limit for limit in (exits.max_holding_bars, account.max_holding_bars) if limit > 0]
    return ExitRule(
        float(exits.stop_multiple),
        _TARGET_RULES[exits.target],
        float(exits.target_multiple),
        float(exits.trail_activation),
        float(exits.trail_distance),
        int(exits.exit_level_bars),
        int(min(limits, default=0)),
    )


def account_of(settings: AccountSettings) -> Account:
    """Return the account as the kernels read it."""
    return Account(*(float(getattr(settings, name)) for name in Account._fields))


def _empty_trades(capacity: int) -> TradeColumns:
    integers = {"decision_bar", "entry_bar", "exit_bar", "side", "exit_reason"}
    columns: list[Any] = [
        np.empty(capacity, np.int64 if name in integers else np.float64) for name in TradeColumns._fields
    ]
    return TradeColumns._make(columns)
