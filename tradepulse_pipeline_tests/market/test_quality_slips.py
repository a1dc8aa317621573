"""Units and clocks that slip are found, and no change of a real market is taken for one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.quality import Surroundings, assess
from tradepulse_pipeline.market.quality.slips import find_clock_slip, find_unit_slips
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate

START = 1_735_689_600_000
HOUR = 3_600_000
PRICES = ("open", "high", "low", "close")
SIMULATED = simulate(
    Market.parse("simulated", "BTC/USDT"),
    Timeframe("5m"),
    START,
    START + 30 * MS_PER_DAY,
    SimulatedMarketSettings(seed=1, outages_per_year=0),
)


def scaled(candles, where, price=1.0, volume=1.0):
    """Candles whose prices and volumes are multiplied in a slice."""
    factor = np.ones(len(candles))
    factor[where] = price
    prices = [getattr(candles, name) * factor for name in PRICES]
    volumes = candles.volume.copy()
    volumes[where] *= volume
    return Candles.from_arrays(candles.timeframe, candles.open_time_ms, *prices, volumes)


def shifted(candles, hours, where=slice(None)):
    times = candles.open_time_ms.copy()
    times[where] += hours * HOUR
    order = np.argsort(times, kind="stable")
    kept = order[np.append(True, np.diff(times[order]) > 0)]
    columns = (getattr(candles, name)[kept] for name in (*PRICES, "volume"))
    return Candles.from_arrays(candles.timeframe, times[kept], *columns)


@settings(max_examples=30)
@given(power=st.sampled_from([-6, -3, -2, -1, 1, 2, 3, 8]), start=st.integers(10, 8_000), length=st.integers(4, 600))
def test_a_stretch_of_prices_in_another_unit_is_found_at_both_ends(power, start, length):
    slips = find_unit_slips(scaled(SIMULATED, slice(start, start + length), price=10.0**power))
    assert [slip.what for slip in slips] == ["price", "price"]
    assert [slip.open_time_ms for slip in slips] == SIMULATED.open_time_ms[[start, start + length]].tolist()
    assert np.log10(slips[0].factor) == pytest.approx(power, abs=0.05)
    assert np.log10(slips[1].factor) == pytest.approx(-power, abs=0.05)


def test_a_price_that_stays_in_another_unit_is_one_error_and_no_outlier_beside():
    report = assess(scaled(SIMULATED, slice(5_000, None), price=1_000.0))
    (sentence,) = report.errors
    assert sentence.startswith("From 2025-01-18T08:40Z on the price is 1")
    assert report.outliers == ()


@pytest.mark.parametrize("factor", [0.001, 0.01, 100.0, 1_000.0, 60_000.0])
def test_volume_in_another_unit_is_found(factor):
    slips = find_unit_slips(scaled(SIMULATED, slice(5_000, None), volume=factor))
    (slip,) = slips
    assert slip.what == "volume"
    assert abs(slip.open_time_ms - SIMULATED.open_time_ms[5_000]) <= 5 * 300_000
    assert np.log(slip.factor) == pytest.approx(np.log(factor), abs=1.0)


@pytest.mark.parametrize("name", ["binance_BTC-USDT_5m", "binance_SOL-USDT_15m", "kraken_BTC-USDT_15m"])
def test_volume_that_switches_to_the_quote_currency_is_found_in_real_candles(name, market_data_dir):
    candles = read_candle_file(market_data_dir / f"{name}.parquet", Timeframe(name.split("_")[-1])).candles
    for at in (5_000, 15_000, 30_000):
        candles_in_quote = scaled(candles, slice(at, None), volume=float(max(candles.close[at], 60.0)))
        (slip,) = find_unit_slips(candles_in_quote)
        assert slip.what == "volume"
        assert abs(slip.open_time_ms - candles.open_time_ms[at]) <= 20 * candles.timeframe.milliseconds


def test_a_market_that_wakes_up_has_no_slip():
    """Fifty times the volume, and moves as much larger as they are then."""
    rng = np.random.default_rng(5)
    awake = np.arange(4_000) >= 2_000
    moves = rng.normal(0, np.where(awake, 0.01, 0.002))
    close = 100 * np.exp(np.cumsum(moves))
    span = np.exp(np.abs(moves))
    volume = rng.lognormal(0, 0.3, 4_000) * np.where(awake, 200, 1)
    times = START + 300_000 * np.arange(4_000)
    candles = Candles.from_arrays(Timeframe("5m"), times, close, close * span, close / span, close, volume)
    assert find_unit_slips(candles) == ()
    asleep = candles.slice(0, 2_000)
    assert find_unit_slips(scaled(asleep, slice(1_000, None), volume=200.0)) != ()


@pytest.mark.parametrize("hours", [-9, -1, 2, 8])
def test_a_series_in_another_time_zone_is_found_by_one_that_is_not(hours):
    report = assess(shifted(SIMULATED, hours), Surroundings(venues={"kraken:BTC-USD:5m": lambda: SIMULATED}))
    (slip,) = report.slips
    assert (slip.what, slip.lag_hours, slip.other) == ("clock", hours, "kraken:BTC-USD:5m")
    side = "behind" if hours > 0 else "ahead of"
    assert f"the candles are {abs(hours)} h {side} kraken:BTC-USD:5m" in report.errors[0]


def test_a_stretch_in_another_time_zone_is_found_about_where_it_is():
    slipped = shifted(SIMULATED, 8, slice(4_000, None))
    slip = find_clock_slip(slipped, {"venue": lambda: SIMULATED})
    assert slip is not None
    assert slip.lag_hours == 8
    assert abs(slip.open_time_ms - SIMULATED.open_time_ms[4_000]) <= 2_000 * 300_000


def test_whose_clock_is_wrong_is_told_by_a_third_series():
    wrong = {"wrong": lambda: shifted(SIMULATED, 5)}
    right = {"right": lambda: SIMULATED}
    assert find_clock_slip(SIMULATED, wrong) is not None
    assert find_clock_slip(SIMULATED, {**wrong, **right}) is None


def test_unrelated_or_equal_series_show_no_slip():
    other = simulate(
        Market.parse("simulated", "ETH/USDT"),
        Timeframe("5m"),
        START,
        START + 30 * MS_PER_DAY,
        SimulatedMarketSettings(seed=2, outages_per_year=0),
    )
    for candles in (SIMULATED, other, SIMULATED.slice(0, 100)):
        assert find_clock_slip(SIMULATED, {"other": lambda candles=candles: candles}) is None


def test_a_real_series_moved_by_hours_is_found_by_another_pair(market_data_dir):
    bitcoin, ether = (
        read_candle_file(market_data_dir / f"binance_{name}-USDT_5m.parquet", Timeframe("5m")).candles.slice(0, 20_000)
        for name in ("BTC", "ETH")
    )
    assert find_clock_slip(bitcoin, {"ether": lambda: ether}) is None
    slip = find_clock_slip(shifted(bitcoin, 2), {"ether": lambda: ether})
    assert slip is not None
    assert slip.lag_hours == 2
