"""What must hold for every run, whatever the market: no look-ahead, conservation, scale, costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.api import run_backtest
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.indicators.catalogue import ALL_INDICATORS
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.strategies.decisions import Decisions, Exits
from tradepulse_pipeline_tests.reference.markets import (
    accounts,
    cases,
    decisions_on,
    exit_rules,
    random_markets,
    windows_of,
)


@st.composite
def setups(draw: st.DrawFn) -> tuple[Candles, Decisions, Exits]:
    candles = draw(random_markets()).filled_forward()
    return candles, draw(decisions_on(candles)), draw(exit_rules())


Setup = tuple[Candles, Decisions, Exits]


def frame_over(candles: Candles) -> IndicatorFrame:
    return IndicatorFrame.compute(candles, ALL_INDICATORS)


def those(decisions: Decisions, is_kept: np.ndarray) -> Decisions:
    return Decisions(*(getattr(decisions, name)[is_kept] for name in Decisions.__dataclass_fields__))


@settings(max_examples=cases(80))
@given(setup=setups(), account=accounts(), data=st.data())
def test_a_shorter_history_gives_the_same_start(setup: Setup, account: AccountSettings, data: st.DataObject) -> None:
    candles, decisions, exits = setup
    t = data.draw(st.integers(1, len(candles)))
    known = those(decisions, decisions.bar < t)
    cut = run_backtest(frame_over(candles.slice(0, t)), known, exits, account)
    full = run_backtest(frame_over(candles), decisions, exits, account)
    # The cut itself closes what is open on its last bar.
    np.testing.assert_array_equal(cut.equity[:-1], full.equity[: t - 1])
    n_closed = int((full.trades.exit_bar < t - 1).sum())
    np.testing.assert_array_equal(cut.trades.pnl[:n_closed], full.trades.pnl[:n_closed])


@settings(max_examples=cases(60))
@given(setup=setups(), account=accounts(), data=st.data())
def test_a_window_is_the_run_of_its_signals_on_the_data_up_to_its_end(
    setup: Setup, account: AccountSettings, data: st.DataObject
) -> None:
    candles, decisions, exits = setup
    window = data.draw(windows_of(len(candles)))
    inside = those(decisions, (decisions.bar >= window.start) & (decisions.bar < window.stop))
    found = run_backtest(frame_over(candles), decisions, exits, account, window)
    alone = run_backtest(frame_over(candles.slice(0, window.stop)), inside, exits, account)
    np.testing.assert_array_equal(found.equity, alone.equity[window.start :])
    np.testing.assert_array_equal(found.trades.entry_bar, alone.trades.entry_bar)
    np.testing.assert_array_equal(found.trades.pnl, alone.trades.pnl)


@settings(max_examples=cases(60))
@given(setup=setups(), account=accounts(), data=st.data())
def test_trades_follow_one_another_and_add_up(setup: Setup, account: AccountSettings, data: st.DataObject) -> None:
    candles, decisions, exits = setup
    window = data.draw(windows_of(len(candles)))
    result = run_backtest(frame_over(candles), decisions, exits, account, window)
    trades = result.trades
    assert (trades.entry_bar == trades.decision_bar + 1).all()
    assert (trades.exit_bar >= trades.entry_bar).all()
    assert (trades.decision_bar[1:] >= trades.exit_bar[:-1]).all()
    assert ((trades.decision_bar >= window.start) & (trades.exit_bar < window.stop)).all()
    assert set(zip(trades.decision_bar, trades.side, strict=True)) <= set(
        zip(decisions.bar, decisions.side, strict=True)
    )
    assert (trades.quantity > 0).all()
    assert (trades.risk > 0).all()
    assert (trades.equity_before > 0).all()
    before = account.initial_capital + np.concatenate([[0.0], np.cumsum(trades.pnl)])
    scale = np.abs(before).max() + (trades.quantity * trades.entry_price).max(initial=0.0)
    np.testing.assert_allclose(trades.equity_before, before[:-1], atol=1e-12 * scale)
    np.testing.assert_allclose(result.equity[-1], before[-1], atol=1e-12 * scale)
    assert result.metrics.sample_size == len(trades)
    assert all(np.isfinite(value) for name, value in result.metrics._asdict().items() if name != "profit_factor")


@settings(max_examples=cases(60))
@given(setup=setups(), account=accounts(), factor=st.sampled_from([0.25, 2.0, 1024.0]))
def test_all_is_proportional_to_the_capital(setup: Setup, account: AccountSettings, factor: float) -> None:
    candles, decisions, exits = setup
    frame = frame_over(candles)
    one = run_backtest(frame, decisions, exits, account)
    other = run_backtest(frame, decisions, exits, replace(account, initial_capital=account.initial_capital * factor))
    # Powers of two scale without rounding.
    np.testing.assert_array_equal(other.equity, one.equity * factor)
    np.testing.assert_array_equal(other.trades.quantity, one.trades.quantity * factor)
    np.testing.assert_array_equal(other.trades.returns, one.trades.returns)


@settings(max_examples=cases(60))
@given(setup=setups(), fees=st.tuples(st.floats(0.0, 0.02), st.floats(0.0, 0.02)))
def test_higher_fees_never_help_a_fixed_trade_list(setup: Setup, fees: tuple[float, float]) -> None:
    candles, decisions, exits = setup
    frame = frame_over(candles)
    # So little risk that leverage never caps a quantity, and no loss ends the account.
    cheap, dear = (
        run_backtest(frame, decisions, exits, AccountSettings(fee_rate=fee, risk_fraction=1e-5, max_leverage=1000.0))
        for fee in sorted(fees)
    )
    assume((cheap.trades.risk > 1e-6 * cheap.trades.entry_price).all())
    np.testing.assert_array_equal(dear.trades.entry_bar, cheap.trades.entry_bar)
    np.testing.assert_array_equal(dear.trades.exit_price, cheap.trades.exit_price)
    assert (dear.trades.r_multiple <= cheap.trades.r_multiple + 1e-9 * np.abs(cheap.trades.r_multiple)).all()
    assert dear.metrics.net_profit <= cheap.metrics.net_profit + 1e-6


@settings(max_examples=cases(25))
@given(candles=random_markets(), account=accounts(), data=st.data())
def test_flat_keeps_the_cash(candles: Candles, account: AccountSettings, data: st.DataObject) -> None:
    frame = frame_over(candles.filled_forward())
    none = Decisions.of(np.array([], dtype=np.int64), 1, np.array([]), np.array([]))
    window: BarRange = data.draw(windows_of(len(frame)))
    result = run_backtest(frame, none, Exits(), account, window)
    np.testing.assert_array_equal(result.equity, np.full(window.stop - window.start, account.initial_capital))
    assert set(result.metrics) == {0.0}
