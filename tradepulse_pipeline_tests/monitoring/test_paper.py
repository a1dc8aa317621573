from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.result import Trades
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.monitoring.paper import (
    frame_of,
    out_of_sample_record,
    paper_record,
    sharpe_ratio,
    start_of_new,
)
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline_tests.monitoring.conftest import N_TRAINED, SETTINGS, START, STRATEGY, candles, trained
from tradepulse_pipeline_tests.reference.backtest import marked_equity, run
from tradepulse_pipeline_tests.reference.comparison import assert_same_trades, plain_candles, plain_orders


def record_of(known):
    _, _, subject = trained()
    frame = frame_of(known, STRATEGY)
    return frame, paper_record(frame, SignalSource(STRATEGY, frame, SETTINGS.side), subject)


def test_the_out_of_sample_record_is_that_of_the_training():
    frame, record, subject = trained()
    again = out_of_sample_record(frame, SignalSource(STRATEGY, frame, SETTINGS.side), subject)
    np.testing.assert_array_equal(again.trades.pnl, record.trades["pnl"].to_numpy())
    np.testing.assert_array_equal(again.daily_return, record.daily["daily_return"].to_numpy())
    assert (again.day * MS_PER_DAY).tolist() == [
        int(np.datetime64(date, "ms").astype(int)) for date in record.daily["date"].to_list()
    ]
    assert again.sharpe_ratio == pytest.approx(record.metrics.sharpe_ratio, rel=1e-12)
    assert float(again.adverse_selection.mean()) == pytest.approx(record.metrics.adverse_selection_score)


def test_more_candles_give_the_same_record_out_of_sample_too():
    frame, _, subject = trained()
    longer = frame_of(candles(), STRATEGY)
    first, second = (
        out_of_sample_record(one, SignalSource(STRATEGY, one, SETTINGS.side), subject) for one in (frame, longer)
    )
    np.testing.assert_array_equal(first.trades.pnl, second.trades.pnl)
    np.testing.assert_array_equal(first.daily_return, second.daily_return)


@given(cut=st.integers(N_TRAINED * 288 + 1, 45 * 288 - 1))
@settings(max_examples=25)
def test_a_record_made_day_by_day_is_the_record_made_at_once(cut):
    _, whole = record_of(candles())
    known = candles().between(None, START + cut * 300_000)
    frame, part = record_of(known)
    n_trades, n_days = len(part.trades), len(part.day)
    for field in fields(Trades):
        np.testing.assert_array_equal(
            getattr(part.trades, field.name), getattr(whole.trades, field.name)[:n_trades], err_msg=field.name
        )
    np.testing.assert_array_equal(part.day, whole.day[:n_days])
    np.testing.assert_array_equal(part.daily_return, whole.daily_return[:n_days])
    assert n_days == (known.end_ms - START) // MS_PER_DAY - N_TRAINED
    later = whole.trades.exit_bar[n_trades:]
    assert not len(later) or later.min() >= len(frame) - 1


def test_against_the_reference():
    """The plain walk over single bars, which shares nothing with the engine."""
    _, _, subject = trained()
    frame, paper = record_of(candles())
    start = int(np.searchsorted(frame.open_time_ms, subject.data_end_ms))
    decisions = SignalSource(STRATEGY, frame, SETTINGS.side).decisions(subject.parameters)
    bars = plain_candles(frame)
    orders = plain_orders(decisions, STRATEGY.exits(subject.parameters))
    trades, equity = run(bars, 300_000, orders, SETTINGS.account, start, len(bars))
    closed = [trade for trade in trades if trade.exit_reason != "END_OF_DATA"]
    assert len(closed) > 5
    assert_same_trades(paper.trades, closed)
    assert min(trade.decision_bar for trade in closed) >= start
    if len(closed) < len(trades):
        equity[-1] = marked_equity(trades[-1], bars[-1].close, SETTINGS.account.fee_rate)
    at_end_of = {bar.open_time_ms // MS_PER_DAY: value for bar, value in zip(bars[start:], equity, strict=True)}
    values = [SETTINGS.account.initial_capital, *at_end_of.values()]
    expected = [b / a - 1 for a, b in pairwise(values)]
    np.testing.assert_allclose(paper.daily_return, expected, atol=1e-12)
    assert len(paper.open_trade) == len(trades) - len(closed)


def test_a_position_that_is_open_is_valued_without_the_costs_of_leaving():
    _, whole = record_of(candles())
    bar = int(whole.trades.entry_bar[3])
    _, part = record_of(frame_candles(bar + 1))
    assert (len(part.trades), len(part.open_trade)) == (3, 1)
    assert part.open_trade.entry_bar.tolist() == [bar]


def frame_candles(n_bars):
    """Return the stored candles that fill up to so many bars."""
    frame = frame_of(candles(), STRATEGY)
    return candles().between(None, int(frame.open_time_ms[n_bars - 1]) + 300_000)


def test_without_new_candles_there_is_no_record():
    _, paper = record_of(candles().between(None, START + N_TRAINED * MS_PER_DAY))
    assert (len(paper.trades), len(paper.day), paper.sharpe_ratio, paper.rolling_sharpe_ratio) == (0, 0, None, None)


def test_candles_from_before_the_paper_trading_are_needed():
    _, _, subject = trained()
    known = candles()
    assert start_of_new(known, subject) == len(known.between(subject.data_end_ms, None))
    with pytest.raises(InvalidInputError, match="before the configuration's paper trading are not stored"):
        start_of_new(known.between(subject.data_end_ms, None), subject)


@given(st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=40))
def test_the_sharpe_ratio(values):
    returns = np.array(values)
    mean = sum(values) / len(values)
    deviation = (sum((one - mean) ** 2 for one in values) / (len(values) - 1)) ** 0.5
    if deviation > 1e-9:
        assert sharpe_ratio(returns) == pytest.approx(mean / deviation * 365**0.5, rel=1e-6, abs=1e-9)
    assert sharpe_ratio(np.zeros(5)) == 0.0
