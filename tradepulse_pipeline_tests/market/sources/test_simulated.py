"""The simulated market: the same for ever, of one piece, and with exactly the edge that was planted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import MS_PER_DAY, TIMEFRAMES, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.simulated import (
    ORIGIN_MS,
    PIERCE,
    SimulatedMarketSettings,
    SimulatedSource,
    simulate,
)

BTC, ETH = Market.parse("simulated", "BTC/USDT"), Market.parse("simulated", "ETH/USDT")
START = ORIGIN_MS + 1_000 * MS_PER_DAY
COLUMNS = ("open_time_ms", "open", "high", "low", "close", "volume")


def candles(market=BTC, timeframe="5m", *, days=30.0, start=START, **settings):
    end = start + int(days * MS_PER_DAY)
    return simulate(market, Timeframe(timeframe), start, end, SimulatedMarketSettings(**settings))


def log_returns(found):
    return np.diff(np.log(found.close))


def test_any_range_gives_the_same_candles():
    whole = candles(days=30)
    for first, last in [(0.5, 3.25), (7, 8), (29.9, 30)]:
        part = candles(start=START + int(first * MS_PER_DAY), days=last - first)
        same = whole.between(START + int(first * MS_PER_DAY), START + int(last * MS_PER_DAY))
        assert part.fingerprint() == same.fingerprint()


def test_seed_and_pair_make_another_path():
    prints = {candles(market, days=2, seed=seed).fingerprint() for market in (BTC, ETH) for seed in (0, 1)}
    assert len(prints) == 4
    assert candles(BTC, days=2, seed=1).fingerprint() == candles(BTC, days=2, seed=1).fingerprint()


@pytest.mark.parametrize("name", TIMEFRAMES)
def test_every_timeframe_is_a_resampling_of_the_minutes(name):
    minutes = candles(timeframe="1m", days=6, outages_per_year=100)
    found = candles(timeframe=name, days=6, outages_per_year=100)
    spans = minutes.open_time_ms // Timeframe(name).milliseconds
    assert found.open_time_ms.tolist() == (np.unique(spans) * Timeframe(name).milliseconds).tolist()
    for at in np.linspace(0, len(found) - 1, 25).astype(int):
        inside = spans == found.open_time_ms[at] // Timeframe(name).milliseconds
        assert found.open[at] == minutes.open[inside][0]
        assert found.high[at] == minutes.high[inside].max()
        assert found.low[at] == minutes.low[inside].min()
        assert found.close[at] == minutes.close[inside][-1]
        assert found.volume[at] == pytest.approx(minutes.volume[inside].sum())


def test_outages_strike_all_pairs_at_once():
    one, other = candles(BTC, days=100, outages_per_year=30), candles(ETH, days=100, outages_per_year=30)
    assert len(one) < 100 * 288
    assert one.open_time_ms.tolist() == other.open_time_ms.tolist()
    assert len(candles(BTC, days=100, outages_per_year=0)) == 100 * 288


def test_volatility_is_as_asked_clustered_and_comes_with_volume():
    found = candles(days=700, start=ORIGIN_MS, jumps_per_year=0, outages_per_year=0)
    moves = log_returns(found)
    size = np.abs(moves)
    assert moves.std() * np.sqrt(365 * 288) == pytest.approx(0.7, rel=0.15)
    for lag in (1, 12, 288):
        assert np.corrcoef(size[:-lag], size[lag:])[0, 1] > 0.1
    assert np.corrcoef(size, found.volume[1:])[0, 1] > 0.4
    hour = found.open_time_ms[1:] // 3_600_000 % 24
    assert size[hour == 15].mean() > 1.5 * size[hour == 3].mean()


def test_jumps_are_as_many_as_asked():
    def jumps(rate):
        moves = log_returns(candles(days=700, start=ORIGIN_MS, jumps_per_year=rate, outages_per_year=0))
        return int((np.abs(moves) > 12 * np.median(np.abs(moves))).sum())

    assert jumps(100) > jumps(0) + 40


def test_without_an_edge_no_sign_of_the_past_tells_the_future():
    found = candles(days=1400, start=ORIGIN_MS, outages_per_year=0)
    moves = log_returns(found)
    simple = found.close[1:] / found.close[:-1] - 1
    # Standardised by the size of the moves before, so that no wild month decides alone.
    usual = np.sqrt(np.convolve(moves**2, np.full(288, 1 / 288), "valid"))[:-1]
    scaled = simple[288:] / usual
    for signal in (np.ones(len(scaled)), np.sign(moves[287:-1]), np.sign(found.close[288:-1] - found.close[:-289])):
        earned = signal * scaled
        assert abs(earned.mean()) < 3.5 * earned.std() / np.sqrt(len(earned))


def planted_sweeps(found):
    """Bars whose low is exactly the planted depth below the lowest low of the two hours before.

    Where the price falls lower by itself within the candle, the planted wick cannot be seen from outside.
    """
    before = np.array([found.low[at - 24 : at].min() for at in range(24, len(found))])
    depth = 1 - found.low[24:] / before
    return 24 + np.flatnonzero(np.abs(depth - PIERCE) < 1e-9)


@pytest.mark.parametrize("edge", [-2.0, 0.5, 3.0])
def test_the_planted_edge_is_what_follows_the_pattern(edge):
    found = candles(days=500, edge=edge, outages_per_year=0, jumps_per_year=0)
    sweeps = planted_sweeps(found)
    assert 0.7 * 4 * 500 < len(sweeps) <= 4 * 500
    log_close = np.log(found.close)
    day = (found.open_time_ms[sweeps] - START) // MS_PER_DAY
    # A, from the candles themselves: the mean 5m range of the pattern's day.
    ranges = np.log(found.high / found.low).reshape(-1, 288)
    unit = ranges.mean(axis=1)[day]
    slide = (log_close[sweeps - 1] - log_close[sweeps - 7]) / unit
    bought_back = (log_close[sweeps + 1] - log_close[sweeps]) / unit
    drift = (log_close[sweeps + 13] - log_close[sweeps + 1]) / unit
    after = (log_close[sweeps + 25] - log_close[sweeps + 13]) / unit
    assert slide.mean() == pytest.approx(-1.25, abs=0.3)
    assert bought_back.mean() == pytest.approx(1.25, abs=0.3)
    assert drift.mean() == pytest.approx(edge, abs=0.2 + 0.05 * abs(edge))
    assert after[(sweeps + 25) % 288 > 25].mean() == pytest.approx(0, abs=0.3)
    burst = found.volume[sweeps] / np.array([np.median(found.volume[at - 20 : at]) for at in sweeps])
    assert np.median(burst) > 4


def test_nothing_is_planted_without_an_edge():
    assert len(planted_sweeps(candles(days=100))) == 0


def test_pages_are_one_history_up_to_the_last_closed_candle():
    source = SimulatedSource(clock=lambda: (START + 100 * MS_PER_DAY + 400_000) / 1000)
    series = SeriesKey.of("simulated", "BTC/USDT", "5m")
    source.check(series)
    pages = list(source.pages(series, START, START + 900 * MS_PER_DAY))
    assert len(pages) == 4
    assert all(before.candles.end_ms <= after.candles.open_time_ms[0] for before, after in pairwise(pages))
    joined = np.concatenate([page.candles.close for page in pages])
    whole = simulate(BTC, Timeframe("5m"), START, START + 100 * MS_PER_DAY + 300_000, source.settings)
    np.testing.assert_array_equal(joined, whole.close)
    assert whole.end_ms == START + 100 * MS_PER_DAY + 300_000


def test_there_is_nothing_before_the_first_day():
    assert candles(start=ORIGIN_MS - 3 * MS_PER_DAY, days=2).open_time_ms.tolist() == []
    assert candles(start=ORIGIN_MS - 3 * MS_PER_DAY, days=4).open_time_ms[0] == ORIGIN_MS
    source = SimulatedSource(clock=lambda: START / 1000)
    assert list(source.pages(SeriesKey.of("simulated", "BTC/USDT", "5m"), 0, ORIGIN_MS)) == []


@pytest.mark.parametrize(
    ("setting", "value"), [("edge", 21), ("annual_volatility", 0), ("annual_volatility", float("nan")), ("seed", -1)]
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(InvalidInputError, match=f"{setting} is {value}, expected a number from"):
        SimulatedMarketSettings(**{setting: value})
