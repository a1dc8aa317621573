"""The bar model: one position at a time, walked bar by bar; long and short are each written out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from tradepulse_pipeline_tests.reference.candles import Candle


class Account(Protocol):
    initial_capital: float
    risk_fraction: float
    max_leverage: float
    fee_rate: float
    slippage: float
    max_holding_bars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A decision at the close of ``bar``, with prices and distances in quote currency; ``None``: no such exit."""

    bar: int
    side: int
    stop_price: float
    target_multiple: float | None = None
    target_price: float | None = None
    trail_activation: float | None = None
    trail_distance: float | None = None
    exit_level: float | None = None
    exit_level_bars: int = 0
    max_holding_bars: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    decision_bar: int
    entry_bar: int
    exit_bar: int
    side: int
    entry_price: float
    exit_price: float
    stop_price: float
    target_price: float | None
    quantity: float
    pnl: float
    equity_before: float
    entry_bar_close: float
    exit_reason: str


@dataclass(frozen=True, slots=True)
class Exit:
    bar: int
    price: float
    reason: str


def run(
    candles: list[Candle],
    step_ms: int,
    orders: list[Order],
    account: Account,
    start: int = 0,
    stop: int | None = None,
    expected: set[int] | None = None,
) -> tuple[list[Trade], list[float]]:
    """Return the trades of the window ``[start, stop)`` and the equity at the close of each of its bars.

    ``expected`` holds the open times at which the market has candles, where it is not always open.
    """
    stop = len(candles) if stop is None else stop
    orders_at: dict[int, list[Order]] = {}
    for order in orders:
        orders_at.setdefault(order.bar, []).append(order)
    trades: list[Trade] = []
    equity = account.initial_capital
    curve = [equity] * (stop - start)
    free_from = start
    for j in range(start, stop - 1):
        if j < free_from or equity <= 1e-12 * account.initial_capital:  # what is left of a total loss is rounding
            continue
        if j not in orders_at or not can_enter_after(candles, step_ms, j, expected):
            continue
        order = with_nearest_stop(orders_at[j], candles[j].close)
        trade = open_and_close(candles, order, account, equity, last=stop - 1)
        if trade is None:
            continue
        for k in range(trade.entry_bar, trade.exit_bar):
            curve[k - start] = marked_equity(trade, candles[k].close, account.fee_rate)
        equity = trade.equity_before + trade.pnl
        for k in range(trade.exit_bar, stop):
            curve[k - start] = equity
        trades.append(trade)
        free_from = trade.exit_bar
    return trades, curve


def with_nearest_stop(orders: list[Order], close: float) -> Order:
    """Return the order whose stop is nearest to the close; the first of those equally near."""
    return min(orders, key=lambda order: abs(close - order.stop_price))


def can_enter_after(candles: list[Candle], step_ms: int, j: int, expected: set[int] | None = None) -> bool:
    if candles[j].is_filled or candles[j + 1].is_filled:
        return False
    now, then = candles[j].open_time_ms, candles[j + 1].open_time_ms
    if expected is None:
        return then - now == step_ms
    return not any(now < time < then for time in expected)


def open_and_close(candles: list[Candle], order: Order, account: Account, equity: float, last: int) -> Trade | None:
    """Enter at the open after the decision and hold to the exit; ``None`` for a void decision."""
    j = order.bar
    e = j + 1
    if order.side == 1:
        entry_price = candles[e].open * (1 + account.slippage)
        risk = entry_price - order.stop_price
    else:
        entry_price = candles[e].open * (1 - account.slippage)
        risk = order.stop_price - entry_price
    if not math.isfinite(risk) or risk <= 0 or risk < 0.25 * abs(candles[j].close - order.stop_price):
        return None
    if order.stop_price <= 0:
        return None

    target_price = order.target_price
    if target_price is not None:
        is_beyond_entry = target_price > entry_price if order.side == 1 else target_price < entry_price
        if not is_beyond_entry:
            return None
    elif order.target_multiple is not None:
        distance = order.target_multiple * risk
        target_price = entry_price + distance if order.side == 1 else entry_price - distance
    if target_price is not None and target_price <= 0:
        return None

    limits = [limit for limit in (order.max_holding_bars, account.max_holding_bars) if limit > 0]
    max_holding_bars = min(limits) if limits else None
    find_exit = exit_of_long if order.side == 1 else exit_of_short
    end = find_exit(candles, order, entry_price, target_price, max_holding_bars, account.slippage, last)

    quantity = min(
        account.risk_fraction * equity / risk,
        account.max_leverage * equity / (entry_price * (1 + account.fee_rate)),
    )
    gain = end.price - entry_price if order.side == 1 else entry_price - end.price
    fees = account.fee_rate * quantity * (entry_price + end.price)
    return Trade(
        decision_bar=j,
        entry_bar=e,
        exit_bar=end.bar,
        side=order.side,
        entry_price=entry_price,
        exit_price=end.price,
        stop_price=order.stop_price,
        target_price=target_price,
        quantity=quantity,
        pnl=quantity * gain - fees,
        equity_before=equity,
        entry_bar_close=candles[e].close,
        exit_reason=end.reason,
    )


def exit_of_long(
    candles: list[Candle],
    order: Order,
    entry_price: float,
    target: float | None,
    max_holding_bars: int | None,
    slippage: float,
    last: int,
) -> Exit:
    e = order.bar + 1
    trail: float | None = None
    is_condition_met = False
    for k in range(e, last + 1):
        bar = candles[k]
        if is_condition_met:
            return Exit(k, bar.open * (1 - slippage), "RETRACEMENT")
        stop, stop_reason = order.stop_price, "STOP_LOSS"
        if trail is not None and trail > stop:
            stop, stop_reason = trail, "TRAILING_STOP"
        if k > e and bar.open <= stop:
            return Exit(k, bar.open * (1 - slippage), stop_reason)
        if k > e and target is not None and bar.open >= target:
            return Exit(k, bar.open, "TAKE_PROFIT")
        if bar.low <= stop:
            return Exit(k, stop * (1 - slippage), stop_reason)
        if target is not None and bar.high >= target:
            return Exit(k, target, "TAKE_PROFIT")
        if max_holding_bars is not None and k - e + 1 >= max_holding_bars:
            return Exit(k, bar.close * (1 - slippage), "TIME_LIMIT")
        if k == last:
            return Exit(k, bar.close * (1 - slippage), "END_OF_DATA")
        if order.trail_activation is not None and order.trail_distance is not None:
            best_high = max(candles[i].high for i in range(e, k + 1))
            if best_high >= entry_price + order.trail_activation:
                trail = best_high - order.trail_distance
        if order.exit_level is not None and k - e + 1 <= order.exit_level_bars:
            is_condition_met = bar.close < order.exit_level
    raise AssertionError("the last bar closes every position")


def exit_of_short(
    candles: list[Candle],
    order: Order,
    entry_price: float,
    target: float | None,
    max_holding_bars: int | None,
    slippage: float,
    last: int,
) -> Exit:
    e = order.bar + 1
    trail: float | None = None
    is_condition_met = False
    for k in range(e, last + 1):
        bar = candles[k]
        if is_condition_met:
            return Exit(k, bar.open * (1 + slippage), "RETRACEMENT")
        stop, stop_reason = order.stop_price, "STOP_LOSS"
        if trail is not None and trail < stop:
            stop, stop_reason = trail, "TRAILING_STOP"
        if k > e and bar.open >= stop:
            return Exit(k, bar.open * (1 + slippage), stop_reason)
        if k > e and target is not None and bar.open <= target:
            return Exit(k, bar.open, "TAKE_PROFIT")
        if bar.high >= stop:
            return Exit(k, stop * (1 + slippage), stop_reason)
        if target is not None and bar.low <= target:
            return Exit(k, target, "TAKE_PROFIT")
        if max_holding_bars is not None and k - e + 1 >= max_holding_bars:
            return Exit(k, bar.close * (1 + slippage), "TIME_LIMIT")
        if k == last:
            return Exit(k, bar.close * (1 + slippage), "END_OF_DATA")
        if order.trail_activation is not None and order.trail_distance is not None:
            best_low = min(candles[i].low for i in range(e, k + 1))
            if best_low <= entry_price - order.trail_activation:
                trail = best_low + order.trail_distance
        if order.exit_level is not None and k - e + 1 <= order.exit_level_bars:
            is_condition_met = bar.close > order.exit_level
    raise AssertionError("the last bar closes every position")


def marked_equity(trade: Trade, close: float, fee_rate: float) -> float:
    """Equity at the close of a bar in which the position is still open."""
    change = close - trade.entry_price if trade.side == 1 else trade.entry_price - close
    return trade.equity_before - fee_rate * trade.quantity * trade.entry_price + trade.quantity * change
