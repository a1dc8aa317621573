"""The plain kernel: walks the bars of each position, one after the other, and defines what every figure means.

Prices of a short position are read through ``side`` (+1 long, -1 short): ``side * (a - b) <= 0`` says 'a is at or
beyond b, against the position'.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.backtest.result import (
    END_OF_DATA,
    EXIT_LEVEL,
    STOP_LOSS,
    TAKE_PROFIT,
    TIME_LIMIT,
    TRAILING_STOP,
)
from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.market.candles import BoolArray, FloatArray, IntArray

#: A decision is void when less than this share of the distance from its close to its stop is left at the entry.
LEAST_RISK_LEFT: Final = 0.25

#: Equity below this share of the initial capital is spent: what is left of a total loss is rounding.
SPENT: Final = 1e-12

TARGET_NONE, TARGET_R, TARGET_PRICE = range(3)


class Bars(NamedTuple):
    """Candles of a series, arrays of shape (n_bars,); ``is_adjacent``: the bar directly follows the one before."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    is_filled: BoolArray
    is_adjacent: BoolArray


class DecisionColumns(NamedTuple):
    """The columns of ``Decisions``, arrays of shape (n_decisions,)."""

    bar: IntArray
    side: IntArray
    stop_anchor: FloatArray
    stop_unit: FloatArray
    target_anchor: FloatArray
    target_unit: FloatArray
    trail_unit: FloatArray
    exit_level: FloatArray


class ExitRule(NamedTuple):
    """``Exits`` with the target rule as a code and the account's time limit taken in."""

    stop_multiple: float
    target_rule: int
    target_multiple: float
    trail_activation: float
    trail_distance: float
    exit_level_bars: int
    max_holding_bars: int


class Account(NamedTuple):
    """Capital, sizing and costs."""

    initial_capital: float
    risk_fraction: float
    max_leverage: float
    fee_rate: float
    slippage: float


class TradeColumns(NamedTuple):
    """The columns of ``Trades``, arrays of shape (capacity,)."""

    decision_bar: IntArray
    entry_bar: IntArray
    exit_bar: IntArray
    side: IntArray
    entry_price: FloatArray
    exit_price: FloatArray
    stop_price: FloatArray
    target_price: FloatArray
    quantity: FloatArray
    pnl: FloatArray
    equity_before: FloatArray
    entry_bar_close: FloatArray
    exit_reason: IntArray


class Entry(NamedTuple):
    """The side of a position, its prices at entry, and its size for an equity of 1."""

    side: int
    price: float
    stop_price: float
    target_price: float
    risk: float
    quantity: float


@njit(cache=True, nogil=True)
def simulate(
    bars: Bars,
    decisions: DecisionColumns,
    rule: ExitRule,
    account: Account,
    start: int,
    stop: int,
    trades: TradeColumns,
    equity: FloatArray,
) -> int:
    """Run decisions over bars ``[start, stop)``; write trades and the equity at each close; return the trade count."""
    n_decisions = decisions.bar.shape[0]
    n_trades = 0
    worth = account.initial_capital
    flat_from = start
    i = int(np.searchsorted(decisions.bar, start))
    while i < n_decisions and decisions.bar[i] + 1 < stop and worth > SPENT * account.initial_capital:
        j = decisions.bar[i]
        d = nearest_stop(bars, decisions, rule, i)
        while i < n_decisions and decisions.bar[i] == j:
            i += 1
        entry_bar = j + 1
        if entry_bar < flat_from:
            continue  # decided while the position before was still open
        entry = entry_of(bars, decisions, rule, account, d, stop)
        if entry.quantity == 0.0:
            continue
        quantity = entry.quantity * worth
        for k in range(flat_from, entry_bar):
            equity[k - start] = worth
        exit_bar, exit_price, reason = walk_position(bars, decisions, rule, account.slippage, d, entry, stop)
        for k in range(entry_bar, exit_bar):
            equity[k - start] = worth * mark(bars, entry, account.fee_rate, k)
        fees = account.fee_rate * quantity * (entry.price + exit_price)
        pnl = quantity * entry.side * (exit_price - entry.price) - fees
        trades.decision_bar[n_trades] = j
        trades.entry_bar[n_trades] = entry_bar
        trades.exit_bar[n_trades] = exit_bar
        trades.side[n_trades] = entry.side
        trades.entry_price[n_trades] = entry.price
        trades.exit_price[n_trades] = exit_price
        trades.stop_price[n_trades] = entry.stop_price
        trades.target_price[n_trades] = entry.target_price
        trades.quantity[n_trades] = quantity
        trades.pnl[n_trades] = pnl
        trades.equity_before[n_trades] = worth
        trades.entry_bar_close[n_trades] = bars.close[entry_bar]
        trades.exit_reason[n_trades] = reason
        n_trades += 1
        worth += pnl
        equity[exit_bar - start] = worth
        flat_from = exit_bar + 1
    for k in range(flat_from, stop):
        equity[k - start] = worth
    return n_trades


@njit(cache=True, nogil=True)
def entry_of(bars: Bars, decisions: DecisionColumns, rule: ExitRule, account: Account, d: int, stop: int) -> Entry:
    """Return how decision ``d`` is entered before bar ``stop``; the quantity is 0 where it cannot be."""
    j = decisions.bar[d]
    side = decisions.side[d]
    if j + 1 >= stop or bars.is_filled[j] or bars.is_filled[j + 1]:
        return Entry(side, np.nan, np.nan, np.nan, np.nan, 0.0)
    price = bars.open[j + 1] * (1.0 + side * account.slippage)
    stop_price = stop_of(decisions, rule, d)
    risk = side * (price - stop_price)
    target_price = target_of(decisions, rule, d, price, risk)
    quantity = 0.0
    if bars.is_adjacent[j + 1] and not is_void(bars.close[j], side, price, stop_price, target_price, risk):
        quantity = min(account.risk_fraction / risk, account.max_leverage / (price * (1.0 + account.fee_rate)))
    return Entry(side, price, stop_price, target_price, risk, quantity)


@njit(cache=True, nogil=True)
def mark(bars: Bars, entry: Entry, fee_rate: float, k: int) -> float:
    """Return the equity marked to the close of bar ``k``, 1 being the equity before entry."""
    fee = fee_rate * entry.quantity * entry.price
    return float(1.0 - fee + entry.quantity * entry.side * (bars.close[k] - entry.price))


@njit(cache=True, nogil=True)
def nearest_stop(bars: Bars, decisions: DecisionColumns, rule: ExitRule, first: int) -> int:
    """Return, of the decisions at the bar of decision ``first``, the one whose stop is nearest to the close."""
    j = decisions.bar[first]
    best = first
    shortest = abs(bars.close[j] - stop_of(decisions, rule, first))
    d = first + 1
    while d < decisions.bar.shape[0] and decisions.bar[d] == j:
        distance = abs(bars.close[j] - stop_of(decisions, rule, d))
        if distance < shortest:
            best, shortest = d, distance
        d += 1
    return best


@njit(cache=True, nogil=True)
def stop_of(decisions: DecisionColumns, rule: ExitRule, d: int) -> float:
    """Return the stop price of decision ``d``."""
    return float(decisions.stop_anchor[d] - decisions.side[d] * (rule.stop_multiple * decisions.stop_unit[d]))


@njit(cache=True, nogil=True)
def target_of(decisions: DecisionColumns, rule: ExitRule, d: int, entry_price: float, risk: float) -> float:
    """Return the target price of decision ``d``, NaN for none."""
    if rule.target_rule == TARGET_R:
        return float(entry_price + decisions.side[d] * (rule.target_multiple * risk))
    if rule.target_rule == TARGET_PRICE:
        return float(decisions.target_anchor[d] + decisions.side[d] * (rule.target_multiple * decisions.target_unit[d]))
    return np.nan


@njit(cache=True, nogil=True)
def is_void(
    decision_close: float, side: int, entry_price: float, stop_price: float, target_price: float, risk: float
) -> bool:
    """Return whether a decision cannot be traded at this entry price."""
    if not np.isfinite(risk) or risk <= 0.0 or risk < LEAST_RISK_LEFT * abs(decision_close - stop_price):
        return True
    if not np.isnan(target_price) and (target_price <= 0.0 or side * (target_price - entry_price) <= 0.0):
        return True
    return stop_price <= 0.0


@njit(cache=True, nogil=True)
def walk_position(
    bars: Bars,
    decisions: DecisionColumns,
    rule: ExitRule,
    slippage: float,
    d: int,
    entry: Entry,
    stop: int,
) -> tuple[int, float, int]:
    """Return exit bar, exit price and reason code of a position, by the first rule that applies at the first bar."""
    side, entry_bar = entry.side, decisions.bar[d] + 1
    worse = 1.0 - side * slippage
    has_target = not np.isnan(entry.target_price)
    activation = rule.trail_activation * decisions.trail_unit[d]
    distance = rule.trail_distance * decisions.trail_unit[d]
    best_price = entry.price
    effective_stop, stop_reason = entry.stop_price, STOP_LOSS
    leaves_at_open = False
    for k in range(entry_bar, stop):
        against = bars.low[k] if side > 0 else bars.high[k]
        towards = bars.high[k] if side > 0 else bars.low[k]
        if leaves_at_open:
            return k, bars.open[k] * worse, EXIT_LEVEL
        if k > entry_bar and side * (bars.open[k] - effective_stop) <= 0.0:
            return k, bars.open[k] * worse, stop_reason
        if k > entry_bar and has_target and side * (bars.open[k] - entry.target_price) >= 0.0:
            return k, bars.open[k], TAKE_PROFIT
        if side * (against - effective_stop) <= 0.0:
            return k, effective_stop * worse, stop_reason
        if has_target and side * (towards - entry.target_price) >= 0.0:
            return k, entry.target_price, TAKE_PROFIT
        n_held = k - entry_bar + 1
        if 0 < rule.max_holding_bars <= n_held:
            return k, bars.close[k] * worse, TIME_LIMIT
        if k == stop - 1:
            break
        if rule.trail_activation > 0.0:
            if k == entry_bar or side * (towards - best_price) > 0.0:
                best_price = towards
            trail = best_price - side * distance
            is_active = side * (best_price - entry.price) >= activation
            if is_active and side * (trail - effective_stop) > 0.0:
                effective_stop, stop_reason = trail, TRAILING_STOP
        leaves_at_open = n_held <= rule.exit_level_bars and side * (bars.close[k] - decisions.exit_level[d]) < 0.0
    return stop - 1, bars.close[stop - 1] * worse, END_OF_DATA
