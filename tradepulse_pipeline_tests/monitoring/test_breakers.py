from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tradepulse_pipeline.backtest.result import Trades
from tradepulse_pipeline.configurations.template import CircuitBreakers
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, Timeframe
from tradepulse_pipeline.monitoring.breakers import LIMITS, MEASURED, NOT_MEASURED, replay_breakers
from tradepulse_pipeline.monitoring.market import regime_distance, unusual_move
from tradepulse_pipeline.monitoring.paper import Record, frame_of, out_of_sample_record, paper_record
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline_tests.monitoring.conftest import SETTINGS, START, STRATEGY, candles, trained

HOUR = 3_600_000


def market(close):
    """Return hourly candles that close at these prices."""
    close = np.asarray(close, dtype=np.float64)
    n = len(close)
    flat = Candles.from_arrays(
        Timeframe("1h"), START + HOUR * np.arange(n), close, close, close, close, np.ones(n)
    )  # fmt: skip
    return IndicatorFrame.compute(flat, ())


def record(frame, rows, daily=()):
    """Return trades of (decision bar, exit bar, result in R) at 1 % of equity risked, R being 1."""
    capital, columns = 10_000.0, []
    for decision, leave, r, *adverse in rows:
        pnl = 0.01 * capital * r
        columns.append(
            (decision, decision + 1, leave, 1, 100.0, 100.0 + r, 99.0, math.nan, 0.01 * capital, pnl, capital,
             100.0 - (adverse[0] if adverse else 0.0), 0)
        )  # fmt: skip
        capital += pnl
    arrays = [np.array(column) for column in zip(*columns, strict=True)]
    days = np.arange(len(daily)) + START // MS_PER_DAY
    return Record(
        trades=Trades(*arrays),
        open_trade=Trades.concatenated([]),
        day=days,
        daily_return=np.array(daily, dtype=np.float64),
    )


def stopped_by(name, frame, rows, daily=()):
    return replay_breakers(frame, record(frame, rows, daily), initial_capital=10_000.0).alone[name]


CALM = market(np.full(24 * 60, 100.0))


def test_the_limits_are_those_of_the_v3_template():
    assert CircuitBreakers().model_dump() == LIMITS
    assert list(CircuitBreakers.model_fields) == list(LIMITS)
    assert NOT_MEASURED == ("latency_threshold_ms",)
    replay = replay_breakers(CALM, record(CALM, [(1, 3, 1.0)]), initial_capital=10_000.0)
    assert replay.to_json_dict()["alone"]["latency_threshold_ms"] is None
    assert set(replay.alone) == set(MEASURED) == set(LIMITS) - set(NOT_MEASURED)


def test_the_daily_loss_stops_for_the_rest_of_the_utc_day():
    # Two losses of 1.5 % and 0.8 % within the first day; a third trade that day, one after midnight.
    rows = [(1, 3, -1.5), (4, 6, -0.8), (8, 10, 3.0), (22, 23, 2.0), (23, 26, 1.0)]
    found = stopped_by("max_daily_loss", CALM, rows)
    assert (found.stopped, found.n_tripped) == ((2, 3), 1)  # the last one enters at midnight
    assert found.saved_r == -5.0
    kept = 10_000 * (1 - 0.015) * (1 - 0.008) * 1.01
    whole = 10_000 * (1 - 0.015) * (1 - 0.008) * 1.03 * 1.02 * 1.01
    assert found.saved == pytest.approx(kept - whole, rel=1e-12)


def test_a_loss_counts_on_the_day_on_which_it_was_made():
    rows = [(1, 3, -1.5), (20, 25, -0.8), (26, 28, 1.0)]  # the second closes after midnight
    assert stopped_by("max_daily_loss", CALM, rows).stopped == ()


def test_exactly_the_limit_stops():
    assert stopped_by("max_daily_loss", CALM, [(1, 3, -2.0), (4, 6, 1.0)]).stopped == (1,)
    assert stopped_by("max_daily_loss", CALM, [(1, 3, -1.999), (4, 6, 1.0)]).stopped == ()


def test_five_losses_in_a_row_stop_for_24_hours_and_count_anew():
    losses = [(30 * k, 30 * k + 2, -0.1) for k in range(5)]  # the fifth closes at bar 122: 123:00
    after = [(123, 125, -0.1), (140, 142, 5.0), (146, 148, -0.1), (180, 182, -0.1)]
    found = stopped_by("consecutive_losses_limit", CALM, losses + after)
    # Entries at 124 and 141 lie within 24 hours after 123:00; the one at 147:00 is the first allowed again.
    assert (found.stopped, found.n_tripped) == ((5, 6), 1)
    broken = [*losses[:4], (110, 111, 0.5), *losses[4:], (123, 125, -0.1)]
    assert stopped_by("consecutive_losses_limit", CALM, broken).stopped == ()


def test_adverse_selection_of_the_last_20_trades():
    rows = [(10 * k, 10 * k + 2, 0.1, 0.7) for k in range(20)]
    found = stopped_by("max_adverse_selection", CALM, [*rows, (195, 197, 0.1, 0.7), (220, 222, 0.1, 0.7)])
    assert (found.stopped, found.n_tripped) == ((20,), 1)
    half = [(10 * k, 10 * k + 2, 0.1, 0.6) for k in range(20)]
    assert stopped_by("max_adverse_selection", CALM, [*half, (195, 197, 0.1)]).stopped == ()


def test_an_unusual_move_is_measured_against_the_30_days_before_it():
    close = 100 * np.cumprod(1 + np.random.default_rng(1).normal(0, 0.005, 24 * 60))
    bar = 24 * 50
    close[bar:] *= 1.2
    frame = market(close)
    ends = [close[bar - 24 * k] for k in range(32)]
    moves = [a / b - 1 for a, b in pairwise(ends)]
    mean = sum(moves[1:]) / 30
    deviation = math.sqrt(sum((move - mean) ** 2 for move in moves[1:]) / 29)
    assert unusual_move(frame, bar) == pytest.approx(abs(moves[0]) / deviation, rel=1e-12)
    assert unusual_move(frame, 24 * 31 - 1) is None
    found = stopped_by(
        "unusual_market_threshold", frame, [(bar - 1, bar, 1.0), (bar + 1, bar + 3, 1.0), (bar + 25, bar + 30, 1.0)]
    )
    assert (found.stopped, found.n_tripped) == ((1,), 1)


def test_a_regime_break_is_a_market_of_other_volatility():
    generator = np.random.default_rng(2)
    size = np.where(np.arange(24 * 60) < 24 * 50, 0.002, 0.01)
    frame = market(100 * np.cumprod(1 + generator.normal(0, 1, 24 * 60) * size))
    before, after = (24 * 50 - 1, 24 * 50, 1.0), (24 * 57, 24 * 57 + 3, 1.0)
    assert stopped_by("regime_break_threshold", frame, [before, after]).stopped == (1,)


def test_the_regime_distance_is_the_kolmogorov_distance():
    from scipy.stats import ks_2samp

    values = np.abs(np.random.default_rng(3).standard_t(3, 900))
    values[[5, 700]] = np.nan
    clean = [part[~np.isnan(part)] for part in (values[:600], values[600:])]
    assert regime_distance(values, (0, 600), (600, 900)) == pytest.approx(ks_2samp(*clean).statistic, rel=1e-12)
    assert regime_distance(values, (0, 600), (600, 699)) is None


def test_a_record_that_moves_with_the_market_stops():
    generator = np.random.default_rng(4)
    frame = market(100 * np.cumprod(1 + generator.normal(0, 0.01, 24 * 60)))
    close = frame.close[23::24]
    with_market = np.concatenate([[0.0], close[1:] / close[:-1] - 1])
    without = generator.normal(0, 0.01, 60)
    rows = [(24 * 20, 24 * 20 + 2, 1.0), (24 * 45, 24 * 45 + 2, 1.0)]
    assert stopped_by("max_correlation_spike", frame, rows, with_market).stopped == (1,)  # 20 days are too few
    assert stopped_by("max_correlation_spike", frame, rows, -with_market).stopped == (1,)
    assert stopped_by("max_correlation_spike", frame, rows, without).stopped == ()


def test_together_they_stop_what_any_market_breaker_stops():
    _, _, subject = trained()
    frame = frame_of(candles(), STRATEGY)
    source = SignalSource(STRATEGY, frame, SETTINGS.side)
    whole = Record.joined(out_of_sample_record(frame, source, subject), paper_record(frame, source, subject))
    replay = replay_breakers(frame, whole, initial_capital=10_000.0)
    for name in ("max_correlation_spike", "unusual_market_threshold", "regime_break_threshold"):
        assert set(replay.alone[name].stopped) <= set(replay.together.stopped)
    growth = 1 + whole.trades.returns
    kept = [k for k in range(len(growth)) if k not in replay.together.stopped]
    assert replay.together.saved == pytest.approx(10_000 * (math.prod(growth[kept]) - math.prod(growth)))


def test_what_comes_later_changes_nothing():
    """Causality: the decision about a trade is the same whether the candles and trades after it are known or not."""
    _, _, subject = trained()
    frame = frame_of(candles(), STRATEGY)
    source = SignalSource(STRATEGY, frame, SETTINGS.side)
    whole = out_of_sample_record(frame, source, subject)
    stopped = replay_breakers(frame, whole, initial_capital=10_000.0).together.stopped
    for n in range(1, len(whole.trades), 3):
        cut = int(whole.trades.exit_bar[n - 1]) + 1
        known = frame_of(candles().between(None, int(frame.open_time_ms[cut - 1]) + 1), STRATEGY)
        part = replace(whole, trades=Trades(*(getattr(whole.trades, name)[:n] for name in Trades.__slots__)))
        found = replay_breakers(known, part, initial_capital=10_000.0).together.stopped
        assert found == tuple(k for k in stopped if k < n)
