"""How far two series agree: constructed slips, and real series that are known to differ."""

from __future__ import annotations

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.deviation import compare
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate

START = 1_709_251_200_000  # 2024-03-01T00:00Z
HOUR = 3_600_000
CANDLES = simulate(
    Market.parse("simulated", "BTC/USDT"), Timeframe("1h"), START, START + 30 * MS_PER_DAY, SimulatedMarketSettings()
)


def changed(candles, *, lag=0, price_factor=1.0, volume_factor=1.0, keep=slice(None), **columns):
    """Return candles shifted by ``lag`` candles, multiplied, cut and with columns replaced."""
    arrays = {
        "open_time_ms": candles.open_time_ms + lag * candles.timeframe.milliseconds,
        **{name: getattr(candles, name) * price_factor for name in ("open", "high", "low", "close")},
        "volume": candles.volume * volume_factor,
        **columns,
    }
    return Candles.from_arrays(candles.timeframe, *(column[keep] for column in arrays.values()))


def with_value(column, at, factor):
    return np.where(np.arange(len(column)) == at, column * factor, column)


def real(folder, name):
    return read_candle_file(folder / f"{name}.parquet", Timeframe(name.split("_")[-1])).candles


def test_a_series_equals_itself():
    found = compare(CANDLES, CANDLES)
    assert (found.n_common, found.n_different, found.n_volumes_different, found.largest) == (720, 0, 0, 0.0)
    assert (found.largest_ms, found.largest_close_ms, found.has_slip) == (None, None, False)
    assert found.sentence("binance.archive", "binance") == (
        "binance.archive against binance: 720 common candles, all prices equal"
    )


def test_what_differs_is_counted_and_the_largest_deviation_is_found():
    lower = with_value(CANDLES.low, 5, 0.998)
    volume = with_value(CANDLES.volume, 9, 0.5)
    found = compare(CANDLES, changed(CANDLES, low=lower, volume=volume))
    assert (found.n_different, found.n_volumes_different, found.largest_ms) == (1, 1, START + 5 * HOUR)
    assert found.largest == pytest.approx(0.002)
    assert (found.largest_close, found.median_close, found.median_volume) == (0.0, 0.0, 0.0)
    assert found.sentence("a", "b") == (
        "a against b: 720 common candles, 1 differs, by 0.2 % at most (2024-03-01T05:00Z), 1 volume differs"
    )


def test_the_close_has_its_own_figures():
    close = with_value(np.clip(CANDLES.close * 1.0001, CANDLES.low, CANDLES.high), 7, 1.0)
    moved = np.abs(close - CANDLES.close) / np.maximum(close, CANDLES.close)
    found = compare(CANDLES, changed(CANDLES, close=close))
    assert found.median_close == pytest.approx(np.median(moved))
    assert found.largest_close == pytest.approx(moved.max())
    assert found.largest_close_ms == START + int(np.argmax(moved)) * HOUR


def test_differences_within_the_tolerance_do_not_count():
    close = with_value(CANDLES.close, 3, 1 - 1e-6).clip(CANDLES.low, CANDLES.high)
    assert compare(CANDLES, changed(CANDLES, close=close)).n_different == 1
    assert compare(CANDLES, changed(CANDLES, close=close), tolerance=1e-5).n_different == 0


def test_candles_of_one_source_count_only_where_both_have_a_history():
    first = changed(CANDLES, keep=np.r_[0:100, 103:600])
    second = changed(CANDLES, keep=np.r_[50:200, 201:720])
    found = compare(first, second)
    assert (found.n_common, found.n_only_first, found.n_only_second) == (546, 1, 3)
    assert "1 candle only in a, 3 candles only in b" in found.sentence("a", "b")


def test_candles_that_were_filled_do_not_count():
    gappy = changed(CANDLES, keep=np.r_[0:100, 103:720])
    assert compare(gappy.filled_forward(), CANDLES) == compare(gappy, CANDLES)


@pytest.mark.parametrize("lag", [1, -5, 14])
def test_a_slip_in_time_is_told_with_its_direction(lag):
    found = compare(CANDLES, changed(CANDLES, lag=lag))
    assert (found.lag, found.lag_ms, found.has_slip) == (lag, lag * HOUR, True)
    assert f"the times of b are {abs(lag) * 60} minutes {'late' if lag > 0 else 'early'}" in found.sentence("a", "b")


@pytest.mark.parametrize(("price", "volume"), [(100.0, 1.0), (1.0, 1e8), (0.001, 1000.0)])
def test_a_slip_in_a_unit_is_told_as_a_power_of_ten(price, volume):
    found = compare(CANDLES, changed(CANDLES, price_factor=price, volume_factor=volume, lag=2))
    assert (found.price_factor, found.volume_factor, found.lag) == (price, volume, 2)
    sentence = found.sentence("a", "b")
    assert (f"the prices of b are {price:g} times those of a" in sentence) == (price != 1)
    assert (f"the volumes of b are {volume:g} times those of a" in sentence) == (volume != 1)


def test_another_exchange_with_about_a_tenth_of_the_volume_is_no_slip_in_a_unit():
    wobble = 0.1 * np.exp(np.random.default_rng(3).normal(0, 0.3, len(CANDLES)))
    assert compare(CANDLES, changed(CANDLES, volume_factor=wobble)).volume_factor == 1


def test_another_market_is_no_slip_in_time():
    settings = SimulatedMarketSettings()
    other = simulate(Market.parse("simulated", "XRP/EUR"), Timeframe("1h"), START, CANDLES.end_ms, settings)
    assert compare(CANDLES, other).lag == 0
    assert compare(CANDLES.slice(0, 40), changed(CANDLES.slice(0, 40), lag=1)).lag == 0


def test_series_without_a_common_candle_have_nothing_to_compare():
    for second in (CANDLES.slice(0, 0), CANDLES.slice(400, 500)):
        found = compare(CANDLES.slice(0, 300), second)
        assert (found.n_common, found.largest_ms, found.n_only_first, found.n_only_second) == (0, None, 0, 0)
        assert found.sentence("a", "b") == "a against b: 0 common candles"


def test_candles_of_two_timeframes_are_refused():
    two = Candles.from_arrays(Timeframe("2h"), CANDLES.open_time_ms[:1], *np.ones((5, 1)))
    with pytest.raises(InvalidInputError, match="Candles of 1h cannot be compared with candles of 2h: resample one"):
        compare(CANDLES, two)


def test_binance_and_kraken_differ_by_a_tenth_of_a_per_cent(market_data_dir):
    from_2019 = (1_546_300_800_000, None)
    binance = real(market_data_dir, "binance_BTC-USDT_1h").between(*from_2019)
    kraken = real(market_data_dir, "kraken_BTC-USD_1h").between(*from_2019)
    found = compare(binance, kraken)
    assert found.median_close == pytest.approx(0.0009, abs=0.00005)
    assert not found.has_slip
    slipped = compare(binance, changed(kraken, lag=-5, price_factor=100))
    assert (slipped.lag, slipped.price_factor, slipped.volume_factor) == (-5, 100, 1)


def test_binance_rewrote_its_history_between_two_downloads(market_data_dir):
    found = compare(
        real(market_data_dir / "vintage-2020-02", "binance_BTC-USDT_1h"), real(market_data_dir, "binance_BTC-USDT_1h")
    )
    assert (found.n_common, found.n_different, found.n_volumes_different) == (21_453 - 43, 1, 7)
    assert (found.n_only_first, found.n_only_second) == (0, 43)
    assert found.largest_close == 0
    assert not found.has_slip


def test_kraken_candles_that_lost_trades_have_less_volume(market_data_dir):
    old, new = (real(market_data_dir / folder, "kraken_BTC-USDT_15m") for folder in ("vintage-2023-11", "."))
    found = compare(old, new)
    assert (found.n_common, found.n_different, found.n_volumes_different) == (515, 3, 27)
    _, in_old, in_new = np.intersect1d(old.open_time_ms, new.open_time_ms, return_indices=True)
    assert (old.volume[in_old] < new.volume[in_new]).sum() == found.n_volumes_different
    assert (found.n_only_first, found.n_only_second, found.has_slip) == (0, 0, False)
    assert (found.largest_ms, found.largest_close_ms) == (old.open_time_ms[-1], old.open_time_ms[-1])
