"""Between the engine's arrays and the reference's plain objects: conversion, and what counts as equal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields

import numpy as np

from tradepulse_pipeline.backtest.result import EXIT_REASONS, BacktestResult, Metrics, Trades
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles, FloatArray
from tradepulse_pipeline.strategies.decisions import Decisions, Exits
from tradepulse_pipeline_tests.reference.backtest import Order, Trade, run, with_nearest_stop
from tradepulse_pipeline_tests.reference.candles import Candle
from tradepulse_pipeline_tests.reference.metrics import all_metrics, days_of

EXACT_FIELDS = ("decision_bar", "entry_bar", "exit_bar", "side")
PRICE_FIELDS = (
    "entry_price",
    "exit_price",
    "stop_price",
    "target_price",
    "quantity",
    "equity_before",
    "entry_bar_close",
)

#: Both sides work in float64 with the same formulas, so that results differ by a few roundings.
RTOL = 1e-9


def plain_candles(candles: Candles | IndicatorFrame) -> list[Candle]:
    columns = (candles.open_time_ms, candles.open, candles.high, candles.low, candles.close, candles.volume)
    return [Candle(*row) for row in zip(*(column.tolist() for column in (*columns, candles.is_filled)), strict=True)]


def plain_orders(decisions: Decisions, exits: Exits) -> list[Order]:
    """Work out the prices that decisions and exits declare."""
    orders: list[Order] = []
    for i in range(len(decisions)):
        side = int(decisions.side[i])
        trail_unit, exit_level = float(decisions.trail_unit[i]), float(decisions.exit_level[i])
        is_trailing = exits.trail_activation > 0 and not math.isnan(trail_unit)
        target_price = None
        if exits.target == "price":
            target_distance = exits.target_multiple * float(decisions.target_unit[i])
            target_price = float(decisions.target_anchor[i]) + side * target_distance
        orders.append(
            Order(
                bar=int(decisions.bar[i]),
                side=side,
                stop_price=float(decisions.stop_anchor[i]) - side * exits.stop_multiple * float(decisions.stop_unit[i]),
                target_multiple=exits.target_multiple if exits.target == "r" else None,
                target_price=target_price,
                trail_activation=exits.trail_activation * trail_unit if is_trailing else None,
                trail_distance=exits.trail_distance * trail_unit if is_trailing else None,
                exit_level=None if math.isnan(exit_level) else exit_level,
                exit_level_bars=exits.exit_level_bars,
                max_holding_bars=exits.max_holding_bars,
            )
        )
    return orders


def assert_same_orders(decisions: Decisions, exits: Exits, expected: list[Order], candles: list[Candle]) -> None:
    """Compare what can be traded: at a bar, one order per side, the one whose stop is nearest to the close."""
    found, wanted = tradable(plain_orders(decisions, exits), candles), tradable(expected, candles)
    assert sorted(found) == sorted(wanted), f"orders (bar, side): engine {sorted(found)}, reference {sorted(wanted)}"
    for field in fields(Order):
        engine, reference = (column([orders[key] for key in wanted], field.name) for orders in (found, wanted))
        np.testing.assert_allclose(engine, reference, rtol=RTOL, err_msg=f"{field.name} at (bar, side) {list(wanted)}")


def tradable(orders: list[Order], candles: list[Candle]) -> dict[tuple[int, int], Order]:
    at: dict[tuple[int, int], list[Order]] = {}
    for order in orders:
        at.setdefault((order.bar, order.side), []).append(order)
    return {key: with_nearest_stop(several, candles[key[0]].close) for key, several in at.items()}


def assert_same_result(
    found: BacktestResult,
    candles: list[Candle],
    step_ms: int,
    orders: list[Order],
    account: AccountSettings,
    window: BarRange,
    expected: set[int] | None = None,
) -> list[Trade]:
    """Compare a run's trades, equity and metrics with those of the reference, and return the reference's trades."""
    trades, equity = run(candles, step_ms, orders, account, *window, expected=expected)
    times = [candle.open_time_ms for candle in candles[slice(*window)]]
    metrics = all_metrics(trades, equity, times, days_of(times, step_ms), account.initial_capital)
    assert_same_trades(found.trades, trades)
    assert_same_equity(found.equity, equity, trades)
    assert_same_metrics(found.metrics, metrics, equity=equity, trades=trades, initial_capital=account.initial_capital)
    return trades


def assert_same_trades(found: Trades, expected: list[Trade]) -> None:
    """Compare every field: bars, sides and reasons exactly, numbers to 1e-9.

    A trade's pnl is a small difference of large amounts: its absolute error is a few roundings of the notional.
    """
    engine = list(zip(found.entry_bar.tolist(), found.exit_bar.tolist(), reasons(found), strict=True))
    reference = [(trade.entry_bar, trade.exit_bar, trade.exit_reason) for trade in expected]
    assert engine == reference, f"(entry bar, exit bar, reason): engine {engine}, reference {reference}"
    for name in EXACT_FIELDS:
        np.testing.assert_array_equal(getattr(found, name), column(expected, name), err_msg=name)
    for name in PRICE_FIELDS:
        np.testing.assert_allclose(getattr(found, name), column(expected, name), rtol=RTOL, atol=1e-12, err_msg=name)
    for i, trade in enumerate(expected):
        notional = trade.quantity * max(trade.entry_price, trade.exit_price)
        np.testing.assert_allclose(found.pnl[i], trade.pnl, rtol=RTOL, atol=1e-14 * notional, err_msg=f"pnl of {i}")


def assert_same_equity(found: FloatArray, expected: list[float], trades: list[Trade]) -> None:
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=rounding(expected, trades), err_msg="equity")


def assert_same_metrics(
    found: Metrics,
    expected: dict[str, float | None],
    *,
    equity: list[float],
    trades: list[Trade],
    initial_capital: float,
) -> None:
    """Compare every metric to 1e-9, and to the rounding that the equity itself carries where a metric is near 0.

    Ratios to falls and losses that are themselves no more than rounding say nothing, and those of returns that hardly
    vary, or hardly fall, magnify their rounding.
    """
    assert set(found._asdict()) == set(expected)
    money = rounding(equity, trades)
    falls = found.max_drawdown > 1e-12
    for name, value in found.as_dict().items():
        wanted = expected[name]
        if wanted is None or value is None:
            assert value is wanted, f"{name}: engine {value}, reference {wanted}"
            continue
        is_ratio = name in ("sharpe_ratio", "sortino_ratio", "calmar_ratio")
        if is_ratio and name != "sharpe_ratio" and (not falls or max(abs(value), abs(wanted)) > 1e9):
            continue
        is_money = name in ("net_profit", "average_win", "average_loss")
        atol = money if is_money else 1e-12
        rtol = RTOL + 1e-14 * abs(wanted) if is_ratio else RTOL
        np.testing.assert_allclose(value, wanted, rtol=rtol, atol=atol, err_msg=name)


def rounding(equity: list[float], trades: list[Trade]) -> float:
    """Return a few roundings of the largest amounts that equity is a sum of."""
    notional = max((trade.quantity * max(trade.entry_price, trade.exit_price) for trade in trades), default=0.0)
    return 1e-14 * max(notional, *map(abs, equity), 0.0)


def plain_trades(trades: Trades) -> list[Trade]:
    rows = [
        {name: getattr(trades, name)[i].item() for name in (*EXACT_FIELDS, *PRICE_FIELDS, "pnl")}
        for i in range(len(trades))
    ]
    return [
        Trade(
            **{**row, "target_price": None if math.isnan(row["target_price"]) else row["target_price"]},
            exit_reason=reason,
        )
        for row, reason in zip(rows, reasons(trades), strict=True)
    ]


def reasons(trades: Trades) -> list[str]:
    return [EXIT_REASONS[code] for code in trades.exit_reason.tolist()]


def column(rows: Iterable[Order | Trade], name: str) -> list[float]:
    values = [getattr(row, name) for row in rows]
    return [math.nan if value is None else value for value in values]
