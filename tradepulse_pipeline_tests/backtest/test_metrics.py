"""The metrics by hand, and against the reference on records of any kind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.api import cost_per_trade_r, metrics_of, run_backtest
from tradepulse_pipeline.backtest.result import EXIT_REASONS, METRIC_NAMES, Metrics, Trades
from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.strategies.decisions import Decisions, Exits
from tradepulse_pipeline_tests.reference.backtest import Trade
from tradepulse_pipeline_tests.reference.comparison import assert_same_metrics, column
from tradepulse_pipeline_tests.reference.markets import NEW_YEAR_MS, candles_of, cases, frame_of
from tradepulse_pipeline_tests.reference.metrics import all_metrics

MS_PER_HOUR = 3_600_000


def trades_of(trades: list[Trade]) -> Trades:
    whole = ("decision_bar", "entry_bar", "exit_bar", "side")
    names = [name for name in Trade.__slots__ if name != "exit_reason"]
    columns = {name: np.array(column(trades, name), dtype=np.int64 if name in whole else float) for name in names}
    codes = [EXIT_REASONS.index(trade.exit_reason) for trade in trades]
    return Trades(**columns, exit_reason=np.array(codes, dtype=np.int64))


def trade(pnl: float = 0.0, *, side: int = 1, exit_price: float = 100.0, close: float = 100.0, bars: int = 1) -> Trade:
    """Return a trade of 10 units from 100 on, with a stop 2 away."""
    return Trade(
        decision_bar=0,
        entry_bar=1,
        exit_bar=bars,
        side=side,
        entry_price=100.0,
        exit_price=exit_price,
        stop_price=100.0 - 2 * side,
        target_price=None,
        quantity=10.0,
        pnl=pnl,
        equity_before=10_000.0,
        entry_bar_close=close,
        exit_reason="TIME_LIMIT",
    )


def record(equity: list[float], trades: list[Trade], *, hours: list[int] | None = None) -> Metrics:
    """Return the metrics of a record of daily candles, or of candles at the given hours."""
    times = NEW_YEAR_MS + MS_PER_HOUR * np.array(hours or [24 * day for day in range(len(equity))])
    days = float(times[-1] - times[0]) / (24 * MS_PER_HOUR) + 1
    return metrics_of(np.array(equity), times, trades_of(trades), initial_capital=10_000.0, days=days)


def test_returns_ratios_and_drawdown_by_hand() -> None:
    # Daily returns 1 %, -1 %, 2 %.
    metrics = record([10_100.0, 9_999.0, 10_198.98], [trade()])
    assert metrics.net_profit == pytest.approx(198.98, rel=1e-9)
    assert metrics.total_return == pytest.approx(0.019898, rel=1e-9)
    # exp(365 / 3 * 0.01970262) - 1
    assert metrics.annualized_return == pytest.approx(9.9918, rel=1e-4)
    # mean 0.02 / 3, variance (1 + 1 + 4) e-4 / 2 - ... = 7 / 3 e-4, and (4 / 9) / (7 / 3) = 1 / 5.25
    assert metrics.sharpe_ratio == pytest.approx(math.sqrt(365 / 5.25), rel=1e-9)
    # downside deviation 0.01 / sqrt(3), and (2 / 3) * sqrt(3) = sqrt(4 / 3)
    assert metrics.sortino_ratio == pytest.approx(math.sqrt(365 * 4 / 3), rel=1e-9)
    assert metrics.max_drawdown == pytest.approx(0.01, rel=1e-9)
    assert metrics.calmar_ratio == pytest.approx(999.18, rel=1e-4)


def test_trade_statistics_by_hand() -> None:
    trades = [
        trade(30.0, exit_price=104.0, close=99.0, bars=3),  # 1.5 R; half a stop distance against it
        trade(-10.0, exit_price=100.5, close=101.0),  # -0.5 R: a gross win that the fees ate
        trade(-20.0, side=-1, exit_price=101.0, close=105.0),  # -1 R; more than the stop distance against it
        trade(0.0, side=-1, exit_price=99.0, close=100.5),  # 0 R, not a win
    ]
    metrics = record([10_000.0] * 10, trades)
    assert (metrics.sample_size, metrics.win_rate, metrics.gross_win_rate) == (4, 0.25, 0.75)
    assert (metrics.average_win, metrics.average_loss, metrics.profit_factor) == (30.0, -10.0, 1.0)
    assert metrics.expectancy_r == 0.0
    assert (metrics.average_holding_bars, metrics.exposure) == (1.5, 0.6)
    # (0.5 + 0 + 1 + 0.25) / 4
    assert metrics.adverse_selection_score == pytest.approx(0.4375, rel=1e-12)
    assert metrics.fill_rate == 1.0


def test_the_first_drawdown_counts_from_the_capital() -> None:
    assert record([9_000.0, 9_500.0], [trade()]).max_drawdown == pytest.approx(0.1, rel=1e-12)


def test_days_are_utc_days_of_the_open_time_and_days_without_candles_have_no_return() -> None:
    # Closes of days 0, 1 and 4: 10 100, 9 999 and 10 198.98, as in the first example; the others lie within days.
    equity = [10_050.0, 10_100.0, 9_000.0, 9_999.0, 10_198.98]
    metrics = record(equity, [trade()], hours=[0, 23, 24, 30, 4 * 24 + 5])
    assert metrics.sharpe_ratio == pytest.approx(math.sqrt(365 / 5.25), rel=1e-9)


def test_a_record_without_trades_is_zero_throughout() -> None:
    assert set(record([10_000.0, 10_000.0], [])) == {0.0}


def test_no_ratio_without_variation() -> None:
    # Equal returns of 1 % a day: their deviation is rounding alone.
    metrics = record([10_000.0 * 1.01**day for day in range(1, 8)], [trade(1.0)])
    assert (metrics.sharpe_ratio, metrics.sortino_ratio, metrics.calmar_ratio) == (0.0, 0.0, 0.0)
    assert record([9_900.0], [trade(-1.0)]).sharpe_ratio == 0.0  # a single day


def test_profit_factor_at_its_ends() -> None:
    only_wins = record([10_000.0], [trade(10.0), trade(5.0)])
    assert math.isnan(only_wins.profit_factor)
    assert only_wins.as_dict()["profit_factor"] is None
    assert record([10_000.0], [trade(10.0), trade(0.0)]).as_dict()["profit_factor"] is None
    assert record([10_000.0], [trade(-10.0)]).profit_factor == 0.0
    assert record([10_000.0], [trade(0.0)]).profit_factor == 0.0


def test_lost_equity() -> None:
    metrics = record([5_000.0, -1_000.0, -1_000.0], [trade(-11_000.0)])
    assert metrics.annualized_return == -1.0
    assert metrics.max_drawdown == pytest.approx(1.1, rel=1e-12)
    # Returns -0.5, -1.2 and 0: after a day that ends at or below 0 there is none.
    returns = np.array([-0.5, -1.2, 0.0])
    assert metrics.sharpe_ratio == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(365), rel=1e-9)


def test_no_metric_is_infinite_however_short_the_run() -> None:
    metrics = metrics_of(
        np.array([20_000.0]),
        np.array([NEW_YEAR_MS]),
        trades_of([trade(10_000.0)]),
        initial_capital=10_000.0,
        days=1 / 1440,
    )
    assert not any(math.isinf(value) for value in metrics)


def test_costs_per_trade_by_hand() -> None:
    # In at 100.1 for 100, R = 2.1; out at the close of 101, for 101 * 0.999 = 100.899.
    # Slippage 0.1 + 0.101 and fees 0.01 * (100.1 + 100.899), per unit.
    account = AccountSettings(fee_rate=0.01, slippage=0.001)
    frame = frame_of(candles_of([(100.0, 100.5, 99.5, 100.0), (100.0, 101.5, 99.5, 101.0)]))
    decisions = Decisions.of(np.array([0]), 1, np.array([98.0]), np.ones(1))
    trades = run_backtest(frame, decisions, Exits(), account).trades
    assert cost_per_trade_r(trades, account) == pytest.approx((0.201 + 2.00999) / 2.1, rel=1e-9)
    assert cost_per_trade_r(trades_of([]), account) == 0.0


@st.composite
def records(draw: st.DrawFn) -> tuple[list[float], list[int], list[Trade], float]:
    """Equity curves and trades that need not belong together: every figure is a function of what it is given."""
    n_bars = draw(st.integers(1, 60))
    capital = draw(st.floats(1.0, 1e6))
    moves = draw(st.lists(st.sampled_from([0.0, 0.01]) | st.floats(-0.2, 0.2), min_size=n_bars, max_size=n_bars))
    equity = (capital * np.cumprod(1 + np.array(moves))).tolist()
    if draw(st.integers(0, 9)) == 0:
        equity = [value - capital for value in equity]  # lost, at times
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 6, 50]), min_size=n_bars, max_size=n_bars))
    times = [NEW_YEAR_MS + MS_PER_HOUR * sum(steps[:i]) for i in range(n_bars)]
    trades: list[Trade] = []
    for bar in sorted(draw(st.sets(st.integers(0, n_bars - 1), max_size=12))):
        side, price = draw(st.sampled_from([1, -1])), draw(st.floats(1.0, 1000.0))
        offset = st.floats(-0.1, 0.1) | st.just(0.0)
        trades.append(
            Trade(
                decision_bar=bar - 1,
                entry_bar=bar,
                exit_bar=bar,
                side=side,
                entry_price=price,
                exit_price=price * (1 + draw(offset)),
                stop_price=price * (1 - side * draw(st.floats(0.001, 0.1))),
                target_price=None,
                quantity=draw(st.floats(0.001, 1000.0)),
                pnl=draw(offset) * capital,
                equity_before=capital,
                entry_bar_close=price * (1 + draw(offset)),
                exit_reason=draw(st.sampled_from(EXIT_REASONS)),
            )
        )
    return equity, times, trades, capital


@settings(max_examples=cases(150))
@given(record=records())
def test_metrics_agree_with_reference(record: tuple[list[float], list[int], list[Trade], float]) -> None:
    equity, times, trades, capital = record
    days = float(len(times))
    found = metrics_of(np.array(equity), np.array(times), trades_of(trades), initial_capital=capital, days=days)
    expected = all_metrics(trades, equity, times, days, capital)
    assert tuple(expected) == METRIC_NAMES
    assert_same_metrics(found, expected, equity=equity, trades=trades, initial_capital=capital)
