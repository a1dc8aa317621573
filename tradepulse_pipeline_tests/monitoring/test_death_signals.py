from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tradepulse_pipeline.configurations.template import DeathSignals
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.monitoring.death_signals import DEATH_SIGNALS, VOLUME_MARGIN, death_signals
from tradepulse_pipeline.monitoring.paper import frame_of, out_of_sample_record, paper_record, taken
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline_tests.monitoring.conftest import SETTINGS, START, STRATEGY, candles, trained

N_DAYS, SPLIT = 120, 80


def changed(known, **columns):
    values = {name: getattr(known, name) for name in ("open", "high", "low", "close", "volume")} | columns
    return Candles.from_arrays(known.timeframe, known.open_time_ms, *values.values())


def signals_of(known, paper=None, past=None):
    _, _, subject = trained()
    subject = replace(subject, data_end_ms=START + SPLIT * MS_PER_DAY)
    frame = frame_of(known, STRATEGY)
    source = SignalSource(STRATEGY, frame, SETTINGS.side)
    past = past or out_of_sample_record(frame, source, subject)
    paper = paper or paper_record(frame, source, subject)
    return {signal.name: signal for signal in death_signals(frame, subject, past, paper)}, frame, paper, past


def test_the_signals_are_those_of_the_v3_template():
    found, *_ = signals_of(candles(N_DAYS))
    assert tuple(found) == DEATH_SIGNALS == tuple(DeathSignals.model_fields)
    assert found["new_algo_detected"].is_on is None
    assert all((signal.is_on is None) == (signal.figure is None) for signal in found.values())
    assert all(signal.definition.endswith(".") for signal in found.values())


def test_an_unchanged_market_has_none_of_the_market_s_signals():
    found, *_ = signals_of(candles(N_DAYS))
    assert {found[name].is_on for name in ("volume_profile_changed", "regime_break")} == {False}


def test_volume_that_moves_to_other_hours():
    known = candles(N_DAYS)
    hour = known.open_time_ms // 3_600_000 % 24
    is_new = known.open_time_ms >= START + SPLIT * MS_PER_DAY
    found, *_ = signals_of(changed(known, volume=known.volume * np.where(is_new & (hour < 6), 5.0, 1.0)))
    signal = found["volume_profile_changed"]
    assert signal.is_on
    # By hand: shares of volume by hour, month by month.
    volume = known.volume * np.where(is_new & (hour < 6), 5.0, 1.0)

    def shares(days):
        chosen = np.isin((known.open_time_ms - START) // MS_PER_DAY, list(days))
        total = [volume[chosen & (hour == h)].sum() for h in range(24)]
        return np.array(total) / sum(total)

    def distance(days, others):
        return abs(shares(days) - shares(others)).sum() / 2

    training = set(range(SPLIT))
    assert signal.figure == pytest.approx(distance(range(N_DAYS - 30, N_DAYS), training), rel=1e-9)
    months = [distance(range(k, k + 30), training - set(range(k, k + 30))) for k in range(1, SPLIT - 29)]
    assert signal.threshold == pytest.approx(VOLUME_MARGIN * max(months), rel=1e-9)


def test_a_market_that_gets_wild():
    known = candles(N_DAYS)
    first = int(np.searchsorted(known.open_time_ms, START + SPLIT * MS_PER_DAY))
    returns = np.diff(np.log(known.close), prepend=np.log(known.close[0]))
    returns[first:] = 3.0 * (returns[first:] - returns[first:].mean())
    close = known.close[0] * np.exp(np.cumsum(returns))
    found, *_ = signals_of(changed(known, open=close, high=close, low=close, close=close))
    assert found["regime_break"].is_on
    assert found["regime_break"].figure > 0.3


def test_half_of_the_lifetime_s_sharpe_ratio():
    _, _, paper, past = signals_of(candles(N_DAYS))
    generator = np.random.default_rng(1)
    good, poor = generator.normal(0.004, 0.01, 40), generator.normal(0.0, 0.01, 40)
    day = np.arange(40) + SPLIT + START // MS_PER_DAY
    for returns, is_on in ((good, False), (poor, True)):
        before = replace(past, daily_return=generator.normal(0.004, 0.01, 200), day=np.arange(200))
        now = replace(paper, daily_return=returns, day=day)
        signal = signals_of(candles(N_DAYS), now, before)[0]["sharpe_below_50pct"]
        last, both = returns[-30:], np.concatenate([before.daily_return, returns])
        assert signal.figure == pytest.approx(last.mean() / last.std(ddof=1) * 365**0.5)
        assert signal.threshold == pytest.approx(both.mean() / both.std(ddof=1) * 365**0.5 / 2)
        assert signal.is_on is is_on
    losing = replace(past, daily_return=generator.normal(-0.01, 0.01, 200), day=np.arange(200))
    for returns, is_on in ((poor, False), (poor - 0.05, True)):  # half of a lifetime's loss is a bar as well
        signal = signals_of(candles(N_DAYS), replace(paper, daily_return=returns, day=day), losing)[0]
        assert signal["sharpe_below_50pct"].threshold < 0
        assert signal["sharpe_below_50pct"].is_on is is_on
    short = replace(paper, daily_return=poor[:29], day=day[:29])
    assert signals_of(candles(N_DAYS), short)[0]["sharpe_below_50pct"].is_on is None


def test_a_record_that_follows_the_market():
    _, frame, paper, _ = signals_of(candles(N_DAYS))
    days = frame.open_time_ms // MS_PER_DAY
    ends = {int(day): float(close) for day, close in zip(days, frame.close, strict=True)}
    chosen = np.array(sorted(ends)[-35:])
    market = np.array([ends[day] / ends[day - 1] - 1 for day in chosen.tolist()])
    for returns, is_on in (
        (0.5 * market, True),
        (-market, True),
        (np.random.default_rng(2).normal(0, 1e-2, 35), False),
    ):
        now = replace(paper, day=chosen, daily_return=returns)
        signal = signals_of(candles(N_DAYS), now)[0]["correlation_spike"]
        assert signal.is_on is is_on
        assert signal.figure == pytest.approx(abs(np.corrcoef(returns[-30:], market[-30:])[0, 1]), rel=1e-9)


def test_entries_that_fill_elsewhere_than_they_did():
    found, _, paper, few = signals_of(candles(N_DAYS))
    assert len(few.trades) < 20
    assert found["unusual_fill_pattern"].is_on is None
    rows = np.arange(len(paper.trades))
    past, now = (replace(paper, trades=taken(paper.trades, rows % 2 == k)) for k in (0, 1))
    assert min(len(past.trades), len(now.trades)) >= 20
    assert signals_of(candles(N_DAYS), now, past)[0]["unusual_fill_pattern"].is_on is False
    worse = replace(now.trades, entry_price=now.trades.entry_price + 0.5 * now.trades.risk)
    signal = signals_of(candles(N_DAYS), replace(now, trades=worse), past)[0]["unusual_fill_pattern"]
    assert signal.is_on
    assert signal.figure < signal.threshold == 0.001
