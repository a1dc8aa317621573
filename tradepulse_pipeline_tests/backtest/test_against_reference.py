"""The engine against the slow reference, trade by trade and metric by metric, on markets and decisions of all kinds."""

from __future__ import annotations

from collections import Counter

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.api import run_backtest
from tradepulse_pipeline.backtest.result import EXIT_REASONS
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.strategies.decisions import LONG, SHORT, Decisions, Exits
from tradepulse_pipeline_tests.reference.backtest import Trade
from tradepulse_pipeline_tests.reference.comparison import assert_same_result, plain_candles, plain_orders
from tradepulse_pipeline_tests.reference.markets import (
    accounts,
    cases,
    decisions_on,
    exit_rules,
    frame_of,
    random_markets,
    windows_of,
)


def assert_agreement(
    frame: IndicatorFrame, decisions: Decisions, exits: Exits, account: AccountSettings, window: BarRange
) -> list[Trade]:
    result = run_backtest(frame, decisions, exits, account, window)
    candles, orders = plain_candles(frame), plain_orders(decisions, exits)
    return assert_same_result(result, candles, frame.timeframe.milliseconds, orders, account, window)


@st.composite
def runs(draw: st.DrawFn) -> tuple[IndicatorFrame, Decisions, Exits, AccountSettings, BarRange]:
    frame = frame_of(draw(random_markets()))
    return frame, draw(decisions_on(frame)), draw(exit_rules()), draw(accounts()), draw(windows_of(len(frame)))


@settings(max_examples=cases(600))
@given(run=runs())
def test_engine_agrees_with_reference(run: tuple[IndicatorFrame, Decisions, Exits, AccountSettings, BarRange]) -> None:
    assert_agreement(*run)


def test_drawn_runs_meet_every_exit_on_both_sides() -> None:
    met: Counter[tuple[str, int]] = Counter()

    @settings(max_examples=400, derandomize=True, database=None, phases=[Phase.generate])
    @given(run=runs())
    def collect(run: tuple[IndicatorFrame, Decisions, Exits, AccountSettings, BarRange]) -> None:
        met.update((trade.exit_reason, trade.side) for trade in assert_agreement(*run))

    collect()
    for reason in EXIT_REASONS:
        for side in (LONG, SHORT):
            assert met[reason, side] > 0, f"no {reason} of side {side} among {met.total()} trades"
