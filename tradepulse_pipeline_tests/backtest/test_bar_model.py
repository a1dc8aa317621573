"""The bar model by hand: small markets with the result worked out on paper, for the engine and for the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tradepulse_pipeline.backtest.api import run_backtest
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.strategies.decisions import LONG, SHORT, Decisions, Exits
from tradepulse_pipeline_tests.reference import backtest as reference
from tradepulse_pipeline_tests.reference.backtest import Trade
from tradepulse_pipeline_tests.reference.comparison import plain_candles, plain_orders, plain_trades
from tradepulse_pipeline_tests.reference.markets import candles_of, frame_of

Row = tuple[float, float, float, float]
Run = Callable[..., tuple[list[Trade], list[float]]]

FREE = AccountSettings(fee_rate=0.0, slippage=0.0)
QUIET: Row = (100.0, 101.0, 99.0, 100.0)
#: Stop at 98, so R = 2 at an entry of 100, and the target at 104.
TWO_R = Exits(target="r", target_multiple=2.0)


def run_engine(
    candles: Candles, decisions: Decisions, exits: Exits, account: AccountSettings, window: BarRange | None = None
) -> tuple[list[Trade], list[float]]:
    result = run_backtest(frame_of(candles), decisions, exits, account, window)
    return plain_trades(result.trades), result.equity.tolist()


def run_reference(
    candles: Candles, decisions: Decisions, exits: Exits, account: AccountSettings, window: BarRange | None = None
) -> tuple[list[Trade], list[float]]:
    plain = plain_candles(candles.filled_forward())
    step_ms = candles.timeframe.milliseconds
    return reference.run(plain, step_ms, plain_orders(decisions, exits), account, *(window or ()))


@pytest.fixture(params=[run_engine, run_reference], ids=["engine", "reference"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param


def at(*bars: int, side: int = LONG, stop: float | list[float] = 98.0, **prices: float) -> Decisions:
    n = len(bars)
    columns = {name: np.full(n, price) for name, price in prices.items()}
    return Decisions.of(np.array(bars), side, np.broadcast_to(stop, (n,)), np.ones(n), **columns)


def mirrored(rows: list[Row]) -> list[Row]:
    """Return the rows in a mirror at 100: what was 98 is 102."""
    return [(200 - open_, 200 - low, 200 - high, 200 - close) for open_, high, low, close in rows]


# Each: the bars from the entry bar on, the exits, other prices of the decision, then exit bar, exit price and reason.
EXIT_RULES = {
    "a gap through the stop fills at the open": (
        [QUIET, (97.0, 99.0, 96.0, 98.5)],
        TWO_R,
        {},
        (2, 97.0, "STOP_LOSS"),
    ),
    "an open on the stop fills there": ([QUIET, (98.0, 99.0, 98.0, 98.5)], TWO_R, {}, (2, 98.0, "STOP_LOSS")),
    "an open beyond the target fills at the open": (
        [QUIET, (105.0, 105.5, 97.0, 98.0)],
        TWO_R,
        {},
        (2, 105.0, "TAKE_PROFIT"),
    ),
    "a low on the stop": ([QUIET, (100.0, 101.0, 98.0, 100.0)], TWO_R, {}, (2, 98.0, "STOP_LOSS")),
    "a low just above the stop": ([QUIET, (100.0, 101.0, 98.01, 100.0)], TWO_R, {}, (2, 100.0, "END_OF_DATA")),
    "the stop on the entry bar": ([(100.0, 101.0, 97.0, 100.0)], TWO_R, {}, (1, 98.0, "STOP_LOSS")),
    "stop before target in one bar": ([(100.0, 105.0, 97.0, 104.0)], TWO_R, {}, (1, 98.0, "STOP_LOSS")),
    "a high on the target": ([QUIET, (100.0, 104.0, 99.0, 100.0)], TWO_R, {}, (2, 104.0, "TAKE_PROFIT")),
    "a high just below the target": ([QUIET, (100.0, 103.99, 99.0, 100.0)], TWO_R, {}, (2, 100.0, "END_OF_DATA")),
    "the target on the entry bar": ([(100.0, 104.5, 99.0, 100.0)], TWO_R, {}, (1, 104.0, "TAKE_PROFIT")),
    "a target by price": (
        [QUIET, (100.0, 103.0, 99.0, 100.0)],
        Exits(target="price", target_multiple=2.0),
        {"target_anchor": 101.0, "target_unit": 0.5},
        (2, 102.0, "TAKE_PROFIT"),
    ),
    "no target": ([QUIET, (150.0, 160.0, 140.0, 155.0)], Exits(), {}, (2, 155.0, "END_OF_DATA")),
    "a stop in units": (
        [QUIET, (100.0, 101.0, 96.9, 99.0)],
        Exits(stop_multiple=1.0),
        {},
        (2, 97.0, "STOP_LOSS"),
    ),
    "a time limit of one bar": (
        [(100.0, 101.0, 99.0, 100.5), QUIET],
        Exits(max_holding_bars=1),
        {},
        (1, 100.5, "TIME_LIMIT"),
    ),
    "a time limit of two bars": (
        [QUIET, (100.0, 101.0, 99.0, 100.5), QUIET],
        Exits(max_holding_bars=2),
        {},
        (2, 100.5, "TIME_LIMIT"),
    ),
    "the stop before the time limit": (
        [QUIET, (100.0, 101.0, 97.0, 100.5)],
        Exits(max_holding_bars=2),
        {},
        (2, 98.0, "STOP_LOSS"),
    ),
    "the time limit before the end of data": ([QUIET, QUIET], Exits(max_holding_bars=2), {}, (2, 100.0, "TIME_LIMIT")),
    # A high of 103 is 2 units or more above the entry: the trail lies 1 unit below it, at 102, from the next bar on.
    "a trailing stop": (
        [(100.0, 103.0, 99.0, 102.5), (102.5, 102.8, 101.5, 102.6)],
        Exits(trail_activation=2.0, trail_distance=1.0),
        {"trail_unit": 1.0},
        (2, 102.0, "TRAILING_STOP"),
    ),
    "a gap through the trailing stop": (
        [(100.0, 103.0, 99.0, 102.5), (101.0, 102.8, 100.5, 102.6)],
        Exits(trail_activation=2.0, trail_distance=1.0),
        {"trail_unit": 1.0},
        (2, 101.0, "TRAILING_STOP"),
    ),
    "the trail follows the best price and is never lowered": (
        [
            (100.0, 103.0, 99.0, 102.5),
            (102.5, 106.0, 102.2, 105.5),
            (105.5, 105.6, 105.2, 105.5),
            (105.3, 105.4, 104.0, 104.5),
        ],
        Exits(trail_activation=2.0, trail_distance=1.0),
        {"trail_unit": 1.0},
        (4, 105.0, "TRAILING_STOP"),
    ),
    "a trail that is activated exactly": (
        [(100.0, 102.0, 99.0, 101.5), (101.5, 101.6, 100.5, 101.0)],
        Exits(trail_activation=2.0, trail_distance=1.0),
        {"trail_unit": 1.0},
        (2, 101.0, "TRAILING_STOP"),
    ),
    "a trail that is not yet activated": (
        [(100.0, 101.99, 99.0, 101.5), (101.5, 101.6, 100.5, 101.0)],
        Exits(trail_activation=2.0, trail_distance=1.0),
        {"trail_unit": 1.0},
        (2, 101.0, "END_OF_DATA"),
    ),
    "a trail behind the stop leaves the stop": (
        [(100.0, 102.0, 99.0, 101.5), (101.5, 101.6, 97.0, 97.5)],
        Exits(trail_activation=2.0, trail_distance=5.0),
        {"trail_unit": 1.0},
        (2, 98.0, "STOP_LOSS"),
    ),
    "a trail on the stop leaves the stop": (
        [(100.0, 102.0, 99.0, 101.5), (101.5, 101.6, 97.0, 97.5)],
        Exits(trail_activation=2.0, trail_distance=4.0),
        {"trail_unit": 1.0},
        (2, 98.0, "STOP_LOSS"),
    ),
    "no trail without a unit": (
        [(100.0, 103.0, 99.0, 102.5), (102.5, 102.8, 101.5, 102.6)],
        Exits(trail_activation=2.0, trail_distance=1.0),
        {},
        (2, 102.6, "END_OF_DATA"),
    ),
    "a close beyond the exit level leaves at the next open": (
        [(100.0, 101.0, 98.5, 98.9), (98.7, 110.0, 90.0, 100.0)],
        Exits(target="r", target_multiple=2.0, exit_level_bars=1),
        {"exit_level": 99.0},
        (2, 98.7, "RETRACEMENT"),
    ),
    "the condition's exit comes before the stop": (
        [(100.0, 101.0, 98.5, 98.9), (97.0, 98.0, 96.0, 97.0)],
        Exits(exit_level_bars=1),
        {"exit_level": 99.0},
        (2, 97.0, "RETRACEMENT"),
    ),
    "the stop in the bar itself comes before its condition": (
        [(100.0, 101.0, 97.5, 98.5), QUIET],
        Exits(exit_level_bars=1),
        {"exit_level": 99.0},
        (1, 98.0, "STOP_LOSS"),
    ),
    "the time limit comes before the condition": (
        [(100.0, 101.0, 98.5, 98.9), QUIET],
        Exits(exit_level_bars=1, max_holding_bars=1),
        {"exit_level": 99.0},
        (1, 98.9, "TIME_LIMIT"),
    ),
    "a close on the exit level is not beyond it": (
        [(100.0, 101.0, 98.5, 99.0), QUIET],
        Exits(exit_level_bars=1),
        {"exit_level": 99.0},
        (2, 100.0, "END_OF_DATA"),
    ),
    "the exit level holds for the first bars alone": (
        [QUIET, (100.0, 101.0, 98.5, 98.9), QUIET],
        Exits(exit_level_bars=1),
        {"exit_level": 99.0},
        (3, 100.0, "END_OF_DATA"),
    ),
    "on the last bar the end of data comes before the condition": (
        [QUIET, (100.0, 101.0, 98.5, 98.9)],
        Exits(exit_level_bars=9),
        {"exit_level": 99.0},
        (2, 98.9, "END_OF_DATA"),
    ),
}


@pytest.mark.parametrize("case", EXIT_RULES.values(), ids=EXIT_RULES.keys())
def test_exit_rules_long(run: Run, case: tuple[list[Row], Exits, dict[str, float], tuple[int, float, str]]) -> None:
    rows, exits, prices, (exit_bar, exit_price, reason) = case
    (trade,), _ = run(candles_of([QUIET, *rows]), at(0, **prices), exits, FREE)
    assert (trade.exit_bar, trade.exit_reason) == (exit_bar, reason)
    assert trade.exit_price == pytest.approx(exit_price, rel=1e-12)


@pytest.mark.parametrize("case", EXIT_RULES.values(), ids=EXIT_RULES.keys())
def test_exit_rules_short_are_the_mirror(
    run: Run, case: tuple[list[Row], Exits, dict[str, float], tuple[int, float, str]]
) -> None:
    rows, exits, prices, (exit_bar, exit_price, reason) = case
    levels = {name: price if name.endswith("unit") else 200 - price for name, price in prices.items()}
    (trade,), _ = run(candles_of(mirrored([QUIET, *rows])), at(0, side=SHORT, stop=102.0, **levels), exits, FREE)
    assert (trade.exit_bar, trade.exit_reason) == (exit_bar, reason)
    assert trade.exit_price == pytest.approx(200 - exit_price, rel=1e-12)


def test_a_long_trade_in_full(run: Run) -> None:
    rows = [QUIET, (100.0, 101.5, 99.0, 101.0), (101.0, 105.0, 100.5, 102.0), QUIET]
    (trade,), equity = run(candles_of(rows), at(0, stop=98.05), TWO_R, AccountSettings())
    # Entry 100 * 1.0005 = 100.05, R = 2, quantity = 1 % of 10 000 / 2 = 50, target 104.05 filled without slippage;
    # fees 0.001 * 50 * (100.05 + 104.05) = 10.205; pnl = 50 * 4 - 10.205.
    assert (trade.decision_bar, trade.entry_bar, trade.exit_bar, trade.side) == (0, 1, 2, 1)
    assert (trade.entry_bar_close, trade.equity_before, trade.exit_reason) == (101.0, 10_000.0, "TAKE_PROFIT")
    assert trade.entry_price == pytest.approx(100.05, rel=1e-12)
    assert trade.target_price == pytest.approx(104.05, rel=1e-12)
    assert trade.exit_price == pytest.approx(104.05, rel=1e-12)
    assert trade.quantity == pytest.approx(50.0, rel=1e-12)
    assert trade.pnl == pytest.approx(189.795, rel=1e-12)
    # Marked at the close of the entry bar: 10 000 - 0.001 * 50 * 100.05 + 50 * 0.95.
    assert equity == pytest.approx([10_000.0, 10_042.4975, 10_189.795, 10_189.795], rel=1e-12)


def test_a_short_trade_in_full(run: Run) -> None:
    rows = [QUIET, (100.0, 101.0, 98.5, 99.0), (99.0, 102.5, 98.0, 102.0), QUIET]
    (trade,), equity = run(candles_of(rows), at(0, side=SHORT, stop=101.95), TWO_R, AccountSettings())
    # Entry 100 * 0.9995 = 99.95, R = 2, quantity 50, target 95.95; stopped at 101.95 * 1.0005 = 102.000975;
    # fees 0.001 * 50 * (99.95 + 102.000975) = 10.09754875; pnl = 50 * -2.050975 - fees = -112.64629875.
    assert (trade.decision_bar, trade.entry_bar, trade.exit_bar, trade.side) == (0, 1, 2, -1)
    assert trade.entry_price == pytest.approx(99.95, rel=1e-12)
    assert trade.target_price == pytest.approx(95.95, rel=1e-12)
    assert trade.exit_price == pytest.approx(102.000975, rel=1e-12)
    assert trade.pnl == pytest.approx(-112.64629875, rel=1e-12)
    # 10 000 - 0.001 * 50 * 99.95 + 50 * 0.95.
    assert equity == pytest.approx([10_000.0, 10_042.5025, 9_887.35370125, 9_887.35370125], rel=1e-12)


@pytest.mark.parametrize(
    ("rows", "exits", "prices", "exit_price"),
    [
        ([(100.0, 101.0, 97.0, 98.0)], Exits(), {}, 98.0 * 0.99),
        ([QUIET, (97.0, 98.0, 96.0, 97.5)], Exits(), {}, 97.0 * 0.99),
        ([(100.0, 105.0, 99.0, 101.0)], Exits(max_holding_bars=1), {}, 101.0 * 0.99),
        ([(100.0, 105.0, 99.0, 101.0)], Exits(), {}, 101.0 * 0.99),
        ([(100.0, 101.0, 98.5, 98.9), QUIET], Exits(exit_level_bars=1), {"exit_level": 99.0}, 100.0 * 0.99),
        ([QUIET, (110.0, 111.0, 109.0, 110.0)], TWO_R, {}, 110.0),
        ([QUIET, (100.0, 111.0, 99.0, 110.0)], TWO_R, {}, 101.0 + 2 * 3.0),
    ],
    ids=["stop", "gap", "time limit", "end of data", "condition", "open beyond target", "target"],
)
def test_which_fills_pay_slippage(
    run: Run, rows: list[Row], exits: Exits, prices: dict[str, float], exit_price: float
) -> None:
    account = AccountSettings(fee_rate=0.0, slippage=0.01)
    (trade,), _ = run(candles_of([QUIET, *rows]), at(0, **prices), exits, account)
    assert trade.entry_price == pytest.approx(101.0, rel=1e-12)
    assert trade.exit_price == pytest.approx(exit_price, rel=1e-12)


def test_leverage_caps_the_notional_with_its_fee(run: Run) -> None:
    account = AccountSettings(fee_rate=0.001, slippage=0.0, max_leverage=2.0)
    (trade,), _ = run(candles_of([QUIET, QUIET]), at(0, stop=99.9), Exits(), account)
    # One per cent of risk would need 100 / 0.1 = 1000 units, 100 000 in notional.
    assert trade.quantity == pytest.approx(2 * 10_000 / (100.0 * 1.001), rel=1e-12)


def test_equity_before_each_trade_sizes_it(run: Run) -> None:
    loss = (100.0, 101.0, 97.0, 100.0)
    trades, equity = run(candles_of([QUIET, loss, loss, QUIET]), at(0, 1), Exits(), FREE)
    assert [trade.equity_before for trade in trades] == pytest.approx([10_000.0, 9_900.0], rel=1e-12)
    assert [trade.quantity for trade in trades] == pytest.approx([50.0, 49.5], rel=1e-12)
    assert equity == pytest.approx([10_000.0, 9_900.0, 9_801.0, 9_801.0], rel=1e-12)


def test_decisions_in_a_position_are_ignored_and_one_at_its_exit_bar_is_taken(run: Run) -> None:
    rows = [QUIET, QUIET, QUIET, QUIET, QUIET, QUIET]
    trades, _ = run(candles_of(rows), at(0, 1, 2, 3), Exits(max_holding_bars=2), FREE)
    assert [(trade.decision_bar, trade.entry_bar, trade.exit_bar) for trade in trades] == [(0, 1, 2), (2, 3, 4)]


def test_the_smaller_time_limit_counts(run: Run) -> None:
    candles = candles_of([QUIET] * 6)
    for of_account, of_exits, exit_bar in [(0, 3, 3), (2, 3, 2), (3, 2, 2), (2, 0, 2), (0, 0, 5)]:
        account = replace(FREE, max_holding_bars=of_account)
        (trade,), _ = run(candles, at(0), Exits(max_holding_bars=of_exits), account)
        assert trade.exit_bar == exit_bar


def test_the_stop_nearest_to_the_close_is_taken(run: Run) -> None:
    decisions = at(0, 0, 0, stop=[97.0, 98.5, 98.0])
    (trade,), _ = run(candles_of([QUIET, QUIET]), decisions, Exits(), FREE)
    assert trade.stop_price == 98.5


def test_of_equally_near_stops_the_first_is_taken(run: Run) -> None:
    both = Decisions.of(np.array([0, 0]), np.array([SHORT, LONG]), np.array([102.0, 98.0]), np.ones(2))
    (trade,), _ = run(candles_of([QUIET, QUIET]), both, Exits(), FREE)
    assert trade.side == SHORT


def test_a_void_decision_does_not_pass_its_turn_to_a_farther_one(run: Run) -> None:
    # The open at 98.6 lies at the nearer stop; the farther one at 90 would have been sound.
    trades, _ = run(candles_of([QUIET, (98.6, 99.0, 98.5, 98.8)]), at(0, 0, stop=[98.6, 90.0]), Exits(), FREE)
    assert trades == []


@pytest.mark.parametrize(
    ("open_", "stop", "is_taken"),
    [
        (98.5, 98.0, True),  # R = 0.5 = a quarter of 2
        (98.49, 98.0, False),
        (98.0, 98.0, False),
        (97.0, 98.0, False),
        (100.0, math.nan, False),
        (100.0, math.inf, False),
        (100.0, 0.0, False),
        (100.0, -1.0, False),
        (100.5, 100.0, True),  # a stop at the close itself: any R above 0
        (100.0, 100.0, False),  # R = 0
    ],
)
def test_void_decisions(run: Run, open_: float, stop: float, is_taken: bool) -> None:
    rows = [QUIET, (open_, open_ + 0.1, open_ - 0.1, open_)]
    trades, equity = run(candles_of(rows), at(0, stop=stop), Exits(), FREE)
    assert len(trades) == is_taken
    if not is_taken:
        assert equity == [10_000.0, 10_000.0]


def test_a_target_at_or_below_zero_is_void(run: Run) -> None:
    rows = [QUIET, QUIET]
    for target_multiple, n_trades in [(49.0, 1), (50.0, 0), (51.0, 0)]:
        exits = Exits(target="r", target_multiple=target_multiple)
        trades, _ = run(candles_of(rows), at(0, side=SHORT, stop=102.0), exits, FREE)
        assert len(trades) == n_trades


def test_a_target_price_that_is_not_beyond_the_entry_is_void(run: Run) -> None:
    for side, stop, target, n_trades in [
        (LONG, 98.0, 100.0, 0),
        (LONG, 98.0, 99.0, 0),
        (LONG, 98.0, 100.5, 1),
        (SHORT, 102.0, 100.0, 0),
        (SHORT, 102.0, 101.0, 0),
        (SHORT, 102.0, 99.5, 1),
    ]:
        decisions = at(0, side=side, stop=stop, target_anchor=target, target_unit=1.0)
        trades, _ = run(candles_of([QUIET, QUIET]), decisions, Exits(target="price"), FREE)
        assert len(trades) == n_trades, (side, target)


def test_no_entry_across_a_gap(run: Run) -> None:
    rows = [QUIET] * 6
    short_gap = candles_of(rows, missing=(2,))  # bar 2 gets filled
    long_gap = candles_of(rows, missing=(2, 3, 4, 5))  # bar 2 is four candles late
    exits = Exits(max_holding_bars=1)
    for candles, signal_bars, expected in [
        (short_gap, (0, 1, 2, 3, 4), [0, 3, 4]),  # the one at bar 1 would enter on, and bar 2 itself is, a filled bar
        (long_gap, (0, 1, 2, 3), [0, 2, 3]),
    ]:
        trades, _ = run(candles, at(*signal_bars), exits, FREE)
        assert [trade.decision_bar for trade in trades] == expected


def test_a_position_lives_through_a_gap(run: Run) -> None:
    candles = candles_of([QUIET, QUIET, (97.0, 97.5, 96.0, 97.2)], missing=(2, 3, 4, 5, 6))
    (trade,), _ = run(candles, at(0), Exits(), FREE)
    assert (trade.exit_bar, trade.exit_price, trade.exit_reason) == (2, 97.0, "STOP_LOSS")


def test_a_window_takes_its_own_signals_and_closes_at_its_end(run: Run) -> None:
    candles = candles_of([QUIET] * 10)
    exits = Exits(max_holding_bars=1)
    trades, equity = run(candles, at(0, 3, 4, 6, 7, 8), exits, FREE, BarRange(4, 8))
    # Bar 3 lies before the window; a signal at its last bar, 7, has no bar left to enter on.
    assert [trade.decision_bar for trade in trades] == [4, 6]
    assert len(equity) == 4
    (trade,), _ = run(candles, at(4), Exits(), FREE, BarRange(4, 8))
    assert (trade.exit_bar, trade.exit_reason) == (7, "END_OF_DATA")


def test_nothing_is_traded_once_the_equity_is_gone(run: Run) -> None:
    account = AccountSettings(initial_capital=100.0, risk_fraction=1.0, max_leverage=100.0, fee_rate=0.0, slippage=0.0)
    rows = [QUIET, (100.0, 101.0, 99.5, 100.0), (95.0, 100.0, 95.0, 100.0), QUIET, QUIET]
    trades, equity = run(candles_of(rows), at(0, 2, 3, stop=99.0), Exits(), account)
    # 100 units with R = 1, sold at 95: 500 lost of 100.
    assert [(trade.quantity, trade.pnl) for trade in trades] == [(100.0, -500.0)]
    assert equity == [100.0, 100.0, -400.0, -400.0, -400.0]


def test_an_impossible_window_is_refused() -> None:
    frame = frame_of(candles_of([QUIET] * 5))
    for window in [BarRange(3, 3), BarRange(4, 2), BarRange(-1, 3), BarRange(0, 6)]:
        with pytest.raises(InvalidInputError, match=r"[Ww]indow"):
            run_backtest(frame, at(0), Exits(), FREE, window)
